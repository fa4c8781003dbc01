//! Images from a registry to the nodes with nothing imitated but the registry: worker processes, a broker, the real
//! runner, Ansible and playbook, and a containerd on every node. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::harness::kinds::IMAGES;
use e2e::lab::small;
use e2e::processes::Workers;
use e2e::recovery::Begun;
use e2e::site::Site;
use e2e::tools::Tools;
use jobs::ids::{JobName, NodeName, StepKey};
use jobs::images::{Platform, Reference};
use jobs::keys;
use jobs::message::{Job, MirrorImages};
use jobs::plan::PlannedJob;
use sandbox::registry::{Door, Image, PASSWORD, Registry, tar};
use worker::ssh::HostExt;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(400);
const NODES: [&str; 2] = ["test-master-1", "test-cache-1"];

fn spec(tools: &Tools, bundle: Option<&str>) -> String {
    let images = bundle.map_or(String::new(), |digest| {
        format!("  images: {{ digest: \"{digest}\" }}\n")
    });
    let vars = "  extra_vars:
    standin_containerd: true
    enable_nodelocaldns: false
    enable_dns_autoscaler: false
    metrics_server_enabled: false
    local_volume_provisioner_enabled: false
    loadbalancer_apiserver_localhost: false
";
    tools.spec(&small("test"), &(images + vars))
}

async fn run(site: &Site, spec: &str, plan: Option<Vec<PlannedJob>>) -> anyhow::Result<Begun> {
    let begun = site.begin_with(spec, plan).await?;
    begun.finished(LONG).await?;
    Ok(begun)
}

/// `name digest` of each image that a node's containerd has.
async fn images_of(site: &Site, begun: &Begun, node: &str) -> anyhow::Result<BTreeSet<String>> {
    let host = site
        .sandbox
        .login(&begun.cluster, &NodeName::new(node)?)
        .await?;
    let listed = host
        .run_ok(&["ctr", "--namespace", "k8s.io", "images", "ls"])
        .await?;
    let lines = listed.text();
    let words = lines
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    Ok(words
        .map(|words| format!("{} {}", words[0], words[2]))
        .collect())
}

/// How many images a run imported.
fn imports(site: &Site, begun: &Begun) -> anyhow::Result<usize> {
    let prefix = keys::logs(&begun.cluster, &begun.id, &JobName::new("kubespray")?);
    let chunks = site.sandbox.s3.objects(&prefix);
    let log: Vec<u8> = chunks
        .into_iter()
        .flat_map(|(_, body)| body.to_vec())
        .collect();
    Ok(String::from_utf8(log)?.matches("TASK [Import it]").count())
}

async fn stop(workers: Workers, site: Site) -> anyhow::Result<()> {
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_mirrored_images_are_in_the_containerd_of_every_node() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let tools = Tools::made().await?;
    let registry = Registry::start(Door::TokenOfAlice);
    let mut wanted = BTreeSet::new();
    let mut list = String::new();
    for name in IMAGES.lines() {
        let reference: Reference = name.parse()?;
        let layers = vec![tar("base", b"the same"), tar("own", name.as_bytes())];
        let tag = reference.tag().unwrap();
        let pushed = Image::of(layers).push(&registry, reference.repository(), tag);
        wanted.insert(format!("{name} {}", pushed.index));
        // One of them bound to its digest, too.
        if name.contains("pause") {
            wanted.insert(format!("{0}@{1} {1}", reference.name(), pushed.index));
            list.push_str(&format!("{name}@{}\n", pushed.index));
        } else {
            list.push_str(&format!("{name}\n"));
        }
    }
    let login = serde_json::json!({"auths": {registry.address.clone(): {"username": "alice", "password": PASSWORD}}});
    let auth = folder.path().join("config.json");
    std::fs::write(&auth, login.to_string())?;

    let site = tools.site().await?;
    let mut workers = tools.workers(&site)?;
    let mirrors = ["registry.k8s.io", "quay.io"]
        .map(|host| format!("{host}=oci+http://{}", registry.address));
    workers.set("REKINDLE_REGISTRY_MIRRORS", Some(&mirrors.join(",")));
    workers.set("REKINDLE_REGISTRY_AUTH_FILE", auth.to_str());
    workers.spawn()?;

    let payload = Job::MirrorImages(MirrorImages {
        images: site.sandbox.store().await?.put_input(list.into()).await?,
        platforms: vec![Platform::default()],
        read_all: true,
    });
    let job = PlannedJob {
        name: payload.name(),
        payload,
        needs: vec![],
        always: false,
    };
    let begun = run(&site, &spec(&tools, None), Some(vec![job])).await?;
    let record = begun
        .record("mirror-images")
        .await?
        .context("it has a record")?;
    let bundle = record.steps[&StepKey::new("bundle")?].output.clone();
    let bundle = bundle.as_str().context("a digest")?;

    // The registry is gone: what the nodes get comes from the bucket.
    registry.set_down(true);
    let asked = registry.requests().len();
    let with = spec(&tools, Some(bundle));
    let begun = run(&site, &with, None).await?;
    for node in NODES {
        assert_eq!(images_of(&site, &begun, node).await?, wanted, "{node}");
    }
    assert_eq!(imports(&site, &begun)?, IMAGES.lines().count());

    // Once more, with one image gone from one node.
    let master = site
        .sandbox
        .login(&begun.cluster, &NodeName::new(NODES[0])?)
        .await?;
    master
        .run_ok(&[
            "ctr",
            "--namespace",
            "k8s.io",
            "images",
            "rm",
            "quay.io/calico/cni:v3.30.5",
        ])
        .await?;
    let again = run(&site, &with, None).await?;
    for node in NODES {
        assert_eq!(images_of(&site, &again, node).await?, wanted, "{node}");
    }
    assert_eq!(imports(&site, &again)?, 1, "only what was missing");
    assert_eq!(registry.requests().len(), asked);

    // The password went nowhere.
    for (key, body) in site.sandbox.s3.objects("") {
        ensure!(
            !String::from_utf8_lossy(&body).contains(PASSWORD),
            "{key} has the password"
        );
    }
    stop(workers, site).await
}
