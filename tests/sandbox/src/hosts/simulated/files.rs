//! Commands about files. Messages and exit statuses are those of Debian's coreutils.

use sha2::{Digest, Sha256};

use super::machine::{View, check_parent};
use super::shell::{Args, Output};
use super::tree::{Entry, FsError, Node, file_name, parent};

pub(super) fn run(view: &mut View<'_>, name: &str, args: &[&str], stdin: &[u8]) -> Option<Output> {
    Some(match name {
        "cat" => cat(view, args, stdin),
        "head" => head(view, args),
        "tail" => tail(view, args),
        "tee" => tee(view, args, stdin),
        "mv" => mv(view, args),
        "rm" => rm(view, args),
        "rmdir" => rmdir(view, args),
        "mkdir" => mkdir(view, args),
        "ln" => ln(view, args),
        "touch" => touch(view, args),
        "ls" => ls(view, args),
        "test" => test(view, args),
        "[" => test(view, args.strip_suffix(&["]"]).unwrap_or(args)),
        "readlink" => readlink(view, args),
        "stat" => stat(view, args),
        "chown" => chown(view, args),
        "chmod" => chmod(view, args),
        "chattr" => chattr(view, args),
        "lsattr" => lsattr(view, args),
        "sha256sum" => sha256sum(view, args, stdin),
        _ => return None,
    })
}

/// Does one thing per operand and collects what went wrong, as coreutils do.
fn each<'a>(
    operands: impl IntoIterator<Item = &'a str>,
    mut act: impl FnMut(&'a str) -> Result<Vec<u8>, String>,
) -> Output {
    let mut output = Output::default();
    for operand in operands {
        match act(operand) {
            Ok(bytes) => output.stdout.extend(bytes),
            Err(message) => {
                output.stderr.extend(format!("{message}\n").into_bytes());
                output.status = 1;
            }
        }
    }
    output
}

fn cat(view: &View<'_>, args: &[&str], stdin: &[u8]) -> Output {
    let args = Args::parse(args, "", &[]);
    if args.operands.is_empty() {
        return Output::ok(stdin);
    }
    each(args.operands, |path| match path {
        "-" => Ok(stdin.to_vec()),
        path => view.read(path).map_err(|e| format!("cat: {path}: {e}")),
    })
}

/// `head -c N FILE`: the first N bytes.
fn head(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "c", &[]);
    let Some(most) = args.value(&["c"]).and_then(|n| n.parse::<usize>().ok()) else {
        return Output::fail(1, "head: the sandbox knows -c N only");
    };
    each(args.operands, |path| {
        let mut bytes = view
            .read(path)
            .map_err(|e| format!("head: cannot open '{path}' for reading: {e}"))?;
        bytes.truncate(most);
        Ok(bytes)
    })
}

/// `tail -c +N FILE`: from the Nth byte on.
fn tail(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "c", &[]);
    let from = args.value(&["c"]).and_then(|n| n.strip_prefix('+'));
    let Some(from) = from.and_then(|n| n.parse::<usize>().ok()) else {
        return Output::fail(1, "tail: the sandbox knows -c +N only");
    };
    each(args.operands, |path| {
        let bytes = view
            .read(path)
            .map_err(|e| format!("tail: cannot open '{path}' for reading: {e}"))?;
        let from = from.saturating_sub(1).min(bytes.len());
        Ok(bytes[from..].to_vec())
    })
}

fn tee(view: &mut View<'_>, args: &[&str], stdin: &[u8]) -> Output {
    let args = Args::parse(args, "", &[]);
    let append = args.has(&["a", "append"]);
    let mut output = each(args.operands, |path| {
        let mut bytes = match append {
            true => view.read(path).unwrap_or_default(),
            false => Vec::new(),
        };
        bytes.extend_from_slice(stdin);
        let written = view.write(path, bytes);
        written.map_err(|e| format!("tee: {path}: {e}"))?;
        Ok(Vec::new())
    });
    output.stdout = stdin.to_vec();
    output
}

fn mv(view: &mut View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let [from, to] = args.operands[..] else {
        return Output::fail(1, "mv: missing file operand");
    };
    let moved = move_entry(view, from, to, args.has(&["T", "no-target-directory"]));
    match moved {
        Ok(()) => Output::default(),
        Err(FsError::NotFound) if view.link_entry(from).is_err() => Output::fail(
            1,
            format!("mv: cannot stat '{from}': {}", FsError::NotFound),
        ),
        Err(e) => Output::fail(1, format!("mv: cannot move '{from}' to '{to}': {e}")),
    }
}

