//! What every queue has to do: one suite, run over all implementations by `queue_conformance!`.
//!
//! Each check gets an empty queue of its own. It states order only where the seam promises it
//! (nowhere), and waits for conditions with a deadline that is generous: the broker may be slow.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use tokio::time::Instant;

use super::{Consumer, Delivery, Depth, MAX_DELAY, MAX_REASON, Outgoing, Pile, Queue, QueueError};

/// Makes one test of each check. `$with` is an `async fn` that gets the check, makes an empty
/// queue, runs the check on it and clears up.
#[macro_export]
macro_rules! queue_conformance {
    ($test:meta, $with:path) => {
        $crate::queue_conformance!(@each $test, $with,
            a_published_message_is_delivered_until_acknowledged
            a_delay_is_never_cut_short_and_holds_nobody_else_back
            a_dropped_consumer_gives_its_deliveries_back
            a_dropped_delivery_comes_back
            an_acknowledged_message_stays_away
            a_dead_letter_keeps_its_body_and_reason
            a_long_reason_is_cut_not_refused
            prefetch_bounds_what_is_unacknowledged
            a_thousand_messages_reach_many_consumers
            a_large_body_survives
            a_message_out_of_bounds_is_refused
            a_follow_up_goes_out_through_the_handle
            a_lost_delivery_can_do_nothing
            an_abandoned_wait_for_a_delivery_loses_nothing
            depth_counts_ready_delayed_and_dead
            purging_the_work_takes_only_what_is_ready
            purging_the_dead_leaves_the_work
            a_closed_queue_refuses_everything
        );
    };
    (@each $test:meta, $with:path, $($check:ident)*) => {
        $(
            #[$test]
            async fn $check() {
                $with($crate::queue::conformance::$check).await;
            }
        )*
    };
}

const DEADLINE: Duration = Duration::from_secs(60);

/// Long enough for a message that must not come to come.
const QUIET: Duration = Duration::from_millis(700);

/// A message with this id, whose body tells the id too.
pub fn message(id: &str) -> Outgoing {
    Outgoing {
        id: id.to_owned(),
        body: Bytes::from(format!("{{\"id\":\"{id}\"}}")),
    }
}

/// The next delivery, within the suite's deadline.
pub async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    tokio::time::timeout(DEADLINE, consumer.next())
        .await
        .expect("a delivery within the deadline")
        .expect("the consumer works")
}

/// Checks that nothing is delivered for a while.
pub async fn nothing(consumer: &mut Box<dyn Consumer>) {
    if let Ok(delivery) = tokio::time::timeout(QUIET, consumer.next()).await {
        panic!("nothing should come, but there is {delivery:?}");
    }
}

/// Asks again and again until the answer is there.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn publish(queue: &Arc<dyn Queue>, message: &Outgoing, delay: Duration) {
    queue.publish(message, delay).await.expect("publish");
}

async fn consume(queue: &Arc<dyn Queue>, prefetch: u16) -> Box<dyn Consumer> {
    queue.consume(prefetch).await.expect("consume")
}

async fn depth_becomes(queue: &Arc<dyn Queue>, wanted: Depth) {
    eventually(&format!("depth {wanted:?}"), || async {
        (queue.depth().await.expect("depth") == wanted).then_some(())
    })
    .await;
}

/// The simplest life of a message.
pub async fn a_published_message_is_delivered_until_acknowledged(queue: Arc<dyn Queue>) {
    let sent = message("one");
    publish(&queue, &sent, Duration::ZERO).await;
    let mut consumer = consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.body, sent.body);
    assert!(!delivery.redelivered);
    assert!(!delivery.lost.is_cancelled());
    delivery.handle.ack().await.expect("ack");
    delivery.handle.ack().await.expect_err("a second ack");
    nothing(&mut consumer).await;
    depth_becomes(&queue, Depth::default()).await;
}

/// A short delay behind a long one must not wait for the long one.
pub async fn a_delay_is_never_cut_short_and_holds_nobody_else_back(queue: Arc<dyn Queue>) {
    let mut consumer = consume(&queue, 10).await;
    let start = Instant::now();
    let delays = [("long", 1_700), ("short", 300), ("now", 0)];
    for (id, ms) in delays {
        publish(&queue, &message(id), Duration::from_millis(ms)).await;
    }
    for (id, ms) in delays.into_iter().rev() {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.body, message(id).body);
        assert!(
            start.elapsed() >= Duration::from_millis(ms),
            "{id} is early"
        );
        delivery.handle.ack().await.expect("ack");
    }
}

