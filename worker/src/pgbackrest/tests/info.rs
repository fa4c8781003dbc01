use super::*;

#[test]
fn real_files_are_read() {
    let info = BackupInfo::parse(BACKUP_INFO.as_bytes()).expect("backup.info");
    assert_eq!(info.current.system_id, SYSTEM);
    assert_eq!((info.history.len(), &info.history[0]), (1, &info.current));
    let labels: Vec<&str> = info.backups.iter().map(|(l, _)| l.as_str()).collect();
    assert_eq!(labels, [FULL, DIFF, INCR]);
    let (_, incr) = &info.backups[2];
    assert_eq!(incr.backup_type, Kind::Incr);
    assert_eq!(incr.backup_timestamp_stop, at("2026-11-23T01:35:12Z"));
    assert_eq!(
        incr.backup_reference.as_deref(),
        Some(&[FULL.to_owned(), DIFF.to_owned()][..])
    );
    let archive = ArchiveInfo::parse(ARCHIVE_INFO.as_bytes()).expect("archive.info");
    assert_eq!(archive.folders(&info.current), ["15-1"]);
    let two = ArchiveInfo::parse(TWO_ARCHIVE_INFO.as_bytes()).expect("archive.info");
    assert_eq!(two.current.system_id, OTHER_SYSTEM);
    assert_eq!(two.folders(&two.current), ["15-2"]);
    assert_eq!(two.folders(&info.current), ["15-1"]);
}

#[test]
fn our_checksum_is_pgbackrests() {
    for file in [BACKUP_INFO, ARCHIVE_INFO, TWO_BACKUP_INFO, TWO_ARCHIVE_INFO] {
        assert_eq!(resealed(file), file);
    }
}

#[test]
fn a_file_cut_anywhere_is_called_truncated() {
    let whole = BackupInfo::parse(BACKUP_INFO.as_bytes());
    // The last byte is a newline, which says nothing.
    for end in 0..BACKUP_INFO.len() - 1 {
        let error = BackupInfo::parse(&BACKUP_INFO.as_bytes()[..end]).expect_err("it was cut");
        let text = error.to_string();
        assert!(text.starts_with("truncated or changed: "), "{end}: {text}");
    }
    assert_eq!(BackupInfo::parse(BACKUP_INFO.trim_end().as_bytes()), whole);
}

#[test]
fn a_changed_file_is_called_changed() {
    for (find, replace) in [
        ("\"backup-error\":false", "\"backup-error\":true"),
        ("0/2000028", "0/2000029"),
        ("[db]", "[dc]"),
        ("db-control-version=1300", "db-control-version= 1300"),
        ("\n\n[db]", "\n\n[x]\ny=1\n\n[db]"),
        ("backrest-checksum=\"7", "backrest-checksum=\"8"),
        ("backrest-checksum=", "backrest-checksun="),
    ] {
        assert!(BACKUP_INFO.contains(find), "{find}");
        let error = BackupInfo::parse(BACKUP_INFO.replacen(find, replace, 1).as_bytes());
        assert!(
            matches!(error, Err(InfoError::Changed { .. })),
            "{find}: {error:?}"
        );
    }
}

#[test]
fn what_is_encrypted_or_unknown_says_so() {
    let parse = |text: &str| BackupInfo::parse(text.as_bytes()).expect_err("unreadable");
    assert_eq!(parse("Salted__\u{1}\u{2}"), InfoError::Encrypted);
    let cipher = "[cipher]\ncipher-pass=\"x\"\n\n[db]";
    let with_cipher = resealed(&BACKUP_INFO.replacen("[db]", cipher, 1));
    assert_eq!(parse(&with_cipher), InfoError::Encrypted);
    for (find, replace, says) in [
        (
            "backrest-format=5",
            "backrest-format=6",
            "backrest-format is 6",
        ),
        ("\"backup-info-size\":", "\"x\":", FULL),
        (
            "20261123-013502F=",
            "20261123-0135F=",
            "`20261123-0135F` is not the label",
        ),
        (
            "20261123-013502F=",
            "20261123-013502F_$(reboot)=",
            "is not the label",
        ),
        (
            "\"backup-type\":\"full\"",
            "\"backup-type\":\"half\"",
            "half",
        ),
        ("db-id=1\n", "db-id=2\n", "[db:history] has no database 2"),
        (
            "db-system-id=7711174403467544656",
            "db-system-id=1",
            "no database 1",
        ),
        ("1={\"db-cat", "one={\"db-cat", "`one` is not a number"),
        (
            "1300,\"db-system-id\":7711174403467544656,\"db-version\":\"15\"",
            "1300,\"db-system-id\":7711174403467544656,\"db-version\":\"15/../16\"",
            "15/../16",
        ),
        (
            "\"backup-timestamp-stop\":1795397707",
            "\"backup-timestamp-stop\":-1e300",
            FULL,
        ),
    ] {
        assert!(BACKUP_INFO.contains(find), "{find}");
        let error = parse(&resealed(&BACKUP_INFO.replacen(find, replace, 1)));
        let text = error.to_string();
        assert!(matches!(error, InfoError::UnknownFormat { .. }), "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn system_ids_keep_all_their_bits() {
    let text = BACKUP_INFO.replace("7711174403467544656", "18446744073709551615");
    let info = BackupInfo::parse(resealed(&text).as_bytes()).expect("backup.info");
    assert_eq!(info.current.system_id, u64::MAX);
}

#[test]
fn a_file_that_is_too_long_is_not_looked_at() {
    let long = vec![b'x'; 17 << 20];
    let error = BackupInfo::parse(&long).expect_err("too long");
    assert!(matches!(error, InfoError::TooLarge { .. }), "{error}");
}

#[test]
fn only_labels_are_labels() {
    for good in [FULL, DIFF, INCR] {
        assert_eq!(Label::parse(good).expect(good).as_str(), good);
    }
    for bad in [
        "",
        "F",
        "20261123-013502",
        "20261123-013502D",
        "20261123-013502F_",
        "20261123-013502F_20261123-013508F",
        "20261123-013502F_20261123-013508D ",
        "20261123-013502F; reboot",
        "20261123-013502F\n",
        "２0261123-013502F",
    ] {
        assert_eq!(Label::parse(bad), None, "{bad}");
    }
}
