//! Commands about block devices, as util-linux 2.38, e2fsprogs 1.47 and diffutils behave on
//! Debian 12 (checked against them). Two traps are true to life: `blkid -p` says "nothing"
//! (exit 2) for a blank disk, for one it cannot read and for one that is not there; and
//! `mkfs.ext4` without a terminal formats over whatever it finds.

use super::disk::{Content, Disk, new_uuid};
use super::machine::{ROOT_UUID, View};
use super::shell::{Args, Output};
use super::tree::{FsError, Node};

pub(super) fn run(view: &mut View<'_>, name: &str, args: &[&str]) -> Option<Output> {
    Some(match name {
        "blkid" => blkid(view, args),
        "wipefs" => wipefs(view, args),
        "blockdev" => blockdev(view, args),
        "cmp" => cmp(view, args),
        "mkfs.ext4" | "mke2fs" => mkfs(view, "ext4", args),
        "mkfs.xfs" => mkfs(view, "xfs", args),
        "mkfs" => match args {
            ["-t", "ext4", rest @ ..] => mkfs(view, "ext4", rest),
            ["-t", "xfs", rest @ ..] => mkfs(view, "xfs", rest),
            _ => Output::fail(1, "mkfs: the sandbox knows -t ext4 and -t xfs"),
        },
        "e2fsck" | "fsck.ext4" => e2fsck(view, args),
        _ => return None,
    })
}

/// One line of what blkid found: `TAG`, value.
type Tags = Vec<(&'static str, String)>;

fn tags(device: &str, disk: Option<&Disk>) -> Tags {
    let Some(disk) = disk else {
        return boot_disk_tags(device);
    };
    if disk.broken {
        return Tags::new();
    }
    match &disk.content {
        Content::Blank => Tags::new(),
        Content::FileSystem(fs) => {
            let mut tags = Tags::new();
            if !fs.label.is_empty() {
                tags.push(("LABEL", fs.label.clone()));
            }
            tags.push(("UUID", fs.uuid.clone()));
            if fs.kind == "ext4" {
                tags.push(("VERSION", "1.0".to_owned()));
            }
            let block = if fs.kind == "ext4" { "4096" } else { "512" };
            tags.push(("BLOCK_SIZE", block.to_owned()));
            tags.push(("TYPE", fs.kind.to_owned()));
            tags.push(("USAGE", "filesystem".to_owned()));
            tags
        }
        Content::Luks { uuid } => vec![
            ("VERSION", "2".to_owned()),
            ("UUID", uuid.clone()),
            ("TYPE", "crypto_LUKS".to_owned()),
            ("USAGE", "crypto".to_owned()),
        ],
        Content::PartitionTable { uuid } => {
            vec![("PTUUID", uuid.clone()), ("PTTYPE", "dos".to_owned())]
        }
    }
}

/// The boot disk: `vda` has a partition table, `vda1` the root file system.
fn boot_disk_tags(device: &str) -> Tags {
    match device {
        "vda" => vec![
            ("PTUUID", "0d4a3c11".to_owned()),
            ("PTTYPE", "dos".to_owned()),
        ],
        _ => vec![
            ("UUID", ROOT_UUID.to_owned()),
            ("TYPE", "ext4".to_owned()),
            ("USAGE", "filesystem".to_owned()),
        ],
    }
}

/// All block devices in the order of their names.
fn all_devices<'a>(view: &'a View<'_>) -> Vec<(String, Option<&'a Disk>)> {
    let boot = ["vda", "vda1"].map(|d| (d.to_owned(), None));
    let plugged = view.machine.devices.iter();
    let plugged = plugged.map(|(device, volume)| (device.clone(), view.disks.get(volume)));
    boot.into_iter().chain(plugged).collect()
}

/// Devices with this UUID or LABEL.
pub(super) fn with_tag(view: &View<'_>, tag: &str, value: &str) -> Vec<String> {
    let value = value.trim_matches('"');
    all_devices(view)
        .into_iter()
        .filter(|(device, disk)| {
            let tags = tags(device, *disk);
            tags.iter().any(|(t, v)| *t == tag && v == value)
        })
        .map(|(device, _)| device)
        .collect()
}

