//! Real hosts, seen as a worker sees them: over SSH, through [`Hosts::connect`]. Needs root.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod machine;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::hosts::Hosts;
use sandbox::hosts::real::{Options, RealHosts};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use machine::{assert_nothing_left, loops_below, namespaces_of, processes_of, started, threads};
use world::{World, address, cloud_config, private_key, run};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_host_presents_the_key_of_its_user_data() {
    let world = World::start().await;
    let host_key = private_key();
    let public = host_key.public_key().to_openssh().unwrap();
    let mut boot = world.boot("a", 1);
    boot.user_data = Some(cloud_config(&host_key));
    world.hosts.boot(boot).await.unwrap();

    let (session, presented) = world.ssh(1).await;
    assert_eq!(presented.to_openssh().unwrap(), public);
    assert_eq!(run(&session, "hostname; id -un").await, "a\nroot\n");
    world.hosts.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_host_without_user_data_makes_a_key_and_keeps_it() {
    let world = World::start().await;
    world.hosts.boot(world.boot("a", 1)).await.unwrap();
    let (session, first) = world.ssh(1).await;
    run(
        &session,
        "echo kept >/root/file; sysctl -qw kernel.panic=77",
    )
    .await;

    world.hosts.reboot("a").await.unwrap();
    let (session, second) = world.ssh(1).await;
    assert_eq!(first, second);
    let after = run(&session, "cat /root/file; cat /proc/sys/kernel/panic").await;
    assert!(
        after.starts_with("kept\n") && !after.contains("77"),
        "{after}"
    );

    world.hosts.destroy("a").await.unwrap();
    world.hosts.boot(world.boot("a", 1)).await.unwrap();
    let (session, third) = world.ssh(1).await;
    assert_ne!(first, third);
    assert_eq!(
        run(&session, "ls -A /root/file 2>/dev/null; echo new").await,
        "new\n"
    );
    world.hosts.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_volume_keeps_its_files_when_its_host_is_destroyed() {
    let world = World::start().await;
    let volume = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
    world.hosts.create_disk(volume, 1).await.unwrap();
    world.hosts.boot(world.boot("a", 1)).await.unwrap();
    world.hosts.attach("a", volume, "vdb").await.unwrap();
    let (session, _) = world.ssh(1).await;
    let uuid = run(
        &session,
        "set -e
         mkfs.ext4 -q /dev/vdb; uuid=$(blkid -s UUID -o value /dev/vdb)
         mount UUID=$uuid /mnt; echo hello >/mnt/file; sync -f /mnt; echo $uuid",
    )
    .await;

    world.hosts.destroy("a").await.unwrap();
    world.hosts.boot(world.boot("b", 2)).await.unwrap();
    world.hosts.attach("b", volume, "vdc").await.unwrap();
    let (session, _) = world.ssh(2).await;
    let found = run(
        &session,
        &format!(
            "set -e; mount UUID={} /mnt; cat /mnt/file
             readlink /dev/disk/by-id/virtio-0a1b2c3d-4e5f-6789-a; ls /dev | grep vd; umount /mnt",
            uuid.trim()
        ),
    )
    .await;
    assert_eq!(found, "hello\n../../vdc\nvdc\n");

    world.hosts.detach("b", volume).await.unwrap();
    assert_eq!(
        run(&session, "ls /dev | grep vd; ls /dev/disk/by-id").await,
        ""
    );
    world.hosts.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_reboot_mounts_fstab_and_a_missing_disk_keeps_sshd_down() {
    let world = World::start().await;
    world.hosts.create_disk("data", 1).await.unwrap();
    let mut boot = world.boot("a", 1);
    boot.disks = BTreeMap::from([("vdb".to_owned(), "data".to_owned())]);
    world.hosts.boot(boot).await.unwrap();
    let (session, _) = world.ssh(1).await;
    run(
        &session,
        "set -e; mkfs.ext4 -q /dev/vdb; mkdir /data
         echo \"UUID=$(blkid -s UUID -o value /dev/vdb) /data ext4 defaults 0 2\" >>/etc/fstab
         mount /data; echo hello >/data/file",
    )
    .await;

    world.hosts.reboot("a").await.unwrap();
    let (session, _) = world.ssh(1).await;
    assert_eq!(run(&session, "cat /data/file").await, "hello\n");

    world.hosts.detach("a", "data").await.unwrap();
    world.hosts.reboot("a").await.unwrap();
    let refused = world.hosts.connect(address(1)).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    world.hosts.attach("a", "data", "vdc").await.unwrap();
    world.hosts.reboot("a").await.unwrap();
    let (session, _) = world.ssh(1).await;
    assert_eq!(run(&session, "cat /data/file").await, "hello\n");
    world.hosts.shutdown().await.unwrap();
}

#[tokio::test]
async fn hosts_reach_each_other_and_one_can_be_the_way_to_another() {
    let world = World::start().await;
    world.hosts.boot(world.boot("a", 1)).await.unwrap();
    world.hosts.boot(world.boot("b", 2)).await.unwrap();
    let (bastion, _) = world.ssh(1).await;
    let greeting = run(
        &bastion,
        "bash -c 'exec 3<>/dev/tcp/10.77.0.2/22; head -c 4 <&3'",
    )
    .await;
    assert_eq!(greeting, "SSH-");

    let tunnel = bastion
        .channel_open_direct_tcpip("10.77.0.2", 22, "127.0.0.1", 0)
        .await;
    let (session, _) = world.login(Box::new(tunnel.unwrap().into_stream())).await;
    assert_eq!(run(&session, "hostname").await, "b\n");

    // The same address, another machine: nobody's ARP cache may be in the way.
    world.hosts.destroy("b").await.unwrap();
    world.hosts.boot(world.boot("c", 2)).await.unwrap();
    let tunnel = bastion
        .channel_open_direct_tcpip("10.77.0.2", 22, "127.0.0.1", 0)
        .await;
    let (session, _) = world.login(Box::new(tunnel.unwrap().into_stream())).await;
    assert_eq!(run(&session, "hostname").await, "c\n");
    world.hosts.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_lent_port_leads_out_of_every_host_also_after_a_reboot() {
    let world = World::start().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    world.hosts.lend_port(port);
    let greeter = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"hello\n").await.unwrap();
        }
    });
    let ask = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3' 2>&1");
    for (name, number) in [("a", 1), ("b", 2)] {
        world.hosts.boot(world.boot(name, number)).await.unwrap();
        let (session, _) = world.ssh(number).await;
        assert_eq!(run(&session, &ask).await, "hello\n");
    }
    world.hosts.reboot("a").await.unwrap();
    let (session, _) = world.ssh(1).await;
    assert_eq!(run(&session, &ask).await, "hello\n");

    // Nobody listens out here any more.
    greeter.abort();
    let _ = greeter.await;
    assert_eq!(run(&session, &ask).await, "");
    world.hosts.shutdown().await.unwrap();
}

