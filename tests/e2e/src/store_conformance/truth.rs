//! What an operation says is so, whatever becomes of its requests and answers.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::future::join_all;
use jobs::store::{Created, StoreError};
use sandbox::s3::{Failure, Gate, Op, What, When};
use tempfile::TempDir;

use super::{at, unclear, unique};
use crate::store_lab::StoreLab;

/// Some of the faults stand still; this is when the store loses its patience.
const SOON: Duration = Duration::from_millis(500);

/// Ends tests that would hang.
const LONG: Duration = Duration::from_secs(120);

/// What was written before, by us or by another, decides.
pub async fn an_unclear_create_is_ours_or_anothers_and_never_a_guess(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let store = &lab.store_within(SOON).await?;
    let direct = &lab.direct().await?;
    let checks = unclear()
        .into_iter()
        .enumerate()
        .map(|(n, what)| async move {
            let (ours, theirs) = (format!("ours/{n:02}"), format!("theirs/{n:02}"));
            let body = unique();
            lab.faults().add(at(&ours, When::Next(1), what.clone()));
            let made = store.create(&ours, body.clone()).await?;
            ensure!(made == Created::New, "{what:?}: {made:?}, but it is ours");
            ensure!(direct.get(&ours).await? == Some(body), "{what:?}");

            let other = Bytes::from("another's");
            direct.create(&theirs, other.clone()).await?;
            lab.faults().add(at(&theirs, When::Next(1), what.clone()));
            let made = store.create(&theirs, unique()).await?;
            ensure!(made == Created::Exists(other.clone()), "{what:?}: {made:?}");
            ensure!(direct.get(&theirs).await? == Some(other), "{what:?}");

            // The read back is disturbed as well.
            let twice = format!("twice/{n:02}");
            let body = unique();
            lab.faults().add(at(&twice, When::Next(3), what.clone()));
            let made = store.create(&twice, body.clone()).await?;
            ensure!(made == Created::New, "{what:?}: {made:?}, but it is ours");
            ensure!(direct.get(&twice).await? == Some(body), "{what:?}");
            Ok(())
        });
    join_all(checks)
        .await
        .into_iter()
        .collect::<Result<(), _>>()?;

    // The answer to a second try of which the first took effect.
    let (taken, body) = (What::FailAfterEffect(Failure::Precondition), unique());
    lab.faults().add(at("taken", When::Next(1), taken));
    let made = store.create("taken", body).await?;
    ensure!(made == Created::New, "{made:?}");

    // A late duplicate of our own first try changes nothing.
    let (gate, body) = (Gate::new(), unique());
    let held = What::HoldRequest(gate.clone());
    lab.faults().add(at("late", When::Next(1), held));
    let made = store.create("late", body.clone()).await?;
    ensure!(made == Created::New, "{made:?}");
    gate.open();
    ensure!(direct.get("late").await? == Some(body));
    Ok(())
}

/// `put` does not ask who was first; it only must not claim what is not so.
pub async fn a_disturbed_write_is_written_in_the_end(lab: &StoreLab) -> anyhow::Result<()> {
    let store = &lab.store_within(SOON).await?;
    let direct = &lab.direct().await?;
    let checks = unclear()
        .into_iter()
        .enumerate()
        .map(|(n, what)| async move {
            let (key, body) = (format!("written/{n:02}"), unique());
            lab.faults().add(at(&key, When::Next(2), what.clone()));
            let put = store.put(&key, body.clone()).await;
            put.with_context(|| format!("{what:?}"))?;
            ensure!(direct.get(&key).await? == Some(body), "{what:?}");
            anyhow::Ok(())
        });
    join_all(checks).await.into_iter().collect()
}

/// And says "nothing there" only when the server did.
pub async fn a_disturbed_read_gives_the_object_and_never_nothing(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let store = &lab.store_within(SOON).await?;
    let direct = &lab.direct().await?;
    let checks = unclear()
        .into_iter()
        .enumerate()
        .map(|(n, what)| async move {
            let (key, body) = (format!("there/{n:02}"), unique());
            direct.put(&key, body.clone()).await?;
            lab.faults().add(at(&key, When::Next(2), what.clone()));
            let got = store.get(&key).await;
            ensure!(
                got.as_ref().ok() == Some(&Some(body.clone())),
                "{what:?}: {got:?}"
            );

            lab.faults().add(at(&key, When::Next(2), what.clone()));
            let mut into = Vec::new();
            let size = store.get_into(&key, &mut into).await;
            let size = size.with_context(|| format!("{what:?}"))?;
            ensure!(size == Some(body.len() as u64) && into == body, "{what:?}");

            let key = format!("absent/{n:02}");
            lab.faults().add(at(&key, When::Next(2), what.clone()));
            let got = store.get(&key).await.with_context(|| format!("{what:?}"))?;
            ensure!(got.is_none(), "{what:?}: {got:?}");
            anyhow::Ok(())
        });
    join_all(checks).await.into_iter().collect()
}

