//! Operations and the keys that make them happen once.

use reqwest::Method;
use sandbox::yandex::{Code, Kind, Status, YandexFault};
use serde_json::{Value, json};

use crate::world::{CLUSTERS, NETWORKS, World, world};

#[tokio::test]
async fn an_operation_is_open_and_then_done() {
    let w = world().await;
    w.sim.hold(true);
    let (_, begun) = w.post(NETWORKS, &w.network_body("rekindle-net")).await;
    assert_eq!(begun.get("done"), None, "false is left out");
    assert_eq!(begun.get("response"), None);
    assert_eq!(begun["createdBy"], w.sim.service_account());
    assert_eq!(
        begun["metadata"]["@type"],
        "type.googleapis.com/yandex.cloud.vpc.v1.CreateNetworkMetadata"
    );
    let id = begun["metadata"]["networkId"].as_str().unwrap();
    w.sim.hold(false);
    let done = w.done(&begun).await;
    assert_eq!(done["id"], begun["id"]);
    assert_eq!(done["response"]["id"], id);
    assert_eq!(done["response"]["name"], "rekindle-net");
}

async fn keyed(w: &World, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let request = w.request(Method::POST, path).header("Idempotency-Key", key);
    World::answer(request.json(body)).await
}

#[tokio::test]
async fn the_same_key_is_the_same_operation() {
    let w = world().await;
    let key = "0b7a4a8e-2f43-4f1c-9d58-0d6f7a2f9c11";
    let body = w.network_body("rekindle-net");
    let (status, first) = keyed(&w, NETWORKS, key, &body).await;
    assert_eq!(status, 200, "{first}");
    let done = w.done(&first).await;
    let (status, again) = keyed(&w, NETWORKS, key, &body).await;
    assert_eq!((status, &again), (200, &done), "as it is by now");
    assert_eq!(w.sim.created()[&Kind::Network], 1);
    // The key belongs to the request.
    let other = w.network_body("rekindle-two");
    let (status, error) = keyed(&w, NETWORKS, key, &other).await;
    assert_eq!((status, &error["code"]), (400, &json!(3)), "{error}");
    let (status, error) = keyed(&w, CLUSTERS, key, &body).await;
    assert_eq!((status, &error["code"]), (400, &json!(3)), "{error}");
    for bad in ["1", "0b7a4a8e-2f43-1f1c-9d58-0d6f7a2f9c11"] {
        let (status, error) = keyed(&w, NETWORKS, bad, &body).await;
        assert_eq!((status, &error["code"]), (400, &json!(3)), "{bad}");
    }
    // Without a key there is another one.
    w.make(NETWORKS, &body).await;
    assert_eq!(w.sim.created()[&Kind::Network], 2);
    let keys: Vec<_> = w
        .sim
        .log()
        .into_iter()
        .filter_map(|asked| asked.key)
        .collect();
    assert_eq!(keys.len(), 6);
    w.assert_healthy();
}

#[tokio::test]
async fn a_key_that_was_refused_is_not_used_up_and_a_delete_may_have_one() {
    let w = world().await;
    let key = "5e0a2c3f-6a34-4a7e-8f4d-3c1b2a0d9e8f";
    let good = w.network_body("rekindle-net");
    let bad = w.network_body("X");
    assert_eq!(keyed(&w, NETWORKS, key, &bad).await.0, 400);
    let (status, operation) = keyed(&w, NETWORKS, key, &good).await;
    assert_eq!(status, 200, "{operation}");
    let made = w.done(&operation).await;
    let path = format!("{NETWORKS}/{}", made["response"]["id"].as_str().unwrap());
    let delete = || {
        let key = "9e0a2c3f-6a34-4a7e-8f4d-3c1b2a0d9e8f";
        w.request(Method::DELETE, &path)
            .header("Idempotency-Key", key)
    };
    let (_, first) = World::answer(delete()).await;
    w.done(&first).await;
    let (status, again) = World::answer(delete()).await;
    assert_eq!((status, &again["id"]), (200, &first["id"]), "and no 404");
    assert_eq!(w.sim.deleted()[&Kind::Network], 1);
    w.assert_healthy();
}

#[tokio::test]
async fn a_lost_answer_is_found_again_by_its_key_and_else_leaves_a_double() {
    let w = world().await;
    let key = "0b7a4a8e-2f43-4f1c-9d58-0d6f7a2f9c12";
    let body = w.network_body("rekindle-net");
    let lost = || YandexFault::on("POST", NETWORKS).after().cut();
    w.sim.faults().add(lost());
    let request = w
        .request(Method::POST, NETWORKS)
        .header("Idempotency-Key", key);
    assert!(request.json(&body).send().await.is_err());
    let (status, found) = keyed(&w, NETWORKS, key, &body).await;
    assert_eq!(status, 200, "{found}");
    assert_eq!(w.done(&found).await.get("error"), None);
    assert_eq!(w.sim.ours().len(), 1);
    w.sim.faults().add(lost());
    let request = w.request(Method::POST, NETWORKS).json(&body);
    assert!(request.send().await.is_err());
    w.make(NETWORKS, &body).await;
    assert_eq!(w.sim.ours().len(), 3, "one of them nobody knows");
    w.assert_healthy();
}

