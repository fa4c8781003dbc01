//! What the tests share: a writer of archives that obeys no rule, and a canary.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, unreachable_pub, reason = "these are tests")]

pub mod server;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use runner::Digest;

/// An archive under construction. Everything may be wrong.
#[derive(Debug, Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// One header, with every field open.
#[derive(Debug, Clone)]
pub struct Head {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub raw_size: Option<[u8; 12]>,
    pub mtime: u64,
    pub link: Vec<u8>,
    pub bad_sum: bool,
}

pub const MTIME: u64 = 1_600_000_000;

pub fn head(name: impl AsRef<[u8]>, kind: u8) -> Head {
    let (uid, gid) = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    Head {
        name: name.as_ref().to_vec(),
        kind,
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        uid,
        gid,
        size: 0,
        raw_size: None,
        mtime: MTIME,
        link: Vec::new(),
        bad_sum: false,
    }
}

impl Head {
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
    pub fn mtime(mut self, mtime: u64) -> Self {
        self.mtime = mtime;
        self
    }
    pub fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }
    pub fn raw_size(mut self, size: [u8; 12]) -> Self {
        self.raw_size = Some(size);
        self
    }
    pub fn link(mut self, link: impl AsRef<[u8]>) -> Self {
        self.link = link.as_ref().to_vec();
        self
    }
    pub fn bytes(&self) -> [u8; 512] {
        let mut unit = [0; 512];
        let mut put = |at: usize, bytes: &[u8], most: usize| {
            let length = bytes.len().min(most);
            unit[at..at + length].copy_from_slice(&bytes[..length]);
        };
        put(0, &self.name, 100);
        put(100, format!("{:07o}\0", self.mode).as_bytes(), 8);
        put(108, format!("{:07o}\0", self.uid).as_bytes(), 8);
        put(116, format!("{:07o}\0", self.gid).as_bytes(), 8);
        match &self.raw_size {
            Some(raw) => put(124, raw, 12),
            None => put(124, format!("{:011o}\0", self.size).as_bytes(), 12),
        }
        put(136, format!("{:011o}\0", self.mtime).as_bytes(), 12);
        put(148, b"        ", 8);
        put(156, &[self.kind], 1);
        put(157, &self.link, 100);
        put(257, b"ustar\x0000", 8);
        let mut sum: u64 = unit.iter().map(|&byte| u64::from(byte)).sum();
        if self.bad_sum {
            sum += 1;
        }
        unit[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        unit
    }
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    /// A header and contents, whatever the header says.
    pub fn entry(mut self, head: &Head, contents: &[u8]) -> Self {
        self.0.extend_from_slice(&head.bytes());
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub fn file(self, name: impl AsRef<[u8]>, contents: &[u8]) -> Self {
        self.entry(&head(name, b'0').size(contents.len() as u64), contents)
    }
    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(&head(name, b'5'), b"")
    }
    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(&head(name, b'2').mode(0o777).link(target), b"")
    }
    /// A link with a name or target that needs an extension.
    pub fn symlink_long(self, name: &[u8], target: &[u8]) -> Self {
        self.pax(&[("path", name), ("linkpath", target)])
            .symlink("long", "long")
    }
    pub fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(&head(name, b'1').link(target), b"")
    }
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.pax_kind(b'x', records)
    }
    pub fn pax_kind(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut contents = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            contents.extend(format!("{length} {key}=").into_bytes());
            contents.extend_from_slice(value);
            contents.push(b'\n');
        }
        self.entry(&head("pax", kind).size(contents.len() as u64), &contents)
    }
    pub fn gnu_long(self, kind: u8, text: &[u8]) -> Self {
        let mut contents = text.to_vec();
        contents.push(0);
        self.entry(
            &head("././@LongLink", kind).size(contents.len() as u64),
            &contents,
        )
    }
    /// The archive with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
    /// The archive with its end, compressed.
    pub fn zst(self) -> Vec<u8> {
        zst(&self.end())
    }
}