fn move_entry(view: &mut View<'_>, from: &str, to: &str, whole: bool) -> Result<(), FsError> {
    let from = view.link_path(from)?;
    let source = view.link_entry(&from)?;
    let mut to = view.link_path(to)?;
    let target = view.entry(&to).ok();
    if target.is_some_and(|e| e.node == Node::Directory) {
        if whole && source.node != Node::Directory {
            return Err(FsError::IsDirectory);
        }
        if !whole {
            to = format!("{}/{}", to.trim_end_matches('/'), file_name(&from));
        }
    }
    if view.is_mount_point(&from) || view.is_mount_point(&to) {
        return Err(FsError::Busy);
    }
    check_parent(view, &to)?;
    let (tree, inner) = view.writable(&to)?;
    if tree.get(&inner).is_some() && source.node == Node::Directory {
        return Err(FsError::NotEmpty);
    }
    let (tree, inner) = view.writable(&from)?;
    let taken = tree.take(&inner)?;
    let (tree, inner) = view.writable(&to)?;
    for (below, entry) in taken {
        tree.put(&format!("{inner}{below}"), entry)?;
    }
    Ok(())
}

fn rm(view: &mut View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let force = args.has(&["f", "force"]);
    let recursive = args.has(&["r", "R", "recursive"]);
    each(args.operands, |path| match remove(view, path, recursive) {
        Err(FsError::NotFound) if force => Ok(Vec::new()),
        Err(e) => Err(format!("rm: cannot remove '{path}': {e}")),
        Ok(()) => Ok(Vec::new()),
    })
}

fn remove(view: &mut View<'_>, path: &str, recursive: bool) -> Result<(), FsError> {
    let path = view.link_path(path)?;
    if view.link_entry(&path)?.node == Node::Directory && !recursive {
        return Err(FsError::IsDirectory);
    }
    let busy = |target: &str| target == path || target.starts_with(&format!("{path}/"));
    if path == "/" || view.machine.mounts.iter().any(|m| busy(&m.target)) {
        return Err(FsError::Busy);
    }
    let (tree, inner) = view.writable(&path)?;
    tree.remove(&inner)
}

fn rmdir(view: &mut View<'_>, args: &[&str]) -> Output {
    each(Args::parse(args, "", &[]).operands, |path| {
        let removed = view.link_path(path).and_then(|path| {
            if view.link_entry(&path)?.node != Node::Directory {
                return Err(FsError::NotDirectory);
            }
            if view.is_mount_point(&path) {
                return Err(FsError::Busy);
            }
            let (tree, inner) = view.writable(&path)?;
            match tree.is_empty_directory(&inner) {
                true => tree.remove(&inner),
                false => Err(FsError::NotEmpty),
            }
        });
        removed.map_err(|e| format!("rmdir: failed to remove '{path}': {e}"))?;
        Ok(Vec::new())
    })
}

fn mkdir(view: &mut View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "m", &["mode"]);
    let parents = args.has(&["p", "parents"]);
    let mode = args.value(&["m", "mode"]).and_then(octal);
    each(args.operands, |path| {
        let made = make_directory(view, path, parents, mode);
        made.map_err(|e| format!("mkdir: cannot create directory ‘{path}’: {e}"))?;
        Ok(Vec::new())
    })
}

fn make_directory(
    view: &mut View<'_>,
    path: &str,
    parents: bool,
    mode: Option<u32>,
) -> Result<(), FsError> {
    if let Ok(known) = view.entry(path) {
        return match known.node {
            Node::Directory if parents => Ok(()),
            _ => Err(FsError::Exists),
        };
    }
    let above = parent(path.trim_end_matches('/')).to_owned();
    if parents && view.entry(&above).is_err() {
        make_directory(view, &above, true, None)?;
    }
    let path = view.real_path(path)?;
    check_parent(view, &path)?;
    let mode = mode.unwrap_or(0o777 & !view.umask);
    let (tree, inner) = view.writable(&path)?;
    let mut entry = Entry::new(Node::Directory);
    entry.mode = mode;
    tree.put(&inner, entry)
}

fn ln(view: &mut View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let ([target, link], true) = (&args.operands[..], args.has(&["s", "symbolic"])) else {
        return Output::fail(1, "ln: the sandbox makes symbolic links only");
    };
    let made = view.link_path(link).and_then(|path| {
        if view.link_entry(&path).is_ok() && !args.has(&["f", "force"]) {
            return Err(FsError::Exists);
        }
        let (tree, inner) = view.writable(&path)?;
        tree.put(&inner, Entry::new(Node::Link((*target).to_owned())))
    });
    match made {
        Ok(()) => Output::default(),
        Err(e) => Output::fail(
            1,
            format!("ln: failed to create symbolic link '{link}': {e}"),
        ),
    }
}

