//! Listings: whole, in order, and with the names that were given.

use anyhow::ensure;
use futures::{StreamExt, TryStreamExt, stream};
use jobs::store::Store;
use sandbox::s3::{Failure, Op, What, When};

use super::unique;
use crate::store_lab::StoreLab;

/// A page of S3 holds a thousand.
const KEYS: usize = 2_600;

const FOLDERS: usize = 1_100;

/// Also from the middle on, and by folder.
pub async fn a_listing_is_whole_over_many_pages(lab: &StoreLab) -> anyhow::Result<()> {
    let store = lab.store().await?;
    let keys = fill(&store).await?;
    let before = lab.proxy().stats().list;
    ensure!(store.list("many/", None).await? == keys);
    ensure!(lab.proxy().stats().list - before == 3, "three pages");
    for start in [0, 1, 999, 1_000, 1_001, KEYS - 2] {
        let after = store.list("many/", Some(&keys[start])).await?;
        ensure!(after == keys[start + 1..], "after {}", keys[start]);
    }
    let last = keys.last().map(String::as_str);
    ensure!(store.list("many/", last).await?.is_empty());
    ensure!(store.list("many/", Some("a")).await? == keys, "before all");
    // A prefix is not a folder.
    ensure!(store.list("many/01", None).await?.len() == 1_000);
    ensure!(store.list("nothing/", None).await?.is_empty());

    let folders = store.list_folders("folders/").await?;
    ensure!(folders == folder_names(), "{} folders", folders.len());
    ensure!(store.list_folders("").await? == ["folders", "many"]);
    ensure!(store.list_folders("many/").await?.is_empty(), "no folders");
    Ok(())
}

/// A page that fails is asked for again; none is left out and none comes twice.
pub async fn a_disturbed_listing_is_whole(lab: &StoreLab) -> anyhow::Result<()> {
    let store = lab.store().await?;
    let keys = fill(&lab.direct().await?).await?;
    for what in [
        What::CutAnswer(20_000),
        What::CutAnswer(0),
        What::LoseRequest,
        What::LoseAnswer,
        What::Fail(Failure::SlowDown),
        What::FailAfterEffect(Failure::Internal),
    ] {
        let rule = lab.faults().on(Op::List, When::Every(2), what.clone());
        ensure!(store.list("many/", None).await? == keys, "{what:?}");
        let folders = store.list_folders("folders/").await?;
        ensure!(folders == folder_names(), "{what:?}");
        ensure!(lab.faults().fired_by(rule) >= 3, "{what:?} struck");
        lab.faults().clear();
    }
    Ok(())
}

/// What S3 allows in a key must come back as it went in.
pub async fn keys_may_hold_odd_characters(lab: &StoreLab) -> anyhow::Result<()> {
    let store = lab.store().await?;
    let mut names = vec![
        "a b",
        "a+b",
        "a%20b",
        "100%",
        "ümläut",
        "ключ",
        "鍵",
        "😀",
        "q?x=1&y=2",
        "hash#tag",
        "<tag>&amp;",
        "\"quoted\"",
        "it's",
        "back\\slash",
        "a:b",
        "a;b,c",
        "(x)[y]{z}",
        "~tilde",
        "star*",
        "at@",
        "dollar$",
        "a=b",
        "a|b",
        "^caret`",
        "..dots..",
        " leading",
        "trailing ",
    ];
    names.sort_unstable();
    let mut keys = Vec::new();
    for name in &names {
        let (key, body) = (format!("odd/{name}"), unique());
        store.create(&key, body.clone()).await?;
        ensure!(store.get(&key).await? == Some(body.clone()), "{key}");
        store.put(&format!("odd folders/{name}/x"), body).await?;
        keys.push(key);
    }
    let listed = store.list("odd/", None).await?;
    ensure!(listed == keys, "{listed:?}");
    for (n, key) in keys.iter().enumerate() {
        ensure!(store.list(key, None).await?.contains(key), "{key}");
        let after = store.list("odd/", Some(key)).await?;
        ensure!(after == keys[n + 1..], "after {key}: {after:?}");
    }
    let mut folders = store.list_folders("odd folders/").await?;
    folders.sort_unstable();
    ensure!(folders == names, "{folders:?}");
    Ok(())
}

async fn fill(store: &Store) -> anyhow::Result<Vec<String>> {
    let keys: Vec<String> = (0..KEYS).map(|n| format!("many/{n:05}")).collect();
    let nested = folder_names()
        .into_iter()
        .map(|name| format!("folders/{name}/x"));
    let all: Vec<String> = keys.iter().cloned().chain(nested).collect();
    stream::iter(all)
        .map(|key| async move { store.put(&key, unique()).await })
        .buffer_unordered(16)
        .try_for_each(async |()| Ok(()))
        .await?;
    Ok(keys)
}

fn folder_names() -> Vec<String> {
    (0..FOLDERS).map(|n| format!("f{n:04}")).collect()
}
