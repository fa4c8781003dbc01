//! The runner's client for registries, which blocks, as the job sees it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jobs::images::{Platform, Reference};
use runner::Digest;
use runner::image::{Network, PullError};
use runner::oci::{Blob, Described, Remote, Repository};

use crate::engine::{Ctx, JobError};

/// Reads one image from its registry.
#[derive(Debug)]
pub(super) struct Reader {
    image: Reference,
    repository: Repository,
    network: Network,
}

/// Tells the thread that nobody waits for it any more: a blocking call cannot be cancelled.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Reader {
    pub(super) fn new(ctx: &Ctx, image: &Reference) -> Result<Self, JobError> {
        let registries = &ctx.world().registries;
        let doing = || format!("find the registry of `{image}`");
        Ok(Self {
            image: image.clone(),
            repository: registries
                .repository(image)
                .map_err(|e| JobError::fatal(e).while_doing(doing()))?,
            network: registries.network(),
        })
    }

    /// What the image's name stands for: a digest that it is bound to, or what its tag means now.
    pub(super) async fn resolve(self) -> Result<String, JobError> {
        if let Some(digest) = self.image.digest() {
            return Ok(digest.to_owned());
        }
        let tag = self.image.tag().unwrap_or_default().to_owned();
        let digest = self.ask(move |mut remote, _| remote.resolve(&tag)).await?;
        Ok(digest.to_string())
    }

    /// What the image is made of.
    pub(super) async fn describe(
        self,
        digest: &str,
        platforms: &[Platform],
    ) -> Result<Described, JobError> {
        let digest: Digest = digest.parse().map_err(JobError::fatal)?;
        let platforms: Result<Vec<_>, _> = platforms
            .iter()
            .map(|platform| platform.as_str().parse())
            .collect();
        let platforms: Vec<runner::oci::Platform> = platforms.map_err(JobError::fatal)?;
        self.ask(move |mut remote, _| remote.describe(&digest, &platforms))
            .await
    }

    /// A layer, verified, in a file that has no name: it goes with the process, however that ends.
    pub(super) async fn fetch(self, digits: &str, size: u64) -> Result<File, JobError> {
        let digest = Digest::from_hex(digits).map_err(JobError::fatal)?;
        let blob = Blob { digest, size };
        let file = tempfile::tempfile()
            .map_err(|e| JobError::retry(e).while_doing("make a temporary file"))?;
        let ours = file.try_clone().map_err(JobError::retry)?;
        self.ask(move |mut remote, go_on| {
            remote.fetch(&blob, ours, &|| go_on.load(Ordering::Relaxed))
        })
        .await?;
        Ok(file)
    }

    async fn ask<T: Send + 'static>(
        self,
        question: impl FnOnce(Remote, &AtomicBool) -> Result<T, PullError> + Send + 'static,
    ) -> Result<T, JobError> {
        let Self {
            image,
            repository,
            network,
        } = self;
        let go_on = Arc::new(AtomicBool::new(true));
        let waiting = Waiting(Arc::clone(&go_on));
        let asked = tokio::task::spawn_blocking(move || {
            question(Remote::new(&repository, &network)?, &go_on)
        });
        let answer = asked.await.map_err(JobError::retry)?;
        drop(waiting);
        answer.map_err(|error| judge(error).while_doing(format!("read `{image}`")))
    }
}

/// What asking again cannot mend ends the job at once.
fn judge(error: PullError) -> JobError {
    match error.may_pass() {
        true => JobError::retry(error),
        false => JobError::fatal(error),
    }
}