fn touch(view: &mut View<'_>, args: &[&str]) -> Output {
    each(Args::parse(args, "", &[]).operands, |path| {
        if view.entry(path).is_err() {
            let made = view.write(path, Vec::new());
            made.map_err(|e| format!("touch: cannot touch '{path}': {e}"))?;
        }
        Ok(Vec::new())
    })
}

fn ls(view: &View<'_>, args: &[&str]) -> Output {
    let mut args = Args::parse(args, "", &[]);
    if args.operands.is_empty() {
        args.operands.push(".");
    }
    let hidden = args.has(&["a", "A", "all", "almost-all"]);
    let itself = args.has(&["d", "directory"]);
    let operands = args.operands.clone();
    let mut output = each(operands, |path| {
        let entry = view.entry(path);
        let entry = entry.map_err(|e| format!("ls: cannot access '{path}': {e}"))?;
        if entry.node != Node::Directory || itself {
            return Ok(format!("{path}\n").into_bytes());
        }
        let names = view.list(path);
        let names = names.map_err(|e| format!("ls: cannot open directory '{path}': {e}"))?;
        let shown = names.iter().filter(|n| hidden || !n.starts_with('.'));
        Ok(shown.flat_map(|n| format!("{n}\n").into_bytes()).collect())
    });
    if output.status != 0 {
        output.status = 2;
    }
    output
}

fn test(view: &View<'_>, args: &[&str]) -> Output {
    let holds = match args {
        ["!", rest @ ..] => return Output::silent(u32::from(test(view, rest).status == 0)),
        [] => false,
        [text] => !text.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-L" | "-h", path] => {
            let entry = view.link_entry(path);
            entry.is_ok_and(|e| matches!(e.node, Node::Link(_)))
        }
        [flag, path] => {
            let Ok(entry) = view.entry(path) else {
                return Output::silent(1);
            };
            match *flag {
                "-e" | "-r" | "-w" => true,
                "-f" => matches!(entry.node, Node::File(_)),
                "-d" => entry.node == Node::Directory,
                "-b" => matches!(entry.node, Node::Block(_)),
                "-c" => entry.node == Node::Character,
                "-s" => matches!(&entry.node, Node::File(bytes) if !bytes.is_empty()),
                "-x" => entry.mode & 0o111 != 0,
                _ => return Output::fail(2, format!("test: {flag}: unary operator expected")),
            }
        }
        [left, "=" | "==", right] => left == right,
        [left, "!=", right] => left != right,
        _ => return Output::fail(2, "test: too many arguments"),
    };
    Output::silent(u32::from(!holds))
}

fn readlink(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let Some(path) = args.operands.first() else {
        return Output::fail(1, "readlink: missing operand");
    };
    if args.has(&["e", "canonicalize-existing"]) && view.entry(path).is_err() {
        return Output::silent(1);
    }
    let followed = if args.has(&["f", "e", "m", "canonicalize", "canonicalize-existing"]) {
        view.real_path(path)
    } else {
        view.link_entry(path).and_then(|entry| match entry.node {
            Node::Link(target) => Ok(target),
            _ => Err(FsError::Invalid),
        })
    };
    match followed {
        Ok(path) => Output::ok(format!("{path}\n")),
        Err(_) => Output::silent(1),
    }
}

fn stat(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "c", &["format", "printf"]);
    let Some(format) = args.value(&["c", "format", "printf"]) else {
        return Output::fail(1, "stat: the sandbox knows stat -c FORMAT only");
    };
    let follow = args.has(&["L", "dereference"]);
    let end = if args.has(&["printf"]) { "" } else { "\n" };
    each(args.operands, |path| {
        let entry = match follow {
            true => view.entry(path),
            false => view.link_entry(path),
        };
        let entry = entry.map_err(|e| format!("stat: cannot statx '{path}': {e}"))?;
        Ok(format!("{}{end}", filled(view, format, path, &entry)).into_bytes())
    })
}

