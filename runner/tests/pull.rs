//! Pulling images with the real binary: broken downloads, wrong objects, several at once, kill -9.
#![allow(missing_docs, reason = "these are tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::server::{Answer, Server, start_tls};
use common::{Tar, binary, digest_of, text};
use runner::Digest;
use runner::image::Store;

/// An image of a megabyte that does not compress, and its digest.
fn image() -> (Vec<u8>, Digest) {
    let mut number = 1_u64;
    let noise: Vec<u8> = (0..1_000_000)
        .map(|_| {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (number >> 56) as u8
        })
        .collect();
    let image = Tar::new()
        .dir("etc")
        .file("etc/hello", b"hello")
        .file("noise", &noise)
        .zst();
    let digest = digest_of(&image);
    (image, digest)
}

struct World {
    folder: tempfile::TempDir,
    store: PathBuf,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        Self { folder, store }
    }

    /// A pull, not yet started. The URL travels in the environment, as it should.
    fn pull(&self, url: &str, digest: &Digest) -> Command {
        let mut command = binary();
        command
            .args([
                "image", "pull", "--output", "json", "--tries", "3", "--digest",
            ])
            .arg(digest.to_string())
            .arg("--store")
            .arg(&self.store)
            .env("REKINDLE_IMAGE_URL", url)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, url: &str, digest: &Digest) -> Output {
        let output = self.pull(url, digest).output().unwrap();
        assert!(
            !text(&output).contains("hunter2"),
            "the signature was printed"
        );
        output
    }

    fn path(&self, folder: &str, digest: &Digest) -> PathBuf {
        self.store.join(folder).join(digest.hex())
    }

    /// The image is here and whole, and nothing else is.
    #[track_caller]
    fn assert_whole(&self, digest: &Digest) {
        let rootfs = self.path("images", digest).join("rootfs");
        assert_eq!(
            fs::read_to_string(rootfs.join("etc/hello")).unwrap(),
            "hello"
        );
        assert_eq!(fs::metadata(rootfs.join("noise")).unwrap().len(), 1_000_000);
        assert_eq!(names(&self.store.join("images")), [digest.hex()]);
        assert_eq!(names(&self.store.join("parts")), [""; 0]);
    }

    #[track_caller]
    fn assert_nothing_but_parts(&self) {
        assert_eq!(names(&self.store.join("images")), [""; 0]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn ended(output: &Output, code: i32) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A process that does not outlive the test.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Self {
        Self(
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    fn kill(mut self) {
        // SIGKILL: there is no time to tidy up.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn output(mut self) -> Output {
        let mut output = Output {
            status: self.0.wait().unwrap(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        use std::io::Read;
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut output.stdout)
            .unwrap();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_end(&mut output.stderr)
            .unwrap();
        output
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pulled_image_is_found_the_next_time() {
    let ((object, digest), world) = (image(), World::new());
    let server = Server::start(&object, &[Answer::Ranged]);
    let first = ended(&world.run(&server.url, &digest), 0);
    assert_eq!(first["cached"], false);
    assert_eq!(first["image"]["digest"], digest.to_string());
    assert_eq!(first["image"]["compressed_bytes"], object.len());
    let second = ended(&world.run(&server.url, &digest), 0);
    assert_eq!(second["cached"], true);
    assert_eq!(second["rootfs"], first["rootfs"]);
    assert_eq!(server.ranges(), [None], "one download");
    world.assert_whole(&digest);
}

#[test]
fn an_image_comes_from_a_file_too() {
    let ((object, digest), world) = (image(), World::new());
    let file = world.folder.path().join("i.tar.zst");
    fs::write(&file, object).unwrap();
    ended(&world.run(&format!("file:{}", file.display()), &digest), 0);
    world.assert_whole(&digest);
}

#[test]
fn a_download_that_breaks_continues_where_it_stopped() {
    let ((object, digest), world) = (image(), World::new());
    let answers = [
        Answer::Cut(100_000),
        Answer::Cut(0),
        Answer::Cut(50_000),
        Answer::Ranged,
    ];
    let server = Server::start(&object, &answers);
    ended(&world.run(&server.url, &digest), 0);
    let expected = [None, Some(100_000), Some(100_000), Some(150_000)];
    assert_eq!(server.ranges(), expected);
    world.assert_whole(&digest);
}

#[test]
fn a_server_that_ignores_ranges_is_good_enough() {
    let ((object, digest), world) = (image(), World::new());
    let server = Server::start(&object, &[Answer::Cut(300_000), Answer::Whole]);
    ended(&world.run(&server.url, &digest), 0);
    assert_eq!(server.ranges(), [None, Some(300_000)]);
    world.assert_whole(&digest);
}

#[test]
fn a_server_that_heeds_ranges_only_sometimes_is_good_enough() {
    let ((object, digest), world) = (image(), World::new());
    // The second answer breaks off before it comes to what we lack.
    let answers = [
        Answer::Cut(300_000),
        Answer::WholeCut(100_000),
        Answer::Ranged,
    ];
    let server = Server::start(&object, &answers);
    ended(&world.run(&server.url, &digest), 0);
    assert_eq!(server.ranges(), [None, Some(300_000), Some(300_000)]);
    world.assert_whole(&digest);
}

#[test]
fn giving_up_keeps_what_came_for_the_next_run() {
    let ((object, digest), world) = (image(), World::new());
    let bad = Server::start(&object, &[Answer::Cut(200_000), Answer::Status(503)]);
    let error = ended(&world.run(&bad.url, &digest), 3);
    assert!(error["error"].to_string().contains("in 3 tries"), "{error}");
    assert_eq!(error["exit_code"], 3);
    world.assert_nothing_but_parts();
    assert_eq!(
        fs::metadata(world.path("parts", &digest)).unwrap().len(),
        200_000
    );
    let good = Server::start(&object, &[Answer::Ranged]);
    ended(&world.run(&good.url, &digest), 0);
    assert_eq!(good.ranges(), [Some(200_000)]);
    world.assert_whole(&digest);
}

#[test]
fn an_expired_url_is_said_at_once_and_keeps_what_came() {
    let ((object, digest), world) = (image(), World::new());
    let server = Server::start(&object, &[Answer::Cut(200_000), Answer::Status(403)]);
    let error = ended(&world.run(&server.url, &digest), 3);
    assert!(
        error["error"].to_string().contains("the server says 403"),
        "{error}"
    );
    assert!(error["hint"].to_string().contains("expires"), "{error}");
    assert_eq!(server.ranges().len(), 2, "asking again does not help");
    assert_eq!(
        fs::metadata(world.path("parts", &digest)).unwrap().len(),
        200_000
    );
}

#[test]
fn a_redirect_is_not_followed() {
    let ((object, digest), world) = (image(), World::new());
    let server = Server::start(&object, &[Answer::Status(307)]);
    let error = ended(&world.run(&server.url, &digest), 3);
    assert!(error["error"].to_string().contains("redirects"), "{error}");
}

#[test]
fn an_object_that_changes_meanwhile_is_not_mixed() {
    let ((object, digest), world) = (image(), World::new());
    let other = Answer::Other(vec![7; object.len()]);
    let server = Server::start(&object, &[Answer::Cut(200_000), other]);
    let error = ended(&world.run(&server.url, &digest), 3);
    assert!(error["error"].to_string().contains("changed"), "{error}");
    world.assert_nothing_but_parts();
    assert_eq!(names(&world.store.join("parts")), [""; 0]);
}

#[test]
fn the_beginning_of_another_object_is_thrown_away() {
    let ((object, digest), world) = (image(), World::new());
    let _ = Store::open(&world.store).unwrap();
    // As long as the object, longer, shorter; right at first or wrong from the start.
    let mut late = object[..200_000].to_vec();
    late[199_000] ^= 1;
    for part in [
        vec![7; 1000],
        vec![7; object.len()],
        vec![7; object.len() + 5],
        late,
    ] {
        let server = Server::start(&object, &[Answer::Ranged]);
        fs::write(world.path("parts", &digest), &part).unwrap();
        ended(&world.run(&server.url, &digest), 0);
        assert_eq!(server.ranges(), [Some(part.len() as u64), None]);
        world.assert_whole(&digest);
        fs::remove_dir_all(world.path("images", &digest)).unwrap();
    }
}

#[test]
fn a_complete_part_needs_no_download() {
    let ((object, digest), world) = (image(), World::new());
    let _ = Store::open(&world.store).unwrap();
    fs::write(world.path("parts", &digest), &object).unwrap();
    let server = Server::start(&object, &[Answer::Ranged]);
    ended(&world.run(&server.url, &digest), 0);
    world.assert_whole(&digest);
}

#[test]
fn a_server_that_does_not_say_how_long_it_is_has_no_say_in_what_is_complete() {
    let ((object, digest), world) = (image(), World::new());
    let _ = Store::open(&world.store).unwrap();
    let longer = [&object[..], b"more"].concat();
    for (part, ranges) in [
        (&object, vec![Some(object.len() as u64)]),
        (&longer, vec![Some(longer.len() as u64), None]),
    ] {
        fs::write(world.path("parts", &digest), part).unwrap();
        let server = Server::start(&object, &[Answer::Curt]);
        ended(&world.run(&server.url, &digest), 0);
        assert_eq!(server.ranges(), ranges);
        world.assert_whole(&digest);
        fs::remove_dir_all(world.path("images", &digest)).unwrap();
    }
}

#[test]
fn what_was_not_asked_for_is_refused_and_leaves_nothing() {
    let ((object, _), world) = (image(), World::new());
    let wanted = digest_of(b"another image");
    let mut half = object.clone();
    half.truncate(object.len() / 2);
    for object in [
        object,
        half,
        b"<html>not an image</html>".to_vec(),
        Vec::new(),
    ] {
        let server = Server::start(&object, &[Answer::Ranged]);
        let error = ended(&world.run(&server.url, &wanted), 4);
        let message = error["error"].to_string();
        assert!(
            message.contains(&digest_of(&object).to_string()),
            "{message}"
        );
        world.assert_nothing_but_parts();
        assert_eq!(names(&world.store.join("parts")), [""; 0]);
    }
}

#[test]
fn a_hostile_image_of_the_right_digest_is_refused_and_leaves_nothing() {
    let world = World::new();
    let object = Tar::new().file("good", b"x").file("../../x", b"x").zst();
    let server = Server::start(&object, &[Answer::Ranged]);
    let error = ended(&world.run(&server.url, &digest_of(&object)), 4);
    assert!(error["error"].to_string().contains("`..`"), "{error}");
    world.assert_nothing_but_parts();
    assert_eq!(names(&world.store.join("parts")), [""; 0]);
}

#[test]
fn wrong_command_lines_change_nothing() {
    let ((_, digest), world) = (image(), World::new());
    for url in [
        "http://s3.example/x?sig=hunter2",
        "ftp://x/hunter2",
        "hunter2",
    ] {
        assert_eq!(world.run(url, &digest).status.code(), Some(2));
    }
    let file = world.folder.path().join("url");
    fs::write(&file, "http://s3.example/x?sig=hunter2\n").unwrap();
    let mut command = world.pull("", &digest);
    command
        .env_remove("REKINDLE_IMAGE_URL")
        .arg("--url-file")
        .arg(&file);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(!text(&output).contains("hunter2"), "{}", text(&output));
    assert!(!world.store.exists());
}

#[test]
fn certificates_are_verified() {
    let ((object, digest), world) = (image(), World::new());
    let url = start_tls(&object, world.folder.path());
    let error = ended(&world.run(&url, &digest), 3);
    assert!(
        error["error"].to_string().contains("certificate"),
        "{error}"
    );
    let mut trusting = world.pull(&url, &digest);
    trusting
        .arg("--ca-file")
        .arg(world.folder.path().join("ca.pem"));
    ended(&trusting.output().unwrap(), 0);
    world.assert_whole(&digest);
}

#[test]
fn of_several_pulls_at_once_one_downloads() {
    let ((object, digest), world) = (image(), World::new());
    let server = Server::start(&object, &[Answer::Stall(500_000)]);
    let all: Vec<_> = (0..5)
        .map(|_| Process::start(world.pull(&server.url, &digest)))
        .collect();
    wait_for("the download", || !server.ranges().is_empty());
    server.release();
    let results: Vec<_> = all.into_iter().map(|one| ended(&one.output(), 0)).collect();
    let fresh = results.iter().filter(|result| result["cached"] == false);
    assert_eq!(fresh.count(), 1);
    assert_eq!(server.ranges().len(), 1);
    world.assert_whole(&digest);
}

#[test]
fn after_a_kill_in_the_middle_the_next_pull_is_good() {
    let ((object, digest), world) = (image(), World::new());
    let slow = Server::start(&object, &[Answer::Stall(600_000)]);
    let killed = Process::start(world.pull(&slow.url, &digest));
    let part = world.path("parts", &digest);
    wait_for("half of the download", || {
        fs::metadata(&part).is_ok_and(|part| part.len() == 600_000)
    });
    let staging = world
        .store
        .join(format!("images/.staging-{}", digest.hex()));
    wait_for("the beginning of a tree", || {
        staging.join("rootfs/noise").exists()
    });
    // A second one waits; it takes over what the first one began.
    let server = Server::start(&object, &[Answer::Ranged]);
    let waiting = Process::start(world.pull(&server.url, &digest));
    killed.kill();
    ended(&waiting.output(), 0);
    assert_eq!(server.ranges(), [Some(600_000)]);
    world.assert_whole(&digest);
}

#[test]
fn kills_at_any_moment_never_show_half_an_image() {
    let ((object, digest), world) = (image(), World::new());
    let server = Server::start(&object, &[Answer::Ranged]);
    for round in 0..12_u64 {
        let process = Process::start(world.pull(&server.url, &digest));
        thread::sleep(Duration::from_millis(round * 7));
        process.kill();
        let image = world.path("images", &digest);
        if image.exists() {
            world.assert_rootfs(&image);
            fs::remove_dir_all(&image).unwrap();
        }
    }
    ended(&world.run(&server.url, &digest), 0);
    world.assert_whole(&digest);
}

impl World {
    #[track_caller]
    fn assert_rootfs(&self, image: &Path) {
        let noise = fs::metadata(image.join("rootfs/noise")).unwrap();
        assert_eq!(noise.len(), 1_000_000);
        assert!(image.join("image.json").exists());
    }

    fn gc(&self, unused_for: &str) -> serde_json::Value {
        let mut command = binary();
        command.args([
            "image",
            "gc",
            "--output",
            "json",
            "--unused-for",
            unused_for,
            "--store",
        ]);
        ended(&command.arg(&self.store).output().unwrap(), 0)
    }
}

#[test]
fn collection_spares_what_is_young_or_in_use() {
    let ((object, digest), world) = (image(), World::new());
    let server = Server::start(&object, &[Answer::Ranged]);
    ended(&world.run(&server.url, &digest), 0);
    assert_eq!(world.gc("1h")["kept"][0], digest.to_string());
    let held = Store::open(&world.store)
        .unwrap()
        .image(&digest)
        .unwrap()
        .unwrap();
    assert_eq!(world.gc("0s")["in_use"][0], digest.to_string());
    world.assert_whole(&digest);
    drop(held);
    assert_eq!(world.gc("0s")["removed"][0], digest.to_string());
    world.assert_nothing_but_parts();
}

#[test]
fn collection_removes_what_crashes_left() {
    let ((_, digest), world) = (image(), World::new());
    let _ = Store::open(&world.store).unwrap();
    let images = world.store.join("images");
    for left in [
        format!(".staging-{}", digest.hex()),
        format!(".trash-{}-1-0", digest.hex()),
    ] {
        fs::create_dir_all(images.join(left).join("rootfs/usr")).unwrap();
    }
    fs::write(images.join("not ours"), "").unwrap();
    fs::write(world.path("parts", &digest), "x").unwrap();
    assert_eq!(world.gc("1h")["parts"].as_array().unwrap().len(), 0);
    assert_eq!(names(&images), ["not ours"]);
    assert_eq!(world.gc("0s")["parts"][0], digest.to_string());
}

#[test]
fn what_cannot_be_removed_keeps_nothing_else() {
    let ((_, digest), world) = (image(), World::new());
    let _ = Store::open(&world.store).unwrap();
    let images = world.store.join("images");
    let staging = format!(".staging-{}", digest.hex());
    // A file where a tree should be.
    fs::write(images.join(&staging), "").unwrap();
    fs::create_dir_all(images.join(".trash-a/rootfs")).unwrap();
    let output = binary()
        .args(["image", "gc", "--store"])
        .arg(&world.store)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains(&staging), "{}", text(&output));
    assert_eq!(names(&images), [staging]);
}

#[test]
fn a_list_tells_what_is_here() {
    let ((object, digest), world) = (image(), World::new());
    let server = Server::start(&object, &[Answer::Ranged]);
    ended(&world.run(&server.url, &digest), 0);
    let list = || {
        let mut command = binary();
        command.args(["image", "list", "--output", "json", "--store"]);
        ended(&command.arg(&world.store).output().unwrap(), 0)
    };
    assert_eq!(list()[0]["digest"], digest.to_string());
    assert_eq!(list()[0]["in_use"], false);
    let _held = Store::open(&world.store)
        .unwrap()
        .image(&digest)
        .unwrap()
        .unwrap();
    assert_eq!(list()[0]["in_use"], true);
}