pub fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

pub fn digest_of(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::from_hex(&hex::encode(sha2::Sha256::digest(bytes))).unwrap()
}

/// Everything about a tree that must not change: kinds, modes, owners, times, links, contents.
pub fn portrait(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    add(root, root, &mut all);
    all
}

fn add(root: &Path, path: &Path, all: &mut BTreeMap<PathBuf, String>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let contents = if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        format!("{:x}", fingerprint(&fs::read(path).unwrap()))
    } else {
        String::new()
    };
    let line = format!(
        "{:o} {}:{} {} {} {contents}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        if kind.is_dir() { 0 } else { metadata.nlink() },
    );
    all.insert(path.strip_prefix(root).unwrap().to_owned(), line);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            add(root, &entry.unwrap().path(), all);
        }
    }
}

/// Tells contents apart. The standard library's hash is fast in a debug build, too.
fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    std::hash::Hasher::write(&mut hasher, bytes);
    std::hash::Hasher::finish(&hasher)
}

/// A folder with a place to unpack to, and things around it that must stay as they are.
#[derive(Debug)]
pub struct Arena {
    pub folder: tempfile::TempDir,
    pub canary: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Arena {
    pub fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    /// In memory where there is some: for many small cases.
    pub fn fast() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::in_folder(folder.unwrap())
    }

    fn in_folder(folder: tempfile::TempDir) -> Self {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let canary = folder.path().join("canary");
        fs::create_dir(&canary).unwrap();
        fs::create_dir(canary.join("dir")).unwrap();
        fs::write(canary.join("file"), "the canary sings").unwrap();
        fs::write(canary.join("dir/secret"), "a secret").unwrap();
        fs::set_permissions(canary.join("dir/secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(canary.join("dir"), fs::Permissions::from_mode(0o711)).unwrap();
        std::os::unix::fs::symlink("file", canary.join("link")).unwrap();
        let before = portrait(&canary);
        Self {
            folder,
            canary,
            before,
        }
    }

    /// Where the tree goes; deep enough that `../..` stays in the arena.
    pub fn target(&self) -> PathBuf {
        let parent = self.folder.path().join("a/b");
        fs::create_dir_all(&parent).unwrap();
        parent.join("target")
    }

    /// The things around are as they were.
    #[track_caller]
    pub fn check_canary(&self) {
        assert_eq!(portrait(&self.canary), self.before, "the canary changed");
    }

    /// Unpacks. The canary is as it was, and after a failure nothing is left.
    #[track_caller]
    pub fn unpack(&self, archive: &[u8]) -> Result<(), String> {
        self.unpack_with(archive, &runner::unpack::Limits::default())
    }

    #[track_caller]
    pub fn unpack_with(
        &self,
        archive: &[u8],
        limits: &runner::unpack::Limits,
    ) -> Result<(), String> {
        let file = self.folder.path().join("image.tar.zst");
        fs::write(&file, archive).unwrap();
        let target = self.target();
        let result = runner::image::unpack_file(&file, &target, None, limits);
        self.check_canary();
        let mut left: Vec<_> = fs::read_dir(target.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        let mut outside: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        outside.sort();
        assert_eq!(
            outside,
            ["a", "canary", "image.tar.zst"],
            "something got out"
        );
        match result {
            Ok(_) => {
                assert_eq!(left, ["target"]);
                Ok(())
            }
            Err(error) => {
                assert!(left.is_empty(), "a failure left {left:?} behind");
                Err(chain(&error))
            }
        }
    }
}

impl Drop for Arena {
    /// Without root, a directory without rights would keep the folder from being removed.
    fn drop(&mut self) {
        open_up(self.folder.path());
    }
}

fn open_up(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// The binary under test.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle-runner"));
    for name in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    command.env_remove("SOURCE_DATE_EPOCH");
    command
}

pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
