//! `image …`

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{CommandError, age, size, usage};
use crate::cli::{Build, Gc, ImageCommand, List, Pull, Unpack, Verify};
use crate::exit::ExitCode;
use crate::image::{
    self, BadUrl, BuildError, DownloadError, Listed, Network, Options, PullError, Source, Store,
    StoreError,
};
use crate::out::Out;
use crate::unpack::{Dropped, Reason, Summary, UnpackError};

pub(super) fn run(command: ImageCommand, out: &mut Out) -> Result<(), CommandError> {
    match command {
        ImageCommand::Pull(args) => pull(args, out),
        ImageCommand::Build(args) => build(&args, out),
        ImageCommand::Verify(args) => verify(&args, out),
        ImageCommand::Unpack(args) => unpack(&args, out),
        ImageCommand::List(args) => list(&args, out),
        ImageCommand::Gc(args) => collect(&args, out),
    }
}

fn pull(args: Pull, out: &mut Out) -> Result<(), CommandError> {
    let url = match (args.url, &args.url_file) {
        (Some(url), _) => url,
        (None, Some(path)) => read_url(path)?,
        (None, None) => return Err(usage("give --url or --url-file")),
    };
    let source: Source = url
        .trim()
        .parse()
        .map_err(|error: BadUrl| usage(&error.to_string()))?;
    if let Source::Registry(repository) = &source
        && repository
            .digest()
            .is_some_and(|digest| digest != args.digest)
    {
        return Err(usage("the URL has another digest than --digest"));
    }
    let store = Store::open(&args.store.store)?;
    let network = Network {
        tries: args.tries,
        ca_file: args.ca_file,
        auth_file: args.auth_file,
    };
    let limits = args.limits.limits();
    let pulled = image::pull(&store, &source, &args.digest, &limits, &network)?;
    let (manifest, rootfs) = (&pulled.image.manifest, &pulled.image.rootfs);
    let value = json!({ "image": manifest, "rootfs": rootfs, "cached": pulled.cached });
    out.show(&value, || {
        let how = if pulled.cached { "was here" } else { "pulled" };
        let about = summary(manifest.entries, manifest.bytes, &manifest.dropped);
        format!("{how}: {}\n{about}\n{}", manifest.digest, rootfs.display())
    });
    Ok(())
}

fn read_url(path: &Path) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().read_to_string(&mut text)
    } else {
        File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| {
        usage(&format!(
            "failed to read the URL in {}: {error}",
            path.display()
        ))
    })?;
    Ok(text)
}

fn build(args: &Build, out: &mut Out) -> Result<(), CommandError> {
    let options = Options {
        level: args.level,
        latest: args.latest,
        limits: args.limits.limits(),
    };
    let built = image::build(&args.from, &args.to, &options)?;
    out.show(&built, || {
        let mut text = format!(
            "{}\n{} entries, {} of files, {} compressed",
            built.digest,
            built.entries,
            size(built.bytes),
            size(built.compressed_bytes)
        );
        if built.left_out > 0 {
            let _ = write!(text, "; left out {} devices and the like", built.left_out);
        }
        text
    });
    Ok(())
}

fn verify(args: &Verify, out: &mut Out) -> Result<(), CommandError> {
    let limits = args.limits.limits();
    let (digest, held) = image::verify_file(&args.file, args.digest.as_ref(), &limits)?;
    show_held(out, &digest, &held);
    Ok(())
}

fn unpack(args: &Unpack, out: &mut Out) -> Result<(), CommandError> {
    let limits = args.limits.limits();
    let (digest, held) = image::unpack_file(&args.file, &args.dir, args.digest.as_ref(), &limits)?;
    show_held(out, &digest, &held);
    Ok(())
}

fn show_held(out: &mut Out, digest: &crate::Digest, held: &Summary) {
    out.show(&json!({ "digest": digest, "contents": held }), || {
        format!(
            "{digest}\n{}",
            summary(held.entries, held.bytes, &held.dropped)
        )
    });
}

fn list(args: &List, out: &mut Out) -> Result<(), CommandError> {
    let images = Store::open(&args.store.store)?.list()?;
    out.show(&images, || {
        if images.is_empty() {
            return "no images; get one with `rekindle-runner image pull`".to_owned();
        }
        images.iter().map(line).collect()
    });
    Ok(())
}

fn line(image: &Listed) -> String {
    let used = SystemTime::UNIX_EPOCH + Duration::from_secs(image.used_at);
    format!(
        "{}  {:>9}  {:>7} entries  {}\n",
        image.manifest.digest,
        size(image.manifest.bytes),
        image.manifest.entries,
        if image.in_use {
            "in use".to_owned()
        } else {
            format!("used {} ago", age(used.elapsed().unwrap_or_default()))
        }
    )
}

