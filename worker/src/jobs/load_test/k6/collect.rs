//! What the runners did: the exit code of each, and the summary in its log.
//!
//! The domain is a secret, and the target has it: k6 prints the URL of a request that failed. So it is taken out of
//! everything that is kept.

use std::collections::BTreeMap;

use futures::AsyncBufReadExt;
use jobs::keys;
use jobs::record::Runner;
use jobs::store::Secret;
use serde_json::Value;

use super::super::Test;
use super::life::{self, End, THRESHOLDS};
use crate::application;
use crate::engine::{Ctx, JobError};
use crate::kube::{KubeError, Objects, pods};
use crate::load::k6::{self, Log};
use crate::sealed;

/// What stands for the domain, and the name of its secret.
const DOMAIN: &str = "${DOMAIN}";
/// What is read of a runner's log: lines from its end, which the summary is near.
const RUNNER: &str = "container=k6&tailLines=20000";
/// What is read of a log that is only quoted. The starter has a container of another name.
const QUOTED: &str = "tailLines=20";

/// What a test loads, with the domain in it.
pub(super) async fn target(ctx: &Ctx, test: &Test) -> Result<Secret, JobError> {
    let domain = domain(ctx, test).await?;
    let url = domain.map_or_else(
        || test.target.clone(),
        |domain| test.target.replace(DOMAIN, &domain),
    );
    Ok(Secret::new(url))
}

async fn domain(ctx: &Ctx, test: &Test) -> Result<Option<String>, JobError> {
    if !test.target.contains(DOMAIN) {
        return Ok(None);
    }
    let secrets = sealed::secrets(ctx).await?;
    let domain = sealed::need(&secrets, "DOMAIN")?;
    Ok(Some(domain.reveal().trim().to_owned()))
}

/// What is not to be seen.
pub(super) struct Hidden(Option<String>);

impl Hidden {
    pub(super) async fn of(ctx: &Ctx, test: &Test) -> Result<Self, JobError> {
        let domain = domain(ctx, test).await?;
        Ok(Self(domain.filter(|domain| !domain.is_empty())))
    }

    /// A text without it.
    pub(super) fn hide(&self, text: &str) -> String {
        match &self.0 {
            Some(domain) => application::hide(text, domain),
            None => text.to_owned(),
        }
    }
}

/// Every runner that there should be, with what it did; their summaries are kept as they wrote them.
///
/// # Errors
/// When they cannot be asked. That one of them is not there, or has nothing to say, is its reason.
pub(super) async fn runners(
    ctx: &Ctx,
    test: &Test,
    objects: &Objects,
) -> Result<Vec<Runner>, JobError> {
    let hidden = Hidden::of(ctx, test).await?;
    let selector = format!("k6_cr={},runner=true", test.run);
    let pods = objects
        .list("v1", "Pod", Some(&test.run), &selector)
        .await?;
    let mut all = Vec::new();
    for (name, ran) in by_runner(&test.run, test.parallelism.get(), &pods) {
        let Ran::Ended(pod, end) = ran else {
            all.push(without_end(name, &ran));
            continue;
        };
        let log = log(objects, &test.run, life::name(pod), RUNNER).await?;
        let (mut runner, raw) = with_end(name, &end, &log, &hidden);
        if let Some(raw) = raw {
            let key = keys::load_summary(ctx.cluster(), ctx.recovery(), &test.run, &runner.name);
            ctx.store().put(&key, raw.into()).await?;
            runner.raw = Some(key);
        }
        all.push(runner);
    }
    Ok(all)
}