/// Also the one that the consumer was holding back unseen.
pub async fn a_dropped_consumer_gives_its_deliveries_back(queue: Arc<dyn Queue>) {
    for id in ["a", "b", "c"] {
        publish(&queue, &message(id), Duration::ZERO).await;
    }
    let mut first = consume(&queue, 2).await;
    let delivery = next(&mut first).await;
    drop(first);
    tokio::time::timeout(DEADLINE, delivery.lost.cancelled())
        .await
        .expect("lost fires");

    let mut second = consume(&queue, 10).await;
    let mut bodies = BTreeSet::new();
    for _ in 0..3 {
        let again = next(&mut second).await;
        if again.body == delivery.body {
            assert!(again.redelivered, "the broker knows that it was delivered");
        }
        again.handle.ack().await.expect("ack");
        bodies.insert(again.body);
    }
    assert_eq!(bodies.len(), 3);
    nothing(&mut second).await;
}

/// A task that panics must not keep its message until the worker ends.
pub async fn a_dropped_delivery_comes_back(queue: Arc<dyn Queue>) {
    publish(&queue, &message("one"), Duration::ZERO).await;
    let mut consumer = consume(&queue, 1).await;
    drop(next(&mut consumer).await);
    let again = next(&mut consumer).await;
    assert_eq!(again.body, message("one").body);
    assert!(again.redelivered);
    again.handle.ack().await.expect("ack");
    nothing(&mut consumer).await;
}

/// Not even to another consumer.
pub async fn an_acknowledged_message_stays_away(queue: Arc<dyn Queue>) {
    publish(&queue, &message("one"), Duration::ZERO).await;
    let mut first = consume(&queue, 1).await;
    let delivery = next(&mut first).await;
    delivery.handle.ack().await.expect("ack");
    depth_becomes(&queue, Depth::default()).await;
    drop(delivery);
    drop(first);
    let mut second = consume(&queue, 1).await;
    nothing(&mut second).await;
}

/// And looking at dead messages does not change them.
pub async fn a_dead_letter_keeps_its_body_and_reason(queue: Arc<dyn Queue>) {
    let mut consumer = consume(&queue, 1).await;
    for id in ["a", "b", "c"] {
        publish(&queue, &message(id), Duration::ZERO).await;
        let delivery = next(&mut consumer).await;
        let reason = format!("kind of {id} is not known — §");
        delivery
            .handle
            .dead_letter(&reason)
            .await
            .expect("dead-letter");
    }
    nothing(&mut consumer).await;
    let dead = Depth {
        dead: 3,
        ..Depth::default()
    };
    for _ in 0..3 {
        depth_becomes(&queue, dead).await;
        let found = queue.dead(10).await.expect("dead");
        let ids = ["a", "b", "c"];
        assert_eq!(found.len(), ids.len());
        for (found, id) in found.iter().zip(ids) {
            assert_eq!(found.body, message(id).body);
            assert_eq!(found.reason, format!("kind of {id} is not known — §"));
        }
        depth_becomes(&queue, dead).await;
        assert_eq!(queue.dead(2).await.expect("dead").len(), 2);
    }
}

/// A reason can hold a whole error chain with somebody's output in it.
pub async fn a_long_reason_is_cut_not_refused(queue: Arc<dyn Queue>) {
    publish(&queue, &message("one"), Duration::ZERO).await;
    let mut consumer = consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    let reason = "ß".repeat(MAX_REASON);
    delivery
        .handle
        .dead_letter(&reason)
        .await
        .expect("dead-letter");
    let dead = eventually("a dead message", || async {
        queue.dead(1).await.expect("dead").pop()
    })
    .await;
    assert!(dead.reason.len() <= MAX_REASON);
    assert!(reason.starts_with(&dead.reason));
    assert!(dead.reason.len() > MAX_REASON / 2);
}

/// One that is acknowledged makes room for one.
pub async fn prefetch_bounds_what_is_unacknowledged(queue: Arc<dyn Queue>) {
    for n in 0..5 {
        publish(&queue, &message(&format!("m{n}")), Duration::ZERO).await;
    }
    let mut consumer = consume(&queue, 2).await;
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    nothing(&mut consumer).await;
    first.handle.ack().await.expect("ack");
    let third = next(&mut consumer).await;
    nothing(&mut consumer).await;
    for delivery in [second, third] {
        delivery.handle.ack().await.expect("ack");
    }
}

