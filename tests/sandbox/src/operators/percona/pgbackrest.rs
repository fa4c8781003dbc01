//! The commands of pgBackRest: what they do to a repository and a data directory, and their words when they cannot.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::info::Info;
use super::repository::{Archives, NotLoaded, Repository};
use crate::postgres::Data;

/// Why a command failed: its exit code, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) code: u8,
    pub(super) words: String,
}

fn failed<T>(code: u8, words: impl AsRef<str>) -> Result<T, Failed> {
    let words = format!("ERROR: [{code:03}]: {}", words.as_ref());
    Err(Failed { code, words })
}

/// What PostgreSQL says when its recovery fails; the Job's script ends with it.
fn recovery_failed<T>(words: &str) -> Result<T, Failed> {
    Err(Failed {
        code: 1,
        words: format!("FATAL:  {words}"),
    })
}

/// Where recovery is to end.
#[derive(Debug, Clone, PartialEq)]
enum Until {
    End,
    Immediate,
    Time(Timestamp),
}

/// Restores and recovers to the promotion, with the options that the operator was given.
pub(super) async fn restore(
    repository: &Repository<'_>,
    archives: &Archives,
    options: &[String],
) -> Result<Data, Failed> {
    let (set, until) = arguments(options)?;
    let (path, stanza) = (&repository.path, &repository.stanza);
    let asked_in_vain = |why: String| match &set {
        Some(set) => failed(75, format!("backup set {set} is not valid{why}")),
        None => failed(75, format!("no backup set found to restore{why}")),
    };
    let info = match repository.info("backup").await {
        Ok(info) => info,
        Err(why) => {
            let file = format!("{path}/backup/{stanza}/backup.info");
            let why = match why {
                NotLoaded::Missing => {
                    format!("[FileMissingError] unable to load info file '{file}' or '{file}.copy'")
                }
                NotLoaded::Other(words) => format!("[ProtocolError] {words}"),
            };
            return asked_in_vain(format!("\nWARN: repo1: {why}"));
        }
    };
    let sets: Vec<(&String, &Value)> = info.section("backup:current").collect();
    let stop = |set: &Value| {
        Timestamp::from_second(set["backup-timestamp-stop"].as_i64().unwrap_or_default())
    };
    let wanted = match (&set, &until) {
        (Some(set), _) => sets.iter().find(|(label, _)| *label == set),
        (None, Until::Time(at)) => sets
            .iter()
            .rev()
            .find(|(_, set)| stop(set).is_ok_and(|stop| stop < *at)),
        (None, _) => sets.last(),
    };
    let Some((label, entry)) = wanted else {
        return asked_in_vain(String::new());
    };
    let manifest = format!("{label}/backup.manifest");
    match repository.has("backup", &manifest).await {
        Ok(true) => {}
        Ok(false) => {
            let file = format!("{path}/backup/{stanza}/{manifest}");
            let words = format!("unable to load backup manifest file '{file}' or '{file}.copy'");
            return failed(55, words);
        }
        Err(words) => return failed(39, words),
    }
    let id = entry["db-id"].to_string();
    let system_id = info
        .value("db:history", &id)
        .and_then(|of| of["db-system-id"].as_u64())
        .unwrap_or_default();
    let stop = stop(entry).unwrap_or_default();
    let place = repository.place(system_id);
    let Some((newest, archived)) = archives.newest(&place) else {
        // A set whose inside nobody told us: a database of that id without tables.
        return Ok(Data {
            system_id,
            timeline: 2,
            ..Data::initdb()
        });
    };
    let data = match until {
        Until::End => newest,
        Until::Immediate => archives.at_set(&place, label, stop).unwrap_or(newest),
        Until::Time(at) if at < stop => {
            return recovery_failed(
                "requested recovery stop point is before consistent recovery point",
            );
        }
        Until::Time(at) if at > archived => {
            return recovery_failed("recovery ended before configured recovery target was reached");
        }
        Until::Time(at) => newest.at(at),
    };
    // The Job replays, promotes and stops; what is kept in memory is gone then.
    Ok(Data {
        system_id,
        timeline: data.timeline + 1,
        in_recovery: false,
        last_commit: None,
        ..data
    })
}

