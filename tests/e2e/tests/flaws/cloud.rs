//! The cloud: creates that get lost, pages, load balancers.

use e2e::lab::{LONG, Lab, small};
use jobs::record::Status;
use sandbox::clo::{CloOptions, Fault, Foreign, Operation};
use sandbox::world::Options;

use super::recovered;

#[tokio::test(flavor = "multi_thread")]
async fn flaw_14_a_server_that_never_came_leaves_no_nameless_volume() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let faults = lab.sandbox.clo.faults();
    faults.add(
        Fault::on(Operation::CreateServer)
            .named("test-cache-1")
            .answer(403)
            .times(1),
    );
    let worker = lab.worker().await?;
    let begun = lab.recover(&small("test")).await?;
    begun
        .reaches("provision/test-cache-1", &[Status::Failed], LONG)
        .await?;
    let volumes = lab.data_volumes();
    assert_eq!(volumes.len(), 1);
    let cluster = lab.cluster(&begun.cluster);
    let record = cluster.volume(&volumes[0].id).await?.unwrap();
    assert_eq!(
        (record.name.as_str(), record.node.as_str()),
        ("test-cache-1-data", "test-cache-1")
    );
    begun.reaches("report", &[Status::Succeeded], LONG).await?;
    lab.reopen(&begun, "report", Some("write")).await?;
    lab.retry(&begun, "provision/test-cache-1", None).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    lab.is_whole(3, 1, 1)?;
    assert_eq!(lab.data_volumes()[0].id, volumes[0].id, "the same volume");
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_23_ours_are_found_on_the_last_of_many_pages() -> anyhow::Result<()> {
    let lab = Lab::with(Options {
        clo: CloOptions {
            max_page_size: 7,
            ..CloOptions::default()
        },
        ..Options::default()
    })
    .await?;
    lab.sandbox
        .clo
        .foreign(Foreign {
            servers: (0..40).map(|n| format!("stranger-{n}")).collect(),
            volumes: (0..40).map(|n| (format!("stranger-{n}"), 10)).collect(),
            ..Foreign::default()
        })
        .await?;
    recovered(&lab, &small("test")).await?;
    recovered(&lab, &small("test")).await?;
    assert_eq!(lab.created(), [3, 1, 1, 1]);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_24_the_load_balancer_is_adopted_and_only_its_rules_change() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let spec = small("test");
    let begun = recovered(&lab, &spec).await?;
    let cluster = lab.cluster(&begun.cluster);
    let first = cluster.load_balancer().await?.unwrap();
    let more = spec.replace(
        "[{ port: 2205, to: 22 }]",
        "[{ port: 2206, to: 22 }, { port: 80, to: 30080 }]",
    );
    recovered(&lab, &more).await?;
    let second = cluster.load_balancer().await?.unwrap();
    assert_eq!((&second.id, &second.address), (&first.id, &first.address));
    let snapshot = lab.sandbox.clo.snapshot();
    assert_eq!(snapshot.balancers.len(), 1);
    let mut ports: Vec<u16> = snapshot.balancers[0]
        .rules
        .iter()
        .map(|r| r.external_port)
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [80, 2206]);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_24_another_clusters_load_balancer_is_left_alone() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let theirs = recovered(&lab, &small("theirs")).await?;
    let cluster = lab.cluster(&theirs.cluster);
    let balancer = cluster.load_balancer().await?.unwrap();
    let before = lab.sandbox.clo.snapshot().balancers;

    let same_name = format!("load_balancer: {{ name: {} }}", balancer.name);
    let spec = small("ours").replace("load_balancer: {}", &same_name);
    let worker = lab.worker().await?;
    let begun = lab.recover(&spec).await?;
    let record = begun
        .reaches("load-balancer", &[Status::NeedsApproval], LONG)
        .await?;
    let text = record.failure.unwrap().to_string();
    assert!(text.contains("belongs to cluster `theirs`"), "{text}");
    worker.stop().await?;
    assert_eq!(lab.sandbox.clo.snapshot().balancers, before);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_25_the_load_balancers_address_never_stands_in_a_node() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    for disaster in [false, true] {
        if disaster {
            lab.sandbox.clo.destroy_all_servers().await;
        }
        let begun = recovered(&lab, &small("test")).await?;
        let cluster = lab.cluster(&begun.cluster);
        let endpoint = cluster.load_balancer().await?.unwrap().address.ip;
        let snapshot = lab.sandbox.clo.snapshot();
        for node in cluster.nodes().await? {
            let server = snapshot.servers.iter().find(|s| s.id == node.server);
            assert_eq!(Some(node.internal.ip), server.unwrap().internal_ip);
            assert_ne!(node.internal.ip, endpoint);
            assert_ne!(node.external.map(|a| a.ip), Some(endpoint));
        }
    }
    lab.sandbox.stop().await
}
