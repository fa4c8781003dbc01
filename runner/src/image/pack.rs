//! One entry as tar headers: ustar, with a PAX header where ustar has no room. The same entry always
//! gives the same bytes.

/// An entry to write.
#[derive(Debug, Clone)]
pub(crate) struct Packed<'a> {
    /// The path below the root; directories without a `/` at the end.
    pub(crate) path: &'a [u8],
    pub(crate) kind: PackedKind<'a>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum PackedKind<'a> {
    File(u64),
    Directory,
    Symlink(&'a [u8]),
    HardLink(&'a [u8]),
}

const UNIT: usize = 512;
/// The largest number that 11 octal digits hold: sizes and times.
const OCTAL_11: u64 = 0o77_777_777_777;
/// The largest number that 7 octal digits hold: owners.
const OCTAL_7: u64 = 0o7_777_777;

/// The headers of an entry; its contents follow, then zeros up to a multiple of 512 bytes.
pub(crate) fn headers(entry: &Packed<'_>) -> Vec<u8> {
    let mut name = entry.path.to_vec();
    let (kind, size, link): (u8, u64, &[u8]) = match entry.kind {
        PackedKind::File(size) => (b'0', size, b""),
        PackedKind::Directory => {
            name.push(b'/');
            (b'5', 0, b"")
        }
        PackedKind::Symlink(target) => (b'2', 0, target),
        PackedKind::HardLink(target) => (b'1', 0, target),
    };
    let mut records = Vec::new();
    if name.len() > 100 {
        record(&mut records, "path", &name);
    }
    if link.len() > 100 {
        record(&mut records, "linkpath", link);
    }
    let mtime = u64::try_from(entry.mtime)
        .ok()
        .filter(|&mtime| mtime <= OCTAL_11);
    if mtime.is_none() {
        record(&mut records, "mtime", entry.mtime.to_string().as_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if u64::from(id) > OCTAL_7 {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        let length = records.len() as u64;
        out.extend(unit(b"pax", b'x', length, b"", 0o644, (0, 0), 0));
        out.extend(&records);
        out.resize(out.len().next_multiple_of(UNIT), 0);
    }
    let owner = (fit(entry.uid), fit(entry.gid));
    let mode = entry.mode;
    out.extend(unit(
        &name,
        kind,
        size,
        link,
        mode,
        owner,
        mtime.unwrap_or(0),
    ));
    out
}

/// What a field of seven digits says when the PAX header has the number.
fn fit(id: u32) -> u64 {
    Some(u64::from(id)).filter(|&id| id <= OCTAL_7).unwrap_or(0)
}

fn unit(
    name: &[u8],
    kind: u8,
    size: u64,
    link: &[u8],
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
) -> [u8; UNIT] {
    let mut unit = [0; UNIT];
    let mut put = |at: usize, bytes: &[u8]| unit[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, format!("{:07o}\0", owner.0).as_bytes());
    put(116, format!("{:07o}\0", owner.1).as_bytes());
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{mtime:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u64 = unit.iter().map(|&byte| u64::from(byte)).sum();
    unit[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    unit
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend(format!("{length} {key}=").as_bytes());
    out.extend(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [1, 2, 88, 89, 90, 91, 92, 986, 987, 988, 989, 990, 991] {
            let mut out = Vec::new();
            record(&mut out, "path", &vec![b'a'; length]);
            let said = String::from_utf8_lossy(&out);
            let said: usize = said
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("a number");
            assert_eq!(said, out.len());
        }
    }
}
