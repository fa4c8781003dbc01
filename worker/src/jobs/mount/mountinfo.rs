//! Reading /proc/self/mountinfo (proc_pid_mountinfo(5)).

/// The source of what is mounted at `path`; of several on top of each other, the last one.
pub(super) fn source_of(table: &str, path: &str) -> Option<String> {
    let mounted_there = |line: &&str| {
        line.split(' ')
            .nth(4)
            .is_some_and(|at| unescape(at) == path)
    };
    let line = table.lines().rev().find(mounted_there)?;
    // Optional fields end with a lone `-`; then come type, source, options.
    let (_, tail) = line.split_once(" - ")?;
    Some(unescape(tail.split(' ').nth(1)?))
}

/// Space, tab, newline, backslash and `#` are written as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| {
                let digits = std::str::from_utf8(digits).ok()?;
                u8::from_str_radix(digits, 8).ok()
            });
        bytes.push(octal.unwrap_or(*first));
        rest = &after[if octal.is_some() { 3 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_mount_at_a_path_counts() {
        let table = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                     30 22 254:16 / /mnt/disks/data rw - ext4 /dev/vdb rw\n\
                     31 22 254:32 / /mnt/disks/data rw shared:9 master:1 - xfs /dev/vdc rw\n\
                     32 22 0:5 / /mnt/with\\040space rw - tmpfs tmpfs rw\n";
        assert_eq!(
            source_of(table, "/mnt/disks/data").as_deref(),
            Some("/dev/vdc")
        );
        assert_eq!(source_of(table, "/").as_deref(), Some("/dev/vda1"));
        assert_eq!(
            source_of(table, "/mnt/with space").as_deref(),
            Some("tmpfs")
        );
        assert_eq!(source_of(table, "/mnt/disks"), None);
    }

    proptest! {
        #![proptest_config(crate::fuzz::cases(128))]

        #[test]
        fn any_table_is_read(table in "[ a-z/0-9\\\\#\n-]{0,200}", path in "/[a-z/]{0,10}") {
            let _ = source_of(&table, &path);
        }

        #[test]
        fn whatever_a_path_holds_the_last_mount_there_is_found(
            mounts in prop::collection::vec(("/\\PC{0,6}[ \t\n\\\\#-]{0,3}", "\\PC{1,6}[ \\\\#-]{0,2}", 0..3_usize), 1..8),
        ) {
            // As the kernel writes it: seq_file's mangle().
            let mangle = |text: &str| {
                let mut out = String::new();
                for c in text.chars() {
                    match " \t\n\\#".contains(c) {
                        true => out += &format!("\\{:03o}", c as u32),
                        false => out.push(c),
                    }
                }
                out
            };
            let table: String = mounts
                .iter()
                .map(|(at, source, tags)| {
                    let tags = " shared:1".repeat(*tags);
                    format!("30 22 254:16 / {} rw{tags} - ext4 {} rw,x=y\n", mangle(at), mangle(source))
                })
                .collect();
            for (at, _, _) in &mounts {
                let last = mounts.iter().rev().find(|(other, _, _)| other == at);
                prop_assert_eq!(source_of(&table, at), last.map(|(_, source, _)| source.clone()));
            }
        }
    }
}