/// All tries are used up, so this takes as long as the store's patience does.
pub async fn a_store_that_fails_for_good_is_an_error_and_never_an_answer(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let store = &lab.store_within(Duration::from_millis(200)).await?;
    let direct = &lab.direct().await?;
    let folder = &TempDir::new()?;
    let source = &folder.path().join("source");
    tokio::fs::write(source, vec![b'x'; 1_000_000]).await?;
    for n in 0..3 {
        direct.put(&format!("list/{n}"), unique()).await?;
    }
    lab.faults()
        .on(Op::List, When::Always, What::CutAnswer(300));
    let lists = async {
        failed("a listing", store.list("list/", None).await)?;
        failed("folders", store.list_folders("").await)
    };
    let whats = unclear().into_iter().enumerate();
    let checks = whats.map(|(n, what)| async move {
        let key = |op: &str| format!("{op}/{n:02}");
        for op in ["get", "into", "file"] {
            direct
                .put(&key(op), Bytes::from(vec![b'y'; 10_000]))
                .await?;
        }
        for op in ["get", "into", "file", "create", "put", "upload"] {
            lab.faults().add(at(&key(op), When::Always, what.clone()));
        }
        let (path, mut into) = (
            folder.path().join(key("file").replace('/', "-")),
            Vec::new(),
        );
        let (get_key, into_key, file_key) = (key("get"), key("into"), key("file"));
        let (create_key, put_key, upload_key) = (key("create"), key("put"), key("upload"));
        let (get, got_into, file, create, put, upload) = tokio::join!(
            store.get(&get_key),
            store.get_into(&into_key, &mut into),
            store.get_file(&file_key, &path),
            store.create(&create_key, unique()),
            store.put(&put_key, unique()),
            store.put_file(&upload_key, source),
        );
        let named = |op: &str| format!("{op} with {what:?}");
        failed(&named("get"), get)?;
        failed(&named("into"), got_into)?;
        failed(&named("file"), file)?;
        ensure!(!path.exists(), "{}: a part of it is there", named("file"));
        // An answer to a write has no body to cut.
        if !matches!(what, What::CutAnswer(_) | What::StallAnswer(_)) {
            failed(&named("create"), create)?;
            failed(&named("put"), put)?;
            failed(&named("upload"), upload)?;
        }
        anyhow::Ok(())
    });
    let checks = async {
        join_all(checks)
            .await
            .into_iter()
            .collect::<Result<(), _>>()
    };
    let (checks, lists) = tokio::time::timeout(LONG, async { tokio::join!(checks, lists) })
        .await
        .context("the store gives up in time")?;
    checks?;
    lists?;
    let mut left = tokio::fs::read_dir(folder.path()).await?;
    while let Some(entry) = left.next_entry().await? {
        let name = entry.file_name().into_string().unwrap_or_default();
        ensure!(!name.ends_with(".part"), "{name} stays behind");
    }
    Ok(())
}

/// Trying again does not help, so nobody waits.
pub async fn a_store_that_refuses_is_an_error_at_once(lab: &StoreLab) -> anyhow::Result<()> {
    let store = lab.store().await?;
    let direct = lab.direct().await?;
    direct.put("there", unique()).await?;
    let before = lab.proxy().stats();
    for failure in [Failure::Denied, Failure::Precondition] {
        lab.faults().clear();
        for op in [Op::Put, Op::Get, Op::List] {
            lab.faults().on(op, When::Always, What::Fail(failure));
        }
        let mut into = Vec::new();
        refused("get", store.get("there").await)?;
        refused("get", store.get("absent").await)?;
        refused("into", store.get_into("there", &mut into).await)?;
        refused("list", store.list("", None).await)?;
        refused("folders", store.list_folders("").await)?;
        refused("put", store.put("new", unique()).await)?;
        refused("create", store.create("new", unique()).await)?;
    }
    let after = lab.proxy().stats();
    ensure!(after.put - before.put <= 4 && after.list - before.list <= 4);
    lab.faults().clear();
    ensure!(direct.get("new").await?.is_none());
    Ok(())
}

fn failed<T: std::fmt::Debug>(what: &str, result: Result<T, StoreError>) -> anyhow::Result<()> {
    match result {
        Err(StoreError::Unavailable { .. }) => Ok(()),
        other => anyhow::bail!("{what}: {other:?}"),
    }
}

fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, StoreError>) -> anyhow::Result<()> {
    match result {
        Err(StoreError::Refused { .. }) => Ok(()),
        other => anyhow::bail!("{what}: {other:?}"),
    }
}
