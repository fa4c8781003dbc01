//! Job messages from a queue into which anybody may have put anything.

mod fuzz;

use std::num::NonZeroU32;

use fuzz::{cases, damaged, spoils, spoilt};
use jobs::ids::{ClusterName, NodeName, ObjectName, RecoveryId};
use jobs::message::{
    Access, AddUser, Backup, BackupKind, Change, DecodeError, Demo, Image, Job, JobMessage,
    LoadTest, OnNode, OsUpdate, PutSecret, Release, RemoveNode, Restore, SCHEMA, Switch, Until,
    WaitCertificates,
};
use jobs::spec::Driver;
use jobs::user::{PublicKey, UserName};
use proptest::prelude::*;
use serde_json::{Value, json};

/// An error goes into logs and into the dead queue: it may quote the message, not repeat it.
const LONGEST_ERROR: usize = 2000;

fn names() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
}

fn users() -> impl Strategy<Value = UserName> {
    "x[a-z0-9_-]{0,30}".prop_map(|name| UserName::new(name).expect("a name"))
}

fn access() -> impl Strategy<Value = Access> {
    let key = |comment: String| {
        PublicKey::parse(&format!(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBy8J3iJeCBE41pd2kUsu1S5DV2Vh7uC9zYMFjlhUUyZ {comment}"
        ))
    };
    let grant = move |(comment, sudo)| Access::Grant {
        key: key(comment).expect("a key"),
        sudo,
    };
    prop_oneof![
        Just(Access::Revoke),
        ("[a-zA-Z0-9@ .:-]{0,20}", any::<bool>()).prop_map(grant),
    ]
}

fn object() -> impl Strategy<Value = ObjectName> {
    names().prop_map(|name| ObjectName::new(name).expect("a label"))
}

/// What works on a cluster that runs.
fn on_kubernetes() -> impl Strategy<Value = Job> {
    let object_of =
        || (names(), names()).prop_map(|(a, b)| format!("{a}/{b}").parse().expect("two labels"));
    let change = prop_oneof![
        object().prop_map(|application| Change::Freeze { application }),
        object().prop_map(|application| Change::Thaw { application }),
        (
            object_of(),
            any::<Option<bool>>(),
            prop::option::of(object())
        )
            .prop_map(|(switch, value, release)| Change::Values {
                switch,
                values: [("a".to_owned(), json!({ "b": value }))]
                    .into_iter()
                    .collect(),
                release,
            }),
    ];
    let image = prop_oneof![
        Just(Image::Former),
        "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}".prop_map(|tag| Image::Tag(tag.parse().expect("a tag"))),
    ];
    let until = prop_oneof![
        Just(Until::End),
        Just(Until::Consistent),
        (0i64..4_000_000_000)
            .prop_map(|s| Until::Time(jiff::Timestamp::from_second(s).expect("a time"))),
    ];
    prop_oneof![
        Just(Job::FluxBootstrap),
        Just(Job::Promote),
        Just(Job::LoadTestCleanUp),
        Just(Job::Reap),
        (any::<Option<String>>(), any::<Option<NonZeroU32>>()).prop_map(
            |(target, virtual_users)| Job::LoadTest(LoadTest {
                script: None,
                driver: Some(Driver::Kubeconfig),
                target,
                virtual_users,
                iterations: virtual_users,
                parallelism: virtual_users,
            })
        ),
        change.prop_map(|change| Job::Switch(Switch { change })),
        (object(), image)
            .prop_map(|(application, image)| Job::Release(Release { application, image })),
        (any::<Option<String>>(), until, any::<bool>()).prop_map(|(set, until, accept_gap)| {
            Job::Restore(Restore {
                set,
                until,
                failed_at: None,
                accept_gap,
            })
        }),
        Just(Job::Backup(Backup {
            kind: BackupKind::Incremental
        })),
        prop::collection::vec(object_of(), 0..3)
            .prop_map(|certificates| Job::WaitCertificates(WaitCertificates { certificates })),
        (object_of(), names(), names()).prop_map(|(secret, key, name)| {
            Job::Secret(PutSecret {
                secret,
                keys: [(key, name)].into(),
            })
        }),
    ]
}

