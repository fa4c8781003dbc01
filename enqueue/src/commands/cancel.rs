//! `rekindle cancel`: running jobs end at their next step. When none runs, the recovery ends here
//! and now, so that a cluster can be freed without any worker.

use serde_json::json;

use crate::cli::Cancel;
use crate::commands::flags;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::finish::{self, Cancelled};
use crate::out::Out;
use crate::view;

pub(crate) async fn run(args: &Cancel, out: &mut Out) -> Result<ExitCode, CliError> {
    let Cancel {
        abandon,
        control: args,
    } = args;
    let store = args.store.connect().await?;
    let mut snapshot = view::find(&store, &args.target).await?;
    // The first reason stays; cancelling once more ends what is left.
    flags::change(&store, &mut snapshot, |flags| {
        flags.cancelled.get_or_insert_with(|| args.reason.clone());
    })
    .await?;
    let cancelled = finish::cancelled(&store, &snapshot, *abandon).await?;
    let (cluster, id) = (&snapshot.record.cluster, &snapshot.record.id);
    let running = match &cancelled {
        Cancelled::Ended => &[][..],
        Cancelled::Running(jobs)
        | Cancelled::CleaningUp(jobs)
        | Cancelled::CouldNotCleanUp(jobs) => jobs,
    };
    if let Cancelled::CouldNotCleanUp(_) = &cancelled {
        let names: Vec<&str> = running.iter().map(|job| job.as_str()).collect();
        return Err(CliError::failed(format!(
            "recovery {id} is cancelled and does not end: {} failed, and what it should have taken away may still be there",
            names.join(", ")
        ))
        .hint(format!(
            "when its cause is gone, `rekindle retry --cluster {cluster} --reason …`; or leave it to `rekindle reap` \
             with `rekindle cancel --cluster {cluster} --abandon --reason …`"
        )));
    }
    let value = json!({
        "cluster": cluster, "recovery": id, "ended": cancelled == Cancelled::Ended, "running": running,
    });
    let names = || {
        running
            .iter()
            .map(|job| job.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    out.show(&value, || match &cancelled {
        Cancelled::Ended | Cancelled::CouldNotCleanUp(_) => {
            format!("recovery {id} is cancelled and has ended; cluster {cluster} is free")
        }
        Cancelled::Running(_) => format!(
            "recovery {id} is cancelled; {} still run and end at their next step. If their workers \
             are gone, any other worker ends it",
            names()
        ),
        Cancelled::CleaningUp(_) => format!(
            "recovery {id} is cancelled; it ends, and frees the cluster, when a worker has run {}, which takes away \
             what was made for a while",
            names()
        ),
    });
    Ok(ExitCode::Done)
}
