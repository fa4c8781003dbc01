//! The client against a server that misbehaves.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use jobs::record::LeftBehind;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fake::{Asked, Fake, Say, TOKEN, token};
use super::*;
use crate::engine::{Again, JobError};

fn network(id: &str, labels: Value) -> Value {
    json!({"id": id, "folderId": "b1g", "name": format!("n-{id}"), "labels": labels})
}

fn refused(status: u16, code: i64, message: &str) -> Say {
    Say::Json(
        status,
        json!({"code": code, "message": message, "details": []}),
    )
}

fn new_network() -> New {
    New::network("rekindle-test".into(), &BTreeMap::new())
}

fn operation(id: &str) -> Say {
    Say::Json(200, json!({"id": id, "metadata": {"networkId": "enp1"}}))
}

/// All that a log would show of an error.
fn shown(error: &YandexError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

fn tokens(asked: &[Asked]) -> Vec<String> {
    let bearer = |asked: &Asked| asked.header("authorization").replace(TOKEN, "");
    asked.iter().map(bearer).collect()
}

#[tokio::test]
async fn a_token_is_got_once_and_used_for_all_calls() {
    let (fake, yandex) = Fake::start_for_key([
        token("a", 12 * 3600),
        Say::Json(200, json!({})),
        Say::Json(200, json!({})),
    ])
    .await;
    yandex.list(Kind::Network).await.unwrap();
    yandex.list(Kind::Network).await.unwrap();
    let asked = fake.asked();
    assert_eq!(asked[0].line, "POST /iam/v1/tokens");
    let jwt = asked[0].body["jwt"].as_str().unwrap();
    assert_eq!(jwt.split('.').count(), 3);
    assert_eq!(asked[0].body, json!({"jwt": jwt}));
    assert_eq!(tokens(&asked), ["", "Bearer -a", "Bearer -a"]);
}

#[tokio::test]
async fn many_calls_at_once_ask_for_one_token() {
    let answers = vec![Say::Json(200, json!({})); 8];
    let (fake, yandex) =
        Fake::start_for_key(std::iter::once(token("a", 12 * 3600)).chain(answers)).await;
    let calls = (0..8).map(|_| yandex.list(Kind::Subnet));
    for result in futures::future::join_all(calls).await {
        result.unwrap();
    }
    let lines = fake.lines();
    assert_eq!(
        lines.iter().filter(|line| line.contains("/iam/")).count(),
        1
    );
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let no = || refused(401, 16, "The token is invalid");
    let (fake, yandex) = Fake::start_for_key([
        token("a", 12 * 3600),
        no(),
        token("b", 12 * 3600),
        Say::Json(200, json!({})),
        Say::Json(200, json!({})),
    ])
    .await;
    yandex.list(Kind::Network).await.unwrap();
    yandex.list(Kind::Network).await.unwrap();
    assert_eq!(
        tokens(&fake.asked()),
        ["", "Bearer -a", "", "Bearer -b", "Bearer -b"]
    );

    let (fake, yandex) =
        Fake::start_for_key([token("a", 12 * 3600), no(), token("b", 12 * 3600), no()]).await;
    let error = yandex.list(Kind::Network).await.unwrap_err();
    assert!(
        error.status() == Some(401) && error.is_hopeless(),
        "{error}"
    );
    assert_eq!(fake.lines().len(), 4);

    // A token that was given to us has no successor.
    let (fake, yandex) = Fake::start([no()]).await;
    let error = yandex.list(Kind::Network).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert_eq!(fake.lines().len(), 1);
}

/// Lets time pass without waiting for it.
async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_the_old_one_does_while_that_fails() {
    let list = || Say::Json(200, json!({}));
    let no = || Say::Json(503, json!({}));
    let (fake, yandex) = Fake::start_for_key([
        token("a", 120),
        list(),
        // It is stale and holds: one look for a new one is enough.
        no(),
        list(),
        token("b", 120),
        list(),
        // It is over.
        no(),
        no(),
        no(),
    ])
    .await;
    yandex.list(Kind::Network).await.unwrap();
    later(65).await;
    yandex.list(Kind::Network).await.unwrap();
    yandex.list(Kind::Network).await.unwrap();
    assert_eq!(
        tokens(&fake.asked()),
        ["", "Bearer -a", "", "Bearer -a", "", "Bearer -b"]
    );
    later(125).await;
    let error = yandex.list(Kind::Network).await.unwrap_err();
    assert!(error.is_transient() && !error.is_ambiguous(), "{error}");
    assert_eq!(fake.lines().len(), 9);
}

#[tokio::test]
async fn a_token_that_cannot_be_got_is_an_error_that_shows_nothing() {
    for (say, want) in [
        (
            Say::Json(200, json!({"iamToken": [TOKEN]})),
            "no usable token",
        ),
        (Say::Json(200, json!({"iamToken": ""})), "no usable token"),
        (
            Say::Json(200, json!({"iamToken": format!("{TOKEN}\nx")})),
            "no usable token",
        ),
        (Say::Text(200, TOKEN.into()), "no usable token"),
        (refused(403, 7, "Permission denied"), "Permission denied"),
    ] {
        let (_, yandex) = Fake::start_for_key([say]).await;
        let error = yandex.list(Kind::Network).await.unwrap_err();
        let shown = shown(&error);
        assert!(
            shown.contains(want) && shown.contains("IAM token"),
            "{shown}"
        );
        assert!(!shown.contains("secret-of"), "{shown}");
        assert!(!error.is_ambiguous(), "{shown}");
    }
}

#[tokio::test]
async fn no_secret_comes_back_in_an_error() {
    let told = format!("bad header: Bearer {TOKEN}");
    for say in [
        refused(400, 3, &told),
        Say::Text(500, told.clone()),
        Say::Text(404, told),
    ] {
        let (_, yandex) = Fake::start(vec![say; 3]).await;
        let error = yandex.get(Kind::Network, "enp1").await.unwrap_err();
        assert!(!shown(&error).contains("secret-of"), "{}", shown(&error));
    }
    // The JWT neither.
    let (fake, yandex) = Fake::start_for_key([Say::Text(400, "x".into())]).await;
    yandex.token().await.unwrap_err();
    let jwt = fake.asked()[0].body["jwt"].as_str().unwrap().to_owned();
    let key = AuthorizedKey::parse(&super::token::tests::file().to_string()).unwrap();
    let shown = format!("{yandex:?} {:?}", Credentials::Key(key));
    assert!(!shown.contains("PRIVATE") && !shown.contains(&jwt));
}

#[tokio::test]
async fn lists_are_read_page_by_page_to_their_end() {
    let page = |ids: &[&str], next: &str| {
        let networks: Vec<Value> = ids.iter().map(|id| network(id, json!({}))).collect();
        Say::Json(200, json!({"networks": networks, "nextPageToken": next}))
    };
    let (fake, yandex) = Fake::start([
        page(&["c", "b"], "p 2"),
        page(&["b", "a"], "p3"),
        page(&["d"], ""),
    ])
    .await;
    let (all, at) = yandex.list(Kind::Network).await.unwrap();
    let ids: Vec<&str> = all.iter().map(|network| network.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    assert!(at.is_some());
    assert_eq!(
        fake.lines(),
        [
            "GET /vpc/v1/networks?folderId=b1g&pageSize=1000",
            "GET /vpc/v1/networks?folderId=b1g&pageSize=1000&pageToken=p+2",
            "GET /vpc/v1/networks?folderId=b1g&pageSize=1000&pageToken=p3",
        ]
    );
}

#[tokio::test]
async fn a_list_that_breaks_off_is_an_error_and_never_a_short_list() {
    let first = || {
        Say::Json(
            200,
            json!({"networks": [network("a", json!({}))], "nextPageToken": "t"}),
        )
    };
    for (name, script) in [
        ("an error", vec![first(), refused(403, 7, "no")]),
        (
            "no answer",
            vec![
                first(),
                Say::Json(500, json!({})),
                Say::Cut(200),
                Say::Cut(200),
            ],
        ),
        ("no list", vec![first(), Say::Json(200, json!([]))]),
        (
            "other words",
            vec![first(), Say::Json(200, json!({"Networks": []}))],
        ),
        ("a circle", vec![first(), first()]),
        ("a web page", vec![first(), Say::Text(200, "<html>".into())]),
        (
            "labels that are none",
            vec![Say::Json(
                200,
                json!({"networks": [network("a", json!("x"))]}),
            )],
        ),
    ] {
        let (_, yandex) = Fake::start(script).await;
        assert!(yandex.list(Kind::Network).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn everything_is_judged_by_the_clock_that_is_behind() {
    let date = |date: &'static str| Say::With(200, "date", date, json!({}));
    let (fake, yandex) = Fake::start([
        date("Fri, 01 Jan 2100 00:00:00 GMT"),
        date("Fri, 01 Jan 2100 00:00:00 GMT"),
        date("Thu, 01 Jan 2015 00:00:00 GMT"),
        date("Fri, 01 Jan 2100 00:00:00 GMT"),
    ])
    .await;
    let all = yandex.everything().await.unwrap();
    assert_eq!(all.at.to_string(), "2015-01-01T00:00:00Z");
    let lines = fake.lines();
    let kinds: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split(['/', '?']).nth(3))
        .collect();
    assert_eq!(kinds, ["networks", "subnets", "clusters", "nodeGroups"]);
    let future = || date("Fri, 01 Jan 2100 00:00:00 GMT");
    let (_, yandex) = Fake::start([future(), future(), future(), future()]).await;
    let all = yandex.everything().await.unwrap();
    assert!(all.at <= jiff::Timestamp::now());
}

#[tokio::test]
async fn a_create_is_sent_again_with_the_same_key() {
    let (key, other) = (Uuid::new_v4(), Uuid::new_v4());
    for bad in [
        Say::Json(503, json!({})),
        refused(429, 8, "slow down"),
        Say::Cut(200),
        Say::Nothing,
    ] {
        let (fake, yandex) = Fake::start([bad, operation("op1"), operation("op2")]).await;
        let (made, id) = yandex.create(&new_network(), key).await.unwrap();
        assert_eq!((made.id.as_str(), id.as_str()), ("op1", "enp1"));
        yandex.create(&new_network(), other).await.unwrap();
        let asked = fake.asked();
        let keys: Vec<&str> = asked
            .iter()
            .map(|asked| asked.header("idempotency-key"))
            .collect();
        let (key, other) = (key.to_string(), other.to_string());
        assert_eq!(keys, [key.as_str(), key.as_str(), other.as_str()]);
        assert_eq!(asked[0].line, "POST /vpc/v1/networks");
        assert_eq!(asked[0].body, asked[1].body);
        assert_eq!(asked[0].body["folderId"], "b1g");
    }
}

#[tokio::test]
async fn a_create_whose_outcome_nobody_knows_says_so() {
    for (name, script) in [
        ("500", vec![Say::Json(500, json!({})); 3]),
        ("cut", vec![Say::Cut(200); 3]),
        ("no operation", vec![Say::Json(200, json!({})); 3]),
        (
            "no id of what is made",
            vec![Say::Json(200, json!({"id": "op1"})); 3],
        ),
        // The last answer says nothing about the first one.
        (
            "cut, then forbidden",
            vec![Say::Cut(200), refused(403, 7, "no")],
        ),
        (
            "cut, then busy",
            vec![Say::Cut(200), refused(429, 8, "no"), refused(429, 8, "no")],
        ),
    ] {
        let (_, yandex) = Fake::start(script).await;
        let error = yandex
            .create(&new_network(), Uuid::new_v4())
            .await
            .unwrap_err();
        assert!(
            error.is_ambiguous() && error.is_transient(),
            "{name}: {error}"
        );
        assert!(
            error
                .to_string()
                .starts_with("create network rekindle-test: "),
            "{error}"
        );
    }
    let (_, yandex) = Fake::start([Say::Cut(200), refused(409, 6, "already exists")]).await;
    let error = yandex
        .create(&new_network(), Uuid::new_v4())
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(409), "{error}");
}

#[tokio::test]
async fn only_the_api_says_that_something_is_not_there() {
    let (_, yandex) = Fake::start([refused(404, 5, "Network enp1 not found")]).await;
    assert!(yandex.get(Kind::Network, "enp1").await.unwrap().is_none());
    for body in [
        "",
        "<html>404</html>",
        "{}",
        "[]",
        r#"{"error": "no route"}"#,
    ] {
        let (_, yandex) = Fake::start([Say::Text(404, body.into())]).await;
        assert!(yandex.get(Kind::Network, "enp1").await.is_err(), "{body}");
    }
    let (_, yandex) = Fake::start([refused(403, 7, "Permission denied")]).await;
    assert!(yandex.get(Kind::Network, "enp1").await.is_err());
}

#[tokio::test]
async fn what_is_gone_is_deleted_and_what_is_deleted_has_an_operation() {
    let (fake, yandex) = Fake::start([
        operation("op1"),
        refused(404, 5, "not found"),
        refused(400, 9, "network has subnets"),
    ])
    .await;
    let begun = yandex.delete(Kind::Network, "enp1").await.unwrap().unwrap();
    assert_eq!(begun.id, "op1");
    assert!(
        yandex
            .delete(Kind::Cluster, "cat1")
            .await
            .unwrap()
            .is_none()
    );
    let error = yandex.delete(Kind::Network, "enp1").await.unwrap_err();
    assert!(!error.is_hopeless(), "{error}");
    let asked = fake.asked();
    assert_eq!(asked[0].line, "DELETE /vpc/v1/networks/enp1");
    assert_eq!(asked[1].line, "DELETE /managed-kubernetes/v1/clusters/cat1");
    assert!(asked[0].header("idempotency-key").parse::<Uuid>().is_ok());
    // An empty id would be a call on all of them.
    for bad in ["", "../enp1", "a/b", "a?b"] {
        let error = yandex.delete(Kind::Network, bad).await.unwrap_err();
        assert!(matches!(error, YandexError::Invalid { .. }), "{error}");
    }
    assert_eq!(fake.lines().len(), 3);
}

#[tokio::test]
async fn an_operation_is_read_through_trouble_and_its_error_is_not_final_before_it_is_done() {
    let error = json!({"code": 8, "message": "quota"});
    let (fake, yandex) = Fake::start([
        Say::Json(503, json!({})),
        refused(429, 8, "slow down"),
        Say::Json(200, json!({"id": "op1", "error": error})),
        Say::Json(200, json!({"id": "op1", "done": true, "error": error})),
        refused(404, 5, "Operation op1 not found"),
    ])
    .await;
    let read = async || {
        yandex
            .operation("op1")
            .await
            .unwrap()
            .map(|it| it.progress())
    };
    assert!(matches!(read().await, Some(Progress::Going(_))));
    assert_eq!(
        read().await,
        Some(Progress::Failed("quota (code 8)".into()))
    );
    assert_eq!(read().await, None);
    assert_eq!(fake.lines()[0], "GET /operations/op1");
}

#[tokio::test]
async fn a_retry_after_that_is_too_long_comes_back_with_the_error() {
    let later = Say::With(
        429,
        "retry-after",
        "120",
        json!({"code": 8, "message": "slow down"}),
    );
    let (fake, yandex) = Fake::start([later]).await;
    let error = yandex.list(Kind::Cluster).await.unwrap_err();
    assert_eq!(fake.lines().len(), 1);
    let job = JobError::from(error);
    let after = Some(Duration::from_secs(120));
    assert_eq!(job.again, Again::Retry { after });
}

#[tokio::test]
async fn what_is_certainly_wrong_ends_a_job_and_what_is_unknown_is_said_to_be() {
    let retry = Again::Retry { after: None };
    for (say, again, left) in [
        (refused(403, 7, "no"), Again::Fatal, LeftBehind::Resources),
        (refused(400, 3, "no"), Again::Fatal, LeftBehind::Resources),
        (refused(400, 9, "no"), retry.clone(), LeftBehind::Resources),
        (refused(409, 6, "no"), retry.clone(), LeftBehind::Resources),
        (Say::Cut(200), retry.clone(), LeftBehind::Unknown),
        (Say::Json(500, json!({})), retry, LeftBehind::Unknown),
    ] {
        let (_, yandex) = Fake::start(vec![say; 3]).await;
        let error = yandex.create(&new_network(), Uuid::new_v4()).await;
        let job = JobError::from(error.unwrap_err());
        assert_eq!((&job.again, job.left_behind), (&again, left), "{job}");
    }
}

#[tokio::test]
async fn what_is_known_by_its_id_is_found_beside_the_lists() {
    let ours = json!({"rekindle": "test"});
    let (fake, yandex) = Fake::start([
        Say::Json(200, json!({"networks": [network("enp1", ours.clone())]})),
        Say::Json(200, json!({})),
        Say::Json(200, json!({})),
        Say::Json(200, json!({})),
        Say::Json(200, network("enp2", ours)),
        refused(404, 5, "Cluster cat1 not found"),
    ])
    .await;
    let known = [
        (Kind::Network, "enp1"),
        (Kind::Network, "enp2"),
        (Kind::Cluster, "cat1"),
    ];
    let known = known.map(|(kind, id)| (kind, id.to_owned())).to_vec();
    let all = yandex.everything().await.unwrap();
    let all = all.with(&yandex, known).await.unwrap().resources;
    let ids: Vec<&str> = all.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["enp1", "enp2"]);
    assert_eq!(all[1].labels["rekindle"], "test");
    assert_eq!(fake.lines().len(), 6);
}

#[tokio::test]
async fn a_cluster_is_read_with_the_way_to_its_api() {
    let (_, yandex) = Fake::start([Say::Json(
        200,
        json!({
            "id": "cat1", "status": "RUNNING", "health": "HEALTHY", "networkId": "enp1",
            "master": {
                "version": "1.33",
                "endpoints": {"externalV4Endpoint": "https://203.0.113.7"},
                "masterAuth": {"clusterCaCertificate": "PEM"},
            },
        }),
    )])
    .await;
    let cluster = yandex.cluster("cat1").await.unwrap().unwrap();
    assert_eq!(cluster.status, Status::Running);
    assert_eq!(
        cluster.master.endpoints.external_v4_endpoint,
        "https://203.0.113.7"
    );
    assert_eq!(cluster.master.master_auth.cluster_ca_certificate, "PEM");
}

#[tokio::test]
async fn a_removal_deletes_begins_no_deletion_twice_and_says_why_one_failed() {
    let resource = Resource {
        kind: Kind::Network,
        id: "enp1".into(),
        name: "n".into(),
        labels: BTreeMap::new(),
        parent: None,
        status: Status::Other,
    };
    let (fake, yandex) = Fake::start([
        operation("op1"),
        Say::Json(200, json!({"id": "op1"})),
        Say::Json(
            200,
            json!({"id": "op1", "done": true, "error": {"code": 9, "message": "in use"}}),
        ),
        refused(400, 9, "has subnets"),
        refused(403, 7, "Permission denied"),
    ])
    .await;
    let removal = Removal::default();
    let all = [resource];
    let mut notes = Vec::new();
    for _ in 0..4 {
        let left = removal.go_on(&yandex, plan(&all, |_| true)).await.unwrap();
        assert_eq!(left.resources, all);
        notes.push(left.notes.join(""));
    }
    assert_eq!((notes[0].as_str(), notes[1].as_str()), ("", ""));
    assert!(notes[2].contains("was not deleted: in use"), "{}", notes[2]);
    assert!(notes[3].contains("has subnets"), "{}", notes[3]);
    assert!(removal.go_on(&yandex, plan(&all, |_| true)).await.is_err());
    let lines = fake.lines();
    let deletes = lines.iter().filter(|line| line.starts_with("DELETE"));
    assert_eq!(deletes.count(), 3);
    let nothing = removal.go_on(&yandex, plan(&all, |_| false)).await;
    assert!(nothing.unwrap().is_empty());
    // What is being deleted by somebody is left to it.
    let [mut gone] = all;
    gone.status = Status::Deleting;
    let left = removal.go_on(&yandex, plan(&[gone], |_| true)).await;
    assert_eq!(left.unwrap().text(), "1 network left");
    assert_eq!(fake.lines().len(), lines.len());
}

/// What is asked for, as the API's own documentation has it.
#[test]
fn what_is_made_is_asked_for_in_the_words_of_the_api() {
    let labels: BTreeMap<String, String> = [("rekindle".into(), "test".into())].into();
    let cluster = New::cluster(
        "c".into(),
        &labels,
        &NewCluster {
            network: "enp1",
            subnet: "e9b1",
            zone: "ru-central1-d",
            version: "1.33",
            channel: "REGULAR",
            service_account: "aje1",
            pods: "172.16.0.0/16",
            services: "10.96.0.0/16",
        },
    );
    let master = &cluster.body["masterSpec"]["zonalMasterSpec"];
    assert_eq!(master["externalV4AddressSpec"], json!({}));
    assert_eq!(master["internalV4AddressSpec"]["subnetId"], "e9b1");
    assert_eq!(cluster.body["labels"], json!({"rekindle": "test"}));
    assert_eq!(cluster.body["nodeServiceAccountId"], "aje1");
    let group = |dedicated| {
        let group = NewNodeGroup {
            cluster: "cat1",
            subnet: "e9b1",
            zone: "ru-central1-d",
            nodes: 2,
            cores: 2,
            ram_gb: 4,
            disk_gb: 64,
            role: "load-generator",
            dedicated,
        };
        New::node_group("g".into(), &labels, &group).body
    };
    let runners = group(Some("k6"));
    assert_eq!(
        runners["nodeTemplate"]["resourcesSpec"]["memory"],
        "4294967296"
    );
    assert_eq!(
        runners["nodeTemplate"]["bootDiskSpec"]["diskSize"],
        "68719476736"
    );
    assert_eq!(runners["scalePolicy"]["fixedScale"]["size"], "2");
    assert_eq!(
        runners["nodeTaints"],
        json!([{"key": "dedicated", "value": "k6", "effect": "NO_SCHEDULE"}])
    );
    assert_eq!(runners["nodeLabels"], json!({"role": "load-generator"}));
    assert!(group(None).get("nodeTaints").is_none());
}
