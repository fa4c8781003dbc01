//! `rekindle list`: clusters and their recoveries.

use jiff::Timestamp;
use jobs::ids::{ClusterName, RecoveryId};
use jobs::record::RecoveryRecord;
use jobs::store::Store;
use serde::Serialize;
use serde_json::json;

use crate::cli::List;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::render;
use crate::view;

/// A cluster and its recoveries, the newest first.
#[derive(Debug, Serialize)]
struct Known {
    cluster: ClusterName,
    active: Option<RecoveryId>,
    recoveries: Vec<RecoveryRecord>,
}

pub(crate) async fn run(args: &List, out: &mut Out) -> Result<ExitCode, CliError> {
    let store = args.store.connect().await?;
    let clusters = match &args.cluster {
        Some(cluster) => vec![cluster.clone()],
        None => store.clusters().await?,
    };
    let mut known = Vec::with_capacity(clusters.len());
    for cluster in clusters {
        known.push(look(&store, cluster).await?);
    }
    let (now, fit) = (Timestamp::now(), out.is_terminal());
    out.show(&json!({ "clusters": known }), || text(&known, now, fit));
    Ok(ExitCode::Done)
}

async fn look(store: &Store, cluster: ClusterName) -> Result<Known, CliError> {
    Ok(Known {
        active: store.active(&cluster).await?,
        recoveries: store.recoveries(&cluster).await?,
        cluster,
    })
}

fn text(known: &[Known], now: Timestamp, fit: bool) -> String {
    if known.iter().all(|known| known.recoveries.is_empty()) {
        return "no recovery yet".into();
    }
    let mut rows = render::table(
        fit,
        &[
            "CLUSTER",
            "RECOVERY",
            "PURPOSE",
            "STATE",
            "AGE",
            "ASKED FOR BY",
        ],
    );
    for Known {
        cluster,
        active,
        recoveries,
    } in known
    {
        for record in recoveries {
            let state = match &record.finished {
                Some(end) => view::outcome(end.outcome).words(),
                None if active.as_ref() == Some(&record.id) => "active",
                None => "open, does not hold the cluster",
            };
            rows.add_row([
                cluster.to_string(),
                record.id.to_string(),
                record.purpose.clone(),
                state.to_owned(),
                render::span(now.duration_since(record.created).as_millis()),
                format!("{}@{}", record.requester.user, record.requester.host),
            ]);
        }
    }
    render::lines(&rows)
}