#[tokio::test]
async fn seventeen_hosts_boot_at_once() {
    let world = World::start().await;
    let boots = (1..=17).map(|n| world.hosts.boot(world.boot(&format!("node-{n}"), n)));
    for booted in futures::future::join_all(boots).await {
        booted.unwrap();
    }
    let world = &world;
    let names = (1..=17).map(|n| async move {
        let (session, _) = world.ssh(n).await;
        run(&session, "hostname").await
    });
    let names: BTreeSet<_> = futures::future::join_all(names).await.into_iter().collect();
    assert_eq!(names.len(), 17);
    world.hosts.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_does_not_exist_is_an_error() {
    let world = World::start().await;
    let hosts = &world.hosts;
    hosts.boot(world.boot("a", 1)).await.unwrap();
    hosts.boot(world.boot("b", 2)).await.unwrap();
    hosts.create_disk("data", 1).await.unwrap();
    hosts.attach("a", "data", "vdb").await.unwrap();

    assert!(
        hosts.boot(world.boot("a", 3)).await.is_err(),
        "server exists"
    );
    assert!(
        hosts.boot(world.boot("c", 1)).await.is_err(),
        "address is taken"
    );
    assert!(hosts.create_disk("data", 1).await.is_err(), "volume exists");
    assert!(hosts.delete_disk("data").await.is_err(), "plugged in");
    assert!(
        hosts.attach("b", "data", "vdb").await.is_err(),
        "plugged in elsewhere"
    );
    assert!(
        hosts.detach("b", "data").await.is_err(),
        "plugged in elsewhere"
    );
    assert!(
        hosts.attach("a", "other", "vdc").await.is_err(),
        "no such volume"
    );
    assert!(hosts.destroy("c").await.is_err(), "no such server");
    assert!(hosts.reboot("c").await.is_err(), "no such server");
    assert!(hosts.delete_disk("other").await.is_err(), "no such volume");

    let nobody = hosts
        .connect(SocketAddr::from(([10, 77, 0, 1], 6443)))
        .await;
    assert_eq!(
        nobody.map(drop).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    let nowhere = hosts.connect(address(99)).await.map(drop).unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::HostUnreachable);
    let outside = hosts
        .connect(SocketAddr::from(([192, 0, 2, 1], 22)))
        .await
        .map(drop);
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::NetworkUnreachable);

    hosts.detach("a", "data").await.unwrap();
    hosts.delete_disk("data").await.unwrap();
    hosts.create_disk("data", 1).await.unwrap();
    hosts.shutdown().await.unwrap();
    assert!(hosts.boot(world.boot("d", 4)).await.is_err(), "shut down");
}

