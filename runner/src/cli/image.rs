//! `image …`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{StoreArgs, age};
use crate::digest::Digest;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Bring an image into the store of this host, or find it there
    #[command(long_about = "\
Bring an image into the store of this host, or find it there.

The image is unpacked while it downloads, and becomes visible only when its digest is right. A download \
that breaks continues where it stopped, also in another run of this command. Several runs may ask for one \
image at once: one downloads, the others wait for it.")]
    Pull(Pull),
    /// Make an image from a directory or a tar archive, and print its digest
    #[command(long_about = "\
Make an image from a directory or a tar archive (plain or zstd), and print its digest.

The same directory gives the same bytes: entries are sorted, owners are numbers, times are whole seconds. \
Devices, setuid bits and extended attributes do not go in. With SOURCE_DATE_EPOCH set, no file is newer \
than that, except for Python sources, because their .pyc files hold their times. An archive is judged, and \
then taken as it is.")]
    Build(Build),
    /// Check the digest and every entry of an image file, without writing anything
    Verify(Verify),
    /// Unpack an image file into a new directory, all of it or nothing
    Unpack(Unpack),
    /// List the images of this host
    List(List),
    /// Remove images that were not used for some time; never one that is in use
    Gc(Gc),
}

#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// The most bytes that the files of an image may have together
    #[arg(long, value_name = "BYTES", default_value_t = crate::unpack::Limits::default().bytes)]
    max_bytes: u64,
    /// The most entries that an image may have
    #[arg(long, value_name = "NUMBER", default_value_t = crate::unpack::Limits::default().entries)]
    max_entries: u64,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> crate::unpack::Limits {
        crate::unpack::Limits {
            bytes: self.max_bytes,
            entries: self.max_entries,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Where the image is: https://… (presigned is fine), http:// on this machine, file:/path, or a
    /// registry, oci://HOST/REPOSITORY (oci+http:// on this machine).
    /// Others can read arguments; use the environment or --url-file for a presigned URL
    #[arg(
        long,
        value_name = "URL",
        env = "REKINDLE_IMAGE_URL",
        hide_env_values = true,
        required_unless_present = "url_file"
    )]
    // Read later: clap repeats a value that it cannot read, and this one may be a secret.
    pub(crate) url: Option<String>,
    /// A file that holds the URL; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub(crate) url_file: Option<PathBuf>,
    /// What the image must be: `sha256:` and 64 digits, as `image build` prints it; for a registry,
    /// the digest of the manifest or the index
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Digest,
    /// User and password for registries: docker's config.json. Programs that it names are not run
    #[arg(long, value_name = "FILE", env = "REKINDLE_AUTH_FILE")]
    pub(crate) auth_file: Option<PathBuf>,
    /// Tries in a row that bring not one byte, before giving up
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tries: u32,
    /// Certificate authorities to trust instead of the host's, as PEM
    #[arg(long, value_name = "FILE", env = "REKINDLE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

pub(super) const FETCH_HELP: &str = "\
Bring files into a folder, or find them there.

The order comes on stdin, as presigned URLs are secrets: {\"files\": [{\"name\": \"a/b\", \"digest\": \"sha256:…\", \
\"size\": 7, \"url\": \"https://…\"}]}. A file that is there in its length is not asked for again; one that comes \
appears under its name only when its digest is right. A download that breaks continues where it stopped, also in \
another run of this command.";

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// The folder; it is made where there is none
    #[arg(long, value_name = "DIR")]
    pub(crate) into: PathBuf,
    /// Tries in a row that bring not one byte, before giving up
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tries: u32,
    /// Certificate authorities to trust instead of the host's, as PEM
    #[arg(long, value_name = "FILE", env = "REKINDLE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// A directory, or a tar archive
    #[arg(value_name = "FROM")]
    pub(crate) from: PathBuf,
    /// The image to write, a .tar.zst file
    #[arg(value_name = "TO")]
    pub(crate) to: PathBuf,
    /// How hard to compress
    #[arg(long, value_name = "LEVEL", default_value_t = 9, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) level: i32,
    /// The latest time that a file may have, in seconds since 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    pub(crate) latest: Option<i64>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The image, a .tar.zst file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What it must be
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Option<Digest>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Unpack {
    /// The image, a .tar.zst file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The directory to make; it must not exist
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// What the image must be
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Option<Digest>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Remove what was not used for this time, for example `12h` or `30d`; `0d` for all
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = age)]
    pub(crate) unused_for: Duration,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}
