//! Many writers, one key: exactly one of them wins, and all agree on which.

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use futures::{StreamExt, TryStreamExt, stream};
use jobs::ids::{ClusterName, RecoveryId};
use jobs::keys;
use jobs::record::Versioned;
use jobs::store::{Appended, Created, Store, StoreError};
use sandbox::s3::{Failure, Op, What, When};

use super::unique;
use crate::store_lab::StoreLab;

const WRITERS: usize = 8;

/// Races at a time: enough to keep the server busy, few enough for its backlog.
const AT_ONCE: usize = 8;

/// Nobody disturbs.
pub async fn heavy_one_of_eight_creators_wins_each_of_a_thousand_races(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    races(&lab.direct().await?, 1_000).await
}

/// Half of the disturbed writes took effect, half did not.
pub async fn one_creator_wins_when_every_tenth_answer_is_unclear(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let before = disturb(lab);
    races(&lab.store().await?, 150).await?;
    ensure!(lab.faults().fired() - before >= 100, "the faults struck");
    Ok(())
}

/// Nobody disturbs.
pub async fn appends_under_contention_leave_no_gap_and_lose_no_update(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    appends(lab, 20).await
}

/// The reads between the appends are disturbed as well.
pub async fn appends_lose_no_update_when_every_tenth_answer_is_unclear(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let before = disturb(lab);
    appends(lab, 12).await?;
    ensure!(lab.faults().fired() - before >= 10, "the faults struck");
    Ok(())
}

/// Some stores forget conditions on versioned buckets; these do not.
pub async fn the_probe_says_yes_also_on_a_versioned_bucket(lab: &StoreLab) -> anyhow::Result<()> {
    let store = lab.store().await?;
    store.probe().await.context("before")?;
    lab.set_versioned().await?;
    store.probe().await.context("versioned")?;
    let left = store.list(".probe/", None).await?;
    ensure!(left.is_empty(), "the probe leaves {left:?}");
    Ok(())
}

/// Trouble is no verdict, and the verdict on a good bucket is yes however much it is disturbed.
pub async fn a_disturbed_probe_is_neither_safe_nor_unsafe_by_mistake(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let store = lab.store().await?;
    for what in [
        What::LoseAnswer,
        What::CutRequest(1),
        What::FailAfterEffect(Failure::Internal),
        What::FailAfterEffect(Failure::Conflict),
        What::Fail(Failure::SlowDown),
        What::Fail(Failure::Conflict),
    ] {
        lab.faults().on(Op::Put, When::Every(3), what.clone());
        let verdict = store.probe().await;
        lab.faults().clear();
        verdict.with_context(|| format!("{what:?}"))?;
    }
    lab.faults()
        .on(Op::Put, When::Always, What::Fail(Failure::Denied));
    let verdict = store.probe().await;
    ensure!(
        matches!(verdict, Err(StoreError::Refused { .. })),
        "{verdict:?}"
    );
    Ok(())
}

/// Of a hundred writes about five take effect without an answer, and five do not; of a hundred
/// reads two are lost. Gives the count of faults so far.
fn disturb(lab: &StoreLab) -> u64 {
    let faults = lab.faults();
    for (seed, op, per_mille, what) in [
        (1, Op::Put, 25, What::FailAfterEffect(Failure::Internal)),
        (2, Op::Put, 25, What::LoseAnswer),
        (3, Op::Put, 25, What::Fail(Failure::SlowDown)),
        (4, Op::Put, 25, What::CutRequest(9)),
        (5, Op::Get, 20, What::CutAnswer(9)),
        (6, Op::List, 20, What::CutAnswer(99)),
    ] {
        faults.on(op, When::Chance { per_mille, seed }, what);
    }
    faults.fired()
}

async fn races(store: &Store, count: usize) -> anyhow::Result<()> {
    let writers: Vec<Store> = (0..WRITERS).map(|_| store.as_another_writer()).collect();
    stream::iter(0..count)
        .map(|n| race(&writers, format!("race/{n:04}")))
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |()| Ok(()))
        .await
}

async fn race(writers: &[Store], key: String) -> anyhow::Result<()> {
    let bodies: Vec<Bytes> = writers.iter().map(|_| unique()).collect();
    let tries = writers.iter().zip(&bodies);
    let tries = tries.map(|(writer, body)| writer.create(&key, body.clone()));
    let outcomes: Vec<Created> = join_all(tries)
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    let winners: Vec<usize> = (0..outcomes.len())
        .filter(|n| outcomes[*n] == Created::New)
        .collect();
    let [winner] = winners[..] else {
        anyhow::bail!("{key}: winners {winners:?}");
    };
    let truth = &bodies[winner];
    for outcome in outcomes {
        if let Created::Exists(there) = outcome {
            ensure!(there == *truth, "{key}: a loser read {there:?}");
        }
    }
    let stands = writers[0].get(&key).await?;
    ensure!(stands.as_ref() == Some(truth), "{key}: there is {stands:?}");
    Ok(())
}

/// All writers count the same record up, each `times`.
async fn appends(lab: &StoreLab, times: usize) -> anyhow::Result<()> {
    let series = keys::recovery(&ClusterName::new("demo")?, &RecoveryId::new("r-1")?);
    let store = lab.store().await?;
    let all = (0..WRITERS).map(|_| {
        let (writer, series) = (store.as_another_writer(), series.clone());
        async move {
            let mut mine = Vec::new();
            while mine.len() < times {
                let stored = writer.read::<u64>(&series).await?;
                let (version, value) = stored.map_or((0, 0), |s| (s.version, s.body));
                let appended = writer.append(&series, version + 1, &(value + 1)).await?;
                if appended == Appended::Won {
                    mine.push((version + 1, writer.writer()));
                }
            }
            anyhow::Ok(mine)
        }
    });
    let mut won: Vec<_> = try_join_all(all).await?.into_iter().flatten().collect();
    won.sort_unstable();
    let numbers: Vec<u64> = won.iter().map(|(n, _)| *n).collect();
    let last = (WRITERS * times) as u64;
    ensure!(
        numbers == (1..=last).collect::<Vec<_>>(),
        "a gap or a double: {numbers:?}"
    );
    let store = lab.direct().await?;
    let names = store.list(series.prefix(), None).await?;
    ensure!(names.len() as u64 == last, "{} versions", names.len());
    for (n, writer) in won {
        let bytes = store.get(&series.version(n)).await?.context("a version")?;
        let version: Versioned<u64> = serde_json::from_slice(&bytes)?;
        ensure!(version.body == n, "version {n} counts {}", version.body);
        ensure!(version.writer == writer, "version {n} is another's");
    }
    Ok(())
}
