//! A registry that breaks, lies or is slow, and several pulls at once.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runner::Digest;
use runner::image::Store;

use crate::common::{Tar, digest_of};
use crate::server::{Door, Fault, Registry};
use crate::world::{
    Layer, World, ended, gzipped, is_file, manifest, names, plain, push, push_blob, push_manifest,
    zstd,
};

/// Two layers; the second one does not compress.
fn layers() -> [Layer; 2] {
    let mut number = 1_u64;
    let noise: Vec<u8> = (0..600_000)
        .map(|_| {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (number >> 56) as u8
        })
        .collect();
    [
        gzipped(Tar::new().file("first", b"1").file("gone", b"1")),
        zstd(Tar::new().file("noise", &noise).file(".wh.gone", b"")),
    ]
}

#[track_caller]
fn is_whole(root: &std::path::Path) {
    is_file(&root.join("first"), "1");
    assert_eq!(names(root), ["first", "noise"]);
    assert_eq!(root.join("noise").metadata().unwrap().len(), 600_000);
}

#[test]
fn a_pulled_image_is_found_the_next_time() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let digest = push(&registry, &layers());
    is_whole(&world.pulled(&registry, &digest));
    let asked = registry.requests().len();
    let again = ended(&world.run(&registry.url(), &digest), 0);
    assert_eq!(again["cached"], true);
    assert_eq!(registry.requests().len(), asked);
    let size: usize = layers().iter().map(|layer| layer.blob.len()).sum();
    assert_eq!(again["image"]["compressed_bytes"], size);
    assert_eq!(again["image"]["entries"], 4);
    let image = Store::open(&world.store).unwrap().list().unwrap();
    assert_eq!(image[0].manifest.digest, digest);
    let collected = Store::open(&world.store)
        .unwrap()
        .collect(Duration::ZERO)
        .unwrap();
    assert_eq!(collected.removed, [digest]);
}

#[test]
fn a_layer_that_breaks_off_continues_where_it_stopped() {
    let (registry, world) = (Registry::start(Door::Token), World::new());
    let layers = layers();
    let digest = push(&registry, &layers);
    let blob = digest_of(&layers[1].blob).to_string();
    registry.fail(&blob, Fault::Cut(100_000));
    registry.fail(&blob, Fault::Status(503));
    registry.fail(&blob, Fault::Cut(200_000));
    is_whole(&world.pulled(&registry, &digest));
    let requests = registry.requests();
    let ranges: Vec<_> = requests
        .iter()
        .filter(|request| request.path.contains(&blob))
        .map(|request| request.range)
        .collect();
    assert_eq!(ranges, [None, Some(100_000), Some(100_000), Some(300_000)]);
}

#[test]
fn documents_and_tokens_are_asked_for_again() {
    let (registry, world) = (Registry::start(Door::Token), World::new());
    let digest = push(&registry, &layers());
    registry.fail("/manifests/", Fault::Status(429));
    registry.fail("/token", Fault::Status(500));
    registry.fail("/manifests/", Fault::Cut(10));
    registry.fail("/blobs/", Fault::Status(502));
    is_whole(&world.pulled(&registry, &digest));
}

#[test]
fn giving_up_keeps_what_came_for_the_next_run() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let layers = layers();
    let digest = push(&registry, &layers);
    let blob = digest_of(&layers[1].blob).to_string();
    registry.fail(&blob, Fault::Cut(100_000));
    for _ in 0..3 {
        registry.fail(&blob, Fault::Status(500));
    }
    world.fails(&registry, &digest, 3, "no byte came in 3 tries");
    assert_eq!(names(&world.store.join("parts")), [digest.hex()]);
    is_whole(&world.pulled(&registry, &digest));
    assert_eq!(
        registry.count(&digest_of(&layers[0].blob).to_string()),
        1,
        "it was kept"
    );
    assert_eq!(registry.requests().last().unwrap().range, Some(100_000));
}

#[test]
fn a_damaged_part_is_thrown_away() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let layers = layers();
    let digest = push(&registry, &layers);
    Store::open(&world.store).unwrap();
    let part = world.store.join("parts").join(digest.hex());
    std::fs::write(part, vec![7; layers[0].blob.len() + 1000]).unwrap();
    is_whole(&world.pulled(&registry, &digest));
}

