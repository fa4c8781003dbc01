//! Answers that nobody would expect: an error, never a panic, never "absent", never a short list.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::Response;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fake::{TOKEN, impatience};
use super::list::Resource;
use super::*;
use crate::fuzz::cases;

fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1e300)),
        Just(json!(-0.0)),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[{"id": "x", "name": "n"}]])),
        Just(json!("")),
        Just(json!("\0/../..")),
        Just(json!("x".repeat(10_000))),
        ".{0,12}".prop_map(Value::from),
    ]
}

/// A good object with some of its fields replaced or dropped.
fn spoilt(good: Value) -> impl Strategy<Value = Value> {
    let fields = good.as_object().unwrap().len();
    let spoil = (0..fields, prop::option::of(strange()));
    prop::collection::vec(spoil, 0..4).prop_map(move |spoils| {
        let mut bad = good.clone();
        let map = bad.as_object_mut().unwrap();
        let keys: Vec<String> = map.keys().cloned().collect();
        for (at, value) in spoils {
            match value {
                Some(value) => drop(map.insert(keys[at].clone(), value)),
                None => drop(map.remove(&keys[at])),
            }
        }
        bad
    })
}

fn server() -> Value {
    json!({
        "id": "s-1", "name": "test-web-1", "project": "p", "status": "ACTIVE", "switch_status": "ON",
        "created_in": "2026-01-01T00:00:00Z", "datacenter": "d", "flavor": {"ram": 4, "vcpus": 2.0, "cpu_type": "SHARED"},
        "image": {"operation_system": {"distribution": "Ubuntu", "os_family": "linux", "version": "22.04"}},
        "disk_data": [{"id": "v-1", "storage_type": "volume"}], "addresses": ["a-1"], "primary_address": "a-1",
    })
}

fn volume() -> Value {
    json!({
        "id": "v-1", "name": "test-web-1-data", "description": "", "status": "in-use", "size": 10, "bootable": false,
        "created_in": "2026-01-01T00:00:00Z", "undetachable": false, "attached_to_server": {"id": "s-1", "device": "/dev/vdb"},
    })
}

fn address() -> Value {
    json!({
        "id": "a-1", "address": "10.0.0.1", "status": "ACTIVE", "external": false, "version": 4, "is_primary": true,
        "ddos_protection": false, "mac_addr": "x", "attached_to": {"entity": "server", "id": "s-1"},
    })
}

fn balancer() -> Value {
    json!({
        "id": "l-1", "name": "test-main-lb", "status": "ACTIVE", "algorithm": "ROUND_ROBIN", "session_persistence": false,
        "addresses": ["a-1"], "rules_count": 1,
        "healthmonitor": {"type": "TCP", "delay": 80, "timeout": 15, "max_retries": 5},
    })
}

fn rule() -> Value {
    json!({
        "id": "r-1", "loadbalancer": "l-1", "server": "s-1", "address": "a-1", "status": "ACTIVE",
        "external_protocol_port": 80, "internal_protocol_port": 30080,
    })
}

/// What is read of an object is what it says of id, or it is an error.
fn reads<T: DeserializeOwned + Resource>(object: &Value) -> Result<(), TestCaseError> {
    if let Ok(item) = serde_json::from_value::<T>(object.clone()) {
        prop_assert!(!item.id().is_empty());
        prop_assert_eq!(Some(item.id()), object["id"].as_str());
    }
    Ok(())
}

