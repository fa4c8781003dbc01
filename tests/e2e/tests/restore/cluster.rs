//! What runs on the second cluster beside the database: a small stand-in for helm-controller, and the application.

use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use e2e::lab::Lab;
use sandbox::hosts::simulated::Service;
use sandbox::kube_sim::KubeSim;
use sandbox::operators::{Controller, Tick};
use sandbox::postgres::Disks;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{DISK, SWITCH, cluster_object};

/// helm-controller, as far as switches go: without its switch a release says so and makes nothing. What somebody
/// deletes it makes again only when its values change, or when it is forced.
#[derive(Debug)]
pub(crate) struct Releases {
    base: Value,
    /// The values and the last force that the database was written with.
    written: Option<(String, String)>,
}

#[async_trait]
impl Controller for Releases {
    fn name(&self) -> &'static str {
        "releases"
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        for release in tick
            .cluster
            .list("helm.toolkit.fluxcd.io/v2", "HelmRelease")
            .await?
        {
            self.release(tick, &release).await?;
        }
        Ok(())
    }
}

impl Releases {
    /// Git's values of the database are these.
    pub(crate) fn new(base: Value) -> Self {
        let written = None;
        Self { base, written }
    }

    async fn release(&mut self, tick: &Tick, release: &Value) -> anyhow::Result<()> {
        let text = |at: &str| {
            let found = release.pointer(at).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let switch = format!("{name}-values-switch");
        let found = tick
            .cluster
            .get("v1", "ConfigMap", &namespace, &switch)
            .await?;
        let asked = text("/metadata/annotations/reconcile.fluxcd.io~1requestedAt");
        let ready = match found
            .as_ref()
            .and_then(|found| found["data"][SWITCH].as_str())
        {
            None => json!({"type": "Ready", "status": "False", "reason": "ValuesError",
                "message": format!("could not find ConfigMap '{namespace}/{switch}'")}),
            Some(values) => {
                let force = text("/metadata/annotations/reconcile.fluxcd.io~1forceAt");
                let now = Some((values.to_owned(), force));
                if name == "pg-db" && self.written != now {
                    let mut spec = self.base.as_object().cloned().unwrap_or_default();
                    let values: Value = serde_json::from_str(values)?;
                    let values = values.as_object().cloned().unwrap_or_default();
                    worker::switch::values::merge(&mut spec, &values);
                    spec.remove("pmm");
                    tick.cluster
                        .apply("helm", &cluster_object(spec.into()))
                        .await?;
                    self.written = now;
                }
                json!({"type": "Ready", "status": "True", "reason": "UpgradeSucceeded", "message": "done"})
            }
        };
        let status = json!({"observedGeneration": release["metadata"]["generation"],
            "lastHandledReconcileAt": asked, "conditions": [ready]});
        if release["status"] != status {
            tick.cluster
                .set_status("helm-controller", release, &status)
                .await?;
        }
        Ok(())
    }
}

/// The application behind the load balancer: it counts its orders while it runs and its database answers.
pub(crate) async fn shop(
    lab: &Lab,
    sim: &Arc<KubeSim>,
    disks: &Disks,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = Service::At(listener.local_addr()?);
    lab.hosts().listen("test-cache-1", 30080, at);
    let (sim, disks) = (Arc::clone(sim), disks.clone());
    Ok(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0_u8; 4096];
            let _ = stream.read(&mut request).await;
            let switch = sim.get("ConfigMap", "slr", "slr-values-switch");
            let text = switch.and_then(|s| s["data"][SWITCH].as_str().map(str::to_owned));
            let runs = text.is_some_and(|text| !text.contains("false"));
            let rows = disks.get(DISK).data().map(sandbox::postgres::Data::rows);
            let (status, body) = match rows.filter(|_| runs) {
                Some(rows) => ("200 OK", format!("{rows} orders")),
                None => ("503 Service Unavailable", "no".to_owned()),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }))
}
