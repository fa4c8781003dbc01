//! `rekindle purge`: removes what lies in the queue, or in the dead queue. Whoever names the queue
//! means it: there is no other confirmation.

use jobs::queue::{Depth, Pile, Queue};
use serde_json::json;

use crate::cli::Purge;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) async fn run(args: &Purge, out: &mut Out) -> Result<ExitCode, CliError> {
    let queue = args.queue.connect()?;
    let pile = named(queue.as_ref(), &args.name)?;
    let purged = purge(queue.as_ref(), pile).await;
    queue.close().await;
    let before = purged?;
    let messages = match pile {
        Pile::Work => before.ready,
        Pile::Dead => before.dead,
    };
    out.show(
        &json!({ "purged": args.name, "messages": messages }),
        || {
            format!(
                "purged `{}`: {messages} messages\n\
             They were wake-ups only: every job stands in S3 as before. `rekindle retry` puts back \
             what failed and posts what is due; the workers' sweep posts what is due as well.",
                args.name
            )
        },
    );
    Ok(ExitCode::Done)
}

fn named(queue: &dyn Queue, name: &str) -> Result<Pile, CliError> {
    let piles = [Pile::Work, Pile::Dead];
    let found = piles.into_iter().find(|pile| queue.name(*pile) == name);
    found.ok_or_else(|| {
        let [work, dead] = piles.map(|pile| queue.name(pile));
        CliError::usage(format!("`{name}` is not the queue that is set"))
            .hint(format!("that is `{work}`, and its dead queue is `{dead}`"))
    })
}

/// Purges, and gives what was there before, as far as the broker can tell.
async fn purge(queue: &dyn Queue, pile: Pile) -> Result<Depth, CliError> {
    let before = queue.depth().await?;
    queue.purge(pile).await?;
    Ok(before)
}
