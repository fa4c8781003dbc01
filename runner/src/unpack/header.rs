//! One tar header: 512 bytes to plain data. Pure, and strict: where programs disagree, refuse.

use super::error::Reason;

/// The unit of a tar archive, in bytes.
pub(crate) const UNIT: usize = 512;

/// A header as it stands in the archive, before extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
}

impl Header {
    /// Reads a header that is not all zeros.
    pub(crate) fn parse(raw: &[u8; UNIT]) -> Result<Self, Reason> {
        let sum = octal(&raw[148..156]).ok_or(Reason::Checksum)?;
        let counted: u64 = raw.iter().map(|&byte| u64::from(byte)).sum();
        let field: u64 = raw[148..156].iter().map(|&byte| u64::from(byte)).sum();
        if sum != counted - field + 8 * u64::from(b' ') {
            return Err(Reason::Checksum);
        }
        let mut name = text(&raw[..100]).to_vec();
        // Only POSIX archives have a prefix; GNU keeps times there.
        if &raw[257..263] == b"ustar\0" && raw[345] != 0 {
            let mut path = text(&raw[345..500]).to_vec();
            path.push(b'/');
            path.append(&mut name);
            name = path;
        }
        let size = number(&raw[124..136]).ok_or(Reason::Number("the size"))?;
        Ok(Self {
            name,
            link: text(&raw[157..257]).to_vec(),
            kind: raw[156],
            mode: number(&raw[100..108])
                .and_then(|mode| u32::try_from(mode).ok())
                .ok_or(Reason::Number("the mode"))?
                & 0o7777,
            uid: id(number(&raw[108..116])).ok_or(Reason::Number("the owner"))?,
            gid: id(number(&raw[116..124])).ok_or(Reason::Number("the group"))?,
            size: u64::try_from(size).map_err(|_| Reason::NegativeSize)?,
            mtime: number(&raw[136..148]).ok_or(Reason::Number("the time"))?,
        })
    }
}

/// A user or group: the highest number means "leave as it is" to the kernel, so it is none.
pub(crate) fn id(value: Option<i64>) -> Option<u32> {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|&id| id != u32::MAX)
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A number: octal text, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field).and_then(|value| i64::try_from(value).ok());
    }
    // Two's complement over the whole field, less the marker bit.
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, &byte) in field.iter().enumerate() {
        let byte = match (at, negative) {
            (0, false) => byte & 0x7f,
            _ => byte,
        };
        value = value << 8 | i128::from(byte);
    }
    i64::try_from(value).ok()
}

/// Octal digits between spaces and NULs; an empty field is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|&byte| byte != b' ')?;
    let digits = field[start..]
        .split(|&byte| byte == 0 || byte == b' ')
        .next()?;
    let rest = &field[start + digits.len()..];
    if rest.iter().any(|&byte| byte != 0 && byte != b' ') {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_numbers() {
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"   644 \0"), Some(0o644));
        assert_eq!(octal(b"77777777777\0"), Some(0o77777777777));
        assert_eq!(octal(b"\0\0\0\0"), Some(0));
        assert_eq!(octal(b"64x\0"), None);
        assert_eq!(octal(b"-1\0"), None);
        assert_eq!(octal(b"7\x007"), None);
    }

    #[test]
    fn base_256_numbers() {
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        let mut large = [0; 12];
        large[0] = 0x80;
        large[3] = 1;
        assert_eq!(number(&large), None, "above 63 bits");
    }

    #[test]
    fn the_highest_id_is_none() {
        assert_eq!(id(Some(0)), Some(0));
        assert_eq!(id(Some(i64::from(u32::MAX))), None);
        assert_eq!(id(Some(-1)), None);
    }
}
