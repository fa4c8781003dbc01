//! Editing /etc/fstab as text, without losing a line that is not ours.

/// What marks our lines.
const MARK: &str = "# rekindle";

/// The table with exactly one line for this file system at this mount point. A foreign line for
/// the same mount point is an error: two entries would fight for it.
pub(super) fn with_entry(
    table: &str,
    uuid: &str,
    mount: &str,
    kind: &str,
) -> Result<String, String> {
    let line = entry(uuid, mount, kind);
    let source = format!("UUID={uuid}");
    let mut lines: Vec<&str> = Vec::new();
    for old in table.lines() {
        match fields(old) {
            // It is there already: it stays in its place, once.
            _ if old == line => lines.extend((!lines.contains(&old)).then_some(old)),
            // An older line of ours for this disk or this place: it is replaced.
            Some((from, to)) if (from == source || to == mount) && old.ends_with(MARK) => {}
            Some((from, to)) if to.trim_end_matches('/') == mount => {
                return Err(format!(
                    "/etc/fstab has a line for `{mount}` that is not ours ({from}): remove it if our volume is to be mounted there"
                ));
            }
            _ => lines.push(old),
        }
    }
    if !lines.contains(&line.as_str()) {
        lines.push(&line);
    }
    Ok(lines.join("\n") + "\n")
}

/// Whether the table mounts this file system there by UUID, with `nofail`.
pub(super) fn has_entry(table: &str, uuid: &str, mount: &str) -> bool {
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words.as_slice(), [from, to, _, options, ..]
            if *from == format!("UUID={uuid}") && *to == mount && options.split(',').any(|o| o == "nofail"))
    })
}

/// `nofail`: a lost disk must not keep the machine from booting. The device timeout keeps that boot
/// short. What needs the data must check the mount, not the folder.
fn entry(uuid: &str, mount: &str, kind: &str) -> String {
    format!("UUID={uuid} {mount} {kind} defaults,nofail,x-systemd.device-timeout=30s 0 2 {MARK}")
}

fn fields(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let from = words.next().filter(|word| !word.starts_with('#'))?;
    Some((from, words.next()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOT: &str = "# a comment\n/dev/vda1 / ext4 errors=remount-ro 0 1\n";

    #[test]
    fn flaw_12_entries_are_by_uuid_with_nofail() {
        let table = with_entry(ROOT, "u-1", "/mnt/disks/data", "ext4").expect("no conflict");
        assert!(table.starts_with(ROOT), "{table}");
        assert!(has_entry(&table, "u-1", "/mnt/disks/data"));
        assert!(!has_entry(&table, "u-2", "/mnt/disks/data"));
        assert!(
            !has_entry(
                "UUID=u-1 /mnt/disks/data ext4 defaults 0 2",
                "u-1",
                "/mnt/disks/data"
            ),
            "without nofail"
        );
    }

    #[test]
    fn entering_twice_is_entering_once_and_a_new_disk_takes_the_place() {
        let once = with_entry(ROOT, "u-1", "/mnt/a", "ext4").expect("no conflict");
        assert_eq!(
            with_entry(&once, "u-1", "/mnt/a", "ext4").expect("no conflict"),
            once
        );
        let moved = with_entry(&once, "u-1", "/mnt/b", "ext4").expect("no conflict");
        assert!(has_entry(&moved, "u-1", "/mnt/b") && !has_entry(&moved, "u-1", "/mnt/a"));
        let other = with_entry(&once, "u-2", "/mnt/a", "ext4").expect("no conflict");
        assert!(has_entry(&other, "u-2", "/mnt/a") && !has_entry(&other, "u-1", "/mnt/a"));
    }

    #[test]
    fn foreign_lines_stay_and_conflicts_are_refused() {
        let foreign = format!("{ROOT}UUID=x /mnt/a xfs defaults 0 0\n");
        assert!(with_entry(&foreign, "u-1", "/mnt/a", "ext4").is_err());
        let kept = with_entry(&foreign, "u-1", "/mnt/b", "ext4").expect("no conflict");
        assert!(kept.contains("UUID=x /mnt/a xfs defaults 0 0\n"));
        assert_eq!(
            with_entry("", "u", "/m", "ext4")
                .expect("empty is fine")
                .lines()
                .count(),
            1
        );
    }

    proptest! {
        #![proptest_config(crate::fuzz::cases(256))]

        #[test]
        fn any_table_keeps_its_foreign_lines_and_gets_one_of_ours(
            lines in prop::collection::vec(prop_oneof![
                "[ \t#a-zA-Z0-9/=,-]{0,30}",
                "(UUID=[uv]|/dev/vd[a-c]) /(mnt/[ab])? ext4 defaults 0 [012]",
                "UUID=[uv] /mnt/[ab] ext4 defaults,nofail 0 2 # rekindle",
                "\\PC{0,20}",
            ], 0..8),
            uuid in "[uv]", mount in "/mnt/[ab]", entered in any::<bool>(),
        ) {
            let mut lines = lines;
            if entered {
                lines.insert(lines.len() / 2, entry(&uuid, &mount, "ext4"));
            }
            let table = lines.join("\n");
            let ours = |line: &&str| line.ends_with(MARK);
            let foreign = |table: &str| {
                let lines = table.lines().filter(|line| !ours(line));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            match with_entry(&table, &uuid, &mount, "ext4") {
                Ok(new) => {
                    prop_assert!(has_entry(&new, &uuid, &mount), "{}", new);
                    prop_assert_eq!(foreign(&new), foreign(&table));
                    let there = new.lines().filter(|line| fields(line).is_some_and(|(_, to)| to == mount));
                    prop_assert_eq!(there.count(), 1, "{}", new);
                    let again = with_entry(&new, &uuid, &mount, "ext4");
                    prop_assert_eq!(again.as_deref(), Ok(new.as_str()));
                }
                Err(reason) => {
                    let taken = foreign(&table).iter().any(|line| fields(line).is_some_and(|(_, to)| to == mount));
                    prop_assert!(taken && reason.contains(&mount), "{}", reason);
                }
            }
        }
    }
}
