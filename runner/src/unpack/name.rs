//! Names in an archive: what may be one, and what it means inside the tree. Pure.

use super::error::Reason;

/// The longest path that is taken, in bytes; what Linux allows in one call.
const PATH_MAX: usize = 4095;
/// The longest component of a path, in bytes.
const NAME_MAX: usize = 255;
/// The deepest path, by its text and in the tree, where links may lead deeper. Removing a tree holds a
/// directory open for each level.
pub(crate) const DEPTH_MAX: usize = 128;

/// A path below the root of the tree: components joined by `/`, without `.`, `..` or an end of `/`.
/// The root itself is the empty name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    /// Takes a name as it stands in an archive. A leading `/` means the root of the tree, as it will
    /// for the programs inside; `..` is refused, although it might stay inside.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, Reason> {
        if raw.is_empty() {
            return Err(Reason::EmptyName);
        }
        plain(raw)?;
        let mut path = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for component in raw.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(Reason::LeadsOut),
                _ if component.len() > NAME_MAX => return Err(Reason::NameTooLong),
                _ => {}
            }
            depth += 1;
            if depth > DEPTH_MAX {
                return Err(Reason::TooDeep);
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        Ok(Self(path))
    }

    /// Another name in the same directory; with an empty leaf, the directory itself.
    pub(crate) fn beside(&self, leaf: &[u8]) -> Self {
        let mut path = self.parent().to_vec();
        if !path.is_empty() && !leaf.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(leaf);
        Self(path)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path of the directory that holds it.
    pub(crate) fn parent(&self) -> &[u8] {
        split(&self.0).0
    }

    /// The last component; empty for the root.
    pub(crate) fn leaf(&self) -> &[u8] {
        split(&self.0).1
    }
}

/// For people: control characters never reach a terminal.
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

/// A path's directory and last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Refuses what no name and no link target of an image may have.
pub(crate) fn plain(raw: &[u8]) -> Result<(), Reason> {
    if raw.len() > PATH_MAX {
        return Err(Reason::PathTooLong);
    }
    if raw.iter().any(|byte| byte.is_ascii_control()) {
        return Err(Reason::ControlCharacter);
    }
    Ok(())
}

/// Where a symbolic link in `directory` points to, by its text alone: `..` stops at the root.
pub(crate) fn follow(directory: &[u8], target: &[u8]) -> Vec<u8> {
    let from: &[u8] = if target.starts_with(b"/") {
        b""
    } else {
        directory
    };
    let mut path: Vec<&[u8]> = Vec::new();
    for component in from
        .split(|&b| b == b'/')
        .chain(target.split(|&b| b == b'/'))
    {
        match component {
            b"" | b"." => {}
            b".." => {
                path.pop();
            }
            _ => path.push(component),
        }
    }
    path.join(&b'/')
}

/// Bytes from outside as text that is safe to print, and short.
pub(crate) fn printable(raw: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(raw);
    let mut shown = String::new();
    for (at, char) in text.chars().enumerate() {
        if at == LONGEST {
            shown.push('…');
            break;
        }
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &[u8], expected: Result<&[u8], Reason>) {
        let name = Name::parse(raw);
        assert_eq!(
            name.as_ref().map(Name::as_bytes),
            expected.as_ref().copied()
        );
    }

    #[test]
    fn names_become_paths_below_the_root() {
        check(b"usr/bin/env", Ok(b"usr/bin/env"));
        check(b"./usr//bin/./env/", Ok(b"usr/bin/env"));
        check(b"/etc/passwd", Ok(b"etc/passwd"));
        check(b"./", Ok(b""));
        check(
            "Főtanúsítvány.crt".as_bytes(),
            Ok("Főtanúsítvány.crt".as_bytes()),
        );
        check(b"..a/...", Ok(b"..a/..."));
    }

    #[test]
    fn names_that_lead_out_or_confuse_are_refused() {
        check(b"", Err(Reason::EmptyName));
        check(b"../x", Err(Reason::LeadsOut));
        check(b"a/../b", Err(Reason::LeadsOut));
        check(b"a/..", Err(Reason::LeadsOut));
        check(b"a\nb", Err(Reason::ControlCharacter));
        check(b"a\0b", Err(Reason::ControlCharacter));
        check(b"a\x7f", Err(Reason::ControlCharacter));
        check(&[b'a'; 256], Err(Reason::NameTooLong));
        check(&b"a/".repeat(2048), Err(Reason::PathTooLong));
        check(&b"a/".repeat(129), Err(Reason::TooDeep));
        check(&b"a/".repeat(128), Ok(&b"a/".repeat(128)[..255]));
    }

    #[test]
    fn a_link_is_followed_inside_the_tree_only() {
        assert_eq!(follow(b"", b"usr/lib"), b"usr/lib");
        assert_eq!(follow(b"a/b", b"../c"), b"a/c");
        assert_eq!(follow(b"a/b", b"/c/./d"), b"c/d");
        assert_eq!(follow(b"a", b"../../../etc"), b"etc");
    }

    #[test]
    fn what_is_printed_has_no_control_characters() {
        assert_eq!(printable(b"a\x1b[31m\n"), "a\\u{1b}[31m\\n");
        assert!(printable(&[b'a'; 5000]).len() < 210);
    }
}