fn blkid(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(
        args,
        "oscULtnuOSH",
        &[
            "output",
            "match-tag",
            "cache-file",
            "uuid",
            "label",
            "match-token",
        ],
    );
    for (tag, options) in [("UUID", ["U", "uuid"]), ("LABEL", ["L", "label"])] {
        if let Some(value) = args.value(&options) {
            return match with_tag(view, tag, value).first() {
                Some(device) => Output::ok(format!("/dev/{device}\n")),
                None => Output::silent(2),
            };
        }
    }
    let mut devices: Vec<(String, Option<&Disk>)> = if args.operands.is_empty() {
        all_devices(view)
    } else {
        // A device that is not there is passed over without a word, as in life.
        let found = args
            .operands
            .iter()
            .filter_map(|p| view.block_device(p).ok());
        found.collect()
    };
    if let Some(token) = args.value(&["t", "match-token"]) {
        let Some((tag, value)) = token.split_once('=') else {
            return Output::fail(4, "blkid: -t needs NAME=value pair");
        };
        let matching = with_tag(view, tag, value);
        devices.retain(|(device, _)| matching.contains(device));
    }
    let wanted: Vec<&str> = args.values(&["s", "match-tag"]).collect();
    let format = args.value(&["o", "output"]).unwrap_or("full");
    let low_level = args.has(&["p", "probe"]);
    let mut text = String::new();
    for (device, disk) in devices {
        let mut tags = tags(&device, disk);
        if !low_level {
            tags.retain(|(tag, _)| !["USAGE", "VERSION"].contains(tag));
        }
        if !wanted.is_empty() {
            tags.retain(|(tag, _)| wanted.contains(tag));
        }
        if tags.is_empty() {
            continue;
        }
        match format {
            "device" => text.push_str(&format!("/dev/{device}\n")),
            "value" => tags
                .iter()
                .for_each(|(_, v)| text.push_str(&format!("{v}\n"))),
            "export" => {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(&format!("DEVNAME=/dev/{device}\n"));
                tags.iter()
                    .for_each(|(t, v)| text.push_str(&format!("{t}={v}\n")));
            }
            _ => {
                let pairs: String = tags.iter().map(|(t, v)| format!(" {t}=\"{v}\"")).collect();
                text.push_str(&format!("/dev/{device}:{pairs}\n"));
            }
        }
    }
    match text.is_empty() {
        true => Output::silent(2),
        false => Output::ok(text),
    }
}

