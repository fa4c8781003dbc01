//! A backup repository in a bucket, and what can befall it: what is read, what is refused, and that a
//! bucket that fails never looks like one that is empty.

use std::time::Duration;

use anyhow::Result;
use jobs::store::{Credentials, Secret, StoreConfig};
use sandbox::s3::{Failure, Op, Rule, S3Options, S3Server, What, When};
use worker::pgbackrest::{
    ChooseError, Refusal, Repository, RepositoryError, Stanza, Target, Unusable, Wish,
};

const BACKUP_INFO: &str = include_str!("../../../worker/src/pgbackrest/fixtures/backup.info");
const ARCHIVE_INFO: &str = include_str!("../../../worker/src/pgbackrest/fixtures/archive.info");
const TWO_BACKUP_INFO: &str =
    include_str!("../../../worker/src/pgbackrest/fixtures/two-systems.backup.info");
const TWO_ARCHIVE_INFO: &str =
    include_str!("../../../worker/src/pgbackrest/fixtures/two-systems.archive.info");

const SYSTEM: u64 = 7_711_174_403_467_544_656;
const FULL: &str = "20261123-013502F";
const DIFF: &str = "20261123-013502F_20261123-013508D";
const INCR: &str = "20261123-013502F_20261123-013510I";

/// Where the operator puts a repository.
const PATH: &str = "pgbackrest/repo1";

const BACKUP: &str = "pgbackrest/repo1/backup/db/backup.info";
const ARCHIVE: &str = "pgbackrest/repo1/archive/db/archive.info";

/// A bucket with a whole repository in it, and other things beside it.
struct Lab {
    server: S3Server,
}

impl Lab {
    async fn start() -> Result<Self> {
        let server = S3Server::start(S3Options::default()).await?;
        let lab = Self { server };
        lab.put_info(BACKUP_INFO, ARCHIVE_INFO);
        for label in [FULL, DIFF, INCR] {
            let folder = format!("{PATH}/backup/db/{label}");
            for file in [
                "backup.manifest",
                "backup.manifest.copy",
                "pg_data/PG_VERSION.lz4",
            ] {
                lab.put(&format!("{folder}/{file}"), "x");
            }
        }
        lab.put_segments("15-1", 1, 1..=10);
        lab.put(
            &format!(
                "{PATH}/archive/db/15-1/0000000100000000/000000010000000000000002.00000028.backup"
            ),
            "x",
        );
        lab.put(
            "pgbackrest/repo10/backup/db/backup.info",
            "another repository",
        );
        lab.put("records/x", "x");
        Ok(lab)
    }

    fn put(&self, key: &str, body: &str) {
        self.server.put_object(key, body.to_owned());
    }

    fn put_info(&self, backup: &str, archive: &str) {
        for (key, body) in [(BACKUP, backup), (ARCHIVE, archive)] {
            self.put(key, body);
            self.put(&format!("{key}.copy"), body);
        }
    }

    fn put_segments(&self, folder: &str, timeline: u32, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            self.put(&segment(folder, timeline, number), "x");
        }
    }

    fn delete(&self, key: &str) {
        assert!(self.server.delete_object(key), "{key}");
    }

    /// Refuses the next read of a key, and lets the one of its copy pass.
    fn deny(&self, key: &str) {
        self.server.faults().add(Rule {
            op: Some(Op::Get),
            key: Some(key.to_owned()),
            when: When::Next(1),
            what: What::Fail(Failure::Denied),
        });
    }

    fn place(&self) -> StoreConfig {
        StoreConfig {
            endpoint: Some(self.server.endpoint()),
            bucket: self.server.bucket().to_owned(),
            credentials: Credentials::Keys {
                access: self.server.access_key().to_owned(),
                secret: Secret::new(self.server.secret_key()),
            },
            region: "us-east-1".into(),
            prefix: format!("/{PATH}"),
            path_style: true,
            timeout: Duration::from_secs(10),
        }
    }

    async fn repository(&self) -> Result<Repository, RepositoryError> {
        Repository::connect(&self.place(), "db").await
    }

    async fn read(&self, system_id: Option<u64>) -> Result<Stanza, ChooseError> {
        Stanza::read(&self.repository().await?, system_id).await
    }

    async fn refused(&self) -> String {
        let error = match self.read(None).await {
            Err(error) => error,
            Ok(stanza) => stanza.choose(&Wish::default()).expect_err("refused").into(),
        };
        chain(&error)
    }
}

