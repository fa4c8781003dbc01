//! The client against a server that misbehaves. Names begin with the number of the reference
//! project's flaw that must not come back.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::error::Error as _;
use std::time::Duration;

use serde_json::json;

use super::fake::{Fake, Say, TOKEN, impatience};
use super::*;

fn page(ids: &[&str], count: u64) -> Say {
    let rows: Vec<_> = ids
        .iter()
        .map(|id| json!({"id": id, "name": format!("n-{id}")}))
        .collect();
    Say::Json(200, json!({"count": count, "result": rows}))
}

fn ids(servers: &[Server]) -> Vec<&str> {
    servers.iter().map(|server| server.id.as_str()).collect()
}

fn new_server() -> NewServer {
    NewServer {
        name: "test-web-1".into(),
        flavor: Flavor {
            ram: 4,
            vcpus: 2,
            cpu_type: Some("SHARED".into()),
        },
        user_data: Some(
            "#cloud-config\nssh_keys:\n  ed25519_private: b3BlbnNzaC1rZXktdjEAAAA\n".into(),
        ),
        ..NewServer::default()
    }
}

/// All that a log would show of an error.
fn shown(error: &CloError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn flaw_23_lists_are_paged_to_the_end_and_sorted_without_duplicates() {
    let (fake, clo) = Fake::start([
        page(&["d", "c"], 4),
        page(&["c", "a"], 4),
        page(&["a", "b"], 5),
        page(&["b", "e"], 5),
    ])
    .await;
    assert_eq!(
        ids(&clo.list_servers().await.unwrap()),
        ["a", "b", "c", "d", "e"]
    );
    // Each page begins with the last row of the one before.
    assert_eq!(
        fake.lines(),
        [
            "GET /v2/projects/p-1/servers?limit=100&offset=0",
            "GET /v2/projects/p-1/servers?limit=100&offset=1",
            "GET /v2/projects/p-1/servers?limit=100&offset=2",
            "GET /v2/projects/p-1/servers?limit=100&offset=3",
        ]
    );
}

#[tokio::test]
async fn an_empty_list_is_empty_with_or_without_result() {
    let (_, clo) = Fake::start([Say::Json(200, json!({"count": 0})), page(&[], 0)]).await;
    assert!(clo.list_servers().await.unwrap().is_empty());
    assert!(clo.list_servers().await.unwrap().is_empty());
}

#[tokio::test]
async fn flaw_23_a_list_that_breaks_off_is_an_error_not_a_short_list() {
    let without_result = || Say::Json(200, json!({"count": 3}));
    let without_count = || Say::Json(200, json!({"result": [{"id": "a", "name": "a"}]}));
    let first = || page(&["a", "b"], 3);
    for (name, script) in [
        (
            "an empty page",
            vec![
                first(),
                page(&[], 3),
                first(),
                page(&[], 3),
                first(),
                page(&[], 3),
            ],
        ),
        (
            "no result",
            vec![without_result(), without_result(), without_result()],
        ),
        (
            "no count",
            vec![without_count(), without_count(), without_count()],
        ),
        ("the same page again", vec![first(); 6]),
        (
            "too few",
            vec![
                page(&["a", "a"], 2),
                page(&["a", "a"], 2),
                page(&["a", "a"], 2),
            ],
        ),
    ] {
        let (_, clo) = Fake::start(script).await;
        let error = clo.list_servers().await.unwrap_err();
        assert!(
            matches!(error, CloError::IncompleteList { .. }),
            "{name}: {error}"
        );
        assert!(
            error.is_transient() && error.to_string().contains("incomplete list"),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn a_list_that_shrinks_under_our_hands_is_read_again() {
    // `b` goes away after the first page, which shifts `c` to where we have been already.
    let (_, clo) = Fake::start([
        page(&["a", "b"], 4),
        page(&["d"], 3),
        page(&["a", "c"], 3),
        page(&["c", "d"], 3),
    ])
    .await;
    assert_eq!(ids(&clo.list_servers().await.unwrap()), ["a", "c", "d"]);
}

#[tokio::test]
async fn a_list_that_grows_and_shrinks_meanwhile_is_read_again() {
    // `e` and `f` come, then `a` goes and shifts `c` to where we have been already. The number of
    // items alone does not show that.
    let (_, clo) = Fake::start([
        page(&["a", "b"], 3),
        page(&["d", "e"], 5),
        page(&["f"], 4),
        page(&["b", "c", "e", "f"], 4),
    ])
    .await;
    assert_eq!(
        ids(&clo.list_servers().await.unwrap()),
        ["b", "c", "e", "f"]
    );
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up() {
    let endless = (0..2000).map(|n| page(&[format!("s{n}").as_str()], n + 2));
    let (fake, clo) = Fake::start(endless).await;
    let error = clo.list_servers().await.unwrap_err();
    assert!(error.to_string().contains("no end"), "{error}");
    assert!(fake.lines().len() <= 1500);
}

#[tokio::test]
async fn flaw_21_a_failed_server_list_is_an_error_not_an_empty_cloud() {
    let failure = |status| Say::Json(status, json!({"message": "sorry"}));
    for (name, say) in [
        ("500", failure(500)),
        ("401", failure(401)),
        ("404", failure(404)),
        ("429", failure(429)),
        ("a redirect", Say::Header(302, "location", "/v2/")),
        (
            "an empty body",
            Say::Text(200, "application/json", String::new()),
        ),
        (
            "a web page",
            Say::Text(200, "text/html", "<html>log in</html>".into()),
        ),
        ("a list instead of an envelope", Say::Json(200, json!([]))),
        ("a cut body", Say::Cut(200)),
        ("no answer", Say::Nothing),
    ] {
        let (_, clo) = Fake::start(vec![say; 3]).await;
        let error = clo.list_servers().await.expect_err(name);
        assert!(
            error.to_string().starts_with("list servers: "),
            "{name}: {error}"
        );
        assert!(!error.is_ambiguous(), "{name}: {error}");
    }
}

#[tokio::test]
async fn flaw_21_only_a_404_of_the_api_says_that_a_server_is_gone() {
    let (_, clo) = Fake::start([Say::Json(404, json!({"code": 404}))]).await;
    assert_eq!(clo.server("s-1").await.unwrap(), None);
    for say in [
        Say::Json(403, json!({})),
        Say::Json(502, json!({})),
        Say::Json(200, json!({})),
        Say::Json(200, json!({"result": null})),
        Say::Text(404, "text/html; charset=utf-8", "<html>nginx</html>".into()),
        Say::Text(404, "text/plain", "404 page not found\n".into()),
    ] {
        let (_, clo) = Fake::start(vec![say; 3]).await;
        clo.server("s-1").await.unwrap_err();
    }
}

#[tokio::test]
async fn reads_are_tried_again_on_5xx_429_and_cut_connections() {
    let good = || {
        Say::Json(
            200,
            json!({"result": {"id": "s-1", "name": "a", "status": "active"}}),
        )
    };
    for bad in [
        Say::Json(503, json!({})),
        Say::Header(429, "retry-after", "0"),
        Say::Cut(200),
        Say::Nothing,
    ] {
        let (fake, clo) = Fake::start([bad, good()]).await;
        assert_eq!(
            clo.server("s-1").await.unwrap().unwrap().status,
            ServerStatus::Active
        );
        assert_eq!(fake.lines().len(), 2);
    }
}

#[tokio::test]
async fn reads_are_given_up_after_the_set_number_of_attempts() {
    let (fake, clo) = Fake::start(vec![Say::Json(500, json!({"message": "down"})); 9]).await;
    let error = clo.server("s-1").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "read server s-1: no answer from CLO: status 500: down"
    );
    assert_eq!(fake.lines().len(), impatience().attempts);
}

#[tokio::test]
async fn flaw_22_post_create_is_never_repeated_blindly() {
    for (name, say) in [
        ("500", Say::Json(500, json!({}))),
        ("504", Say::Json(504, json!({}))),
        ("408", Say::Json(408, json!({}))),
        ("no answer", Say::Nothing),
        ("a cut body", Say::Cut(201)),
        (
            "an answer without an id",
            Say::Json(201, json!({"result": {}})),
        ),
        (
            "an answer without a body",
            Say::Text(201, "application/json", String::new()),
        ),
    ] {
        let (fake, clo) = Fake::start(vec![say; 3]).await;
        let error = clo.create_server(&new_server()).await.expect_err(name);
        assert!(
            error.is_ambiguous() && error.is_transient(),
            "{name}: {error}"
        );
        assert!(
            error.to_string().starts_with("create server test-web-1: "),
            "{name}: {error}"
        );
        assert_eq!(fake.lines(), ["POST /v2/projects/p-1/servers"], "{name}");
    }
}

#[tokio::test]
async fn flaw_22_no_other_change_is_repeated_blindly_either() {
    let (fake, clo) = Fake::start(vec![Say::Json(500, json!({})); 9]).await;
    assert!(
        clo.attach_volume("v-1", "s-1")
            .await
            .unwrap_err()
            .is_ambiguous()
    );
    assert!(
        clo.create_volume("data", 10)
            .await
            .unwrap_err()
            .is_ambiguous()
    );
    assert!(
        clo.create_rule("lb-1", &NewRule::default())
            .await
            .unwrap_err()
            .is_ambiguous()
    );
    assert_eq!(fake.lines().len(), 3);
}

#[tokio::test]
async fn a_post_is_sent_again_when_it_was_certainly_not_processed() {
    let created = Say::Json(201, json!({"result": {"id": "s-9"}}));
    let (fake, clo) = Fake::start([
        Say::Json(429, json!({})),
        Say::Header(429, "retry-after", "0"),
        created,
    ])
    .await;
    assert_eq!(clo.create_server(&new_server()).await.unwrap(), "s-9");
    assert_eq!(fake.lines().len(), 3);
}

#[tokio::test]
async fn an_api_that_cannot_be_reached_is_not_ambiguous() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = CloConfig {
        url,
        patience: impatience(),
        ..CloConfig::new(Token::new(TOKEN), "p-1")
    };
    let error = Clo::new(config)
        .unwrap()
        .create_server(&new_server())
        .await
        .unwrap_err();
    assert!(matches!(error, CloError::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient() && !error.is_ambiguous());
}

#[tokio::test]
async fn a_long_retry_after_is_handed_to_the_caller_instead_of_waited_for() {
    let (fake, clo) = Fake::start(vec![Say::Header(429, "retry-after", "3600"); 3]).await;
    let error = clo.list_servers().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert!(error.is_transient());
    assert_eq!(fake.lines().len(), 1);
}

#[tokio::test]
async fn deletes_are_repeated_and_what_is_gone_is_deleted() {
    let (fake, clo) = Fake::start([Say::Json(500, json!({})), Say::Json(404, json!({}))]).await;
    clo.delete_server("s-1", &["v-1"], &[]).await.unwrap();
    assert_eq!(
        fake.lines(),
        ["DELETE /v2/servers/s-1", "DELETE /v2/servers/s-1"]
    );
    assert_eq!(
        fake.last().body,
        json!({"delete_volumes": ["v-1"], "delete_addresses": []})
    );
}

#[tokio::test]
async fn a_delete_that_may_have_worked_stays_ambiguous_whatever_comes_after() {
    let (_, clo) = Fake::start([
        Say::Nothing,
        Say::Json(429, json!({})),
        Say::Json(429, json!({})),
    ])
    .await;
    let error = clo.delete_volume("v-1").await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
}

#[tokio::test]
async fn every_2xx_will_do_where_the_body_does_not_matter() {
    let empty = |status| Say::Text(status, "application/json", String::new());
    let (_, clo) = Fake::start([
        empty(200),
        empty(202),
        empty(204),
        Say::Cut(200),
        empty(299),
    ])
    .await;
    clo.attach_volume("v-1", "s-1").await.unwrap();
    clo.detach_volume("v-1").await.unwrap();
    clo.delete_volume("v-1").await.unwrap();
    clo.reboot_server("s-1").await.unwrap();
    clo.attach_address("a-1", Entity::LoadBalancer, "lb-1")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_refusal_carries_status_and_words() {
    let words = json!({"code": 400, "title": "Bad Request", "error": {"message": "volume must be in status in-use"}});
    let (fake, clo) = Fake::start([Say::Json(400, words)]).await;
    let error = clo.detach_volume("v-1").await.unwrap_err();
    assert!(error.is_refused() && !error.is_transient());
    assert_eq!(error.status(), Some(400));
    assert_eq!(
        error.to_string(),
        "detach volume v-1: CLO refused with status 400: volume must be in status in-use"
    );
    assert_eq!(fake.lines().len(), 1);
}

#[tokio::test]
async fn an_error_body_is_cut() {
    let (_, clo) = Fake::start([Say::Text(400, "text/plain", "x".repeat(100_000))]).await;
    assert!(shown(&clo.list_servers().await.unwrap_err()).len() < 3000);
}

#[tokio::test]
async fn neither_token_nor_host_key_come_back_in_an_error() {
    for status in [422, 500] {
        let echo = json!({"message": format!("bad input: Bearer {TOKEN}"), "input": new_server()});
        let (fake, clo) = Fake::start([Say::Json(status, echo)]).await;
        let error = clo.create_server(&new_server()).await.unwrap_err();
        let shown = shown(&error);
        assert!(
            !shown.contains(TOKEN) && !shown.contains("b3BlbnNzaC1r"),
            "{shown}"
        );
        assert_eq!(
            fake.last().headers["authorization"],
            format!("Bearer {TOKEN}")
        );
        assert!(
            fake.last().headers["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("rekindle/")
        );
    }
}

#[tokio::test]
async fn an_id_that_would_change_the_path_is_not_sent() {
    let (fake, clo) = Fake::start([]).await;
    for id in ["", "..", "s-1/../../projects", "s 1", "s?1"] {
        assert!(
            matches!(
                clo.delete_server(id, &[], &[]).await,
                Err(CloError::Invalid { .. })
            ),
            "{id}"
        );
        assert!(
            matches!(
                clo.delete_server("s-1", &[id], &[]).await,
                Err(CloError::Invalid { .. })
            ),
            "{id}"
        );
        assert!(
            matches!(clo.server(id).await, Err(CloError::Invalid { .. })),
            "{id}"
        );
    }
    assert!(fake.lines().is_empty());
}

#[tokio::test]
async fn ram_in_megabytes_is_not_ordered() {
    let (fake, clo) = Fake::start([]).await;
    for ram in [2048, 0] {
        let new = NewServer {
            flavor: Flavor {
                ram,
                vcpus: 2,
                cpu_type: None,
            },
            ..new_server()
        };
        assert!(
            matches!(clo.create_server(&new).await, Err(CloError::Invalid { .. })),
            "{ram}"
        );
    }
    assert!(fake.lines().is_empty());
}

#[tokio::test]
async fn flaw_22_a_create_that_timed_out_after_it_worked_is_adopted() {
    let ours = || {
        Say::Json(
            200,
            json!({"count": 1, "result": [{"id": "s-7", "name": "test-web-1"}]}),
        )
    };
    let (fake, clo) = Fake::start([page(&[], 0), Say::Nothing, page(&[], 0), ours()]).await;
    let new = new_server();
    let settle = Settle {
        every: Duration::from_millis(1),
        ..Settle::default()
    };
    let task = tokio::spawn({
        // Spawned, because jobs are: the future has to be `Send`.
        let clo = clo.clone();
        async move {
            adopt_or_create(
                "server test-web-1",
                || clo.servers_named(&new.name),
                || clo.create_server(&new),
                settle,
            )
            .await
        }
    });
    assert_eq!(task.await.unwrap().unwrap().id(), "s-7");
    assert_eq!(
        fake.lines()
            .iter()
            .filter(|line| line.starts_with("POST"))
            .count(),
        1
    );
}

#[tokio::test]
async fn every_call_goes_where_the_api_expects_it() {
    let ok = || Say::Json(200, json!({"count": 0, "result": {"id": "x", "name": "x"}}));
    let none = || Say::Json(200, json!({"count": 0}));
    let (fake, clo) = Fake::start([
        none(),
        none(),
        none(),
        none(),
        none(),
        none(),
        none(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
        ok(),
    ])
    .await;
    clo.list_volumes().await.unwrap();
    clo.list_local_disks().await.unwrap();
    clo.list_addresses().await.unwrap();
    clo.list_load_balancers().await.unwrap();
    clo.list_rules("lb-1").await.unwrap();
    clo.list_keypairs().await.unwrap();
    clo.list_images().await.unwrap();
    clo.volume("v-1").await.unwrap().unwrap();
    clo.address("a-1").await.unwrap().unwrap();
    clo.load_balancer("lb-1").await.unwrap().unwrap();
    clo.project_detail().await.unwrap();
    clo.create_address(false).await.unwrap();
    clo.create_load_balancer(&NewLoadBalancer::default())
        .await
        .unwrap();
    clo.create_keypair("ci", "ssh-ed25519 AAAA").await.unwrap();
    clo.create_rule("lb-1", &NewRule::default()).await.unwrap();
    clo.detach_address("a-1").await.unwrap();
    clo.delete_address("a-1").await.unwrap();
    clo.delete_load_balancer("lb-1").await.unwrap();
    clo.delete_rule("r-1").await.unwrap();
    clo.create_volume("data", 10).await.unwrap();
    let page = "limit=100&offset=0";
    assert_eq!(
        fake.lines(),
        [
            &format!("GET /v2/projects/p-1/volumes?{page}"),
            &format!("GET /v2/projects/p-1/local-disks?{page}"),
            &format!("GET /v2/projects/p-1/addresses?{page}"),
            &format!("GET /v2/projects/p-1/loadbalancers?{page}"),
            &format!("GET /v2/loadbalancers/lb-1/rules?{page}"),
            &format!("GET /v2/projects/p-1/keypairs?{page}"),
            &format!("GET /v2/projects/p-1/images?{page}"),
            "GET /v2/volumes/v-1/detail",
            "GET /v2/addresses/a-1/detail",
            "GET /v2/loadbalancers/lb-1/detail",
            "GET /v2/projects/p-1/detail",
            "POST /v2/projects/p-1/addresses",
            "POST /v2/projects/p-1/loadbalancers",
            "POST /v2/projects/p-1/keypairs",
            "POST /v2/loadbalancers/lb-1/rules",
            "POST /v2/addresses/a-1/detach",
            "DELETE /v2/addresses/a-1",
            "DELETE /v2/loadbalancers/lb-1",
            "DELETE /v2/loadbalancers/rules/r-1",
            "POST /v2/projects/p-1/volumes",
        ]
    );
}