fn filled(view: &View<'_>, format: &str, path: &str, entry: &Entry) -> String {
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('u') => text.push_str(&entry.uid.to_string()),
            Some('g') => text.push_str(&entry.gid.to_string()),
            Some('U') => text.push_str(&name_of(entry.uid)),
            Some('G') => text.push_str(&name_of(entry.gid)),
            Some('a') => text.push_str(&format!("{:o}", entry.mode)),
            Some('n') => text.push_str(path),
            Some('F') => text.push_str(match &entry.node {
                Node::File(bytes) if bytes.is_empty() => "regular empty file",
                Node::File(_) => "regular file",
                Node::Directory => "directory",
                Node::Link(_) => "symbolic link",
                Node::Block(_) => "block special file",
                Node::Character => "character special file",
            }),
            Some('s') => text.push_str(&match &entry.node {
                Node::File(bytes) => bytes.len().to_string(),
                Node::Link(target) => target.len().to_string(),
                Node::Directory => "4096".to_owned(),
                Node::Block(_) | Node::Character => "0".to_owned(),
            }),
            Some('m') => {
                let real = view.real_path(path).unwrap_or_default();
                let mount = view.mount_of(&real).map_or("/", |m| m.target.as_str());
                text.push_str(mount);
            }
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

fn name_of(id: u32) -> String {
    match id {
        0 => "root".to_owned(),
        6 => "disk".to_owned(),
        _ => "UNKNOWN".to_owned(),
    }
}

fn chown(view: &mut View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let Some((owner, paths)) = args.operands.split_first() else {
        return Output::fail(1, "chown: missing operand");
    };
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) => (user, group),
        None => (*owner, ""),
    };
    let (Some(user), Some(group)) = (number(user), number(group)) else {
        return Output::fail(1, format!("chown: invalid user: '{owner}'"));
    };
    let follow = !args.has(&["h", "no-dereference"]);
    let recursive = args.has(&["R", "recursive"]);
    change_each(view, "chown", paths, follow, recursive, |entry| {
        entry.uid = user.unwrap_or(entry.uid);
        entry.gid = group.unwrap_or(entry.gid);
    })
}

fn chmod(view: &mut View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let Some((mode, paths)) = args.operands.split_first() else {
        return Output::fail(1, "chmod: missing operand");
    };
    let Some(mode) = octal(mode) else {
        return Output::fail(1, format!("chmod: invalid mode: '{mode}'"));
    };
    let recursive = args.has(&["R", "recursive"]);
    change_each(view, "chmod", paths, true, recursive, |entry| {
        entry.mode = mode
    })
}

fn change_each(
    view: &mut View<'_>,
    program: &str,
    paths: &[&str],
    follow: bool,
    recursive: bool,
    change: impl Fn(&mut Entry),
) -> Output {
    each(paths.iter().copied(), |path| {
        let mut todo = vec![path.to_owned()];
        while let Some(next) = todo.pop() {
            let changed = view.change(&next, follow, &change);
            changed.map_err(|e| format!("{program}: cannot access '{next}': {e}"))?;
            if recursive && let Ok(names) = view.list(&next) {
                todo.extend(names.iter().map(|name| format!("{next}/{name}")));
            }
        }
        Ok(Vec::new())
    })
}

/// A numeric id, `root`, or nothing (outer `None`: an unknown name).
fn number(id: &str) -> Option<Option<u32>> {
    match id {
        "" => Some(None),
        "root" => Some(Some(0)),
        id => id.parse().ok().map(Some),
    }
}

fn octal(mode: &str) -> Option<u32> {
    u32::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o7777)
}

fn chattr(view: &mut View<'_>, args: &[&str]) -> Output {
    let args: Vec<&str> = args.iter().copied().filter(|a| *a != "--").collect();
    let is_mode = |a: &&&str| a.starts_with(['+', '-', '=']) && a.contains('i');
    let mode = args.iter().find(is_mode);
    let on = mode.map(|mode| mode.starts_with(['+', '=']));
    let paths = args.iter().filter(|a| !a.starts_with(['+', '-', '=']));
    let mut output = each(paths.copied(), |path| {
        let changed = view.change(path, true, |e| e.immutable = on.unwrap_or(e.immutable));
        changed.map_err(|e| format!("chattr: {e} while trying to stat {path}"))?;
        Ok(Vec::new())
    });
    output.status = output.status.min(1);
    output
}

fn lsattr(view: &View<'_>, args: &[&str]) -> Output {
    each(Args::parse(args, "", &[]).operands, |path| {
        let entry = view.entry(path);
        let entry = entry.map_err(|e| format!("lsattr: {e} while trying to stat {path}"))?;
        let flag = if entry.immutable { 'i' } else { '-' };
        Ok(format!("----{flag}---------e------- {path}\n").into_bytes())
    })
}

fn sha256sum(view: &View<'_>, args: &[&str], stdin: &[u8]) -> Output {
    let mut args = Args::parse(args, "", &[]);
    if args.operands.is_empty() {
        args.operands.push("-");
    }
    each(args.operands, |path| {
        let bytes = match path {
            "-" => Ok(stdin.to_vec()),
            path => view.read(path),
        };
        let bytes = bytes.map_err(|e| format!("sha256sum: {path}: {e}"))?;
        Ok(format!("{}  {path}\n", hex::encode(Sha256::digest(bytes))).into_bytes())
    })
}
