//! Faults before and after the effect.

use std::time::Duration;

use bytes::Bytes;

use super::client::{Came, came, client, client_with, create, get, list_keys, put, refused, soon};
use super::*;

#[tokio::test]
async fn faults_before_the_effect() {
    let server = server().await;
    let client = client(&server);
    let every_second = server
        .faults()
        .on(Op::Put, When::Every(2), What::Fail(Failure::Internal));
    assert!(matches!(put(&client, "k/1", "x").await, Came::Ok(_)));
    assert_eq!(
        put(&client, "k/2", "x").await,
        refused(500, "InternalError")
    );
    assert!(matches!(put(&client, "k/3", "x").await, Came::Ok(_)));
    assert_eq!(
        put(&client, "k/4", "x").await,
        refused(500, "InternalError")
    );
    let keys: Vec<String> = server.objects("").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["k/1", "k/3"]);
    assert_eq!(server.faults().fired_by(every_second), 2);
    server.faults().remove(every_second);

    server
        .faults()
        .on(Op::Get, When::Next(2), What::Fail(Failure::SlowDown));
    assert_eq!(get(&client, "k/1").await, Err(refused(503, "SlowDown")));
    assert_eq!(get(&client, "k/1").await, Err(refused(503, "SlowDown")));
    assert_eq!(get(&client, "k/1").await.unwrap(), "x");
    server
        .faults()
        .on(Op::List, When::Next(1), What::Fail(Failure::Internal));
    assert_eq!(list_keys(&client).await, refused(500, "InternalError"));
    assert!(matches!(list_keys(&client).await, Came::Ok(_)));
    server
        .faults()
        .on(Op::Head, When::Next(1), What::Fail(Failure::SlowDown));
    let head = || client.head_object().bucket(BUCKET).key("k/1").send();
    assert!(matches!(
        came(head().await, |_| None),
        Came::Refused(503, _)
    ));
    assert!(head().await.is_ok());
    server.faults().on(Op::Put, When::Nth(1), What::LoseRequest);
    assert_eq!(put(&client, "k/5", "x").await, Came::Nothing);
    assert!(server.object("k/5").is_none());
    server
        .faults()
        .on(Op::Put, When::Next(1), What::Fail(Failure::Conflict));
    let conflict = put(&client, "k/5", "x").await;
    assert_eq!(conflict, refused(409, "ConditionalRequestConflict"));
    assert_eq!(server.faults().fired(), 2 + 2 + 1 + 1 + 1 + 1);
}

#[tokio::test]
async fn faults_after_the_effect() {
    let server = server().await;
    let client = client(&server);
    let after = What::FailAfterEffect(Failure::Internal);
    server.faults().on(Op::Put, When::Every(2), after);
    assert!(matches!(create(&client, "k/1", "x").await, Came::Ok(_)));
    assert_eq!(
        create(&client, "k/2", "x").await,
        refused(500, "InternalError")
    );
    assert_eq!(server.object("k/2").unwrap(), "x");
    server.faults().clear();

    server.faults().on(Op::Put, When::Next(1), What::LoseAnswer);
    assert_eq!(create(&client, "k/3", "x").await, Came::Nothing);
    assert_eq!(server.object("k/3").unwrap(), "x");
    assert_eq!(
        create(&client, "k/3", "y").await,
        refused(412, "PreconditionFailed")
    );

    let large = Bytes::from(vec![1; 1 << 20]);
    server.faults().on(Op::Put, When::Next(1), What::LoseAnswer);
    assert_eq!(create(&client, "k/4", large.clone()).await, Came::Nothing);
    assert!(server.object("k/4").unwrap() == large);
}

#[tokio::test]
async fn a_late_answer_comes_after_the_effect() {
    let server = server().await;
    let hasty = client_with(&server, server.secret_key(), Duration::from_millis(100));
    server.faults().on(
        Op::Put,
        When::Next(1),
        What::DelayAnswer(Duration::from_secs(600)),
    );
    assert_eq!(create(&hasty, "k", "x").await, Came::Nothing);
    soon("the effect", || async { server.object("k").is_some() }).await;
    server.stop().await;
}

#[tokio::test]
async fn a_held_request_takes_effect_after_its_client_gave_up() {
    let server = server().await;
    let client = client(&server);
    let gate = Gate::new();
    let what = What::HoldRequest(gate.clone());
    let key = Some("zombie".into());
    server.faults().add(Rule {
        op: Some(Op::Put),
        key,
        when: When::Next(1),
        what,
    });
    let zombie = tokio::spawn({
        let client = client.clone();
        async move { put(&client, "zombie", "late").await }
    });
    gate.reached(1).await;
    zombie.abort();
    assert!(server.object("zombie").is_none());
    assert!(matches!(put(&client, "zombie", "early").await, Came::Ok(_)));
    gate.open();
    soon("the late write", || async {
        server.object("zombie").unwrap() == "late"
    })
    .await;
}

#[tokio::test]
async fn an_outage_cuts_everything_and_ends() {
    let server = server().await;
    let client = client(&server);
    assert!(matches!(put(&client, "k", "x").await, Came::Ok(_)));
    server.faults().set_down(true);
    assert_eq!(put(&client, "k", "y").await, Came::Nothing);
    assert_eq!(get(&client, "k").await, Err(Came::Nothing));
    server.faults().set_down(false);
    assert_eq!(get(&client, "k").await.unwrap(), "x");
}

#[tokio::test]
async fn latency_holds_every_request_back() {
    let server = server().await;
    let hasty = client_with(&server, server.secret_key(), Duration::from_millis(100));
    server.faults().set_latency(Duration::from_secs(600));
    assert_eq!(put(&hasty, "k", "x").await, Came::Nothing);
    assert!(server.object("k").is_none());
    server.faults().set_latency(Duration::ZERO);
    assert!(matches!(put(&client(&server), "k", "x").await, Came::Ok(_)));
    assert_eq!(server.faults().fired(), 0);
}