#[tokio::test]
async fn an_operation_may_fail_at_its_end() {
    let w = world().await;
    let faults = w.sim.faults();
    faults.add(YandexFault::on("POST", NETWORKS).fails(Code::Internal, "out of luck"));
    let (status, operation) = w.post(NETWORKS, &w.network_body("rekindle-net")).await;
    assert_eq!(status, 200);
    let done = w.done(&operation).await;
    assert_eq!(done["error"]["code"], 13);
    assert_eq!(done["error"]["message"], "out of luck");
    assert_eq!(done.get("response"), None);
    assert_eq!(w.sim.ours().len(), 0, "what it made is gone");
    assert_eq!(w.sim.created(), w.sim.deleted());
    // A delete that fails leaves everything as it was.
    let network = w.make(NETWORKS, &w.network_body("rekindle-net")).await;
    let path = format!("{NETWORKS}/*");
    faults.add(YandexFault::on("DELETE", &path).fails(Code::Unavailable, "later"));
    let (_, operation) = w.delete(NETWORKS, &network).await;
    assert_eq!(w.done(&operation).await["error"]["code"], 14);
    assert_eq!(w.sim.ours()[0].status, Status::Running);
    w.remove(NETWORKS, &network).await;
    w.assert_healthy();
}

#[tokio::test]
async fn an_error_may_show_before_the_operation_is_done() {
    let w = world().await;
    let (network, subnet) = w.network().await;
    w.sim.hold(true);
    let rolls_back = YandexFault::on("POST", CLUSTERS).rolls_back(Code::Internal, "no masters");
    w.sim.faults().add(rolls_back);
    let (_, operation) = w.post(CLUSTERS, &w.cluster_body(&network, &subnet)).await;
    let id = operation["metadata"]["clusterId"].as_str().unwrap();
    w.is(id, Status::Deleting).await;
    let path = format!("/operations/{}", operation["id"].as_str().unwrap());
    let (_, open) = w.get(&path).await;
    assert_eq!(
        (open.get("done"), &open["error"]["code"]),
        (None, &json!(13))
    );
    let (_, seen) = w.get(&format!("{CLUSTERS}/{id}")).await;
    assert_eq!(seen["status"], "DELETING");
    w.sim.hold(false);
    let done = w.done(&operation).await;
    assert_eq!(done["error"]["message"], "no masters");
    assert_eq!(w.get(&format!("{CLUSTERS}/{id}")).await.0, 404);
    w.assert_healthy();
}

#[tokio::test]
async fn a_failed_operation_may_leave_something_behind() {
    let w = world().await;
    let (network, subnet) = w.network().await;
    let leaves = YandexFault::on("POST", CLUSTERS).leaves(Code::Internal, "half a cluster");
    w.sim.faults().add(leaves);
    let (_, operation) = w.post(CLUSTERS, &w.cluster_body(&network, &subnet)).await;
    assert_eq!(w.done(&operation).await["error"]["code"], 13);
    let id = operation["metadata"]["clusterId"].as_str().unwrap();
    let (_, seen) = w.get(&format!("{CLUSTERS}/{id}")).await;
    assert_eq!(seen["status"], "PROVISIONING");
    w.remove(CLUSTERS, id).await;
    w.assert_healthy();
}

#[tokio::test]
async fn an_operation_may_be_stuck() {
    let w = world().await;
    w.sim
        .faults()
        .add(YandexFault::on("POST", NETWORKS).stuck());
    let (_, stuck) = w.post(NETWORKS, &w.network_body("rekindle-one")).await;
    // By the time that a later one is done it would be, too.
    w.make(NETWORKS, &w.network_body("rekindle-two")).await;
    let path = format!("/operations/{}", stuck["id"].as_str().unwrap());
    assert_eq!(w.get(&path).await.1.get("done"), None);
    w.assert_healthy();
}

#[tokio::test]
async fn labels_can_be_changed() {
    let w = world().await;
    let network = w.make(NETWORKS, &w.network_body("rekindle-net")).await;
    let path = format!("{NETWORKS}/{network}");
    let body = json!({ "updateMask": "labels", "labels": { "rekindle-until": "1" } });
    let (status, operation) = w.patch(&path, &body).await;
    assert_eq!(status, 200, "{operation}");
    assert_eq!(w.done(&operation).await.get("error"), None);
    let (_, seen) = w.get(&path).await;
    assert_eq!(seen["labels"], json!({ "rekindle-until": "1" }));
    assert_eq!(seen["name"], "rekindle-net");
}