fn payload() -> impl Strategy<Value = Job> {
    let node = || names().prop_map(|name| NodeName::new(name).expect("a label"));
    let on = move || node().prop_map(|node| OnNode { node });
    let demo = (
        any::<u32>(),
        any::<u64>(),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        prop::option::of(node()),
    );
    prop_oneof![
        on().prop_map(Job::Provision),
        Just(Job::LoadBalancer),
        on().prop_map(Job::Reachability),
        on().prop_map(Job::Mount),
        on().prop_map(Job::Permissions),
        Just(Job::Kubespray),
        (node(), any::<bool>()).prop_map(|(node, dead)| Job::RemoveNode(RemoveNode { node, dead })),
        (prop::collection::vec(node(), 0..3), any::<bool>())
            .prop_map(|(nodes, reboot)| Job::OsUpdate(OsUpdate { nodes, reboot })),
        (users(), access(), prop::collection::vec(node(), 0..3)).prop_map(
            |(name, access, nodes)| Job::AddUser(AddUser {
                name,
                access,
                nodes
            })
        ),
        on_kubernetes(),
        Just(Job::Report),
        demo.prop_map(|(steps, step_ms, abort_at, fail_at, node)| {
            let (text, fields) = (
                json!({"kind": "demo", "steps": steps, "step_ms": step_ms}),
                [
                    ("abort_at", json!(abort_at)),
                    ("fail_at", json!(fail_at)),
                    ("node", json!(node)),
                ],
            );
            let mut text = text;
            for (key, value) in fields {
                text[key] = value;
            }
            serde_json::from_value(text).expect("a demo")
        }),
    ]
}

fn message() -> impl Strategy<Value = JobMessage> {
    (
        names(),
        names(),
        payload(),
        "[0-9]{1,4}",
        any::<Option<String>>(),
    )
        .prop_map(|(cluster, recovery, payload, turn, traceparent)| {
            let cluster = ClusterName::new(cluster).expect("a short label");
            let recovery = RecoveryId::new(recovery).expect("a label");
            JobMessage {
                traceparent,
                ..JobMessage::new(&cluster, &recovery, payload.name(), payload, &turn)
            }
        })
}

fn document(message: &JobMessage) -> Value {
    serde_json::from_slice(&message.encode()).expect("our own")
}

