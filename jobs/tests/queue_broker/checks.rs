//! The RabbitMQ queue over a real broker: the common suite, and what only a broker can do to us.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jobs::queue::conformance::{eventually, message, next, nothing};
use jobs::queue::{Consumer, Depth, MAX_BODY, Outgoing, Queue, QueueError, Rabbit, RabbitConfig};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

use super::{Broker, config, shared_url};

/// A quorum queue younger than about a second loses confirmed messages when its node is killed.
/// That is the broker's doing; S3 decides in the end, and these tests let the queue get older.
const GROWN_UP: Duration = Duration::from_secs(3);

async fn with(check: impl AsyncFnOnce(Arc<dyn Queue>)) {
    let url = shared_url();
    let config = config(&url);
    let queue = config.queue.clone();
    let rabbit = Arc::new(Rabbit::new(config).unwrap());
    check(rabbit.clone()).await;
    rabbit.close().await;
    delete_queues(&url, &queue).await;
}

jobs::queue_conformance!(
    tokio::test(flavor = "multi_thread", worker_threads = 2),
    with
);

/// Deletes all queues of ours that exist, as an operator would.
async fn delete_queues(url: &str, queue: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let config = RabbitConfig {
        queue: queue.to_owned(),
        ..RabbitConfig::new(url)
    };
    for name in config.queues() {
        // Deleting an absent queue is not an error.
        let options = QueueDeleteOptions::default();
        channel.queue_delete(name.into(), options).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
}

async fn publish(rabbit: &Rabbit, id: &str, delay: Duration) {
    rabbit.publish(&message(id), delay).await.unwrap();
}

/// Publishes until it works: the broker is coming back.
async fn publish_patiently(rabbit: &Rabbit, id: &str, delay: Duration) {
    let sent = message(id);
    eventually("a publish that works", || async {
        rabbit.publish(&sent, delay).await.ok()
    })
    .await;
}

/// Takes and acknowledges until all these have come; others may come too.
async fn expect_all(consumer: &mut Box<dyn Consumer>, ids: &[&str]) {
    let mut missing: BTreeSet<_> = ids.iter().map(|id| message(id).body).collect();
    while !missing.is_empty() {
        let delivery = next(consumer).await;
        delivery.handle.ack().await.unwrap();
        missing.remove(&delivery.body);
    }
}

async fn errors_of(config: RabbitConfig) -> [QueueError; 3] {
    let rabbit = Rabbit::new(config).unwrap();
    let published = rabbit.publish(&message("one"), Duration::ZERO).await;
    let errors = [
        published.unwrap_err(),
        rabbit.depth().await.unwrap_err(),
        rabbit.consume(1).await.unwrap_err(),
    ];
    rabbit.close().await;
    errors
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let url = shared_url().replace("guest:guest", "guest:hunter2");
    for error in errors_of(config(&url)).await {
        assert!(matches!(error, QueueError::Refused { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn an_unknown_virtual_host_is_refused() {
    let url = format!("{}/nobody", shared_url());
    for error in errors_of(config(&url)).await {
        assert!(matches!(error, QueueError::Refused { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_queue_with_other_properties_is_told_apart() {
    let url = shared_url();
    let config = config(&url);
    let queue = config.queue.clone();
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let classic = QueueDeclareOptions::durable();
    let arguments = FieldTable::default();
    channel
        .queue_declare(queue.as_str().into(), classic, arguments)
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();

    for error in errors_of(config).await {
        match &error {
            QueueError::Different { queue: named, .. } => assert_eq!(*named, queue),
            _ => panic!("{error:?}"),
        }
    }
    delete_queues(&url, &queue).await;
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_unreachable_and_leaves_nothing_behind() {
    // Accepts connections (the kernel does) and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let mut config = config(&format!("amqp://user:hunter2@{address}"));
    config.connect_timeout = Duration::from_millis(100);
    let rabbit = Rabbit::new(config).unwrap();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    for _ in 0..20 {
        let published = rabbit.publish(&message("one"), Duration::ZERO).await;
        let error = published.unwrap_err();
        assert!(matches!(error, QueueError::Unreachable { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    // Not exactly: the name lookup has a few threads of its own.
    let few = before + 10;
    eventually("the threads end", async || (threads() < few).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_an_operator_deleted_are_made_again() {
    let url = shared_url();
    let config = config(&url);
    let queue = config.queue.clone();
    let rabbit = Rabbit::new(config).unwrap();
    let mut consumer = rabbit.consume(1).await.unwrap();
    publish(&rabbit, "before", Duration::from_millis(100)).await;
    expect_all(&mut consumer, &["before"]).await;

    // The publisher's connection stays and believes that its queues are there.
    delete_queues(&url, &queue).await;
    publish(&rabbit, "later", Duration::from_millis(100)).await;
    publish(&rabbit, "now", Duration::ZERO).await;
    expect_all(&mut consumer, &["now", "later"]).await;

    publish(&rabbit, "bad", Duration::ZERO).await;
    let bad = next(&mut consumer).await;
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let dead = format!("{queue}.dead");
    channel
        .queue_delete(dead.into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();
    bad.handle.dead_letter("a bad one").await.unwrap();
    let found = rabbit.dead(10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].reason, "a bad one");

    rabbit.close().await;
    delete_queues(&url, &queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_of_publishes_into_absent_queues_loses_none() {
    let url = shared_url();
    let config = config(&url);
    let queue = config.queue.clone();
    let rabbit = Rabbit::new(config).unwrap();
    publish(&rabbit, "first", Duration::ZERO).await;
    delete_queues(&url, &queue).await;
    let ids: Vec<String> = (0..300).map(|n| format!("m{n}")).collect();
    let all = ids.iter().enumerate().map(async |(n, id)| {
        // Both queues at once, so that returned and confirmed messages are mixed.
        let delay = Duration::from_millis(if n % 2 == 0 { 0 } else { 100 });
        publish(&rabbit, id, delay).await;
    });
    futures::future::join_all(all).await;
    let mut consumer = rabbit.consume(50).await.unwrap();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    expect_all(&mut consumer, &ids).await;
    rabbit.close().await;
    delete_queues(&url, &queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_workers_ends_in_the_dead_queue() {
    let url = shared_url();
    let config = config(&url);
    let queue = config.queue.clone();
    let rabbit = Rabbit::new(config).unwrap();
    // By way of a wait queue: the broker's record of that death must not be taken for this one.
    publish(&rabbit, "poison", Duration::from_millis(100)).await;
    let mut consumer = rabbit.consume(1).await.unwrap();
    let mut deliveries = 0;
    let dead = loop {
        // Dropped, as by a task that panics.
        if let Ok(delivery) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await {
            assert_eq!(delivery.unwrap().body, message("poison").body);
            deliveries += 1;
            assert!(deliveries < 2_000);
        } else if let Some(dead) = rabbit.dead(1).await.unwrap().pop() {
            break dead;
        }
    };
    assert_eq!(dead.body, message("poison").body);
    assert!(dead.reason.contains("delivery_limit"), "{}", dead.reason);
    assert!(deliveries >= 1_000, "{deliveries}");

    for _ in 0..30 {
        assert_eq!(
            rabbit.dead(1).await.unwrap().len(),
            1,
            "looking takes nothing away"
        );
    }
    drop(consumer);
    rabbit.close().await;
    delete_queues(&url, &queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_comes_back_with_what_it_confirmed() {
    let broker = Broker::start();
    let rabbit = Rabbit::new(config(&broker.url)).unwrap();
    let mut consumer = rabbit.consume(2).await.unwrap();
    publish(&rabbit, "warm-up", Duration::from_secs(2)).await;
    expect_all(&mut consumer, &["warm-up"]).await;
    tokio::time::sleep(GROWN_UP).await;

    publish(&rabbit, "taken", Duration::ZERO).await;
    let taken = next(&mut consumer).await;
    let ids: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    for id in &ids {
        publish(&rabbit, id, Duration::ZERO).await;
    }
    publish(&rabbit, "delayed", Duration::from_secs(2)).await;

    broker.kill();
    tokio::time::timeout(Duration::from_secs(30), taken.lost.cancelled())
        .await
        .unwrap();
    taken.handle.ack().await.unwrap_err();
    let follow_up = message("follow-up");
    taken
        .handle
        .publish(&follow_up, Duration::ZERO)
        .await
        .unwrap_err();
    drop(taken);
    rabbit
        .publish(&message("nobody"), Duration::ZERO)
        .await
        .unwrap_err();

    broker.restart();
    let mut all: Vec<&str> = ids.iter().map(String::as_str).collect();
    all.extend(["taken", "delayed"]);
    expect_all(&mut consumer, &all).await;
    publish_patiently(&rabbit, "after", Duration::ZERO).await;
    expect_all(&mut consumer, &["after"]).await;
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_with_a_private_ca_and_only_with_it() {
    let (_broker, url, ca) = Broker::start_with_tls();
    let stranger = Rabbit::new(config(&url)).unwrap();
    let error = stranger.depth().await.unwrap_err();
    assert!(matches!(error, QueueError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("ertificate"), "{error}");
    stranger.close().await;

    let mut config = config(&url);
    config.ca = Some(ca);
    let rabbit = Rabbit::new(config).unwrap();
    let mut consumer = rabbit.consume(1).await.unwrap();
    publish(&rabbit, "one", Duration::ZERO).await;
    expect_all(&mut consumer, &["one"]).await;
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_broker_is_made_ready_again() {
    let broker = Broker::start();
    let rabbit = Rabbit::new(config(&broker.url)).unwrap();
    let mut consumer = rabbit.consume(2).await.unwrap();
    publish(&rabbit, "lost", Duration::from_secs(3_600)).await;

    broker.wipe();
    publish_patiently(&rabbit, "now", Duration::ZERO).await;
    publish_patiently(&rabbit, "later", Duration::from_secs(1)).await;
    expect_all(&mut consumer, &["now", "later"]).await;
    assert_eq!(rabbit.depth().await.unwrap(), Depth::default());
    nothing(&mut consumer).await;
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_waits_for_a_broker_that_is_away() {
    let broker = Broker::start();
    let rabbit = Rabbit::new(config(&broker.url)).unwrap();
    publish(&rabbit, "one", Duration::ZERO).await;
    tokio::time::sleep(GROWN_UP).await;
    broker.kill();
    let mut consumer = rabbit.consume(1).await.unwrap();
    nothing(&mut consumer).await;
    broker.restart();
    expect_all(&mut consumer, &["one"]).await;
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_to_a_frozen_broker_is_unconfirmed() {
    let broker = Broker::start();
    let mut config = config(&broker.url);
    config.confirm_timeout = Duration::from_secs(1);
    config.connect_timeout = Duration::from_secs(1);
    let rabbit = Rabbit::new(config).unwrap();
    publish(&rabbit, "one", Duration::ZERO).await;
    broker.signal("-STOP");
    let published = rabbit.publish(&message("two"), Duration::ZERO).await;
    let error = published.unwrap_err();
    assert!(matches!(error, QueueError::Unconfirmed { .. }), "{error:?}");
    let published = rabbit.publish(&message("three"), Duration::ZERO).await;
    let error = published.unwrap_err();
    assert!(matches!(error, QueueError::Unreachable { .. }), "{error:?}");
    broker.signal("-CONT");
    publish_patiently(&rabbit, "four", Duration::ZERO).await;
    let mut consumer = rabbit.consume(1).await.unwrap();
    expect_all(&mut consumer, &["one", "four"]).await;
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_restarts_loses_no_message_to_the_dead_queue() {
    let url = shared_url();
    let config = config(&url);
    let queue = config.queue.clone();
    let ids: Vec<String> = (0..8).map(|n| format!("m{n}")).collect();
    let outside = Rabbit::new(config.clone()).unwrap();
    for id in &ids {
        publish(&outside, id, Duration::ZERO).await;
    }
    // More often than RabbitMQ 4 delivers a message by default. Half of the workers die with all
    // they hold; the others give one back and close in order.
    for n in 0..40 {
        let worker = Rabbit::new(config.clone()).unwrap();
        let mut consumer = worker.consume(16).await.unwrap();
        let held = next(&mut consumer).await;
        if n % 2 == 0 {
            drop(consumer);
            tokio::time::timeout(Duration::from_secs(30), held.lost.cancelled())
                .await
                .unwrap();
        }
        drop(held);
        worker.close().await;
    }
    let mut consumer = outside.consume(16).await.unwrap();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    expect_all(&mut consumer, &ids).await;
    assert_eq!(outside.dead(10).await.unwrap(), []);
    outside.close().await;
    delete_queues(&url, &queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_message_survives_every_way_it_can_go() {
    let url = shared_url();
    let config = config(&url);
    let queue = config.queue.clone();
    let rabbit = Rabbit::new(config).unwrap();
    let mut consumer = rabbit.consume(1).await.unwrap();
    let body: Vec<u8> = (0..MAX_BODY).map(|n| (n % 253) as u8).collect();
    let sent = Outgoing {
        id: "largest".to_owned(),
        body: body.into(),
    };
    // At once, by way of a wait queue, as a follow-up, and to the dead queue.
    rabbit.publish(&sent, Duration::ZERO).await.unwrap();
    let first = next(&mut consumer).await;
    let later = Duration::from_millis(100);
    first.handle.publish(&sent, later).await.unwrap();
    first.handle.ack().await.unwrap();
    let second = next(&mut consumer).await;
    assert!(second.body == sent.body, "the body changed on its way");
    second.handle.dead_letter("too long").await.unwrap();
    let dead = eventually("the dead message", || async {
        rabbit.dead(1).await.unwrap().pop()
    })
    .await;
    assert!(dead.body == sent.body, "the body changed on its way");
    rabbit.close().await;
    delete_queues(&url, &queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_brokers_own_limit_is_named_and_harms_no_other() {
    let broker = Broker::start_with("max_message_size = 65536", "[].");
    let version = broker.version();
    assert!(version.starts_with(crate::RELEASE.version), "{version}");
    let rabbit = Rabbit::new(config(&broker.url)).unwrap();
    let mut consumer = rabbit.consume(1).await.unwrap();
    let large = Outgoing {
        id: "large".to_owned(),
        body: vec![b'x'; 100_000].into(),
    };
    let error = rabbit.publish(&large, Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("65536"), "{error}");
    publish_patiently(&rabbit, "small", Duration::ZERO).await;
    expect_all(&mut consumer, &["small"]).await;
    nothing(&mut consumer).await;
    rabbit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_held_longer_than_the_broker_allows_is_lost_and_comes_again() {
    // The broker looks every tick, which is a minute by default.
    let advanced = "[{rabbit, [{consumer_timeout, 2000}, {channel_tick_interval, 500}]}].";
    let broker = Broker::start_with("", advanced);
    let rabbit = Rabbit::new(config(&broker.url)).unwrap();
    let mut consumer = rabbit.consume(1).await.unwrap();
    publish(&rabbit, "one", Duration::ZERO).await;
    let held = next(&mut consumer).await;
    tokio::time::timeout(Duration::from_secs(30), held.lost.cancelled())
        .await
        .expect("the broker takes it away");
    held.handle.ack().await.unwrap_err();
    let again = next(&mut consumer).await;
    assert_eq!(again.body, held.body);
    assert!(again.redelivered);
    again.handle.ack().await.unwrap();
    nothing(&mut consumer).await;
    rabbit.close().await;
}