fn wipefs(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "oOt", &["offset", "output", "types"]);
    if args.has(&["a", "all", "o", "offset"]) {
        return Output::fail(1, "wipefs: the sandbox does not wipe");
    }
    let Some(path) = args.operands.first() else {
        return Output::fail(1, "wipefs: no device specified");
    };
    let error = |e: FsError| {
        Output::fail(
            1,
            format!("wipefs: error: {path}: probing initialization failed: {e}"),
        )
    };
    let (device, disk) = match view.block_device(path) {
        Ok(found) => found,
        Err(e) => return error(e),
    };
    if disk.is_some_and(|d| d.broken) {
        return error(FsError::Io);
    }
    let tags = tags(&device, disk);
    let tag = |name: &str| {
        let found = tags.iter().find(|(t, _)| *t == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let kind = match tag("TYPE") {
        kind if kind.is_empty() => tag("PTTYPE"),
        kind => kind,
    };
    let offset = match kind.as_str() {
        "ext4" => "0x438",
        "dos" => "0x1fe",
        _ => "0x0",
    };
    let (uuid, label) = (tag("UUID"), tag("LABEL"));
    if args.has(&["J", "json"]) {
        let signatures = match kind.is_empty() {
            true => serde_json::json!([]),
            false => serde_json::json!([{
                "device": device,
                "offset": offset,
                "type": kind,
                "uuid": Some(uuid).filter(|u| !u.is_empty()),
                "label": Some(label).filter(|l| !l.is_empty()),
            }]),
        };
        let text = serde_json::json!({ "signatures": signatures });
        return Output::ok(format!("{text:#}\n"));
    }
    if kind.is_empty() {
        return Output::default();
    }
    if args.has(&["p", "parsable"]) {
        return Output::ok(format!("{offset},{uuid},{label},{kind}\n"));
    }
    let uuid_column = "UUID";
    Output::ok(format!(
        "DEVICE OFFSET TYPE {uuid_column:<36} LABEL\n{device:<6} {offset:<6} {kind:<4} {uuid:<36} {label}\n"
    ))
}

fn blockdev(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let Some(path) = args.operands.first() else {
        return Output::fail(1, "blockdev: no device specified");
    };
    match view.block_device(path) {
        Ok((_, disk)) => {
            let size = disk.map_or(20 << 30, |d| d.size);
            if args.has(&["getsize64"]) {
                Output::ok(format!("{size}\n"))
            } else if args.has(&["getsz"]) {
                Output::ok(format!("{}\n", size / 512))
            } else {
                Output::fail(1, "blockdev: Unknown command")
            }
        }
        Err(FsError::Invalid) => Output::fail(
            1,
            format!(
                "blockdev: ioctl error on BLKGETSIZE64: {path}: Inappropriate ioctl for device"
            ),
        ),
        Err(e) => Output::fail(1, format!("blockdev: cannot open {path}: {e}")),
    }
}

/// Compares a device or file with `/dev/zero`.
fn cmp(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "ni", &["bytes", "ignore-initial"]);
    let [path, other] = args.operands[..] else {
        return Output::fail(2, "cmp: missing operand");
    };
    if other != "/dev/zero" {
        return Output::fail(
            2,
            format!("cmp: {other}: the sandbox compares with /dev/zero only"),
        );
    }
    let number = |text: &str| text.parse::<u64>().ok();
    let skip = args.value(&["i", "ignore-initial"]).unwrap_or("0");
    let Some(skip) = number(skip.split(':').next().unwrap_or("0")) else {
        return Output::fail(2, "cmp: invalid --ignore-initial value");
    };
    let wanted = match args.value(&["n", "bytes"]).map(number) {
        None => u64::MAX,
        Some(Some(wanted)) => wanted,
        Some(None) => return Output::fail(2, "cmp: invalid --bytes value"),
    };
    let (size, first) = match nonzero(view, path, skip, wanted) {
        Ok(found) => found,
        Err(e) => return Output::fail(2, format!("cmp: {path}: {e}")),
    };
    let quiet = args.has(&["s", "quiet", "silent"]);
    let (stdout, stderr) = match first {
        Some(at) => {
            let byte = at - skip + 1;
            (
                format!("{path} /dev/zero differ: byte {byte}, line 1\n"),
                String::new(),
            )
        }
        None if size < skip.saturating_add(wanted) => {
            let after = size.saturating_sub(skip);
            let eof = format!("cmp: EOF on {path} after byte {after}, in line 1\n");
            (String::new(), eof)
        }
        None => return Output::default(),
    };
    Output {
        stdout: if quiet { Vec::new() } else { stdout.into() },
        stderr: if quiet { Vec::new() } else { stderr.into() },
        status: 1,
    }
}

/// Size, and the first byte that is not zero.
fn nonzero(
    view: &View<'_>,
    path: &str,
    skip: u64,
    wanted: u64,
) -> Result<(u64, Option<u64>), FsError> {
    let to = skip.saturating_add(wanted);
    if let Node::File(bytes) = view.entry(path)?.node {
        let end = usize::try_from(to).unwrap_or(usize::MAX).min(bytes.len());
        let start = usize::try_from(skip).unwrap_or(usize::MAX).min(end);
        let at = bytes[start..end].iter().position(|b| *b != 0);
        return Ok((bytes.len() as u64, at.map(|at| skip + at as u64)));
    }
    let (_, disk) = view.block_device(path)?;
    let Some(disk) = disk else {
        return Ok((20 << 30, Some(skip)));
    };
    if disk.broken {
        return Err(FsError::Io);
    }
    Ok((disk.size, disk.first_nonzero(skip, to.min(disk.size))))
}

