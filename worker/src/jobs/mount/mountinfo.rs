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

/// Space, tab, newline and backslash are written in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
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
}