fn segment(folder: &str, timeline: u32, number: u32) -> String {
    let sum = "25bc00f47803c49802e8efc37d0228eeb2236e47";
    let log = format!("{timeline:08X}00000000");
    format!("{PATH}/archive/db/{folder}/{log}/{log}{number:08X}-{sum}.lz4")
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn is_store(error: &ChooseError) -> bool {
    matches!(error, ChooseError::Repository(RepositoryError::Store(_)))
}

#[tokio::test]
async fn a_whole_repository_is_read() -> Result<()> {
    let lab = Lab::start().await?;
    let stanza = lab.read(None).await?;
    assert_eq!(stanza.database.system_id, SYSTEM);
    assert!(
        stanza.sets.iter().all(|set| set.is_usable()),
        "{:?}",
        stanza.sets
    );
    assert_eq!(
        (stanza.backups.from_copy, stanza.archives.from_copy),
        (None, None)
    );
    assert_eq!(stanza.archive.len(), 10);
    let stanza = lab.read(Some(SYSTEM)).await?;
    let choice = stanza.choose(&Wish::default())?;
    assert_eq!(choice.set.label.as_str(), INCR);
    assert_eq!(choice.reach.segments, 5);
    Ok(())
}

#[tokio::test]
async fn an_archive_of_many_pages_is_read_whole() -> Result<()> {
    let lab = Lab::start().await?;
    for log in 1..=10_u32 {
        for low in 0..=255_u32 {
            let sum = "25bc00f47803c49802e8efc37d0228eeb2236e47";
            let log = format!("00000001{log:08X}");
            lab.put(
                &format!("{PATH}/archive/db/15-1/{log}/{log}{low:08X}-{sum}.zst"),
                "x",
            );
        }
    }
    let stanza = lab.read(None).await?;
    assert_eq!(stanza.archive.len(), 10 + 2560);
    let error = stanza
        .choose(&Wish::default())
        .expect_err("segments 0B to FF are missing");
    assert!(
        error
            .to_string()
            .contains("00000001000000000000000B is missing"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn the_copy_stands_in_for_a_file_that_is_missing_or_truncated_and_that_is_said() -> Result<()>
{
    let lab = Lab::start().await?;
    lab.put(BACKUP, &BACKUP_INFO[..BACKUP_INFO.len() / 2]);
    lab.delete(ARCHIVE);
    let stanza = lab.read(None).await?;
    assert_eq!(stanza.choose(&Wish::default())?.set.label.as_str(), INCR);
    let why = stanza.backups.from_copy.expect("the copy was read");
    assert!(why.to_string().contains("truncated or changed"), "{why}");
    assert_eq!(stanza.archives.from_copy, Some(Unusable::Missing));
    Ok(())
}

#[tokio::test]
async fn without_a_good_copy_a_truncated_file_is_an_error_that_tells_of_both() -> Result<()> {
    let lab = Lab::start().await?;
    lab.put(BACKUP, &BACKUP_INFO[..BACKUP_INFO.len() / 2]);
    lab.put(&format!("{BACKUP}.copy"), "");
    let text = lab.refused().await;
    assert!(
        text.contains("truncated or changed") && text.contains("its copy: truncated"),
        "{text}"
    );
    lab.delete(&format!("{BACKUP}.copy"));
    let text = lab.refused().await;
    assert!(text.contains("its copy: it is missing"), "{text}");
    lab.put(BACKUP, "Salted__\u{1}");
    assert!(lab.refused().await.contains("encrypted"));
    lab.put(BACKUP, &"x".repeat(17 << 20));
    let text = lab.refused().await;
    assert!(text.contains("17825792 bytes"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_empty_place_is_no_stanza() -> Result<()> {
    let server = S3Server::start(S3Options::default()).await?;
    let lab = Lab { server };
    let text = lab.refused().await;
    assert!(
        text.contains("no `backup/db/backup.info`") && text.contains("stanza"),
        "{text}"
    );
    assert!(!lab.repository().await?.is_used().await?);
    lab.put_info(BACKUP_INFO, ARCHIVE_INFO);
    assert!(lab.repository().await?.is_used().await?);
    lab.delete(ARCHIVE);
    lab.delete(&format!("{ARCHIVE}.copy"));
    assert!(lab.refused().await.contains("no `archive/db/archive.info`"));
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_refuses_one_object_is_never_read_as_absent() -> Result<()> {
    for key in [BACKUP, ARCHIVE] {
        let lab = Lab::start().await?;
        lab.deny(key);
        let error = lab.read(None).await.expect_err("403");
        assert!(
            is_store(&error) && chain(&error).contains("403"),
            "{}",
            chain(&error)
        );
    }
    // Also not when the file itself is missing, and only its copy is refused.
    let lab = Lab::start().await?;
    lab.delete(BACKUP);
    lab.deny(&format!("{BACKUP}.copy"));
    assert!(is_store(&lab.read(None).await.expect_err("403")));
    // Nor when a timeline's history is refused: it decides what follows what.
    let lab = Lab::start().await?;
    lab.put(
        &format!("{PATH}/archive/db/15-1/00000002.history"),
        "1\t0/8000000\tx\n",
    );
    lab.deny("00000002.history");
    assert!(is_store(&lab.read(None).await.expect_err("403")));
    Ok(())
}

#[tokio::test]
async fn a_list_that_fails_is_an_error_and_one_hiccup_is_not() -> Result<()> {
    // First the manifests of three sets are looked for, then the archive is listed.
    for list in [1, 4] {
        let lab = Lab::start().await?;
        let faults = lab.server.faults();
        let fail = |when, failure| faults.on(Op::List, when, What::Fail(failure));
        let denied = fail(When::Nth(list), Failure::Denied);
        let error = lab.read(None).await.expect_err("403");
        assert!(is_store(&error), "{}", chain(&error));
        assert_eq!(faults.fired_by(denied), 1);
        faults.clear();
        let slow = fail(When::Nth(list), Failure::SlowDown);
        assert!(lab.read(None).await.is_ok());
        assert_eq!(faults.fired_by(slow), 1);
    }
    Ok(())
}

#[tokio::test]
async fn sets_that_lost_something_are_not_chosen() -> Result<()> {
    let lab = Lab::start().await?;
    lab.delete(&format!("{PATH}/backup/db/{INCR}/backup.manifest"));
    lab.put(&format!("{PATH}/backup/db/{DIFF}/backup.manifest"), "");
    let stanza = lab.read(None).await?;
    assert_eq!(stanza.choose(&Wish::default())?.set.label.as_str(), FULL);
    lab.delete(&segment("15-1", 1, 2));
    let text = lab.refused().await;
    assert!(text.contains("none of the 3 sets"), "{text}");
    assert!(
        text.contains("WAL segment 000000010000000000000002"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_gap_in_the_wal_is_named_before_anything_is_done() -> Result<()> {
    let lab = Lab::start().await?;
    lab.delete(&segment("15-1", 1, 8));
    let text = lab.refused().await;
    assert!(
        text.contains("000000010000000000000008 is missing"),
        "{text}"
    );
    let stanza = lab.read(None).await?;
    let immediate = Wish {
        target: Target::Immediate,
        ..Wish::default()
    };
    assert_eq!(stanza.choose(&immediate)?.set.label.as_str(), INCR);
    Ok(())
}

#[tokio::test]
async fn recovery_follows_a_promotion_through_the_bucket() -> Result<()> {
    let lab = Lab::start().await?;
    let history = "1\t0/A000F40\tno recovery target specified\n";
    lab.put(&format!("{PATH}/archive/db/15-1/00000002.history"), history);
    lab.put_segments("15-1", 2, 10..=12);
    let choice = lab.read(None).await?.choose(&Wish::default())?;
    let last = choice.reach.last.expect("WAL").segment.to_string();
    assert_eq!(
        (choice.reach.timeline, last.as_str()),
        (2, "00000002000000000000000C")
    );
    lab.put(
        &format!("{PATH}/archive/db/15-1/00000002.history"),
        "nonsense",
    );
    let text = lab.refused().await;
    assert!(text.contains("00000002.history"), "{text}");
    Ok(())
}

#[tokio::test]
async fn two_databases_in_one_stanza_need_a_system_id() -> Result<()> {
    let lab = Lab::start().await?;
    lab.put_info(TWO_BACKUP_INFO, TWO_ARCHIVE_INFO);
    lab.put_segments("15-2", 1, 1..=2);
    lab.put(
        &format!("{PATH}/backup/db/20261123-013553F/backup.manifest"),
        "x",
    );
    let error = lab.read(None).await.expect_err("two databases");
    assert!(
        matches!(error, ChooseError::Refused(Refusal::SeveralSystems { .. })),
        "{error}"
    );
    for (system_id, label, segments) in [
        (SYSTEM, INCR, 10),
        (7_711_174_623_377_886_675, "20261123-013553F", 2),
    ] {
        let stanza = lab.read(Some(system_id)).await?;
        assert_eq!(stanza.archive.len(), segments);
        assert_eq!(stanza.choose(&Wish::default())?.set.label.as_str(), label);
    }
    let error = lab.read(Some(1)).await.expect_err("nobody's");
    assert!(
        matches!(error, ChooseError::Refused(Refusal::UnknownSystem { .. })),
        "{error}"
    );
    // The archive of another repository.
    lab.put_info(TWO_BACKUP_INFO, ARCHIVE_INFO);
    let error = lab
        .read(Some(7_711_174_623_377_886_675))
        .await
        .expect_err("they disagree");
    assert!(
        matches!(error, ChooseError::Refused(Refusal::FilesDisagree { .. })),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_and_a_stanza_needs_a_name() -> Result<()> {
    let lab = Lab::start().await?;
    let before = lab.server.objects("");
    lab.read(None).await?;
    assert_eq!(lab.server.objects(""), before);
    for bad in ["", ".", "..", "a/b", "a b", "ä"] {
        let error = Repository::connect(&lab.place(), bad).await.expect_err(bad);
        assert!(matches!(error, RepositoryError::StanzaName(_)), "{error}");
    }
    Ok(())
}
