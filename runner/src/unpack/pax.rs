//! Extension headers: long names and PAX records. Pure.
//!
//! Most escapes of tar extractors by "desynchronisation" come from here: two programs that read the
//! same extensions differently see different archives. So what is ambiguous is refused: two sources for
//! one value, a size that the header does not confirm, records for all entries that change entries.

use super::error::Reason;
use super::header::{Header, id};

/// What the extension headers before an entry say.
#[derive(Debug, Default)]
pub(crate) struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    sparse: bool,
    xattrs: u64,
    seen_pax: bool,
    seen_gnu: bool,
}

/// Why a global header is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GlobalError {
    Damaged,
    ChangesEntries,
}

impl Extended {
    pub(crate) fn is_empty(&self) -> bool {
        !self.seen_pax && !self.seen_gnu
    }

    /// How many extended attributes the entry has.
    pub(crate) fn xattrs(&self) -> u64 {
        self.xattrs
    }

    /// A PAX header: at most one, and not together with GNU's.
    pub(crate) fn pax(&mut self, contents: &[u8]) -> Result<(), Reason> {
        if self.seen_pax || self.seen_gnu {
            return Err(Reason::AmbiguousExtension);
        }
        self.seen_pax = true;
        for record in Records(contents) {
            let (key, value) = record.ok_or(Reason::Extension)?;
            match key {
                b"path" => set(&mut self.name, value.to_vec())?,
                b"linkpath" => set(&mut self.link, value.to_vec())?,
                b"size" => set(
                    &mut self.size,
                    decimal(value).ok_or(Reason::Number("the size"))?,
                )?,
                b"uid" => set(
                    &mut self.uid,
                    owner(value).ok_or(Reason::Number("the owner"))?,
                )?,
                b"gid" => set(
                    &mut self.gid,
                    owner(value).ok_or(Reason::Number("the group"))?,
                )?,
                b"mtime" => {
                    set(
                        &mut self.mtime,
                        seconds(value).ok_or(Reason::Number("the time"))?,
                    )?;
                }
                _ if key.starts_with(b"GNU.sparse") || key.starts_with(b"SUN.holesdata") => {
                    self.sparse = true;
                }
                _ if key.starts_with(b"SCHILY.xattr.")
                    || key.starts_with(b"LIBARCHIVE.xattr.")
                    || key.starts_with(b"SCHILY.acl.")
                    || key.starts_with(b"RHT.security.") =>
                {
                    self.xattrs += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// GNU's long name: an entry whose contents are the next entry's name.
    pub(crate) fn long_name(&mut self, contents: Vec<u8>) -> Result<(), Reason> {
        self.gnu()?;
        set(&mut self.name, until_nul(contents)?)
    }

    /// GNU's long link target.
    pub(crate) fn long_link(&mut self, contents: Vec<u8>) -> Result<(), Reason> {
        self.gnu()?;
        set(&mut self.link, until_nul(contents)?)
    }

    fn gnu(&mut self) -> Result<(), Reason> {
        if self.seen_pax {
            return Err(Reason::AmbiguousExtension);
        }
        self.seen_gnu = true;
        Ok(())
    }

    /// Changes the header as the extensions say. The error has the entry's name.
    pub(crate) fn apply(self, header: &mut Header) -> Result<(), (Vec<u8>, Reason)> {
        if let Some(name) = self.name {
            header.name = name;
        }
        if let Some(link) = self.link {
            header.link = link;
        }
        // The header's own field has room for 8 GiB, and no file of an image is larger.
        let reason = if self.sparse {
            Some(Reason::Sparse)
        } else if self.size.is_some_and(|size| size != header.size) {
            Some(Reason::Desync)
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err((header.name.clone(), reason));
        }
        header.uid = self.uid.unwrap_or(header.uid);
        header.gid = self.gid.unwrap_or(header.gid);
        header.mtime = self.mtime.unwrap_or(header.mtime);
        Ok(())
    }

    /// A header for all entries may say nothing about any: `git archive` writes a comment.
    pub(crate) fn check_global(contents: &[u8]) -> Result<(), GlobalError> {
        for record in Records(contents) {
            match record.ok_or(GlobalError::Damaged)?.0 {
                b"comment" | b"atime" | b"ctime" | b"mtime" | b"uname" | b"gname" | b"charset" => {}
                _ => return Err(GlobalError::ChangesEntries),
            }
        }
        Ok(())
    }
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<(), Reason> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Reason::AmbiguousExtension),
    }
}

/// A NUL may end a name of GNU's, but not stand in it.
fn until_nul(mut name: Vec<u8>) -> Result<Vec<u8>, Reason> {
    if name.last() == Some(&0) {
        name.pop();
    }
    if name.contains(&0) {
        return Err(Reason::ControlCharacter);
    }
    Ok(name)
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn owner(value: &[u8]) -> Option<u32> {
    id(i64::try_from(decimal(value)?).ok())
}

/// Whole seconds, rounded down; the fraction is dropped, as Python's .pyc files do.
fn seconds(value: &[u8]) -> Option<i64> {
    let (sign, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (-1, digits),
        None => (1, value),
    };
    let (whole, fraction) = match digits.iter().position(|&byte| byte == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = sign * i64::try_from(decimal(whole)?).ok()?;
    let part = sign < 0 && fraction.iter().any(|&digit| digit != b'0');
    seconds.checked_sub(i64::from(part))
}

/// Records of the form `LENGTH KEY=VALUE\n`, the length counting all of it. `None` is a damaged one.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.0 = b"";
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(20).position(|&byte| byte == b' ')?;
        let length = usize::try_from(decimal(&self.0[..space])?).ok()?;
        let (record, rest) = self.0.split_at_checked(length)?;
        let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = body.iter().position(|&byte| byte == b'=')?;
        if equals == 0 {
            return None;
        }
        self.0 = rest;
        Some((&body[..equals], &body[equals + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(contents: &[u8]) -> Result<Extended, Reason> {
        let mut extended = Extended::default();
        extended.pax(contents).map(|()| extended)
    }

    #[test]
    fn records_are_read() {
        let extended = read(b"9 path=x\n13 size=12345\n20 mtime=1700000.999\n11 uid=100\n");
        let _ = extended.expect_err("the second length is wrong");
        let extended = read(b"9 path=x\n14 size=12345\n22 mtime=1700000.9999\n11 uid=100\n");
        let extended = extended.expect("sound records");
        assert_eq!(extended.name.as_deref(), Some(&b"x"[..]));
        assert_eq!(extended.size, Some(12345));
        assert_eq!(extended.mtime, Some(1_700_000));
        assert_eq!(extended.uid, Some(100));
    }

    #[test]
    fn damaged_records_are_refused() {
        for contents in [
            &b"9 path=x"[..],
            b"x",
            b"99 path=x\n",
            b"0 path=x\n",
            b"2 \n",
            b"6 abc\n",
            b"4 =\n\n",
            b"-9 path=x\n",
            b"18446744073709551616 path=x\n",
        ] {
            assert_eq!(
                read(contents).err(),
                Some(Reason::Extension),
                "{contents:?}"
            );
        }
    }

    #[test]
    fn two_values_for_one_thing_are_refused() {
        assert_eq!(
            read(b"9 path=x\n9 path=y\n").err(),
            Some(Reason::AmbiguousExtension)
        );
        let mut both = read(b"9 path=x\n").expect("sound");
        assert_eq!(
            both.long_name(b"y".to_vec()),
            Err(Reason::AmbiguousExtension)
        );
        let mut both = Extended::default();
        both.long_name(b"y".to_vec()).expect("sound");
        assert_eq!(both.pax(b"9 path=x\n"), Err(Reason::AmbiguousExtension));
    }

    #[test]
    fn seconds_are_rounded_down() {
        assert_eq!(seconds(b"5.9"), Some(5));
        assert_eq!(seconds(b"-1.5"), Some(-2));
        assert_eq!(seconds(b"-1.0"), Some(-1));
        assert_eq!(seconds(b"1e5"), None);
        assert_eq!(seconds(b""), None);
    }

    #[test]
    fn a_global_header_may_only_comment() {
        assert_eq!(Extended::check_global(b"12 comment=\n"), Ok(()));
        assert_eq!(
            Extended::check_global(b"9 path=x\n"),
            Err(GlobalError::ChangesEntries)
        );
        assert_eq!(Extended::check_global(b"x"), Err(GlobalError::Damaged));
    }
}