#[test]
fn what_has_another_digest_is_refused() {
    let layers = layers();
    let other = plain(Tar::new().file("evil", b"1"));
    let cases: [(String, Vec<u8>, &str); 3] = [
        ("/manifests/".into(), b"{}".to_vec(), "verify the manifest"),
        ("/blobs/".into(), b"{}".to_vec(), "verify the configuration"),
        (
            digest_of(&layers[0].blob).to_string(),
            {
                // As long as it must be, and in other respects a sound layer.
                let mut blob = layers[0].blob.clone();
                blob[4] ^= 1;
                blob
            },
            "verify layer 1 of",
        ),
    ];
    for (path, body, reason) in cases {
        let (registry, world) = (Registry::start(Door::Open), World::new());
        let digest = push(&registry, &layers);
        registry.fail(path, Fault::Body(body));
        world.refuses(&registry, &digest, reason);
    }
    // The digests are right, but that of the archive is not what the configuration says.
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let [mut first, second] = layers;
    first.diff_id = other.diff_id;
    let digest = push(&registry, &[first, second]);
    world.refuses(&registry, &digest, "verify the archive in layer 1 of");
}

#[test]
fn a_layer_of_another_size_is_refused() {
    let layers = layers();
    let blob = &layers[1].blob;
    let longer = [&blob[..], &[0; 1000]].concat();
    for fault in [
        Fault::Body(longer.clone()),
        Fault::Unsized(longer),
        Fault::Body(blob[..1000].to_vec()),
    ] {
        let (registry, world) = (Registry::start(Door::Open), World::new());
        let digest = push(&registry, &layers);
        registry.fail(digest_of(blob).to_string(), fault);
        world.refuses(&registry, &digest, "bytes long");
    }
    // The descriptor lies, and the registry does not.
    for size in [blob.len() - 1, blob.len() + 1] {
        let (registry, world) = (Registry::start(Door::Open), World::new());
        let mut manifest = manifest(&registry, &layers);
        manifest["layers"][1]["size"] = size.into();
        let (digest, _) = push_manifest(&registry, &manifest);
        world.refuses(&registry, &digest, "bytes long");
    }
}

#[test]
fn documents_are_read_up_to_a_size_only() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let digest = push(&registry, &layers());
    registry.fail("/manifests/", Fault::Unsized(vec![b' '; (4 << 20) + 1]));
    world.refuses(&registry, &digest, "bytes long");
    registry.fail("/blobs/", Fault::Unsized(vec![b' '; 4 << 20]));
    world.refuses(&registry, &digest, "bytes long");
}

#[test]
fn what_is_not_there_is_said_at_once() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    world.fails(&registry, &digest_of(b"nothing"), 3, "the server says 404");
    assert_eq!(registry.requests().len(), 1);
    let layers = layers();
    let mut manifest = manifest(&registry, &layers);
    manifest["layers"][0]["digest"] = digest_of(b"nothing").to_string().into();
    let (digest, _) = push_manifest(&registry, &manifest);
    world.fails(&registry, &digest, 3, "the server says 404");
    push_blob(&registry, b"unrelated");
}

/// A pull that does not outlive the test.
struct Process(Child);

impl Process {
    fn start(world: &World, registry: &Registry, digest: &Digest) -> Self {
        let mut command = world.pull(&registry.url(), digest);
        Self(
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    #[track_caller]
    fn ended(mut self) -> serde_json::Value {
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
        serde_json::from_reader(self.0.stdout.take().unwrap()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn of_two_pulls_at_once_one_downloads() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let layers = layers();
    let digest = push(&registry, &layers);
    let blob = digest_of(&layers[1].blob).to_string();
    registry.fail(&blob, Fault::Stall(50_000));
    let first = Process::start(&world, &registry, &digest);
    wait_for("the download", || registry.count(&blob) == 1);
    let second = Process::start(&world, &registry, &digest);
    wait_for("the second one", || {
        // It holds the lock's file open, and asks nobody.
        let path = format!("/proc/{}/fd", second.0.id());
        let lock = world.store.join("locks").join(digest.hex());
        std::fs::read_dir(path).is_ok_and(|mut fds| {
            fds.any(|fd| std::fs::read_link(fd.unwrap().path()).is_ok_and(|to| to == lock))
        })
    });
    registry.release();
    let (first, second) = (first.ended(), second.ended());
    assert_eq!(
        (&first["cached"], &second["cached"]),
        (&false.into(), &true.into())
    );
    assert_eq!(registry.count("/manifests/"), 1);
    is_whole(std::path::Path::new(second["rootfs"].as_str().unwrap()));
}

#[test]
fn after_a_kill_in_the_middle_the_next_pull_is_good() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let layers = layers();
    let digest = push(&registry, &layers);
    let blob = digest_of(&layers[1].blob).to_string();
    registry.fail(&blob, Fault::Stall(300_000));
    let killed = Process::start(&world, &registry, &digest);
    let part = world.store.join("parts").join(digest.hex());
    let size = (layers[0].blob.len() + 300_000) as u64;
    wait_for("the part", || {
        part.metadata().is_ok_and(|part| part.len() == size)
    });
    drop(killed);
    assert_eq!(
        names(&world.store.join("images")),
        [format!(".staging-{}", digest.hex())]
    );
    is_whole(&world.pulled(&registry, &digest));
    assert_eq!(registry.requests().last().unwrap().range, Some(300_000));
}
