//! Mounting, as util-linux 2.38 does it. One trap is true to life: a line of fstab that cannot be
//! mounted stops the next boot before sshd, unless it says `nofail`.

use super::blocks::with_tag;
use super::machine::{Mount, View};
use super::shell::{Args, Output};
use super::tree::{FsError, Node, file_name};

/// Exit status of mount and umount when the system call failed.
const MOUNT_FAILURE: u32 = 32;

pub(super) fn run(view: &mut View<'_>, name: &str, args: &[&str]) -> Option<Output> {
    Some(match name {
        "mount" => mount(view, args),
        "umount" => umount(view, args),
        "mountpoint" => mountpoint(view, args),
        _ => return None,
    })
}

/// A line of /etc/fstab.
struct FstabLine {
    source: String,
    target: String,
    kind: String,
    options: Vec<String>,
}

fn fstab(view: &View<'_>) -> Vec<FstabLine> {
    let text = view.read("/etc/fstab").unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [source, target, kind, ..] = fields[..] else {
                return None;
            };
            let options = fields.get(3).copied().unwrap_or("defaults");
            Some(FstabLine {
                source: source.to_owned(),
                target: target.replace("\\040", " "),
                kind: kind.to_owned(),
                options: options.split(',').map(str::to_owned).collect(),
            })
        })
        .collect()
}

fn mount(view: &mut View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(
        args,
        "otOUL",
        &["options", "types", "source", "target", "uuid"],
    );
    if args.has(&["a", "all"]) {
        return mount_all(view);
    }
    let mut options: Vec<String> = args
        .values(&["o", "options"])
        .flat_map(|o| o.split(','))
        .map(str::to_owned)
        .collect();
    if args.has(&["r", "read-only"]) {
        options.push("ro".to_owned());
    }
    let by_uuid = args
        .value(&["U", "uuid"])
        .map(|uuid| format!("UUID={uuid}"));
    let operands: Vec<String> = by_uuid
        .into_iter()
        .chain(args.value(&["source"]).map(str::to_owned))
        .chain(args.operands.iter().map(|o| (*o).to_owned()))
        .chain(args.value(&["target"]).map(str::to_owned))
        .collect();
    let (source, target, kind) = match &operands[..] {
        [] => return Output::ok(view.read("/proc/mounts").unwrap_or_default()),
        [one] => {
            let lines = fstab(view);
            let named = |l: &&FstabLine| l.target == *one || l.source == *one;
            let Some(line) = lines.iter().find(named) else {
                return Output::fail(1, format!("mount: {one}: can't find in /etc/fstab."));
            };
            let of_line = line.options.iter().cloned();
            options = of_line.chain(options).collect();
            (line.source.clone(), line.target.clone(), line.kind.clone())
        }
        [source, target] => {
            let kind = args.value(&["t", "types"]).unwrap_or("auto");
            (source.clone(), target.clone(), kind.to_owned())
        }
        _ => return Output::fail(1, "mount: bad usage"),
    };
    if args.has(&["m", "mkdir"]) && view.entry(&target).is_err() {
        let made = super::files::run(view, "mkdir", &["-p", &target], b"");
        if let Some(failed) = made.filter(|o| o.status != 0) {
            return failed;
        }
    }
    match mount_one(view, &source, &target, &kind, options) {
        Ok(()) => Output::default(),
        Err(message) => Output::fail(MOUNT_FAILURE, message),
    }
}

/// Mounts what fstab lists and is not mounted yet.
pub(super) fn mount_all(view: &mut View<'_>) -> Output {
    let mut output = Output::default();
    let (mut mounted, mut failed) = (0, 0);
    for line in fstab(view) {
        let has = |option: &str| line.options.iter().any(|o| o == option);
        let skipped = has("noauto") || line.kind == "swap" || view.is_mount_point(&line.target);
        if skipped {
            continue;
        }
        let forgiven = has("nofail") && find_source(view, &line.source).is_err();
        match mount_one(view, &line.source, &line.target, &line.kind, line.options) {
            Ok(()) => mounted += 1,
            Err(_) if forgiven => {}
            Err(message) => {
                failed += 1;
                output.stderr.extend(format!("{message}\n").into_bytes());
            }
        }
    }
    output.status = match (mounted, failed) {
        (_, 0) => 0,
        (0, _) => MOUNT_FAILURE,
        _ => 64,
    };
    output
}