/// The set and the end that options ask for. The operator puts them into one line of a shell.
fn arguments(options: &[String]) -> Result<(Option<String>, Until), Failed> {
    let (mut set, mut kind, mut target) = (None, "default".to_owned(), None);
    for word in words(&options.join(" ")) {
        let Some(option) = word.strip_prefix("--") else {
            return failed(30, "command does not allow parameters");
        };
        match option.split_once('=') {
            Some(("set", value)) => set = Some(value.to_owned()),
            Some(("type", value)) => value.clone_into(&mut kind),
            Some(("target", value)) => target = Some(value.to_owned()),
            Some(("target-timeline" | "db-include" | "archive-mode" | "process-max", _)) | None => {
            }
            Some((other, _)) => return failed(31, format!("invalid option '--{other}'")),
        }
    }
    let until = match (kind.as_str(), target) {
        ("default", None) => Until::End,
        ("immediate", None) => Until::Immediate,
        ("time", Some(target)) => match target.parse::<Timestamp>() {
            Ok(at) => Until::Time(at),
            Err(_) => {
                return failed(
                    38,
                    format!(
                        "automatic backup set selection cannot be performed with provided time '{target}'"
                    ),
                );
            }
        },
        ("time", None) => return failed(37, "restore command requires option: target"),
        ("default" | "immediate", Some(_)) => {
            return failed(
                31,
                "option 'target' not valid without option 'type' in ('lsn', 'name', 'time', 'xid')",
            );
        }
        (other, _) => return failed(32, format!("'{other}' is not allowed for 'type' option")),
    };
    Ok((set, until))
}

/// What a shell makes words of: quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut inside) = (Vec::new(), String::new(), None, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.extend(chars.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => (quote, inside) = (Some(c), true),
            (c, None) if c.is_whitespace() => {
                if inside || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                inside = false;
            }
            (c, _) => word.push(c),
        }
    }
    if inside || !word.is_empty() {
        words.push(word);
    }
    words
}

/// `stanza-create || stanza-upgrade`, as the operator runs them. A stanza of another database is taken over.
pub(super) async fn stanza(
    repository: &Repository<'_>,
    data: &Data,
    version: &str,
) -> Result<(), Failed> {
    let loaded = (
        repository.info("backup").await,
        repository.info("archive").await,
    );
    let (mut backup, mut archive) = match loaded {
        (Ok(backup), Ok(archive)) => (backup, archive),
        (Err(NotLoaded::Missing), Err(NotLoaded::Missing)) => (Info::new(), Info::new()),
        (Err(NotLoaded::Missing), Ok(_)) => {
            return failed(
                55,
                "archive.info exists but backup.info is missing on repo1",
            );
        }
        (Ok(_), Err(NotLoaded::Missing)) => {
            return failed(
                55,
                "backup.info exists but archive.info is missing on repo1",
            );
        }
        (Err(NotLoaded::Other(words)), _) | (_, Err(NotLoaded::Other(words))) => {
            return failed(39, words);
        }
    };
    if backup.value("db", "db-system-id") == Some(&json!(data.system_id)) {
        return Ok(());
    }
    let id = backup
        .section("db:history")
        .filter_map(|(id, _)| id.parse::<u64>().ok())
        .max()
        .unwrap_or_default()
        + 1;
    let catalog = [
        ("db-catalog-version", json!(202_209_061)),
        ("db-control-version", json!(1300)),
    ];
    for (key, value) in catalog {
        backup.set("db", key, value);
    }
    for info in [&mut backup, &mut archive] {
        info.set("db", "db-id", json!(id));
        info.set("db", "db-system-id", json!(data.system_id));
        info.set("db", "db-version", json!(version));
    }
    let of_backup = json!({ "db-catalog-version": 202_209_061, "db-control-version": 1300,
        "db-system-id": data.system_id, "db-version": version });
    backup.set("db:history", &id.to_string(), of_backup);
    archive.set(
        "db:history",
        &id.to_string(),
        json!({ "db-id": data.system_id, "db-version": version }),
    );
    let written = async {
        repository.write_info("archive", &archive).await?;
        repository.write_info("backup", &backup).await?;
        // The promotion that made this timeline pushed its history.
        if data.timeline > 1 {
            let forks = (1..data.timeline).map(|from| {
                format!(
                    "{from}\t{:X}/{:X}000028\tno recovery target specified\n",
                    data.segment >> 8,
                    data.segment & 0xFF
                )
            });
            let file = format!("{}/{:08X}.history", folder(&backup, version), data.timeline);
            repository
                .put("archive", &file, forks.collect::<String>())
                .await?;
        }
        Ok(())
    };
    written.await.or_else(|words: String| failed(39, words))
}