/// Published at once, consumed by several, each at least once, none left.
pub async fn a_thousand_messages_reach_many_consumers(queue: Arc<dyn Queue>) {
    const MESSAGES: usize = 1_000;
    const CONSUMERS: usize = 4;
    let sent: Vec<Outgoing> = (0..MESSAGES).map(|n| message(&format!("m{n}"))).collect();
    let consumers = join_all((0..CONSUMERS).map(|_| consume(&queue, 20))).await;
    let all = sent
        .iter()
        .map(|message| queue.publish(message, Duration::ZERO));
    try_join_all(all).await.expect("publish");

    let (seen, mut arrivals) = tokio::sync::mpsc::channel(MESSAGES);
    let running: Vec<_> = consumers
        .into_iter()
        .map(|mut consumer| {
            let seen = seen.clone();
            tokio::spawn(async move {
                loop {
                    let delivery = consumer.next().await.expect("the consumer works");
                    delivery.handle.ack().await.expect("ack");
                    seen.send(delivery.body).await.expect("the check goes on");
                }
            })
        })
        .collect();
    let mut missing: BTreeSet<Bytes> = sent.into_iter().map(|message| message.body).collect();
    while !missing.is_empty() {
        let arrival = tokio::time::timeout(DEADLINE, arrivals.recv()).await;
        missing.remove(&arrival.expect("all arrive").expect("somebody consumes"));
    }
    for task in running {
        task.abort();
    }
    depth_becomes(&queue, Depth::default()).await;
}

/// More than one AMQP frame where the queue takes that much, and every byte value.
pub async fn a_large_body_survives(queue: Arc<dyn Queue>) {
    let size = queue.largest_body().min(1_048_576);
    let body: Vec<u8> = (0..size).map(|n| (n % 256) as u8).collect();
    let sent = Outgoing {
        id: "large".to_owned(),
        body: Bytes::from(body),
    };
    publish(&queue, &sent, Duration::ZERO).await;
    let mut consumer = consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    assert!(delivery.body == sent.body, "the body changed on its way");
    delivery.handle.ack().await.expect("ack");
}

/// Refused before it can break a connection.
pub async fn a_message_out_of_bounds_is_refused(queue: Arc<dyn Queue>) {
    let body = Bytes::from_static(b"{}");
    let large = Bytes::from(vec![b'x'; queue.largest_body() + 1]);
    let too_long = MAX_DELAY + Duration::from_millis(1);
    let cases = [
        ("", &body, Duration::ZERO),
        ("with space", &body, Duration::ZERO),
        ("ünicode", &body, Duration::ZERO),
        ("large", &large, Duration::ZERO),
        ("late", &body, too_long),
    ];
    for (id, body, delay) in cases {
        let message = Outgoing {
            id: id.to_owned(),
            body: body.clone(),
        };
        let error = queue.publish(&message, delay).await.expect_err(id);
        assert!(matches!(error, QueueError::Config { .. }), "{error}");
    }
    let longest = "x".repeat(128);
    publish(&queue, &message(&longest), Duration::ZERO).await;
    let mut consumer = consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    delivery.handle.ack().await.expect("ack");
}

/// Now and later.
pub async fn a_follow_up_goes_out_through_the_handle(queue: Arc<dyn Queue>) {
    publish(&queue, &message("one"), Duration::ZERO).await;
    let mut consumer = consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    let (now, later) = (message("now"), message("later"));
    let publish = delivery.handle.publish(&now, Duration::ZERO);
    publish.await.expect("publish");
    let publish = delivery
        .handle
        .publish(&later, Duration::from_millis(1_500));
    publish.await.expect("publish");
    delivery.handle.ack().await.expect("ack");
    for wanted in [now, later] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.body, wanted.body);
        delivery.handle.ack().await.expect("ack");
    }
}

/// A worker that was cut off publishes nothing.
pub async fn a_lost_delivery_can_do_nothing(queue: Arc<dyn Queue>) {
    publish(&queue, &message("one"), Duration::ZERO).await;
    let mut consumer = consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    drop(consumer);
    tokio::time::timeout(DEADLINE, delivery.lost.cancelled())
        .await
        .expect("lost fires");
    let follow_up = message("follow-up");
    let results = [
        delivery.handle.publish(&follow_up, Duration::ZERO).await,
        delivery
            .handle
            .publish(&follow_up, Duration::from_secs(1))
            .await,
        delivery.handle.dead_letter("too late").await,
        delivery.handle.ack().await,
    ];
    for result in results {
        let error = result.expect_err("the connection is gone");
        assert!(matches!(error, QueueError::Unreachable { .. }), "{error}");
    }
    let wanted = Depth {
        ready: 1,
        ..Depth::default()
    };
    depth_becomes(&queue, wanted).await;
}

