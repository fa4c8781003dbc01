//! Hosts and disks driven without SSH; what goes over SSH is in `tests/simulated_world.rs`.

#![expect(clippy::unwrap_used, reason = "a test may stop where it fails")]

use super::*;

const VOLUME: &str = "0b1c2d3e-aaaa-bbbb-cccc-ddddeeeeffff";
const UUID: &str = "11111111-2222-3333-4444-555555555555";

fn boot(name: &str, last: u8) -> Boot {
    Boot {
        server: format!("id-of-{name}"),
        name: name.to_owned(),
        address: Ipv4Addr::new(10, 77, 1, last),
        user_data: None,
        authorized_keys: Vec::new(),
        disks: BTreeMap::new(),
    }
}

/// One server `a` with a blank volume as vdb.
async fn host_with_disk() -> SimulatedHosts {
    let hosts = SimulatedHosts::new();
    hosts.boot(boot("a", 10)).await.unwrap();
    hosts.create_disk(VOLUME, 10).await.unwrap();
    hosts.attach("id-of-a", VOLUME, "vdb").await.unwrap();
    hosts
}

/// Runs a command line and wants it to succeed; gives its output.
async fn ok(hosts: &SimulatedHosts, server: &str, line: &str) -> String {
    let output = run(hosts, server, line).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status, 0, "{line}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command line and wants this exit status; gives its standard error.
async fn fails(hosts: &SimulatedHosts, server: &str, line: &str, status: u32) -> String {
    let output = run(hosts, server, line).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status, status, "{line}: {stderr}");
    stderr
}

async fn run(hosts: &SimulatedHosts, server: &str, line: &str) -> Output {
    let argv = words::split(line).unwrap();
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    hosts.run(server, &argv, b"").await
}

async fn write(hosts: &SimulatedHosts, server: &str, path: &str, text: &str) {
    let output = hosts.run(server, &["tee", path], text.as_bytes()).await;
    assert_eq!(output.status, 0, "{path}");
}