/// A message, or an error that is short and names what is wrong; what was read survives its round trip.
fn judge(body: &[u8]) -> Result<(), TestCaseError> {
    match JobMessage::decode(body) {
        Ok(message) => prop_assert_eq!(JobMessage::decode(&message.encode()), Ok(message)),
        Err(error) => {
            let text = error.to_string();
            prop_assert!(
                text.len() < LONGEST_ERROR,
                "{} bytes: {:.200}",
                text.len(),
                text
            );
            if let DecodeError::Field { field, .. } = error {
                prop_assert!(!field.is_empty() && field != "?", "{}", text);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn every_message_survives_its_round_trip(message in message()) {
        prop_assert_eq!(JobMessage::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(body in prop::collection::vec(any::<u8>(), 0..400)) {
        judge(&body)?;
    }

    #[test]
    fn any_damage_is_a_message_or_an_error(
        body in message().prop_flat_map(|m| damaged(String::from_utf8(m.encode()).expect("JSON is UTF-8"))),
    ) {
        judge(&body)?;
    }

    #[test]
    fn any_spoilt_message_is_a_message_or_an_error(message in message(), spoils in spoils()) {
        judge(spoilt(&document(&message), &spoils).to_string().as_bytes())?;
    }

    #[test]
    fn what_a_newer_rekindle_wrote_is_kept_whatever_else_it_says(
        message in message(), spoils in spoils(), newer in u64::from(SCHEMA) + 1..,
    ) {
        let mut document = spoilt(&document(&message), &spoils);
        document["schema"] = json!(newer);
        let read = JobMessage::decode(document.to_string().as_bytes());
        prop_assert_eq!(read, Err(DecodeError::NewerSchema { found: newer }));
    }

    #[test]
    fn an_unknown_kind_is_named(message in message(), kind in "[a-z]{1,8}x") {
        let mut document = document(&message);
        document["kind"] = json!(kind);
        let read = JobMessage::decode(document.to_string().as_bytes());
        prop_assert_eq!(read, Err(DecodeError::UnknownKind { found: kind }));
    }
}

fn field_of(body: &Value) -> Option<String> {
    match JobMessage::decode(body.to_string().as_bytes()) {
        Err(DecodeError::Field { field, .. }) => Some(field),
        _ => None,
    }
}

#[test]
fn every_field_of_every_kind_is_named_when_it_is_missing_or_of_another_type() {
    let node = NodeName::new("test-web-1").expect("valid");
    let on = || OnNode { node: node.clone() };
    let object = ObjectName::new("slr").expect("valid");
    let demo: Demo = serde_json::from_value(json!({
        "steps": 3, "step_ms": 5, "abort_at": 1, "fail_at": 2, "node": "test-web-1",
    }))
    .expect("a demo");
    for payload in [
        Job::Provision(on()),
        Job::LoadBalancer,
        Job::Reachability(on()),
        Job::Mount(on()),
        Job::Permissions(on()),
        Job::Kubespray,
        Job::RemoveNode(RemoveNode {
            node: node.clone(),
            dead: true,
        }),
        Job::OsUpdate(OsUpdate {
            nodes: vec![node.clone()],
            reboot: true,
        }),
        Job::AddUser(AddUser {
            name: UserName::new("ann").expect("a name"),
            access: Access::Revoke,
            nodes: vec![node.clone()],
        }),
        Job::FluxBootstrap,
        Job::Promote,
        Job::Switch(Switch {
            change: Change::Freeze {
                application: object.clone(),
            },
        }),
        Job::Release(Release {
            application: object,
            image: Image::Former,
        }),
        Job::Restore(Restore {
            set: Some("20260101-000000F".into()),
            until: Until::Consistent,
            failed_at: Some(jiff::Timestamp::UNIX_EPOCH),
            accept_gap: true,
        }),
        Job::Backup(Backup {
            kind: BackupKind::Incremental,
        }),
        Job::WaitCertificates(WaitCertificates {
            certificates: vec!["a/b".parse().expect("two names")],
        }),
        Job::Secret(PutSecret {
            secret: "a/b".parse().expect("two names"),
            keys: [("key".to_owned(), "NAME".to_owned())].into(),
        }),
        Job::LoadTest(LoadTest {
            script: Some("0a".repeat(32)),
            driver: Some(Driver::Yandex),
            target: Some("https://a".into()),
            virtual_users: NonZeroU32::new(3),
            iterations: NonZeroU32::new(2),
            parallelism: NonZeroU32::new(1),
        }),
        Job::LoadTestCleanUp,
        Job::Reap,
        Job::Report,
        Job::Demo(demo),
    ] {
        let cluster = ClusterName::new("test").expect("valid");
        let recovery = RecoveryId::new("r-1").expect("valid");
        let message = JobMessage {
            traceparent: Some("00-0-0-01".into()),
            ..JobMessage::new(&cluster, &recovery, payload.name(), payload, "1")
        };
        let good = document(&message);
        for key in good.as_object().expect("an object").keys() {
            let kind = message.payload.kind();
            let mut other = good.clone();
            other[key] = json!([[1]]);
            let named = field_of(&other).unwrap_or_default();
            // Of a list the wrong one is named.
            let named = named.strip_suffix("[0]").unwrap_or(&named);
            assert_eq!(named, key, "{kind}: {other}");
            let mut huge = good.clone();
            huge[key] = json!(1e300);
            assert_eq!(field_of(&huge).as_ref(), Some(key), "{kind}: {huge}");
            let mut without = good.clone();
            without.as_object_mut().expect("an object").remove(key);
            let optional = [
                "traceparent",
                "step_ms",
                "abort_at",
                "fail_at",
                "dead",
                "nodes",
                "reboot",
                "set",
                "until",
                "failed_at",
                "accept_gap",
                "type",
                "certificates",
                "script",
                "driver",
                "target",
                "virtual_users",
                "iterations",
                "parallelism",
            ]
            .contains(&key.as_str());
            match field_of(&without) {
                None => assert!(optional, "{kind} without `{key}` is read"),
                // A demo without its node has another name.
                Some(field) if kind == "demo" && key == "node" => assert_eq!(field, "job"),
                Some(field) => assert_eq!(&field, key, "{kind}"),
            }
        }
    }
}

#[test]
fn deep_nesting_costs_no_stack() {
    for depth in [200, 1_000_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for body in [
                deep.clone(),
                format!("{{\"schema\":1,\"kind\":\"report\",\"x\":{deep}}}"),
            ] {
                let error = JobMessage::decode(body.as_bytes()).expect_err("too deep");
                assert!(matches!(error, DecodeError::NotJson(_)), "{error:.300}");
            }
        }
    }
}

#[test]
fn an_error_quotes_a_long_message_and_does_not_repeat_it() {
    let long = "x".repeat(1_000_000);
    let good = json!({"schema": 1, "id": "i", "cluster": "test", "recovery": "r-1", "job": "report", "kind": "report"});
    for key in ["id", "cluster", "recovery", "job", "kind", "schema"] {
        let mut body = good.clone();
        body[key] = json!({ long.clone(): long.clone() });
        judge(body.to_string().as_bytes()).expect(key);
        body[key] = json!(long);
        judge(body.to_string().as_bytes()).expect(key);
    }
    let mut demo = good.clone();
    demo["kind"] = json!("demo");
    demo["job"] = json!("demo");
    demo["steps"] = json!(long);
    judge(demo.to_string().as_bytes()).expect("steps");
}
