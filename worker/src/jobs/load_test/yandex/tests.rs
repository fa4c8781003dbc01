//! What is asked for, and when nodes count as ready.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

fn wanted() -> YandexCluster {
    let pool = |nodes| json!({"nodes": nodes, "cores": 2, "ram_gb": 4, "disk_gb": 32});
    serde_json::from_value(json!({
        "zone": "ru-central1-d", "version": "1.33", "service_account": "aje1",
        "subnet": "192.168.0.0/16", "pods": "172.16.0.0/16", "services": "10.96.0.0/16",
        "system": pool(1), "runners": pool(2), "ttl": "6h",
    }))
    .unwrap()
}

fn node(role: &str, ready: &str) -> Value {
    json!({
        "metadata": {"labels": {"role": role}},
        "status": {"conditions": [
            {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready},
        ]},
    })
}

#[test]
fn nodes_are_ready_when_all_that_were_asked_for_are_there_and_say_so() {
    let (system, runner) = (node("system", "True"), node("load-generator", "True"));
    let late = node("load-generator", "Unknown");
    let bare = json!({"metadata": {"name": "n"}});
    for (nodes, pending) in [
        (
            vec![],
            Some("nodes that are ready: 0 of 1 system, 0 of 2 load-generator"),
        ),
        (
            vec![system.clone(), runner.clone(), late.clone()],
            Some("nodes that are ready: 1 of 1 system, 1 of 2 load-generator"),
        ),
        (
            vec![runner.clone(), runner.clone(), runner.clone()],
            Some("0 of 1 system"),
        ),
        (vec![system.clone(), runner.clone(), runner.clone()], None),
        (
            vec![system.clone(), runner.clone(), runner.clone(), bare],
            Some("2 of 2 load-generator"),
        ),
        (
            vec![system.clone(), runner.clone(), runner.clone(), late],
            Some("2 of 2"),
        ),
        (vec![system, runner.clone(), runner.clone(), runner], None),
    ] {
        match (ready(&nodes, &wanted()), pending) {
            (Poll::Ready(()), None) => {}
            (Poll::Pending(text), Some(want)) => assert!(text.contains(want), "{text}"),
            (poll, want) => panic!("{poll:?} instead of {want:?}"),
        }
    }
}

#[test]
fn the_keys_are_different_ones_and_the_time_to_live_begins_now() {
    let now = Timestamp::now();
    let keys = decide("b1g", &wanted(), Some(now), now).unwrap();
    let all = [
        keys.network,
        keys.subnet,
        keys.cluster,
        keys.system,
        keys.runners,
    ];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
    assert!(all.iter().all(|key| key.get_version_num() == 4));
    let left = keys.until.duration_since(Timestamp::now()).as_secs();
    assert!((5 * 3600..=6 * 3600).contains(&left), "{left}");
}