#[test]
fn a_command_line_is_words_and_never_a_script() {
    let check = |line: &str, words: &[&str]| assert_eq!(words::split(line).unwrap(), words);
    check("cat /etc/fstab", &["cat", "/etc/fstab"]);
    check("mkdir -p '/mnt/a b'", &["mkdir", "-p", "/mnt/a b"]);
    check(r"echo 'it'\''s'", &["echo", "it's"]);
    check(r#"echo "a \"b\"" ''"#, &["echo", "a \"b\"", ""]);
    check("tee '/a|b;c$d'", &["tee", "/a|b;c$d"]);
    check("[ -d / ]", &["[", "-d", "/", "]"]);
    for script in [
        "a | b",
        "a && b",
        "a; b",
        "a > b",
        "echo $HOME",
        "echo \"$HOME\"",
        "ls *",
        "`a`",
        "'open",
    ] {
        assert!(words::split(script).is_err(), "{script}");
    }
}

#[tokio::test]
async fn an_unknown_command_says_so() {
    let hosts = host_with_disk().await;
    let stderr = fails(&hosts, "a", "parted /dev/vdb print", 127).await;
    assert!(stderr.contains("parted: command not found"), "{stderr}");
}

#[tokio::test]
async fn a_blank_disk_is_found_formatted_and_mounted_by_uuid() {
    let hosts = host_with_disk().await;
    let by_id = format!("/dev/disk/by-id/virtio-{}", &VOLUME[..20]);
    assert_eq!(
        ok(&hosts, "a", &format!("readlink -f {by_id}")).await,
        "/dev/vdb\n"
    );
    ok(&hosts, "a", &format!("test -b {by_id}")).await;
    assert_eq!(
        ok(&hosts, "a", &format!("blockdev --getsize64 {by_id}")).await,
        format!("{}\n", 10u64 << 30)
    );
    fails(&hosts, "a", &format!("blkid -p -o export {by_id}"), 2).await;
    assert_eq!(ok(&hosts, "a", "wipefs --no-act /dev/vdb").await, "");
    ok(&hosts, "a", "cmp -n 1048576 /dev/vdb /dev/zero").await;
    let tail = (10u64 << 30) - 1_048_576;
    ok(
        &hosts,
        "a",
        &format!("cmp -n 1048576 -i {tail}:0 /dev/vdb /dev/zero"),
    )
    .await;

    ok(
        &hosts,
        "a",
        &format!("mkfs.ext4 -q -U {UUID} -L pg -m 1 /dev/vdb"),
    )
    .await;
    assert_eq!(
        ok(&hosts, "a", "blkid -p -o export /dev/vdb").await,
        format!(
            "DEVNAME=/dev/vdb\nLABEL=pg\nUUID={UUID}\nVERSION=1.0\nBLOCK_SIZE=4096\nTYPE=ext4\nUSAGE=filesystem\n"
        )
    );
    assert_eq!(
        ok(&hosts, "a", &format!("blkid -U {UUID}")).await,
        "/dev/vdb\n"
    );
    assert_eq!(ok(&hosts, "a", "blkid -L pg").await, "/dev/vdb\n");
    let by_token = format!("blkid -c /dev/null -o device -t UUID={UUID}");
    assert_eq!(ok(&hosts, "a", &by_token).await, "/dev/vdb\n");
    fails(&hosts, "a", "cmp -n 1048576 /dev/vdb /dev/zero", 1).await;
    ok(&hosts, "a", "e2fsck -f -n /dev/vdb").await;

    ok(&hosts, "a", "mkdir -p /mnt/disks/pg").await;
    fails(&hosts, "a", "mountpoint -q /mnt/disks/pg", 32).await;
    let fstab = ok(&hosts, "a", "cat /etc/fstab").await;
    let line = format!("UUID={UUID} /mnt/disks/pg ext4 defaults,nofail,noatime 0 2\n");
    write(&hosts, "a", "/etc/fstab.new", &format!("{fstab}{line}")).await;
    ok(&hosts, "a", "mv /etc/fstab.new /etc/fstab").await;
    ok(&hosts, "a", "mount /mnt/disks/pg").await;
    ok(&hosts, "a", "mountpoint -q /mnt/disks/pg").await;
    ok(&hosts, "a", "mount -a").await;
    let info = ok(&hosts, "a", "cat /proc/self/mountinfo").await;
    assert!(
        info.contains(" 254:16 / /mnt/disks/pg rw,noatime shared:40 - ext4 /dev/vdb rw\n"),
        "{info}"
    );
    ok(&hosts, "a", "chown -h 1000:1000 /mnt/disks/pg").await;
    ok(&hosts, "a", "chmod 0750 /mnt/disks/pg").await;
    assert_eq!(
        ok(&hosts, "a", "stat -c '%u %g %a %n' /mnt/disks/pg").await,
        "1000 1000 750 /mnt/disks/pg\n"
    );
    assert_eq!(ok(&hosts, "a", "ls -1 /mnt/disks/pg").await, "lost+found\n");
    assert_eq!(hosts.disk(VOLUME).unwrap().formatted, 1);
}

#[tokio::test]
async fn data_outlives_its_server_and_moves_to_another_device() {
    let hosts = host_with_disk().await;
    ok(&hosts, "a", &format!("mkfs.ext4 -q -U {UUID} /dev/vdb")).await;
    ok(&hosts, "a", "mkdir -p /mnt/pg").await;
    ok(&hosts, "a", &format!("mount UUID={UUID} /mnt/pg")).await;
    write(&hosts, "a", "/mnt/pg/PG_VERSION", "17\n").await;
    ok(&hosts, "a", "chown 26:26 /mnt/pg").await;
    assert_eq!(hosts.disk(VOLUME).unwrap().files["/PG_VERSION"], b"17\n");
    hosts.destroy("id-of-a").await.unwrap();

    hosts.boot(boot("b", 10)).await.unwrap();
    hosts.attach("id-of-b", VOLUME, "vdd").await.unwrap();
    assert_eq!(
        ok(&hosts, "b", &format!("blkid -U {UUID}")).await,
        "/dev/vdd\n"
    );
    ok(&hosts, "b", "mkdir -p /mnt/pg").await;
    ok(&hosts, "b", &format!("mount UUID={UUID} /mnt/pg")).await;
    assert_eq!(ok(&hosts, "b", "cat /mnt/pg/PG_VERSION").await, "17\n");
    assert_eq!(ok(&hosts, "b", "stat -c %u /mnt/pg").await, "26\n");
    let disk = hosts.disk(VOLUME).unwrap();
    assert_eq!((disk.formatted, disk.overwritten), (1, 0));
}

#[tokio::test]
async fn what_is_not_mounted_lands_on_the_root_disk() {
    let hosts = host_with_disk().await;
    ok(&hosts, "a", "mkfs.ext4 -q /dev/vdb").await;
    ok(&hosts, "a", "mkdir -p /mnt/pg").await;
    write(&hosts, "a", "/mnt/pg/lost", "on the wrong disk").await;
    ok(&hosts, "a", "mount /dev/vdb /mnt/pg").await;
    fails(&hosts, "a", "cat /mnt/pg/lost", 1).await;
    assert!(hosts.disk(VOLUME).unwrap().files.is_empty());
    ok(&hosts, "a", "umount /mnt/pg").await;
    ok(&hosts, "a", "chattr +i /mnt/pg").await;
    let refused = hosts.run("a", &["tee", "/mnt/pg/new"], b"x").await;
    assert_eq!(refused.status, 1, "the bare mount point is immutable");
}

#[tokio::test]
async fn mkfs_refuses_what_is_mounted_and_xfs_what_is_used() {
    let hosts = host_with_disk().await;
    ok(&hosts, "a", "mkfs.ext4 -q /dev/vdb").await;
    ok(&hosts, "a", "mkdir /mnt/pg").await;
    ok(&hosts, "a", "mount /dev/vdb /mnt/pg").await;
    let stderr = fails(&hosts, "a", "mkfs.ext4 -F /dev/vdb", 1).await;
    assert!(
        stderr.contains("is mounted; will not make a filesystem here"),
        "{stderr}"
    );
    ok(&hosts, "a", "umount /mnt/pg").await;
    let stderr = fails(&hosts, "a", "mkfs.xfs /dev/vdb", 1).await;
    assert!(stderr.contains("Use the -f option"), "{stderr}");
    assert_eq!(hosts.disk(VOLUME).unwrap().formatted, 1);
    fails(&hosts, "a", "mkfs.ext4 /dev/vdz", 1).await;
    fails(&hosts, "a", "mkfs.ext4 /dev/vda", 1).await;
}

#[tokio::test]
async fn mkfs_ext4_without_a_terminal_asks_nobody() {
    let hosts = host_with_disk().await;
    let files = BTreeMap::from([("/pgdata/PG_VERSION".to_owned(), b"17".to_vec())]);
    let seed = Seed::Ext4 {
        uuid: UUID.to_owned(),
        label: String::new(),
        files,
    };
    hosts.seed(VOLUME, seed).unwrap();
    // As measured with e2fsprogs 1.47: no terminal, no question, the data is gone.
    ok(&hosts, "a", "mkfs.ext4 -q /dev/vdb").await;
    let disk = hosts.disk(VOLUME).unwrap();
    assert_eq!((disk.formatted, disk.overwritten), (1, 1));
    assert!(disk.files.is_empty());
}

#[tokio::test]
async fn what_is_foreign_shows_in_one_way_or_another() {
    for (seed, kind) in [(Seed::Luks, "crypto_LUKS"), (Seed::PartitionTable, "dos")] {
        let hosts = host_with_disk().await;
        hosts.seed(VOLUME, seed).unwrap();
        let found = ok(&hosts, "a", "blkid -p -o export /dev/vdb").await;
        assert!(found.contains(kind), "{found}");
        let found = ok(&hosts, "a", "wipefs --no-act -J /dev/vdb").await;
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["signatures"][0]["type"], kind);
        fails(&hosts, "a", "cmp -n 4096 /dev/vdb /dev/zero", 1).await;
        ok(&hosts, "a", "mkdir /mnt/x").await;
        fails(&hosts, "a", "mount /dev/vdb /mnt/x", 32).await;
    }
    let hosts = host_with_disk().await;
    hosts
        .seed(VOLUME, Seed::RawBytes((10 << 30) - 512))
        .unwrap();
    fails(&hosts, "a", "blkid -p -o export /dev/vdb", 2).await;
    assert_eq!(ok(&hosts, "a", "wipefs --no-act /dev/vdb").await, "");
    ok(&hosts, "a", "cmp -n 1048576 /dev/vdb /dev/zero").await;
    let tail = (10u64 << 30) - 1_048_576;
    let stdout = run(
        &hosts,
        "a",
        &format!("cmp -n 1048576 -i {tail}:0 /dev/vdb /dev/zero"),
    )
    .await;
    assert_eq!(stdout.status, 1, "raw bytes at the end");
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_looks_blank_to_blkid_only() {
    let hosts = host_with_disk().await;
    ok(&hosts, "a", "mkfs.ext4 -q /dev/vdb").await;
    hosts.break_disk(VOLUME, true).unwrap();
    fails(&hosts, "a", "blkid -p -o export /dev/vdb", 2).await;
    let stderr = fails(&hosts, "a", "wipefs --no-act /dev/vdb", 1).await;
    assert!(stderr.contains("Input/output error"), "{stderr}");
    fails(&hosts, "a", "cmp -n 512 /dev/vdb /dev/zero", 2).await;
    fails(&hosts, "a", "mkfs.ext4 /dev/vdb", 1).await;
    hosts.break_disk(VOLUME, false).unwrap();
    ok(&hosts, "a", "blkid -p -o export /dev/vdb").await;
    assert_eq!(hosts.disk(VOLUME).unwrap().formatted, 1);
}

#[tokio::test]
async fn a_pulled_disk_leaves_a_dead_mount() {
    let hosts = host_with_disk().await;
    ok(&hosts, "a", "mkfs.ext4 -q /dev/vdb").await;
    ok(&hosts, "a", "mkdir /mnt/x").await;
    ok(&hosts, "a", "mount /dev/vdb /mnt/x").await;
    hosts.detach("id-of-a", VOLUME).await.unwrap();
    let stderr = fails(&hosts, "a", "ls -1 /mnt/x", 2).await;
    assert!(stderr.contains("Input/output error"), "{stderr}");
    fails(&hosts, "a", "test -b /dev/vdb", 1).await;
    hosts.attach("id-of-a", VOLUME, "vdb").await.unwrap();
    fails(&hosts, "a", "ls -1 /mnt/x", 2).await;
    ok(&hosts, "a", "umount /mnt/x").await;
    ok(&hosts, "a", "mount /dev/vdb /mnt/x").await;
    ok(&hosts, "a", "ls -1 /mnt/x").await;
}

#[tokio::test]
async fn a_reboot_mounts_fstab_and_a_bad_line_keeps_sshd_down() {
    let hosts = host_with_disk().await;
    ok(&hosts, "a", &format!("mkfs.ext4 -q -U {UUID} /dev/vdb")).await;
    ok(&hosts, "a", "mkdir /mnt/x").await;
    let good = format!("UUID={UUID} /mnt/x ext4 defaults,nofail 0 2\n");
    write(&hosts, "a", "/etc/fstab", &good).await;
    let before = ok(&hosts, "a", "cat /proc/sys/kernel/random/boot_id").await;
    hosts.reboot("id-of-a").await.unwrap();
    assert_ne!(
        ok(&hosts, "a", "cat /proc/sys/kernel/random/boot_id").await,
        before
    );
    assert_eq!(hosts.mounts("a")["/mnt/x"], VOLUME);
    let at: SocketAddr = "10.77.1.10:22".parse().unwrap();
    assert!(hosts.connect(at).await.is_ok());

    hosts.detach("id-of-a", VOLUME).await.unwrap();
    hosts.reboot("id-of-a").await.unwrap();
    assert!(!hosts.in_emergency("a"), "nofail forgives a missing disk");
    write(&hosts, "a", "/etc/fstab", &good.replace(",nofail", "")).await;
    hosts.reboot("id-of-a").await.unwrap();
    assert!(hosts.in_emergency("a"));
    assert!(hosts.connect(at).await.is_err());
}

#[tokio::test]
async fn the_hypervisor_refuses_what_cannot_be() {
    let hosts = host_with_disk().await;
    hosts.boot(boot("b", 11)).await.unwrap();
    assert!(hosts.boot(boot("b", 12)).await.is_err(), "same id");
    assert!(hosts.boot(boot("c", 11)).await.is_err(), "same address");
    assert!(
        hosts.attach("id-of-b", VOLUME, "vdb").await.is_err(),
        "double attach"
    );
    assert!(hosts.delete_disk(VOLUME).await.is_err(), "plugged in");
    assert!(hosts.detach("id-of-b", VOLUME).await.is_err(), "not there");
    assert!(hosts.destroy("nobody").await.is_err());
    hosts.detach("id-of-a", VOLUME).await.unwrap();
    hosts.delete_disk(VOLUME).await.unwrap();
}

#[tokio::test]
async fn files_links_and_listings_behave() {
    let hosts = host_with_disk().await;
    ok(&hosts, "a", "mkdir -p /srv/x/y").await;
    fails(&hosts, "a", "mkdir /srv/x", 1).await;
    write(&hosts, "a", "/srv/x/f", "hello").await;
    assert_eq!(
        ok(&hosts, "a", "sha256sum /srv/x/f").await,
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  /srv/x/f\n"
    );
    ok(&hosts, "a", "ln -s /srv/x /link").await;
    assert_eq!(ok(&hosts, "a", "cat /link/f").await, "hello");
    assert_eq!(
        ok(&hosts, "a", "readlink -f /link/../x/y").await,
        "/srv/x/y\n"
    );
    ok(&hosts, "a", "chown -h 7:7 /link").await;
    assert_eq!(ok(&hosts, "a", "stat -c %u /srv/x").await, "0\n");
    assert_eq!(
        ok(&hosts, "a", "stat -c '%u %F' /link").await,
        "7 symbolic link\n"
    );
    assert_eq!(ok(&hosts, "a", "ls -1 /srv/x").await, "f\ny\n");
    ok(&hosts, "a", "mv /srv/x/f /srv/x/y").await;
    ok(&hosts, "a", "test -f /srv/x/y/f").await;
    fails(&hosts, "a", "rm /srv/x", 1).await;
    fails(&hosts, "a", "rm /srv/nothing", 1).await;
    ok(&hosts, "a", "rm -f /srv/nothing").await;
    ok(&hosts, "a", "rm -rf /srv/x").await;
    fails(&hosts, "a", "test -e /srv/x", 1).await;
    assert_eq!(ok(&hosts, "a", "id -u").await, "0\n");
    assert_eq!(ok(&hosts, "a", "hostname").await, "a\n");
    assert_eq!(
        ok(&hosts, "a", "timeout 5 env LC_ALL=C hostname").await,
        "a\n"
    );
    let names = ok(&hosts, "a", "ls -1 /dev/disk/by-id").await;
    assert_eq!(names, format!("virtio-{}\n", &VOLUME[..20]));
}

#[tokio::test]
async fn a_program_can_be_taught() {
    let hosts = host_with_disk().await;
    hosts.program("rekindle-runner", false, |call| {
        Output::ok(format!("{} runs {}", call.name, call.argv[1]))
    });
    assert_eq!(
        ok(&hosts, "a", "/usr/local/bin/rekindle-runner job").await,
        "a runs job"
    );
}

#[tokio::test]
async fn short_scripts_run_and_longer_ones_are_refused() {
    let hosts = host_with_disk().await;
    let script = ["sh", "-c", r#"umask 077 && cat >"$1""#, "sh", "/root/a b"];
    assert_eq!(hosts.run("a", &script, b"secret").await.status, 0);
    let script = [
        "sh",
        "-c",
        r#"stat -c %a -- "$1" && sha256sum <"$1""#,
        "sh",
        "/root/a b",
    ];
    let read_back = hosts.run("a", &script, b"").await;
    let text = String::from_utf8(read_back.stdout).unwrap();
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    assert_eq!(text, format!("600\n{digest}  -\n"));
    assert_eq!(
        ok(
            &hosts,
            "a",
            "sh -c 'false || echo no; cat /nope 2>/dev/null || echo gone'"
        )
        .await,
        "no\ngone\n"
    );
    fails(&hosts, "a", "sh -ec 'false; echo never'", 1).await;
    fails(&hosts, "a", "sh -c 'exit 7'", 7).await;
    for script in [
        "cat /etc/fstab | grep x",
        "for i in 1; do true; done",
        "echo $(id)",
    ] {
        let refused = hosts.run("a", &["sh", "-c", script], b"").await;
        assert_ne!(refused.status, 0, "{script}");
    }
}