fn mkfs(view: &mut View<'_>, kind: &'static str, args: &[&str]) -> Output {
    let program = format!("mkfs.{kind}");
    let args = match kind {
        "ext4" => Args::parse(args, "ULmEOTIbNiJrjgGtDcCdeMos", &[]),
        _ => Args::parse(args, "Lmdnirlbps", &[]),
    };
    let Some(path) = args.operands.first().copied() else {
        return Output::fail(1, format!("Usage: {program} [options] device"));
    };
    let (device, overwrites) = match view.block_device(path) {
        Err(_) => {
            let message = "and no size was specified.";
            return Output::fail(1, format!("The file {path} does not exist {message}"));
        }
        Ok((_, Some(disk))) if disk.broken => {
            return Output::fail(
                1,
                format!("{program}: Input/output error while writing superblock"),
            );
        }
        Ok((device, disk)) => (device, disk.is_none_or(|d| d.signature().is_some())),
    };
    let mounted = view.machine.mounts.iter().any(|m| m.device == device);
    if mounted || device.starts_with("vda") {
        let message = "is mounted; will not make a filesystem here!";
        return Output::fail(1, format!("/dev/{device} {message}"));
    }
    // mke2fs asks "Proceed anyway?" on a terminal only; mkfs.xfs always wants -f.
    if kind == "xfs" && overwrites && !args.has(&["f"]) {
        return Output::fail(
            1,
            format!(
                "mkfs.xfs: {path} appears to contain an existing filesystem.\n\
                 mkfs.xfs: Use the -f option to force overwrite."
            ),
        );
    }
    let uuid = match kind {
        "ext4" => args.value(&["U"]).map(str::to_owned),
        _ => args
            .values(&["m"])
            .flat_map(|m| m.split(','))
            .find_map(|m| m.strip_prefix("uuid=").map(str::to_owned)),
    };
    let uuid = match uuid {
        None => new_uuid(),
        Some(uuid) if uuid == "random" => new_uuid(),
        Some(uuid) => match uuid::Uuid::parse_str(&uuid) {
            Ok(uuid) => uuid.to_string(),
            Err(_) => return Output::fail(1, format!("{program}: invalid UUID '{uuid}'")),
        },
    };
    let label = args.value(&["L"]).unwrap_or_default();
    let longest = if kind == "ext4" { 16 } else { 12 };
    if kind == "xfs" && label.len() > longest {
        return Output::fail(1, format!("Illegal value {label} for -L option."));
    }
    // mke2fs cuts a label that is too long, with a warning.
    let mut stderr = Vec::new();
    let mut kept = label.to_owned();
    if label.len() > longest {
        kept.truncate(longest);
        stderr = format!("Warning: label too long; will be truncated to '{kept}'\n\n").into_bytes();
    }
    let volume = view.machine.devices.get(&device).cloned();
    let disk = volume.and_then(|v| view.disks.get_mut(&v));
    if kind == "ext4" && args.has(&["n"]) {
        return Output::default();
    }
    if let Some(disk) = disk {
        disk.format(kind, uuid.clone(), kept);
    }
    let mut stdout = String::new();
    if !args.has(&["q"]) {
        stdout = format!("Creating filesystem\nFilesystem UUID: {uuid}\n");
    }
    Output {
        stdout: stdout.into_bytes(),
        stderr,
        status: 0,
    }
}

fn e2fsck(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "bBCEjlLzt", &[]);
    let path = args.operands.first().copied().unwrap_or_default();
    let banner = "e2fsck 1.47.0 (5-Feb-2023)\n";
    let (device, disk) = match view.block_device(path) {
        Ok(found) => found,
        Err(e) => {
            return Output::fail(
                8,
                format!("{banner}e2fsck: {e} while trying to open {path}"),
            );
        }
    };
    match disk.map(|d| (d.signature(), d.broken)) {
        None | Some((Some("ext4"), false)) => {}
        Some((_, true)) => {
            let message = "Input/output error while trying to open";
            return Output::fail(8, format!("{banner}e2fsck: {message} {path}"));
        }
        Some(_) => {
            let message = "Bad magic number in super-block while trying to open";
            return Output::fail(8, format!("{banner}e2fsck: {message} {path}"));
        }
    }
    let mut stdout = String::new();
    if view.machine.mounts.iter().any(|m| m.device == device) {
        stdout.push_str(&format!("Warning!  /dev/{device} is mounted.\n"));
    }
    stdout.push_str(
        "Pass 1: Checking inodes, blocks, and sizes\n\
         Pass 2: Checking directory structure\n\
         Pass 3: Checking directory connectivity\n\
         Pass 4: Checking reference counts\n\
         Pass 5: Checking group summary information\n",
    );
    stdout.push_str(&format!(
        "{path}: 11/655360 files (0.0% non-contiguous), 66753/2621440 blocks\n"
    ));
    Output {
        stdout: stdout.into_bytes(),
        stderr: banner.as_bytes().to_vec(),
        status: 0,
    }
}