/// What became of a runner's Pod.
#[derive(Debug, Clone, PartialEq)]
enum Ran<'a> {
    /// There is none.
    Never,
    /// It has not ended.
    StillThere(&'a Value),
    /// It has.
    Ended(&'a Value, End),
    /// There are several: it began more than once, so its load is not what it should have been.
    Again(Vec<&'a str>),
}

/// The runners that there should be, in order, with what became of each.
fn by_runner<'a>(run: &str, runners: u32, pods: &'a [Value]) -> Vec<(String, Ran<'a>)> {
    let mut of: BTreeMap<u32, Vec<&Value>> = BTreeMap::new();
    for pod in pods {
        if let Some(number) = life::number(pod, run) {
            of.entry(number).or_default().push(pod);
        }
    }
    let ran = |number| match of.get(&number).map(Vec::as_slice) {
        None | Some([]) => Ran::Never,
        Some([pod]) => match life::end(pod) {
            Some(end) => Ran::Ended(pod, end),
            None => Ran::StillThere(pod),
        },
        Some(several) => Ran::Again(several.iter().map(|pod| life::name(pod)).collect()),
    };
    (1..=runners)
        .map(|number| (format!("{run}-{number}"), ran(number)))
        .collect()
}

fn without_end(name: String, ran: &Ran<'_>) -> Runner {
    let reason = match ran {
        Ran::Never => "it has no Pod".to_owned(),
        Ran::Again(pods) => format!("it began {} times: {}", pods.len(), pods.join(", ")),
        Ran::StillThere(pod) | Ran::Ended(pod, _) => {
            let phase = pod["status"]["phase"].as_str().unwrap_or("Unknown");
            let trouble = pods::trouble(std::slice::from_ref(*pod));
            trouble.map_or_else(
                || format!("it has not ended: pod {} is {phase}", life::name(pod)),
                |trouble| trouble.text,
            )
        }
    };
    Runner {
        name,
        exit_code: None,
        reason: Some(reason),
        summary: None,
        raw: None,
    }
}

/// What a runner that ended did, and its summary as it wrote it.
fn with_end(
    name: String,
    end: &End,
    log: &Result<Log, String>,
    hidden: &Hidden,
) -> (Runner, Option<String>) {
    let text = match log {
        Ok(log) => log.summary().map_err(|error| error.to_string()),
        Err(error) => Err(error.clone()),
    };
    let raw = text.as_ref().ok().map(|text| hidden.hide(text));
    let told = text.and_then(|_| {
        k6::read(raw.as_deref().unwrap_or_default()).map_err(|error| error.to_string())
    });
    let bad = end.cause().map(str::to_owned);
    let (summary, broken, reason) = match told {
        Ok(told) => {
            if !told.broken.is_empty() {
                tracing::warn!(runner = %name, "k6's thresholds that do not hold: {:?}", told.broken);
            }
            (Some(told.summary), !told.broken.is_empty(), bad)
        }
        Err(error) => {
            let words = log.as_ref().ok().and_then(Log::end);
            let words = words.map(|words| format!("its log ends: {words}"));
            let all: Vec<String> = bad.into_iter().chain([error]).chain(words).collect();
            (None, false, Some(all.join("; ")))
        }
    };
    let exit_code = match end.code {
        // By its own summary k6 should have said so.
        Some(0) if broken => Some(THRESHOLDS),
        code => code,
    };
    let runner = Runner {
        name,
        exit_code,
        reason: reason.map(|reason| hidden.hide(&reason)),
        summary,
        raw: None,
    };
    (runner, raw)
}

/// The end of a Pod's log; the inner error is that there is none.
async fn log(
    objects: &Objects,
    namespace: &str,
    pod: &str,
    part: &str,
) -> Result<Result<Log, String>, JobError> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?{part}");
    let doing = format!("read the log of pod {namespace}/{pod}");
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(JobError::fatal)?;
    let mut reader = match objects.client().request_stream(request).await {
        Ok(reader) => Box::pin(reader),
        Err(error) => {
            let error = KubeError::request(doing, error);
            return match error.code() {
                // The Pod is gone, or its container has left no log.
                Some(400 | 404) => Ok(Err(error.to_string())),
                _ => Err(error.into()),
            };
        }
    };
    let mut log = Log::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).await;
        match read.map_err(|error| JobError::retry(error).while_doing(doing.as_str()))? {
            0 => return Ok(Ok(log)),
            _ => log.line(&String::from_utf8_lossy(&line)),
        }
    }
}

/// How a Pod's log ends, if that can be read: that it cannot is no reason to fail otherwise.
pub(super) async fn last_words(objects: &Objects, namespace: &str, pod: &str) -> Option<String> {
    let log = log(objects, namespace, pod, QUOTED).await.ok()?;
    log.ok()?.end()
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