/// None of these tries to change the machine: capabilities are compared, files opened for
/// reading, write permission only asked for.
#[tokio::test]
async fn the_machine_is_out_of_a_hosts_reach() {
    let world = World::start().await;
    world.hosts.create_disk("data", 1).await.unwrap();
    world.hosts.boot(world.boot("a", 1)).await.unwrap();
    world.hosts.attach("a", "data", "vdb").await.unwrap();
    let (session, _) = world.ssh(1).await;

    let bounding = run(
        &session,
        "sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status",
    )
    .await;
    let bounding = u64::from_str_radix(bounding.trim(), 16).unwrap();
    for (name, bit) in [
        ("MODULE", 16),
        ("RAWIO", 17),
        ("TIME", 25),
        ("MKNOD", 27),
        ("SYSLOG", 34),
    ] {
        assert_eq!(bounding & (1 << bit), 0, "CAP_SYS_{name}");
    }
    assert_eq!(
        run(&session, "dmesg >/dev/null 2>&1 || echo refused").await,
        "refused\n"
    );
    let node = "mknod /tmp/disk b 254 0 2>/dev/null && head -c 1 /tmp/disk || echo refused";
    assert_eq!(run(&session, node).await, "refused\n");

    // Even where the machine's device nodes can be had, the kernel refuses to open its disks.
    if Path::new("/sys/fs/cgroup/devices").exists() {
        let opened = run(
            &session,
            "mount -t devtmpfs none /mnt || exit 0
             for disk in $(find /mnt -type b); do
                 head -c 1 $disk >/dev/null 2>&1 && echo $disk
             done; umount /mnt",
        )
        .await;
        let own = format!(
            "/mnt/{}",
            loops_below(world.hosts.folder()).first().unwrap()
        );
        assert_eq!(opened.lines().collect::<Vec<_>>(), [own]);
    } else {
        eprintln!("not checked: this machine has no devices cgroup (version 1)");
    }

    let writable = "for f in /proc/sysrq-trigger /proc/sys/kernel/sysrq /proc/sys/vm/drop_caches \
                    /proc/sys/kernel/core_pattern /sys/power/state /sys/kernel/uevent_helper; do \
                    [ ! -w $f ] || echo $f; done";
    assert_eq!(run(&session, writable).await, "");
    let own = "for f in /proc/sys/kernel/panic /proc/sys/net/ipv4/ip_forward; do \
               [ -w $f ] || echo $f; done";
    assert_eq!(run(&session, own).await, "");

    assert_eq!(
        run(&session, "ip route show default; cat /proc/1/comm").await,
        "sshd\n"
    );
    let processes = run(&session, "ls /proc | grep -c '^[0-9]'").await;
    assert!(processes.trim().parse::<u32>().unwrap() < 20, "{processes}");
    world.hosts.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_leaves_nothing() {
    let world = World::start().await;
    for n in 1..=3 {
        let name = format!("host-{n}");
        world.hosts.boot(world.boot(&name, n)).await.unwrap();
        world.hosts.create_disk(&name, 1).await.unwrap();
        world.hosts.attach(&name, &name, "vdb").await.unwrap();
    }
    let (session, _) = world.ssh(1).await;
    run(
        &session,
        "mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && echo x >/mnt/x",
    )
    .await;
    run(&session, "setsid sleep 1000 >/dev/null 2>&1 </dev/null &").await;

    let lab = world.hosts.folder().to_owned();
    let net = fs::read_link(world.hosts.network()).unwrap();
    let processes = processes_of(&lab);
    assert!(processes.len() >= 3, "{processes:?}");
    let mut namespaces: BTreeSet<_> = processes.iter().flat_map(|p| namespaces_of(p)).collect();
    for own in namespaces_of(Path::new("/proc/self")) {
        namespaces.remove(&own);
    }
    namespaces.insert(net);
    // net, mnt, uts, ipc, pid and cgroup of each host, and the lab's net.
    assert!(namespaces.len() > 3 * 6, "{namespaces:?}");
    assert_eq!(loops_below(&lab).len(), 3);
    let inside: Vec<_> = threads()
        .into_iter()
        .filter(|thread| {
            namespaces_of(thread)
                .iter()
                .any(|ns| namespaces.contains(ns))
        })
        .map(|thread| (thread.clone(), started(&thread)))
        .collect();
    assert!(
        inside.len() > processes.len(),
        "the keeper of the lab's network is missing"
    );

    // A client that still holds its connection must not be in the way.
    world.hosts.shutdown().await.unwrap();
    assert_nothing_left(&lab);
    // By thread: the kernel gives the numbers of dead namespaces to the next lab at once.
    let left: Vec<_> = inside
        .into_iter()
        .filter(|(path, start)| start.is_some() && started(path) == *start)
        .collect();
    assert_eq!(left, vec![]);
    drop(session);
}

/// The owner is this test itself, started again as a process that can be killed.
#[tokio::test]
async fn the_lab_of_a_killed_owner_is_removed_at_the_next_start() {
    const LABS: &str = "REKINDLE_TEST_LABS";
    if let Some(labs) = std::env::var_os(LABS).map(PathBuf::from) {
        let world = World::below(&labs).await;
        world.hosts.create_disk("data", 1).await.unwrap();
        world.hosts.boot(world.boot("a", 1)).await.unwrap();
        world.hosts.attach("a", "data", "vdb").await.unwrap();
        let (session, _) = world.ssh(1).await;
        run(&session, "mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt").await;
        fs::write(
            labs.join("ready.tmp"),
            world.hosts.folder().to_str().unwrap(),
        )
        .unwrap();
        fs::rename(labs.join("ready.tmp"), labs.join("ready")).unwrap();
        std::future::pending::<()>().await;
    }

    let options = Options::from_env().unwrap();
    fs::create_dir_all(&options.cache).unwrap();
    let labs = tempfile::tempdir_in(&options.cache).unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_lab_of_a_killed_owner_is_removed_at_the_next_start",
        ])
        .env(LABS, labs.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ready = labs.path().join("ready");
    wait_until("the owner is ready", || {
        ready.exists() || owner.try_wait().unwrap().is_some()
    })
    .await;
    let lab = PathBuf::from(fs::read_to_string(ready).unwrap());
    assert!(!processes_of(&lab).is_empty() && !loops_below(&lab).is_empty());

    // A living owner's lab is left alone.
    let world = World::below(labs.path()).await;
    world.hosts.shutdown().await.unwrap();
    assert!(!processes_of(&lab).is_empty() && lab.exists());

    owner.kill().unwrap();
    owner.wait().unwrap();
    let world = World::below(labs.path()).await;
    assert_nothing_left(&lab);
    world.hosts.shutdown().await.unwrap();
}

#[test]
fn this_machine_can_run_real_hosts() {
    assert_eq!(RealHosts::available(), Ok(()));
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
