//! The SQS queue over an emulator: the common suite, and what only SQS can do to us.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod queue_ministack;

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::Credentials as Keys;
use aws_sdk_sqs::types::{MessageAttributeValue, QueueAttributeName};
use jobs::queue::conformance::{eventually, message, next, nothing};
use jobs::queue::{Consumer, Depth, Queue, QueueError, Sqs, SqsConfig};
use jobs::store::{Credentials, Secret};
use queue_ministack::{Emulator, config, shared_endpoint};
use tokio::time::Instant;

async fn with(check: impl AsyncFnOnce(Arc<dyn Queue>)) {
    let mut config = config(&shared_endpoint());
    // Longer than the suite waits: what is to come back has to be given back.
    config.visibility = Duration::from_secs(300);
    let sqs = Arc::new(Sqs::new(config.clone()).unwrap());
    check(sqs.clone()).await;
    sqs.close().await;
    Operator::of(&config).delete_queues().await;
}

jobs::queue_conformance!(
    tokio::test(flavor = "multi_thread", worker_threads = 2),
    with
);

/// Settings with which a delivery is hidden, and lost, after a short while.
fn brief(endpoint: &str) -> SqsConfig {
    SqsConfig {
        visibility: Duration::from_secs(4),
        timeout: Duration::from_secs(2),
        ..config(endpoint)
    }
}

/// Somebody with the service's own tools.
struct Operator {
    client: Client,
    queue: String,
}

impl Operator {
    fn of(config: &SqsConfig) -> Operator {
        let settings = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(config.endpoint.as_ref().unwrap())
            .region(Region::new("us-east-1"))
            .credentials_provider(Keys::new("test", "test-secret", None, None, "test"));
        Operator {
            client: Client::from_conf(settings.build()),
            queue: config.queue.clone(),
        }
    }

    async fn url(&self, suffix: &str) -> Option<String> {
        let name = format!("{}{suffix}", self.queue);
        let found = self.client.get_queue_url().queue_name(name).send().await;
        found.ok()?.queue_url
    }

    async fn create(&self, suffix: &str, attributes: &[(QueueAttributeName, &str)]) -> String {
        let name = format!("{}{suffix}", self.queue);
        let mut call = self.client.create_queue().queue_name(name);
        for (name, value) in attributes {
            call = call.attributes(name.clone(), *value);
        }
        call.send().await.unwrap().queue_url.unwrap()
    }

    async fn attribute(&self, suffix: &str, name: QueueAttributeName) -> Option<String> {
        let url = self.url(suffix).await.unwrap();
        let call = self.client.get_queue_attributes().queue_url(url);
        let found = call.attribute_names(QueueAttributeName::All).send().await;
        found.unwrap().attributes?.remove(&name)
    }

    async fn send(&self, body: &str, attributes: &[(&str, &str)]) {
        let url = self.url("").await.unwrap();
        let mut call = self.client.send_message().queue_url(url).message_body(body);
        for (name, value) in attributes {
            let built = MessageAttributeValue::builder().data_type("String");
            let built = built.string_value(*value).build().unwrap();
            call = call.message_attributes(*name, built);
        }
        call.send().await.unwrap();
    }

    async fn delete_queues(&self) {
        for suffix in ["", "-dead"] {
            if let Some(url) = self.url(suffix).await {
                self.client
                    .delete_queue()
                    .queue_url(url)
                    .send()
                    .await
                    .unwrap();
            }
        }
    }
}

async fn publish(sqs: &Sqs, id: &str, delay: Duration) {
    sqs.publish(&message(id), delay).await.unwrap();
}

/// Publishes until it works: the service is coming back.
async fn publish_patiently(sqs: &Sqs, id: &str) {
    let sent = message(id);
    eventually("a publish that works", || async {
        sqs.publish(&sent, Duration::ZERO).await.ok()
    })
    .await;
}

async fn expect(consumer: &mut Box<dyn Consumer>, id: &str) {
    let delivery = next(consumer).await;
    assert_eq!(delivery.body, message(id).body);
    delivery.handle.ack().await.unwrap();
}

