//! `rekindle plan --job restore`: which backups there are, what a restore would take, and what it would lose.
//! Reads only: the bucket of the backups, and what the cluster's record says of its database.

use jiff::Timestamp;
use jobs::keys;
use jobs::record::DatabaseRecord;
use jobs::spec::ClusterSpec;
use jobs::store::{Credentials, Secret};
use serde_json::json;
use worker::jobs::restore;

use super::restore::no_database;
use crate::cli::Plan;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) async fn run(
    args: &Plan,
    spec: &ClusterSpec,
    out: &mut Out,
) -> Result<ExitCode, CliError> {
    let database = spec
        .database
        .as_ref()
        .ok_or_else(|| no_database("restore"))?;
    let store = args.store.connect().await?;
    let record = store
        .read::<DatabaseRecord>(&keys::database(&spec.cluster))
        .await?
        .map(|stored| stored.body);
    let wish = args.wish.payload();
    let keys = credentials(args)?;
    let plan = restore::preview(database, record.as_ref(), &wish, keys, Timestamp::now()).await;
    let plan =
        plan.map_err(|error| CliError::failed(format!("{:#}", anyhow::Error::new(error))))?;
    let value = json!({ "cluster": spec.cluster, "restore": plan });
    out.show(&value, || plan.to_string());
    Ok(ExitCode::Done)
}

/// The keys of the cluster's buckets, as a recovery would be given them; else those of our own store.
fn credentials(args: &Plan) -> Result<Credentials, CliError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (
        variable("CLUSTER_S3_ACCESS_KEY"),
        variable("CLUSTER_S3_SECRET_KEY"),
    ) {
        (Some(access), Some(secret)) => Ok(Credentials::Keys {
            access,
            secret: Secret::new(secret),
        }),
        (None, None) => Ok(args.store.config()?.credentials),
        _ => Err(CliError::usage(
            "of CLUSTER_S3_ACCESS_KEY and CLUSTER_S3_SECRET_KEY only one is set",
        )
        .hint("set both, or neither to use the keys of the store")),
    }
}