fn folder(backup: &Info, version: &str) -> String {
    let id = backup
        .value("db", "db-id")
        .map(Value::to_string)
        .unwrap_or_default();
    format!("{version}-{id}")
}

/// Archives the current WAL segment; the database goes on in the next.
pub(super) async fn archive(
    repository: &Repository<'_>,
    data: &mut Data,
    version: &str,
) -> Result<(), Failed> {
    let info = match repository.info("archive").await {
        Ok(info) => info,
        Err(_) => return failed(103, "unable to find a valid repository"),
    };
    if info.value("db", "db-system-id") != Some(&json!(data.system_id)) {
        let words = format!(
            "PostgreSQL version {version}, system-id {} do not match repo1 stanza version",
            data.system_id
        );
        return failed(44, words);
    }
    let name = segment(data);
    let sum = hex::encode(Sha1::digest(format!("{}{name}", data.system_id)));
    let file = format!(
        "{}/{}/{name}-{sum}.zst",
        folder(&info, version),
        &name[..16]
    );
    data.segment += 1;
    repository
        .put("archive", &file, name.clone())
        .await
        .or_else(|words| failed(39, words))
}

fn segment(data: &Data) -> String {
    format!(
        "{:08X}{:08X}{:08X}",
        data.timeline,
        data.segment >> 8,
        data.segment & 0xFF
    )
}

/// A set that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) label: String,
    /// The operator's word for it.
    pub(super) kind: &'static str,
}