/// Workers wait for a delivery and for other things at the same time.
pub async fn an_abandoned_wait_for_a_delivery_loses_nothing(queue: Arc<dyn Queue>) {
    let mut consumer = consume(&queue, 1).await;
    for n in 0..20 {
        let sent = message(&format!("m{n}"));
        publish(&queue, &sent, Duration::ZERO).await;
        let delivery = loop {
            let wait = tokio::time::timeout(Duration::from_micros(200), consumer.next());
            if let Ok(delivery) = wait.await {
                break delivery.expect("the consumer works");
            }
        };
        assert_eq!(delivery.body, sent.body);
        assert!(!delivery.redelivered);
        delivery.handle.ack().await.expect("ack");
    }
}

/// Wherever they stand.
pub async fn depth_counts_ready_delayed_and_dead(queue: Arc<dyn Queue>) {
    depth_becomes(&queue, Depth::default()).await;
    let mut consumer = consume(&queue, 1).await;
    publish(&queue, &message("bad"), Duration::ZERO).await;
    let bad = next(&mut consumer).await;
    bad.handle.dead_letter("bad").await.expect("dead-letter");
    drop(bad);
    drop(consumer);
    for (id, hours) in [("now", 0), ("later", 1), ("tomorrow", 24)] {
        publish(&queue, &message(id), Duration::from_secs(hours * 3_600)).await;
    }
    let wanted = Depth {
        ready: 1,
        delayed: 2,
        dead: 1,
    };
    depth_becomes(&queue, wanted).await;
}

/// What is ready is gone; what was given up stays, what waits comes, and who holds something keeps it.
pub async fn purging_the_work_takes_only_what_is_ready(queue: Arc<dyn Queue>) {
    let mut consumer = consume(&queue, 1).await;
    publish(&queue, &message("bad"), Duration::ZERO).await;
    let bad = next(&mut consumer).await;
    bad.handle.dead_letter("bad").await.expect("dead-letter");
    drop(bad);
    publish(&queue, &message("held"), Duration::ZERO).await;
    let held = next(&mut consumer).await;
    for n in 0..12 {
        publish(&queue, &message(&format!("m{n}")), Duration::ZERO).await;
    }
    publish(&queue, &message("later"), Duration::from_secs(3_600)).await;
    let before = Depth {
        ready: 12,
        delayed: 1,
        dead: 1,
    };
    depth_becomes(&queue, before).await;
    queue.purge(Pile::Work).await.expect("purge");
    depth_becomes(&queue, Depth { ready: 0, ..before }).await;
    assert!(!held.lost.is_cancelled());
    held.handle.ack().await.expect("ack of what was held");
    drop(held);
    nothing(&mut consumer).await;
    // It works on, for what comes later.
    publish(&queue, &message("after"), Duration::ZERO).await;
    let after = next(&mut consumer).await;
    assert_eq!(after.body, message("after").body);
    after.handle.ack().await.expect("ack");
}

/// And nothing else.
pub async fn purging_the_dead_leaves_the_work(queue: Arc<dyn Queue>) {
    let mut consumer = consume(&queue, 1).await;
    publish(&queue, &message("bad"), Duration::ZERO).await;
    let bad = next(&mut consumer).await;
    bad.handle.dead_letter("bad").await.expect("dead-letter");
    drop(bad);
    drop(consumer);
    publish(&queue, &message("now"), Duration::ZERO).await;
    publish(&queue, &message("later"), Duration::from_secs(3_600)).await;
    let work = Depth {
        ready: 1,
        delayed: 1,
        dead: 0,
    };
    depth_becomes(&queue, Depth { dead: 1, ..work }).await;
    queue.purge(Pile::Dead).await.expect("purge");
    depth_becomes(&queue, work).await;
    assert_eq!(queue.dead(10).await.expect("dead"), []);
    assert_ne!(queue.name(Pile::Dead), queue.name(Pile::Work));
}

/// And says so, to those who hold something of it too.
pub async fn a_closed_queue_refuses_everything(queue: Arc<dyn Queue>) {
    publish(&queue, &message("one"), Duration::ZERO).await;
    let mut consumer = consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    tokio::time::timeout(DEADLINE, queue.close())
        .await
        .expect("close ends");
    assert!(delivery.lost.is_cancelled());
    delivery.handle.ack().await.expect_err("ack");
    consumer.next().await.expect_err("next");
    let again = queue.publish(&message("two"), Duration::ZERO).await;
    again.expect_err("publish");
    queue.consume(1).await.expect_err("consume");
    queue.close().await;
}