/// A client of a server that answers with `answer`, whatever it is asked.
async fn client(
    answer: impl Fn(&str, usize, usize) -> Response<Body> + Clone + Send + Sync + 'static,
) -> Clo {
    #[derive(serde::Deserialize)]
    struct Cut {
        #[serde(default)]
        limit: usize,
        #[serde(default)]
        offset: usize,
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(
        move |uri: axum::http::Uri, Query(cut): Query<Cut>| async move {
            answer(uri.path(), cut.limit, cut.offset)
        },
    );
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let config = CloConfig {
        url,
        patience: impatience(),
        ..CloConfig::new(Token::new(TOKEN), "p-1")
    };
    Clo::new(config).unwrap()
}

fn response(status: u16, kind: &str, body: impl Into<Body>) -> Response<Body> {
    let head = Response::builder()
        .status(status)
        .header("content-type", kind);
    head.body(body.into()).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(work)
}

/// How a list behaves while it is read.
#[derive(Debug, Clone)]
struct Listing {
    /// How many items there are at first.
    items: usize,
    /// The API gives no more rows than this at once.
    page: usize,
    /// What happens after the n-th answer.
    changes: Vec<(usize, Change)>,
}

#[derive(Debug, Clone)]
enum Change {
    /// This item (modulo their number) goes away, and another one comes to the end.
    Replaced(usize),
    /// This item goes away.
    Gone(usize),
    /// One comes to the beginning.
    First,
    /// One comes to the end.
    Last,
    /// The next answers say so many more than there are.
    Promises(u64),
    /// The first page is given for every offset.
    Repeats,
    /// The next answers have no rows.
    Empty,
    /// The next answers have no count.
    Countless,
}

fn listings() -> impl Strategy<Value = Listing> {
    let change = prop_oneof![
        3 => any::<usize>().prop_map(Change::Replaced),
        1 => any::<usize>().prop_map(Change::Gone),
        1 => Just(Change::First),
        1 => Just(Change::Last),
        1 => (1..500_u64).prop_map(Change::Promises),
        1 => Just(Change::Promises(u64::MAX / 2)),
        1 => Just(Change::Repeats),
        1 => Just(Change::Empty),
        1 => Just(Change::Countless),
    ];
    let changes = prop::collection::vec((1..6_usize, change), 0..4);
    (0..30_usize, 2..12_usize, changes).prop_map(|(items, page, changes)| Listing {
        items,
        page,
        changes,
    })
}

/// Plays a listing: gives what the client says, and which items were there all the time.
async fn play(listing: &Listing) -> (Result<Vec<Server>, CloError>, BTreeSet<String>, usize) {
    struct State {
        items: Vec<String>,
        all_the_time: BTreeSet<String>,
        answers: usize,
        more: u64,
        lies: [bool; 3],
    }
    let items: Vec<String> = (0..listing.items).map(|n| format!("s{n}")).collect();
    let state = Arc::new(Mutex::new(State {
        all_the_time: items.iter().cloned().collect(),
        items,
        answers: 0,
        more: 0,
        lies: [false; 3],
    }));
    let (shared, plan) = (state.clone(), listing.clone());
    let clo = client(move |_, limit, offset| {
        let mut state = shared.lock().unwrap();
        let State {
            items,
            all_the_time,
            answers,
            more,
            lies,
        } = &mut *state;
        let [repeats, empty, countless] = *lies;
        let offset = if repeats { 0 } else { offset };
        let rows = items.iter().skip(offset).take(limit.min(plan.page));
        let rows: Vec<Value> = rows
            .map(|id| json!({"id": id, "name": format!("n-{id}")}))
            .collect();
        let count = items.len() as u64 + *more;
        let mut page = json!({"count": count, "result": if empty { vec![] } else { rows }});
        if countless {
            page.as_object_mut().unwrap().remove("count");
        }
        *answers += 1;
        for (_, change) in plan.changes.iter().filter(|(after, _)| after == answers) {
            let fresh = format!("new{answers}");
            match change {
                Change::Replaced(at) | Change::Gone(at) if !items.is_empty() => {
                    let gone = items.remove(at % items.len());
                    all_the_time.remove(&gone);
                    if matches!(change, Change::Replaced(_)) {
                        items.push(fresh);
                    }
                }
                Change::Replaced(_) | Change::Gone(_) => {}
                Change::First => items.insert(0, fresh),
                Change::Last => items.push(fresh),
                Change::Promises(n) => *more = *n,
                Change::Repeats => lies[0] = true,
                Change::Empty => lies[1] = true,
                Change::Countless => lies[2] = true,
            }
        }
        response(200, "application/json", page.to_string())
    })
    .await;
    let result = clo.list_servers().await;
    let state = state.lock().unwrap();
    (result, state.all_the_time.clone(), state.answers)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_object_is_read_as_it_is_or_refused(
        server in spoilt(server()), volume in spoilt(volume()), address in spoilt(address()),
        balancer in spoilt(balancer()), rule in spoilt(rule()),
    ) {
        reads::<Server>(&server)?;
        reads::<Volume>(&volume)?;
        reads::<LocalDisk>(&volume)?;
        reads::<Address>(&address)?;
        reads::<LoadBalancer>(&balancer)?;
        reads::<Rule>(&rule)?;
        reads::<Keypair>(&server)?;
        reads::<Image>(&server)?;
        // What is looked for by its name is never read without one, nor by another one.
        if let Ok(read) = serde_json::from_value::<Server>(server.clone()) {
            prop_assert_eq!(Some(read.name.as_str()).filter(|n| !n.is_empty()), server["name"].as_str().filter(|n| !n.is_empty()));
            prop_assert!(server.get("name").is_some());
        }
        if let Ok(read) = serde_json::from_value::<Volume>(volume.clone()) {
            prop_assert!(volume.get("name").is_some());
            let holder = volume["attached_to_server"]["id"].as_str().unwrap_or_default();
            prop_assert_eq!(read.attached_to_server.unwrap_or_default().id, holder);
        }
    }

    #[test]
    fn any_words_of_an_error_are_found_and_cut(body in "\\PC{0,2000}", value in strange()) {
        for body in [body, json!({"message": value, "error": {"message": value}}).to_string()] {
            let words = super::error::message_in(&body);
            prop_assert!(!words.is_empty() && words.chars().count() <= 501, "{}", words);
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn only_the_api_says_that_a_volume_is_there_or_not(
        status in prop::sample::select(vec![200_u16, 201, 204, 301, 400, 401, 403, 404, 410, 418, 500, 503]),
        kind in prop::sample::select(vec!["application/json", "text/html", "text/plain", "application/octet-stream"]),
        body in prop_oneof![
            spoilt(volume()).prop_map(|v| json!({"result": v}).to_string()),
            strange().prop_map(|v| json!({"result": v}).to_string()),
            strange().prop_map(|v| v.to_string()),
            Just(String::new()),
            Just("404 page not found".to_owned()),
            Just("<html>no</html>".to_owned()),
            ".{0,40}",
        ],
    ) {
        let of_the_api = serde_json::from_str::<Value>(&body).is_ok_and(|v| v.is_object()) || body.trim().is_empty();
        let sent = body.clone();
        let result = run(async {
            let clo = client(move |_, _, _| response(status, kind, sent.clone())).await;
            clo.volume("v-1").await
        });
        match result {
            Ok(None) => prop_assert!(status == 404 && of_the_api, "{} {} is absent", status, body),
            Ok(Some(volume)) => {
                prop_assert!((200..300).contains(&status));
                let value: Value = serde_json::from_str(&body).unwrap();
                prop_assert_eq!(Some(volume.id.as_str()), value["result"]["id"].as_str());
            }
            Err(error) => prop_assert!(!error.is_ambiguous() && error.to_string().len() < 3000),
        }
    }

    #[test]
    fn a_create_gives_an_id_or_says_that_nobody_knows(
        status in prop::sample::select(vec![200_u16, 201, 202, 204]),
        body in prop_oneof![
            strange().prop_map(|v| json!({"result": {"id": v}}).to_string()),
            strange().prop_map(|v| json!({"result": v}).to_string()),
            ".{0,40}",
        ],
    ) {
        let sent = body.clone();
        let result = run(async {
            let clo = client(move |_, _, _| response(status, "application/json", sent.clone())).await;
            clo.create_volume("test-web-1-data", 10).await
        });
        match result {
            Ok(id) => prop_assert!(!id.is_empty() && body.contains("\"id\"")),
            Err(error) => prop_assert!(error.is_ambiguous(), "{}", error),
        }
    }

    #[test]
    fn a_list_is_whole_or_an_error_and_comes_to_an_end(listing in listings()) {
        let (result, all_the_time, answers) = run(play(&listing));
        prop_assert!(answers <= 1500, "{} answers", answers);
        if let Ok(servers) = result {
            let found: BTreeSet<String> = servers.iter().map(|s| s.id.clone()).collect();
            prop_assert_eq!(found.len(), servers.len());
            let missed: Vec<_> = all_the_time.difference(&found).collect();
            prop_assert!(missed.is_empty(), "missed {:?}", missed);
        }
    }
}

/// The number of items tells nothing when one goes and another one comes.
#[tokio::test]
async fn an_item_that_is_replaced_while_the_list_is_read_makes_no_gap() {
    for gone in 0..12 {
        let listing = Listing {
            items: 12,
            page: 4,
            changes: vec![(1, Change::Replaced(gone))],
        };
        let (result, all_the_time, _) = play(&listing).await;
        let found: BTreeSet<String> = result.unwrap().into_iter().map(|s| s.id).collect();
        assert!(found.is_superset(&all_the_time), "{gone}: {found:?}");
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_to_its_end() {
    let clo = client(|_, _, _| {
        let chunk = Bytes::from(vec![b' '; 1 << 20]);
        let endless = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
        response(200, "application/json", Body::from_stream(endless))
    })
    .await;
    let error = clo.volume("v-1").await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
    let error = clo.create_volume("x", 10).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
}

#[tokio::test]
async fn an_error_without_an_end_is_an_error() {
    for status in [404, 400, 500] {
        let clo = client(move |_, _, _| {
            let chunk = Bytes::from(vec![b'x'; 1 << 16]);
            let endless =
                futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            response(status, "application/json", Body::from_stream(endless))
        })
        .await;
        let error = clo.volume("v-1").await;
        assert!(error.is_err(), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn deep_answers_cost_no_stack() {
    let deep = format!("{{\"result\":{}", "[".repeat(1_000_000));
    let clo = client(move |_, _, _| response(200, "application/json", deep.clone())).await;
    assert!(clo.volume("v-1").await.is_err());
    let deep = format!("{{\"message\":{}", "[".repeat(60_000));
    let clo = client(move |_, _, _| response(400, "application/json", deep.clone())).await;
    assert!(clo.volume("v-1").await.unwrap_err().is_refused());
}
