//! Messages come twice, late, in another order, or never.

use std::time::Duration;

use e2e::lab::{LONG, Lab, small, steps_are_recorded_once};
use jobs::queue::Order;

/// The small cluster, with a queue that does what queues may do; for the first seconds only, since
/// a broker that never stops to double every message drowns everybody.
async fn recovered_by(
    disturb: impl Fn(&jobs::queue::InProcess),
    now_and_then: impl Fn(&jobs::queue::InProcess),
) -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    disturb(&lab.queue);
    let (one, two) = (lab.worker().await?, lab.worker().await?);
    let begun = lab.recover(&small("test")).await?;
    let disturbed = async {
        for _ in 0..16 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            now_and_then(&lab.queue);
        }
        lab.queue.set_duplicate(false);
        lab.queue.set_redeliver(false);
        lab.queue.set_hold(false);
        lab.queue.fail_publishes(0, false);
    };
    let (finished, ()) = tokio::join!(begun.finished(LONG), disturbed);
    finished?;
    one.stop().await?;
    two.stop().await?;
    lab.is_whole(3, 1, 1)?;
    steps_are_recorded_once(&lab, &begun).await?;
    assert!(lab.dead().await?.is_empty(), "{:?}", lab.dead().await?);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_comes_twice() -> anyhow::Result<()> {
    recovered_by(
        |queue| {
            queue.set_duplicate(true);
            queue.set_redeliver(true);
        },
        |_| (),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_in_the_wrong_order() -> anyhow::Result<()> {
    recovered_by(|queue| queue.set_order(Order::Reverse), |_| ()).await?;
    recovered_by(
        |queue| {
            queue.set_order(Order::Shuffled(7));
            queue.set_redeliver(true);
        },
        |_| (),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_late_and_connections_break() -> anyhow::Result<()> {
    let held = std::cell::Cell::new(false);
    recovered_by(
        |_| (),
        |queue| {
            held.set(!held.get());
            queue.set_hold(held.get());
            if !held.get() {
                queue.break_connections();
            }
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_are_not_confirmed() -> anyhow::Result<()> {
    for arrives in [false, true] {
        recovered_by(|_| (), |queue| queue.fail_publishes(2, arrives)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_broker_loses_nothing() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let begun = lab.recover(&small("test")).await?;
    lab.queue.wipe();
    let worker = lab.worker().await?;
    lab.sandbox
        .clo
        .wait_until("a server", |s| !s.servers.is_empty())
        .await;
    lab.queue.wipe();
    begun.finished(LONG).await?;
    worker.stop().await?;
    lab.is_whole(3, 1, 1)?;
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}
