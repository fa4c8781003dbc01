//! Answers that nobody would expect: an error, never a panic, never "absent", never a short list, never a label that
//! is not there.
#![expect(clippy::unwrap_used, reason = "tests")]

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fake::{Fake, Say};
use super::model::Item;
use super::*;
use crate::fuzz::cases;

fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!({"rekindle": "test", "rekindle-until": "1"})),
        Just(json!({"rekindle": {"x": 1}})),
        Just(json!("")),
        Just(json!("\0/../..")),
        Just(json!("x".repeat(10_000))),
        ".{0,12}".prop_map(Value::from),
    ]
}

/// A good object with some of its fields replaced or dropped.
fn spoilt(good: Value) -> impl Strategy<Value = Value> {
    let keys: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
    let spoil = (0..keys.len(), prop::option::of(strange()));
    prop::collection::vec(spoil, 0..4).prop_map(move |spoils| {
        let mut bad = good.clone();
        let map = bad.as_object_mut().unwrap();
        for (at, value) in spoils {
            match value {
                Some(value) => drop(map.insert(keys[at].clone(), value)),
                None => drop(map.remove(&keys[at])),
            }
        }
        bad
    })
}

fn group() -> Value {
    json!({
        "id": "catg", "clusterId": "cat1", "name": "g", "status": "RUNNING", "labels": {"rekindle": "test"},
        "scalePolicy": {"fixedScale": {"size": "2"}},
    })
}

fn operation() -> Value {
    json!({
        "id": "op1", "done": true, "metadata": {"networkId": "enp1"}, "response": {"id": "enp1"},
        "error": {"code": 8, "message": "quota"},
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_object_is_read_as_it_is_or_refused(group in spoilt(group()), operation in spoilt(operation())) {
        if let Ok(item) = serde_json::from_value::<Item>(group.clone()) {
            let read = item.of(Kind::NodeGroup);
            prop_assert_eq!(Some(read.id.as_str()), group["id"].as_str());
            prop_assert!(!read.id.is_empty() && !read.id.contains('/'));
            for (key, value) in &read.labels {
                prop_assert_eq!(Some(value.as_str()), group["labels"][key].as_str());
            }
            let labelled = group["labels"]["rekindle"].is_string();
            prop_assert_eq!(labelled, fate(&read.labels, Timestamp::now()) != Fate::Strange);
        }
        if let Ok(read) = serde_json::from_value::<Operation>(operation.clone()) {
            let done = operation["done"] == true;
            prop_assert_eq!(done, !matches!(read.progress(), Progress::Going(_)));
            if operation["error"].is_object() {
                prop_assert!(read.progress() != Progress::Done);
            }
        }
    }

    #[test]
    fn any_authorized_key_is_one_or_an_error_that_shows_none_of_it(text in "\\PC{0,60}hunter2\\PC{0,60}") {
        for text in [
            text.clone(),
            json!({"id": "a", "service_account_id": "b", "private_key": text}).to_string(),
            json!({"id": "a", "private_key": format!("-----BEGIN PRIVATE KEY-----\n{text}")}).to_string(),
        ] {
            let error = AuthorizedKey::parse(&text).unwrap_err();
            let shown = format!("{error} {error:?}");
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn any_answer_is_a_whole_list_or_an_error(
        status in prop::sample::select(vec![200_u16, 201, 204, 301, 400, 404, 410, 500]),
        body in prop_oneof![
            spoilt(group()).prop_map(|group| json!({"nodeGroups": [group]}).to_string()),
            strange().prop_map(|value| json!({"nodeGroups": value}).to_string()),
            strange().prop_map(|value| json!({"items": value}).to_string()),
            strange().prop_map(|value| json!({"nodeGroups": [], "nextPageToken": value}).to_string()),
            strange().prop_map(|value| value.to_string()),
            Just(String::new()),
            ".{0,40}",
        ],
    ) {
        let says = vec![Say::Text(status, body.clone()); 6];
        let list = run(async {
            let (_, yandex) = Fake::start(says.clone()).await;
            yandex.list(Kind::NodeGroup).await
        });
        if let Ok((found, _)) = list {
            let value: Value = serde_json::from_str(&body).unwrap();
            prop_assert!((200..300).contains(&status), "{} {}", status, body);
            let there = value["nodeGroups"].as_array().map_or(0, Vec::len);
            prop_assert_eq!(found.len(), there);
            prop_assert!(value.get("items").is_none());
        }
        let one = run(async {
            let (_, yandex) = Fake::start(says).await;
            yandex.get(Kind::NodeGroup, "catg").await
        });
        match one {
            Ok(None) => prop_assert!(status == 404 && body.starts_with('{'), "{} {} is absent", status, body),
            Ok(Some(_)) => prop_assert!((200..300).contains(&status)),
            Err(error) => prop_assert!(!error.is_ambiguous() && error.to_string().len() < 3000),
        }
    }

    #[test]
    fn a_create_gives_an_id_or_says_that_nobody_knows(body in prop_oneof![
        spoilt(operation()).prop_map(|value| value.to_string()),
        strange().prop_map(|value| value.to_string()),
        ".{0,40}",
    ]) {
        let result = run(async {
            let (_, yandex) = Fake::start(vec![Say::Text(200, body.clone()); 3]).await;
            let new = New::network("n".into(), &Default::default());
            yandex.create(&new, uuid::Uuid::new_v4()).await
        });
        match result {
            Ok((operation, id)) => {
                prop_assert!(!id.is_empty() && !operation.id.is_empty());
                prop_assert!(body.contains(&format!("{:?}", id)), "{} is not in {}", id, body);
            }
            // But for an operation that says itself that it has failed.
            Err(error) => prop_assert!(error.is_ambiguous() || body.contains("\"error\""), "{}", error),
        }
    }
}
