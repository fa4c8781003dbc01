//! The applications run again, and answer: only after the data are proven.

use std::time::Duration;

use jiff::Timestamp;
use jobs::spec::Application;

use super::link::{self, Kube};
use super::patience;
use crate::application::{self, Answer};
use crate::engine::{Ctx, JobError, Poll};
use crate::switch::{Handled, Switch, Values, values};

/// How long an application may take to run: its migrations too.
const RUNS: Duration = Duration::from_secs(60 * 60);
/// How long it may take to answer then.
const ANSWERS: Duration = Duration::from_secs(30 * 60);

/// Lets all of them run at once, since they may need one another, and waits for each.
pub(super) async fn all(ctx: &Ctx, kube: &Kube<'_>) -> Result<(), JobError> {
    let applications = &ctx.spec().applications;
    let mut asked = Vec::new();
    for application in applications {
        asked.push(thaw(ctx, kube, application).await?);
    }
    for (application, asked) in applications.iter().zip(&asked) {
        runs(ctx, kube, application, asked.as_deref()).await?;
    }
    for application in applications {
        if application.url.is_some() {
            answers(ctx, application).await?;
        }
    }
    Ok(())
}

/// Writes its switch and asks its release; gives the text of the request if there is a release.
async fn thaw(
    ctx: &Ctx,
    kube: &Kube<'_>,
    application: &Application,
) -> Result<Option<String>, JobError> {
    let name = application.name.as_str();
    let asked: String = ctx
        .step(("asked", format!("thaw/{name}")), || async {
            Ok::<_, JobError>(Timestamp::now().to_string())
        })
        .await?;
    ctx.step(("thaw", name), || async {
        let objects = kube.get().await?;
        let switch = Switch::of(objects, application);
        let running = |before: &Values| Ok(values::running(application, before));
        switch.write(running).await?;
        let release = link::release(objects, &application.namespace, &application.release);
        let there = release.request(&asked).await?;
        Ok::<_, JobError>(there.then(|| asked.clone()))
    })
    .await
}

/// Waits until its release runs with the values of now. It may not be there yet: Flux makes it when the database
/// is ready. A failure may pass, since Flux tries again; the deadline says when it does not.
async fn runs(
    ctx: &Ctx,
    kube: &Kube<'_>,
    application: &Application,
    asked: Option<&str>,
) -> Result<(), JobError> {
    let key = ("application", application.name.as_str());
    ctx.wait(key, patience(ctx, RUNS), || async {
        let objects = kube.get().await?;
        let release = link::release(objects, &application.namespace, &application.release);
        Ok::<_, JobError>(match release.look(asked).await? {
            Handled::Ready(_) => Poll::Ready(()),
            Handled::Absent => Poll::Pending(format!("there is no {release} yet")),
            Handled::NotYet(why) | Handled::Failed(why) => {
                Poll::Pending(format!("{release}: {why}"))
            }
        })
    })
    .await
}

/// Waits until it answers at its URL.
async fn answers(ctx: &Ctx, application: &Application) -> Result<Option<Answer>, JobError> {
    let key = ("url", application.name.as_str());
    ctx.wait(key, patience(ctx, ANSWERS), || async {
        application::ask(ctx, application).await.map(Poll::Ready)
    })
    .await
}
