//! `rekindle doctor`: asks each connection whether it works, and says what to do when not.

use std::time::Duration;

use jobs::queue::Pile;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use crate::cli::Doctor;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

/// What one check found.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Wrong,
    Skipped,
}

/// The store repeats failed calls for most of a minute.
const PATIENCE: Duration = Duration::from_secs(75);

pub(crate) async fn run(args: &Doctor, out: &mut Out) -> Result<ExitCode, CliError> {
    let (store, queue, cloud, hosts) = tokio::join!(
        check("store", STORE, store(args)),
        check("queue", args.queue.advice(), queue(args)),
        check("cloud", CLOUD, cloud(args)),
        check("hosts", HOSTS, hosts(args)),
    );
    let checks = [store, queue, cloud, hosts];
    let well = checks.iter().all(|check| check.verdict != Verdict::Wrong);
    out.show(&json!({ "ok": well, "checks": checks }), || {
        let lines = checks.iter().map(|check| {
            let verdict = match check.verdict {
                Verdict::Ok => "ok   ",
                Verdict::Wrong => "WRONG",
                Verdict::Skipped => "-    ",
            };
            let next = check
                .next
                .as_ref()
                .map_or_else(String::new, |next| format!("\n             {next}"));
            format!("{verdict}  {}  {}{next}", check.what, check.found)
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    Ok(if well {
        ExitCode::Done
    } else {
        ExitCode::Failed
    })
}

// What to look at when a check fails and nothing better is known.
const STORE: &str =
    "check S3_ENDPOINT, S3_BUCKET, S3_ACCESS_KEY and S3_SECRET_KEY, and that the bucket exists";
const CLOUD: &str = "check CLO_URL, CLO_AUTH_TOKEN and CLO_OBJECT_ID";
const HOSTS: &str = "check SSH_PRIVATE_KEY or SSH_PRIVATE_KEY_FILE, and REKINDLE_PROXY";

async fn check(
    what: &'static str,
    advice: &str,
    asked: impl Future<Output = Result<(Verdict, String), CliError>>,
) -> Check {
    match timeout(PATIENCE, asked).await {
        Ok(Ok((verdict, found))) => Check {
            what,
            verdict,
            found,
            next: None,
        },
        Ok(Err(error)) => Check {
            what,
            verdict: Verdict::Wrong,
            found: error.message(),
            next: error
                .next()
                .filter(|next| !next.contains("rekindle doctor"))
                .or_else(|| Some(advice.to_owned())),
        },
        Err(_) => Check {
            what,
            verdict: Verdict::Wrong,
            found: format!("no answer within {} s", PATIENCE.as_secs()),
            next: Some(advice.to_owned()),
        },
    }
}

async fn store(args: &Doctor) -> Result<(Verdict, String), CliError> {
    let config = args.store.config()?;
    let store = args.store.connect().await?;
    store.probe().await?;
    let clusters = store.clusters().await?.len();
    let at = config.endpoint.as_deref().unwrap_or("AWS");
    Ok((
        Verdict::Ok,
        format!(
            "bucket `{}` at {at} lets exactly one writer win; {clusters} clusters",
            config.bucket
        ),
    ))
}

async fn queue(args: &Doctor) -> Result<(Verdict, String), CliError> {
    let queue = args.queue.connect()?;
    let depth = queue.depth().await;
    queue.close().await;
    let depth = depth?;
    let dead = match depth.dead {
        0 => String::new(),
        n => format!(
            ", {n} dead: look at why, then `rekindle retry`, then `rekindle purge {}`",
            queue.name(Pile::Dead)
        ),
    };
    Ok((
        Verdict::Ok,
        format!(
            "`{}`: {} messages ready, {} delayed{dead}",
            queue.name(Pile::Work),
            depth.ready,
            depth.delayed
        ),
    ))
}

async fn cloud(args: &Doctor) -> Result<(Verdict, String), CliError> {
    let Some(clo) = args.world.cloud.connect()? else {
        return Ok((
            Verdict::Skipped,
            "not set; only workers and `--here` need it".into(),
        ));
    };
    let project = clo
        .project_detail()
        .await
        .map_err(|error| CliError::failed(format!("failed to {error}")))?;
    let name = project.display_name.unwrap_or(project.name);
    let stopped = project
        .stopping_reason
        .map_or_else(String::new, |why| format!(" ({why})"));
    let found = format!(
        "project {} `{name}` is {}{stopped}",
        project.id, project.status
    );
    let well = project.status.eq_ignore_ascii_case("ACTIVE");
    Ok((if well { Verdict::Ok } else { Verdict::Wrong }, found))
}

/// Looks at the key only: whom it lets in shows in a recovery.
async fn hosts(args: &Doctor) -> Result<(Verdict, String), CliError> {
    // The cloud has a check of its own; what is wrong with it must not be told twice.
    if args.world.cloud.connect().is_err() {
        return Ok((
            Verdict::Skipped,
            "once the cloud's settings are right".into(),
        ));
    }
    Ok(match args.world.world()?.ssh_key {
        Some(key) => {
            let (kind, print) = (key.algorithm(), key.fingerprint(Default::default()));
            (Verdict::Ok, format!("SSH key {kind} {print}"))
        }
        None => (
            Verdict::Skipped,
            "no SSH key; only workers and `--here` need it".into(),
        ),
    })
}
