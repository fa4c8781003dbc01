//! Stores that keep less than they should.

use super::client::{Came, client, create, refused, replace, winners};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_racing_store_is_right_one_by_one_and_wrong_at_once() {
    let server = misbehaving(Misbehave::RaceConditions).await;
    let client = client(&server);
    assert!(matches!(create(&client, "k", "x").await, Came::Ok(_)));
    assert_eq!(
        create(&client, "k", "y").await,
        refused(412, "PreconditionFailed")
    );
    let won = winners(&client, 3).await;
    assert!(won.iter().any(|count| *count > 1), "{won:?}");
}

#[tokio::test]
async fn stores_that_ignore_conditions() {
    let server = misbehaving(Misbehave::IgnoreConditions).await;
    let c = client(&server);
    assert!(matches!(create(&c, "k", "x").await, Came::Ok(_)));
    assert!(matches!(create(&c, "k", "y").await, Came::Ok(_)));
    assert!(matches!(
        replace(&c, "k", "\"stale\"", "z").await,
        Came::Ok(_)
    ));
    assert!(matches!(
        replace(&c, "absent", "\"stale\"", "z").await,
        Came::Ok(_)
    ));

    let server = misbehaving(Misbehave::IgnoreIfMatch).await;
    let c = client(&server);
    assert!(matches!(create(&c, "k", "x").await, Came::Ok(_)));
    assert_eq!(
        create(&c, "k", "y").await,
        refused(412, "PreconditionFailed")
    );
    assert!(matches!(
        replace(&c, "k", "\"stale\"", "z").await,
        Came::Ok(_)
    ));

    let server = misbehaving(Misbehave::IgnoreWhenVersioned).await;
    let c = client(&server);
    let Came::Ok(etag) = create(&c, "k", "x").await else {
        panic!("not created")
    };
    assert_eq!(
        create(&c, "k", "y").await,
        refused(412, "PreconditionFailed")
    );
    server.set_versioned(true);
    assert_eq!(
        replace(&c, "k", &etag, "y").await,
        refused(412, "PreconditionFailed")
    );
    assert!(matches!(create(&c, "k", "y").await, Came::Ok(_)));
}

#[tokio::test]
async fn a_store_that_wants_the_etag_unquoted() {
    let server = misbehaving(Misbehave::WantsUnquotedETag).await;
    let client = client(&server);
    let Came::Ok(etag) = create(&client, "k", "x").await else {
        panic!("not created")
    };
    assert_eq!(
        replace(&client, "k", &etag, "y").await,
        refused(412, "PreconditionFailed")
    );
    assert!(matches!(
        replace(&client, "k", etag.trim_matches('"'), "y").await,
        Came::Ok(_)
    ));
    assert_eq!(
        replace(&client, "k", etag.trim_matches('"'), "z").await,
        refused(412, "PreconditionFailed")
    );
}