/// The device a mount source means.
fn find_source(view: &View<'_>, source: &str) -> Result<String, String> {
    if let Some((tag @ ("UUID" | "LABEL"), value)) = source.split_once('=') {
        let found = with_tag(view, tag, value);
        let device = found.into_iter().next();
        return device.ok_or_else(|| format!("can't find {source}."));
    }
    match view.block_device(source) {
        Ok((device, _)) => Ok(device),
        Err(FsError::Invalid) => Err(format!("{source} is not a block device.")),
        Err(_) => Err(format!("special device {source} does not exist.")),
    }
}

fn mount_one(
    view: &mut View<'_>,
    source: &str,
    target: &str,
    kind: &str,
    options: Vec<String>,
) -> Result<(), String> {
    let fail = |message: &str| Err(format!("mount: {target}: {message}"));
    let device = match find_source(view, source) {
        Ok(device) => device,
        Err(message) => return fail(&message),
    };
    let Ok(real) = view.real_path(target) else {
        return fail("mount point does not exist.");
    };
    match view.entry(&real).map(|e| e.node) {
        Ok(Node::Directory) => {}
        Ok(_) => return fail("mount point is not a directory."),
        Err(FsError::Io) => return fail("can't read superblock on device."),
        Err(_) => return fail("mount point does not exist."),
    }
    let Some(volume) = view.machine.devices.get(&device).cloned() else {
        return fail(&format!(
            "/dev/{device} already mounted or mount point busy."
        ));
    };
    let here = view.machine.mounts.iter();
    if here.clone().any(|m| m.volume == volume && m.target == real) {
        return fail(&format!("/dev/{device} already mounted on {target}."));
    }
    let disk = view
        .disks
        .get(&volume)
        .ok_or_else(|| "no such disk".to_owned())?;
    if disk.broken {
        return fail(&format!("can't read superblock on /dev/{device}."));
    }
    let Some(fs) = disk.file_system() else {
        let what = match disk.signature() {
            Some(other) => format!("unknown filesystem type '{other}'."),
            None => format!(
                "wrong fs type, bad option, bad superblock on /dev/{device}, missing codepage or helper program, or other error."
            ),
        };
        return fail(&what);
    };
    if kind != "auto" && kind != fs.kind {
        return fail(&format!(
            "wrong fs type, bad option, bad superblock on /dev/{device}, missing codepage or helper program, or other error."
        ));
    }
    let mount = Mount {
        id: here.map(|m| m.id + 1).max().unwrap_or(40),
        kind: fs.kind,
        plugging: disk.plugging,
        volume,
        device,
        target: real,
        options,
    };
    view.machine.mounts.push(mount);
    Ok(())
}

fn umount(view: &mut View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "tO", &[]);
    let Some(target) = args.operands.first().copied() else {
        return Output::fail(1, "umount: bad usage");
    };
    let real = match view.real_path(target) {
        Ok(real) if view.entry(&real).is_ok() || view.is_mount_point(&real) => real,
        _ => {
            let message = "no mount point specified.";
            return Output::fail(MOUNT_FAILURE, format!("umount: {target}: {message}"));
        }
    };
    let device = file_name(&real).to_owned();
    let is_device = real.starts_with("/dev/");
    let found = view
        .machine
        .mounts
        .iter()
        .rposition(|m| m.target == real || (is_device && m.device == device));
    match found {
        Some(at) => {
            view.machine.mounts.remove(at);
            Output::default()
        }
        None => Output::fail(MOUNT_FAILURE, format!("umount: {target}: not mounted.")),
    }
}

fn mountpoint(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let Some(path) = args.operands.first() else {
        return Output::fail(1, "mountpoint: bad usage");
    };
    let quiet = args.has(&["q", "quiet"]);
    let (status, text) = match view.real_path(path) {
        Ok(real) if view.is_mount_point(&real) => (0, format!("{path} is a mountpoint\n")),
        Ok(real) if view.entry(&real).is_ok() => (32, format!("{path} is not a mountpoint\n")),
        _ => {
            let message = format!("mountpoint: {path}: No such file or directory");
            return match quiet {
                true => Output::silent(1),
                false => Output::fail(1, message),
            };
        }
    };
    Output {
        stdout: if quiet { Vec::new() } else { text.into_bytes() },
        stderr: Vec::new(),
        status,
    }
}