async fn errors_of(config: SqsConfig) -> [QueueError; 3] {
    let sqs = Sqs::new(config).unwrap();
    let published = sqs.publish(&message("one"), Duration::ZERO).await;
    let errors = [
        published.unwrap_err(),
        sqs.depth().await.unwrap_err(),
        sqs.consume(1).await.unwrap_err(),
    ];
    sqs.close().await;
    errors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_longer_than_sqs_takes_is_made_of_several() {
    let mut config = config(&shared_endpoint());
    config.hop = Duration::from_secs(1);
    let sqs = Sqs::new(config.clone()).unwrap();
    let start = Instant::now();
    publish(&sqs, "late", Duration::from_secs(3)).await;
    publish(&sqs, "one", Duration::ZERO).await;
    let mut consumer = sqs.consume(2).await.unwrap();
    let one = next(&mut consumer).await;
    assert_eq!(one.body, message("one").body);
    let follow_up = message("later");
    let delay = Duration::from_secs(5);
    one.handle.publish(&follow_up, delay).await.unwrap();
    let published = start.elapsed();
    one.handle.ack().await.unwrap();

    let late = next(&mut consumer).await;
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(late.body, message("late").body);
    // What was posted again on the way was acknowledged, not only left.
    assert!(!late.redelivered);
    late.handle.ack().await.unwrap();

    let later = next(&mut consumer).await;
    assert!(
        start.elapsed() >= published + delay,
        "{:?}",
        start.elapsed()
    );
    assert_eq!(later.body, follow_up.body);
    later.handle.ack().await.unwrap();
    nothing(&mut consumer).await;
    assert_eq!(sqs.depth().await.unwrap(), Depth::default());
    sqs.close().await;
    Operator::of(&config).delete_queues().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_consumer_holds_is_renewed_also_before_somebody_takes_it() {
    let config = brief(&shared_endpoint());
    let sqs = Sqs::new(config.clone()).unwrap();
    for id in ["a", "b", "c", "d"] {
        publish(&sqs, id, Duration::ZERO).await;
    }
    let mut first = sqs.consume(4).await.unwrap();
    let held = next(&mut first).await;
    let mut second = sqs.consume(4).await.unwrap();
    let long = Duration::from_secs(8);
    if let Ok(taken) = tokio::time::timeout(long, second.next()).await {
        panic!("somebody else got it: {taken:?}");
    }
    assert!(!held.lost.is_cancelled());
    held.handle.ack().await.unwrap();
    drop(first);
    for _ in 0..3 {
        let given_back = next(&mut second).await;
        assert_ne!(given_back.body, held.body);
        assert!(given_back.redelivered);
        given_back.handle.ack().await.unwrap();
    }
    if let Ok(again) = tokio::time::timeout(config.visibility, second.next()).await {
        panic!("it came again: {again:?}");
    }
    sqs.close().await;
    Operator::of(&config).delete_queues().await;
}

#[tokio::test]
async fn a_queues_url_is_enough_and_has_to_be_right() {
    let mut config = config(&shared_endpoint());
    let operator = Operator::of(&config);
    let endpoint = config.endpoint.take().unwrap();
    let name = config.queue.clone();
    config.queue = format!("{endpoint}/000000000000/{name}");
    let sqs = Sqs::new(config.clone()).unwrap();
    publish(&sqs, "one", Duration::ZERO).await;
    assert_eq!(sqs.depth().await.unwrap().ready, 1);
    sqs.close().await;

    config.queue = format!("{endpoint}/111111111111/{name}");
    for error in errors_of(config).await {
        assert!(matches!(error, QueueError::Config { .. }), "{error:?}");
        assert!(error.to_string().starts_with("SQS_QUEUE: "), "{error}");
    }
    operator.delete_queues().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_cannot_be_renewed_is_lost_and_can_do_nothing() {
    let emulator = Emulator::start();
    let config = brief(&emulator.endpoint);
    let sqs = Sqs::new(config.clone()).unwrap();
    publish(&sqs, "one", Duration::ZERO).await;
    let mut consumer = sqs.consume(1).await.unwrap();
    let held = next(&mut consumer).await;
    emulator.signal("-STOP");
    // Nobody told us: it is our own clock that says so.
    let lost = tokio::time::timeout(Duration::from_secs(10), held.lost.cancelled());
    lost.await.unwrap();
    let follow_up = message("follow-up");
    let errors = [
        held.handle.publish(&follow_up, Duration::ZERO).await,
        held.handle.dead_letter("too late").await,
        held.handle.ack().await,
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert!(matches!(error, QueueError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("lost"), "{error}");
    }
    emulator.signal("-CONT");
    let again = next(&mut consumer).await;
    assert_eq!(again.body, message("one").body);
    assert!(again.redelivered);
    again.handle.ack().await.unwrap();
    assert_eq!(sqs.depth().await.unwrap(), Depth::default());
    sqs.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_workers_ends_in_the_dead_queue() {
    let config = config(&shared_endpoint());
    let sqs = Sqs::new(config.clone()).unwrap();
    publish(&sqs, "poison", Duration::ZERO).await;
    let mut consumer = sqs.consume(1).await.unwrap();
    let mut deliveries = 0;
    let dead = loop {
        // Dropped, as by a task that panics.
        if let Ok(delivery) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await {
            assert_eq!(delivery.unwrap().body, message("poison").body);
            deliveries += 1;
            continue;
        }
        if let Some(dead) = sqs.dead(1).await.unwrap().pop() {
            break dead;
        }
        assert!(deliveries < 100);
    };
    assert_eq!(dead.body, message("poison").body);
    assert!(dead.reason.contains("maxReceiveCount"), "{}", dead.reason);
    assert_eq!(deliveries, 20);
    for _ in 0..3 {
        let again = sqs.dead(1).await.unwrap();
        assert_eq!(again.len(), 1, "looking takes nothing away");
    }
    sqs.close().await;
    Operator::of(&config).delete_queues().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_put_in_by_hand_is_delivered_or_buried_with_the_reason() {
    let config = config(&shared_endpoint());
    let sqs = Sqs::new(config.clone()).unwrap();
    let mut consumer = sqs.consume(10).await.unwrap();
    let operator = Operator::of(&config);
    let cases: [(&str, &[(&str, &str)]); 3] = [
        ("a", &[("rekindle-encoding", "rot13")]),
        ("ä", &[("rekindle-encoding", "base64")]),
        ("c", &[("rekindle-delay-left", "for ever")]),
    ];
    for (body, attributes) in cases {
        operator.send(body, attributes).await;
    }
    operator.send("not ours", &[("colour", "red")]).await;
    let plain = next(&mut consumer).await;
    assert_eq!(plain.body, "not ours");
    plain.handle.dead_letter("kind unknown").await.unwrap();
    nothing(&mut consumer).await;

    let dead = eventually("all are dead", || async {
        Some(sqs.dead(10).await.unwrap()).filter(|dead| dead.len() == 4)
    })
    .await;
    let reason = |body: &str| &dead.iter().find(|one| one.body == body).unwrap().reason;
    assert!(reason("a").contains("`rot13`"), "{dead:?}");
    assert!(reason("ä").contains("base64"), "{dead:?}");
    assert!(reason("c").contains("`for ever`"), "{dead:?}");
    assert_eq!(reason("not ours"), "kind unknown");
    sqs.close().await;
    operator.delete_queues().await;
}

#[tokio::test]
async fn unknown_keys_are_refused_and_not_shown() {
    let emulator = Emulator::start_with_auth(true);
    let mut config = config(&emulator.endpoint);
    let good = Sqs::new(config.clone()).unwrap();
    publish(&good, "one", Duration::ZERO).await;
    good.close().await;
    config.credentials = Credentials::Keys {
        access: "nobody".to_owned(),
        secret: Secret::new("hunter2"),
    };
    for error in errors_of(config).await {
        assert!(matches!(error, QueueError::Refused { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_queues_are_made_fit() {
    let config = config(&shared_endpoint());
    let operator = Operator::of(&config);
    operator.create("", &[]).await;
    operator.create("-dead", &[]).await;
    let sqs = Sqs::new(config).unwrap();
    publish(&sqs, "one", Duration::ZERO).await;
    let fortnight = Some("1209600");
    for suffix in ["", "-dead"] {
        let found = operator.attribute(suffix, QueueAttributeName::MessageRetentionPeriod);
        assert_eq!(found.await.as_deref(), fortnight, "{suffix}");
    }
    let policy = operator
        .attribute("", QueueAttributeName::RedrivePolicy)
        .await;
    let policy = policy.unwrap();
    assert!(
        policy.contains(&format!("{}-dead", operator.queue)),
        "{policy}"
    );
    sqs.close().await;
    operator.delete_queues().await;
}

#[tokio::test]
async fn a_queue_with_other_attributes_is_told_apart() {
    let config = config(&shared_endpoint());
    let operator = Operator::of(&config);
    operator.create("-other", &[]).await;
    let other = operator
        .attribute("-other", QueueAttributeName::QueueArn)
        .await;
    let policy = format!(
        r#"{{"deadLetterTargetArn":"{}","maxReceiveCount":"20"}}"#,
        other.unwrap()
    );
    let redrive = [(QueueAttributeName::RedrivePolicy, policy.as_str())];
    operator.create("", &redrive).await;
    for error in errors_of(config).await {
        match &error {
            QueueError::Different { queue, reason } => {
                assert_eq!(*queue, operator.queue);
                assert!(reason.contains("-other"), "{reason}");
            }
            _ => panic!("{error:?}"),
        }
    }
    operator.delete_queues().await;
    let url = operator.url("-other").await.unwrap();
    operator
        .client
        .delete_queue()
        .queue_url(url)
        .send()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_an_operator_deleted_are_made_again() {
    let config = brief(&shared_endpoint());
    let sqs = Sqs::new(config.clone()).unwrap();
    let operator = Operator::of(&config);
    let mut consumer = sqs.consume(2).await.unwrap();
    publish(&sqs, "before", Duration::ZERO).await;
    let held = next(&mut consumer).await;

    operator.delete_queues().await;
    let lost = tokio::time::timeout(Duration::from_secs(10), held.lost.cancelled());
    lost.await.unwrap();
    let follow_up = message("follow-up");
    let published = held.handle.publish(&follow_up, Duration::ZERO).await;
    published.unwrap_err();
    drop(held);
    publish_patiently(&sqs, "after").await;
    expect(&mut consumer, "after").await;

    publish(&sqs, "bad", Duration::ZERO).await;
    let bad = next(&mut consumer).await;
    let dead = operator.url("-dead").await.unwrap();
    operator
        .client
        .delete_queue()
        .queue_url(dead)
        .send()
        .await
        .unwrap();
    bad.handle.dead_letter("a bad one").await.unwrap();
    let found = sqs.dead(10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].reason, "a bad one");
    sqs.close().await;
    operator.delete_queues().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_lost_everything_is_made_ready_again() {
    let emulator = Emulator::start();
    let config = brief(&emulator.endpoint);
    let sqs = Sqs::new(config).unwrap();
    publish(&sqs, "held", Duration::ZERO).await;
    let mut consumer = sqs.consume(2).await.unwrap();
    let held = next(&mut consumer).await;
    publish(&sqs, "gone", Duration::from_secs(3_600)).await;

    emulator.kill();
    let lost = tokio::time::timeout(Duration::from_secs(10), held.lost.cancelled());
    lost.await.unwrap();
    let published = sqs.publish(&message("nobody"), Duration::ZERO).await;
    let error = published.unwrap_err();
    assert!(matches!(error, QueueError::Unreachable { .. }), "{error:?}");
    drop(held);
    let mut late = sqs.consume(1).await.unwrap();

    emulator.restart();
    publish_patiently(&sqs, "one").await;
    tokio::select! {
        () = expect(&mut consumer, "one") => {}
        () = expect(&mut late, "one") => {}
    }
    drop(late);
    publish(&sqs, "two", Duration::ZERO).await;
    expect(&mut consumer, "two").await;
    assert_eq!(sqs.depth().await.unwrap(), Depth::default());
    sqs.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_to_a_frozen_service_is_unconfirmed() {
    let emulator = Emulator::start();
    let mut config = config(&emulator.endpoint);
    config.timeout = Duration::from_millis(500);
    let sqs = Sqs::new(config).unwrap();
    publish(&sqs, "one", Duration::ZERO).await;
    emulator.signal("-STOP");
    let published = sqs.publish(&message("two"), Duration::ZERO).await;
    let error = published.unwrap_err();
    assert!(matches!(error, QueueError::Unconfirmed { .. }), "{error:?}");
    emulator.signal("-CONT");
    publish_patiently(&sqs, "three").await;
    sqs.close().await;
}
