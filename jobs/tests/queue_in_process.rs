//! The in-process queue: the common suite, and the ways in which it misbehaves on demand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jobs::queue::conformance::{message, next, nothing};
use jobs::queue::{Depth, InProcess, Order, Queue, QueueError};

async fn with(check: impl AsyncFnOnce(Arc<dyn Queue>)) {
    check(Arc::new(InProcess::new())).await;
}

jobs::queue_conformance!(tokio::test(start_paused = true), with);

async fn publish(queue: &InProcess, ids: &[&str]) {
    for id in ids {
        queue.publish(&message(id), Duration::ZERO).await.unwrap();
    }
}

/// Takes and acknowledges `count` messages; returns their ids.
async fn take(queue: &InProcess, count: usize) -> Vec<String> {
    let mut consumer = queue.consume(1).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..count {
        let delivery = next(&mut consumer).await;
        delivery.handle.ack().await.unwrap();
        let body: BTreeMap<String, String> = serde_json::from_slice(&delivery.body).unwrap();
        ids.push(body["id"].clone());
    }
    nothing(&mut consumer).await;
    ids
}

#[tokio::test(start_paused = true)]
async fn messages_come_in_the_order_asked_for() {
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let queue = InProcess::new();
    publish(&queue, &ids).await;
    assert_eq!(take(&queue, 8).await, ids);

    queue.set_order(Order::Reverse);
    publish(&queue, &ids).await;
    let mut reversed = take(&queue, 8).await;
    reversed.reverse();
    assert_eq!(reversed, ids);

    let shuffled = async |seed| {
        let queue = InProcess::new();
        queue.set_order(Order::Shuffled(seed));
        publish(&queue, &ids).await;
        take(&queue, 8).await
    };
    let first = shuffled(1).await;
    assert_eq!(first, shuffled(1).await, "the seed decides");
    assert_ne!(first, shuffled(2).await);
    let mut sorted = first;
    sorted.sort();
    assert_eq!(sorted, ids);
}

#[tokio::test(start_paused = true)]
async fn messages_are_duplicated_on_demand() {
    let queue = InProcess::new();
    queue.set_duplicate(true);
    publish(&queue, &["a", "b"]).await;
    assert_eq!(take(&queue, 4).await, ["a", "a", "b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn acknowledged_messages_come_once_more_on_demand() {
    let queue = InProcess::new();
    queue.set_redeliver(true);
    publish(&queue, &["a", "b"]).await;
    assert_eq!(take(&queue, 4).await, ["a", "b", "a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_while_held() {
    let queue = InProcess::new();
    let mut consumer = queue.consume(1).await.unwrap();
    queue.set_hold(true);
    publish(&queue, &["a"]).await;
    nothing(&mut consumer).await;
    queue.set_hold(false);
    next(&mut consumer).await.handle.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_gives_deliveries_back_and_consumers_go_on() {
    let queue = InProcess::new();
    let mut consumer = queue.consume(1).await.unwrap();
    publish(&queue, &["a"]).await;
    let delivery = next(&mut consumer).await;
    queue.break_connections();
    assert!(delivery.lost.is_cancelled());
    delivery.handle.ack().await.unwrap_err();
    let follow_up = message("b");
    let published = delivery.handle.publish(&follow_up, Duration::ZERO).await;
    published.unwrap_err();
    drop(delivery);
    let again = next(&mut consumer).await;
    assert!(again.redelivered);
    assert!(!again.lost.is_cancelled());
    again.handle.ack().await.unwrap();
    nothing(&mut consumer).await;
}

#[tokio::test(start_paused = true)]
async fn a_wiped_queue_has_lost_everything_and_works() {
    let queue = InProcess::new();
    let mut consumer = queue.consume(1).await.unwrap();
    publish(&queue, &["a", "b"]).await;
    let later = queue.publish(&message("c"), Duration::from_secs(1)).await;
    later.unwrap();
    let delivery = next(&mut consumer).await;
    queue.wipe();
    assert!(delivery.lost.is_cancelled());
    assert_eq!(queue.depth().await.unwrap(), Depth::default());
    publish(&queue, &["d"]).await;
    assert_eq!(next(&mut consumer).await.body, message("d").body);
}

#[tokio::test(start_paused = true)]
async fn a_failed_publish_may_or_may_not_have_arrived() {
    let queue = InProcess::new();
    for (id, arrives) in [("a", false), ("b", true)] {
        queue.fail_publishes(1, arrives);
        let error = queue.publish(&message(id), Duration::ZERO).await;
        let error = error.unwrap_err();
        assert!(matches!(error, QueueError::Unconfirmed { .. }), "{error}");
    }
    publish(&queue, &["c"]).await;
    assert_eq!(take(&queue, 2).await, ["b", "c"]);
}