/// Backs up a database.
pub(super) async fn backup(
    repository: &Repository<'_>,
    archives: &Archives,
    data: &mut Data,
    version: &str,
    options: &[String],
    annotations: &[(&str, &str)],
) -> Result<Made, Failed> {
    let mut info = match repository.info("backup").await {
        Ok(info) => info,
        Err(NotLoaded::Missing) => {
            return failed(
                55,
                "unable to load info file 'backup.info': has a stanza-create been performed?",
            );
        }
        Err(NotLoaded::Other(words)) => return failed(39, words),
    };
    if info.value("db", "db-system-id") != Some(&json!(data.system_id)) {
        return failed(
            51,
            "PostgreSQL version and system-id do not match stanza: is this the correct stanza?",
        );
    }
    let id = info.value("db", "db-id").cloned().unwrap_or_default();
    let of_this = |(label, set): (&String, &Value)| (set["db-id"] == id).then(|| label.clone());
    let sets: Vec<String> = info.section("backup:current").filter_map(of_this).collect();
    let full = sets.iter().rev().find(|label| label.len() == 16).cloned();
    let wanted = words(&options.join(" "))
        .into_iter()
        .find_map(|word| word.strip_prefix("--type=").map(str::to_owned));
    let prior = match wanted.as_deref() {
        Some("full") => None,
        Some("diff") => full.clone(),
        Some("incr") | None => sets.last().cloned(),
        Some(other) => return failed(32, format!("'{other}' is not allowed for 'type' option")),
    };
    let (kind, operators) = match (&prior, wanted.as_deref()) {
        (None, _) => ("full", "full"),
        (Some(_), Some("diff")) => ("diff", "differential"),
        (Some(_), _) => ("incr", "incremental"),
    };
    let started = Timestamp::now();
    let label = label(
        started,
        &sets,
        full.as_deref().filter(|_| prior.is_some()),
        kind,
    );
    let first = segment(data);
    let begin = data.segment;
    archive(repository, data, version).await?;
    let mut references: Vec<&String> = sets.iter().filter(|_| prior.is_some()).collect();
    references.retain(|label| Some(*label) == full.as_ref() || Some(*label) == prior.as_ref());
    let mut entry = json!({
        "backrest-format": 5, "backrest-version": "2.56.0", "db-id": id, "backup-type": kind, "backup-error": false,
        "backup-archive-start": first, "backup-archive-stop": first,
        "backup-lsn-start": format!("{:X}/{:X}000028", begin >> 8, begin & 0xFF),
        "backup-lsn-stop": format!("{:X}/{:X}000100", begin >> 8, begin & 0xFF),
        "backup-timestamp-start": started.as_second(), "backup-timestamp-stop": started.as_second() + 1,
        "backup-info-size": 23_000_000, "backup-info-size-delta": 23_000_000,
        "backup-info-repo-size": 4_500_000, "backup-info-repo-size-delta": 4_500_000,
        "option-archive-check": true, "option-archive-copy": false, "option-backup-standby": false,
        "option-checksum-page": true, "option-compress": true, "option-hardlink": false, "option-online": true,
    });
    if let Some(prior) = &prior {
        entry["backup-prior"] = json!(prior);
        entry["backup-reference"] = json!(references);
    }
    if !annotations.is_empty() {
        entry["backup-annotation"] = annotations
            .iter()
            .map(|(key, value)| (*key, json!(value)))
            .collect();
    }
    info.set("backup:current", &label, entry);
    let written = async {
        repository
            .put(
                "backup",
                &format!("{label}/pg_data/PG_VERSION.zst"),
                version.to_owned(),
            )
            .await?;
        repository
            .put(
                "backup",
                &format!("{label}/backup.manifest.copy"),
                "[backup]\n",
            )
            .await?;
        repository
            .put("backup", &format!("{label}/backup.manifest"), "[backup]\n")
            .await?;
        repository.write_info("backup", &info).await
    };
    written.await.or_else(|words: String| failed(39, words))?;
    let place = repository.place(data.system_id);
    archives.archive(&place, data, Timestamp::now());
    archives.set(&place, &label, data);
    Ok(Made {
        label,
        kind: operators,
    })
}

/// A label that is later than all others.
fn label(at: Timestamp, others: &[String], full: Option<&str>, kind: &str) -> String {
    let mut at = at;
    loop {
        let time = at
            .to_zoned(TimeZone::UTC)
            .strftime("%Y%m%d-%H%M%S")
            .to_string();
        let taken = others.iter().any(|other| other.contains(&time));
        match (taken, full) {
            (true, _) => at += jiff::SignedDuration::from_secs(1),
            (false, None) => return format!("{time}F"),
            (false, Some(full)) => {
                return format!("{full}_{time}{}", if kind == "diff" { "D" } else { "I" });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &[&str]) -> Result<(Option<String>, Until), u8> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        arguments(&options).map_err(|failed| failed.code)
    }

    #[test]
    fn options_go_through_a_shell() {
        let at = |text: &str| Until::Time(text.parse().expect("a time"));
        let set = Some("20261123-013502F".to_owned());
        for (options, expected) in [
            (&[][..], Ok((None, Until::End))),
            (&["--set=20261123-013502F"], Ok((set.clone(), Until::End))),
            (
                &["--set=20261123-013502F", "--type=immediate"],
                Ok((set, Until::Immediate)),
            ),
            (
                &["--type=time", "--target=\"2026-11-23 03:04:05+00\""],
                Ok((None, at("2026-11-23T03:04:05Z"))),
            ),
            (
                &["--type=time", "--target='2026-11-23 03:04:05.25+00'"],
                Ok((None, at("2026-11-23T03:04:05.25Z"))),
            ),
            // Without quotes the time of day is a word of its own.
            (&["--type=time", "--target=2026-11-23 03:04:05+00"], Err(30)),
            (&["--type=time"], Err(37)),
            (&["--target=x"], Err(31)),
            (&["--type=yesterday"], Err(32)),
            (&["--sett=x"], Err(31)),
        ] {
            assert_eq!(check(options), expected, "{options:?}");
        }
    }
}