fn collect(args: &Gc, out: &mut Out) -> Result<(), CommandError> {
    let collected = Store::open(&args.store.store)?.collect(args.unused_for)?;
    out.show(&collected, || {
        let mut text = String::new();
        for digest in &collected.removed {
            let _ = writeln!(text, "removed {digest}");
        }
        for digest in &collected.in_use {
            let _ = writeln!(text, "in use  {digest}");
        }
        for digest in &collected.parts {
            let _ = writeln!(text, "removed the unfinished download of {digest}");
        }
        let _ = writeln!(text, "{} images are kept", collected.kept.len());
        text
    });
    Ok(())
}

fn summary(entries: u64, bytes: u64, dropped: &Dropped) -> String {
    let mut text = format!("{entries} entries, {} of files", size(bytes));
    let parts = [
        (dropped.nodes, "device nodes"),
        (dropped.setid, "setuid or setgid bits"),
        (dropped.xattrs, "extended attributes"),
    ];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !parts.is_empty() {
        let _ = write!(text, "; left out {}", parts.join(", "));
    }
    text
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        let hint = "the store is --store DIR; only its owner may use it";
        Self::new(&error, ExitCode::Failed, Some(hint))
    }
}

impl From<PullError> for CommandError {
    fn from(error: PullError) -> Self {
        let (exit_code, hint) = match &error {
            PullError::Store(_) | PullError::File { .. } => (ExitCode::Failed, None),
            PullError::Mismatch { .. } => (
                ExitCode::Refused,
                Some(
                    "compare the digest with the one that `image build` printed; the file may have been replaced",
                ),
            ),
            PullError::Registry { .. } => (
                ExitCode::Refused,
                Some("give the digest of an image, or of an index that has one for this host"),
            ),
            PullError::Unpack(error) => unpack_hint(error),
            PullError::Download(error) => download_hint(error),
        };
        Self::new(&error, exit_code, hint)
    }
}

impl From<BuildError> for CommandError {
    fn from(error: BuildError) -> Self {
        let (exit_code, hint) = match &error {
            BuildError::File { .. } => (ExitCode::Failed, None),
            BuildError::Refused(error) => unpack_hint(error),
            BuildError::Changed(_) => (ExitCode::Failed, Some("build from a directory at rest")),
        };
        Self::new(&error, exit_code, hint)
    }
}

fn unpack_hint(error: &UnpackError) -> (ExitCode, Option<&'static str>) {
    match error {
        UnpackError::Refused { reason, .. } => {
            let hint = match reason {
                Reason::Limit { .. } => "the limits are --max-bytes and --max-entries",
                Reason::Whiteout => {
                    "an image is one archive, not a layer: flatten it, then `image build`"
                }
                _ => {
                    "rebuild the image with `rekindle-runner image build`; nothing of this one is left here"
                }
            };
            (ExitCode::Refused, Some(hint))
        }
        UnpackError::Read(_) => (ExitCode::Failed, None),
        UnpackError::Write { .. } => (
            ExitCode::Failed,
            Some("check space and permissions; nothing half unpacked is left"),
        ),
    }
}

fn download_hint(error: &DownloadError) -> (ExitCode, Option<&'static str>) {
    match error {
        DownloadError::Status {
            status: 401 | 403, ..
        } => (
            ExitCode::Unavailable,
            Some("a presigned URL expires: ask for a new one and pull again; what came is kept"),
        ),
        DownloadError::Status { .. } | DownloadError::Redirect { .. } => {
            (ExitCode::Unavailable, Some("check the URL"))
        }
        DownloadError::Changed { .. } => (
            ExitCode::Unavailable,
            Some("images are named by digest and never replaced; pull again"),
        ),
        DownloadError::TooLarge { .. } => (
            ExitCode::Refused,
            Some("the limits are --max-bytes and --max-entries"),
        ),
        DownloadError::GaveUp { .. } => (
            ExitCode::Unavailable,
            Some(
                "pull again: it continues where it stopped; with a private authority, give --ca-file",
            ),
        ),
        DownloadError::Denied { .. } => (
            ExitCode::Unavailable,
            Some("give user and password of the registry in --auth-file, or check the repository"),
        ),
        DownloadError::Size { .. } => (ExitCode::Refused, Some("the registry is damaged or lies")),
        DownloadError::Certificates { .. } | DownloadError::Credentials { .. } => {
            (ExitCode::Usage, None)
        }
        DownloadError::Save { .. } => (ExitCode::Failed, Some("check the space in --store")),
    }
}
