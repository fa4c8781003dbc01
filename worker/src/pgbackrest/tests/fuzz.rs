use proptest::prelude::*;

use super::*;
use crate::fuzz::cases;

/// Longest error about a file: none repeats the file.
const LONGEST_ERROR: usize = 1000;

const FILES: [&str; 4] = [BACKUP_INFO, ARCHIVE_INFO, TWO_BACKUP_INFO, TWO_ARCHIVE_INFO];

fn file() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&FILES[..])
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,30}".prop_map(Into::into),
        Just("0/FFFFFFFFF".into()),
        Just("0000000100000000000001FF".into()),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop::collection::btree_map("[a-z-]{1,20}", inner, 0..5)
            .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
    })
}

/// What a file that was accepted promises: nothing of it makes what follows fail.
fn is_of_use(info: &BackupInfo) -> Result<(), TestCaseError> {
    prop_assert!(info.history.contains(&info.current));
    let labels: BTreeSet<Label> = info.backups.iter().map(|(l, _)| l.clone()).collect();
    prop_assert_eq!(labels.len(), info.backups.len());
    let archive = archived(1..=10);
    let sets = sets(info, &info.current, &labels, &archive);
    prop_assert_eq!(sets.len(), labels.len());
    let stanza = Stanza {
        backups: loaded(info.clone()),
        archives: loaded(ArchiveInfo::parse(ARCHIVE_INFO.as_bytes()).expect("it is real")),
        database: info.current.clone(),
        sets,
        archive,
    };
    for wish in [Wish::default(), to("2026-11-23T01:36:00Z"), named(FULL)] {
        match stanza.choose(&wish) {
            Ok(choice) => {
                prop_assert!(choice.set.is_usable());
                let plan = RestorePlan::new(&stanza, &choice, at("2026-11-23T02:00:00Z"));
                prop_assert!(!plan.to_string().is_empty());
            }
            Err(refusal) => prop_assert!(!refusal.to_string().is_empty()),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_damaged_file_is_an_error_or_says_the_same(
        file in file(),
        at in any::<prop::sample::Index>(),
        length in 0_usize..60,
        with in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = file.as_bytes().to_vec();
        let at = at.index(bytes.len());
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with);
        match BackupInfo::parse(&bytes) {
            Ok(info) => prop_assert_eq!(Ok(info), BackupInfo::parse(file.as_bytes())),
            Err(error) => prop_assert!(error.to_string().len() < LONGEST_ERROR, "{}", error),
        }
        if let Ok(info) = ArchiveInfo::parse(&bytes) {
            prop_assert_eq!(Ok(info), ArchiveInfo::parse(file.as_bytes()));
        }
    }

    #[test]
    fn a_file_that_pgbackrest_could_have_written_is_read_or_of_an_unknown_format(
        file in file(),
        line in any::<prop::sample::Index>(),
        value in json(),
    ) {
        let lines: Vec<&str> = file.lines().collect();
        let line = line.index(lines.len());
        let changed: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(at, text)| match text.split_once('=') {
                Some((key, _)) if at == line && !key.starts_with("backrest-") => format!("{key}={value}"),
                _ => (*text).to_owned(),
            })
            .collect();
        match BackupInfo::parse(resealed(&changed.join("\n")).as_bytes()) {
            Ok(info) => is_of_use(&info)?,
            Err(InfoError::UnknownFormat { reason }) => prop_assert!(reason.len() < LONGEST_ERROR),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn one_field_of_a_set_may_be_anything(
        field in any::<prop::sample::Index>(),
        value in json(),
    ) {
        let start = BACKUP_INFO.find(&format!("{INCR}=")).expect("a set") + INCR.len() + 1;
        let end = start + BACKUP_INFO[start..].find('\n').expect("its end");
        let mut set: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&BACKUP_INFO[start..end]).expect("JSON");
        let keys: Vec<String> = set.keys().cloned().collect();
        set.insert(keys[field.index(keys.len())].clone(), value);
        let set = serde_json::to_string(&set).expect("JSON");
        let text = format!("{}{set}{}", &BACKUP_INFO[..start], &BACKUP_INFO[end..]);
        match BackupInfo::parse(resealed(&text).as_bytes()) {
            Ok(info) => is_of_use(&info)?,
            Err(InfoError::UnknownFormat { reason }) => prop_assert!(reason.contains(INCR), "{}", reason),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn any_name_and_any_history_is_read_without_a_panic(
        name in prop_oneof!["\\PC{0,80}", "[0-9A-F]{24}[.-]([0-9a-f]{40}|partial-[0-9a-f]{40})", "[0-9A-F]{8}\\.history"],
        history in prop_oneof!["\\PC{0,80}", "([0-9]{1,3}\t[0-9A-F]{1,8}/[0-9A-F]{1,8}\tx\n){0,4}"],
        from in 0_u64..12,
        own in 1_u32..5,
    ) {
        if let Name::Segment(segment) | Name::Partial(segment) = Name::of(&name) {
            prop_assert!(name.starts_with(&segment.to_string()));
        }
        if let Ok(forks) = parse_history(&history) {
            let mut archive = archived(1..=10);
            archive.add_history(3, forks);
            let first = segment(own, from);
            if let Ok(reach) = archive.reach(first, Lsn(from << 24)) {
                prop_assert_eq!(reach.last.is_none(), reach.segments == 0);
            }
        }
    }
}
