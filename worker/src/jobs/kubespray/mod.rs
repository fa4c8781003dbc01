//! Kubespray: Kubernetes on every node of the spec, by Ansible in a container on the bastion.
//!
//! The run itself is that of `jobs::ansible`; here stands what it is given (`inventory`, `images`, `release`). That it ended well
//! is not the proof; what the Kubernetes API says of the nodes is (`jobs::kubernetes`).

#[cfg(test)]
mod ansible_tests;
mod images;
#[cfg(test)]
mod images_tests;
pub(super) mod inventory;
#[cfg(all(test, feature = "real-kubespray"))]
mod real_tests;
pub(super) mod release;

use std::time::Duration;

use jobs::spec::{Kubernetes, Node, Role};

use super::ansible::{self, Work};
use super::kubernetes::{self, nodes};
use crate::engine::{Ctx, JobError, Patience, Poll, Proof, Proven};
use images::Images;

/// The step names.
pub const STEPS: &[&str] = &[
    "images", "artifact", "intent", "runner", "image", "inputs", "alone", "start", "run", "log",
    "clean", "ready", "prove",
];

/// Where Kubespray is in its image.
pub(super) const FOLDER: &str = "/kubespray";

/// Installs Kubernetes, or brings it to what the spec says, and proves it.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let kubernetes = of_spec(ctx)?;
    let nodes = nodes_of(ctx);
    let images = match &kubernetes.images {
        Some(bundle) => Some(Images::of(ctx, kubernetes, bundle).await?),
        None => None,
    };
    let mut binds = Vec::new();
    if let Some(images) = &images {
        binds.push(images.bring(ctx).await?);
    }
    let work = Work {
        image: &kubernetes.image,
        cwd: FOLDER,
        commands: images::commands(kubernetes, images.is_some()),
        hosts: nodes.iter().map(|node| node.name.as_str()).collect(),
        deadline: ansible::DEADLINE,
        binds,
    };
    ansible::run(ctx, &work, || async {
        let machines = ansible::machines(ctx, &nodes).await?;
        let mut files = inventory::render(kubernetes, &machines, None).map_err(JobError::fatal)?;
        if let Some(images) = &images {
            files.extend(images.files(ctx).await?);
        }
        Ok(files)
    })
    .await?;

    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(10)),
        deadline: Duration::from_secs(15 * 60),
    };
    ctx.wait("ready", patience, || async {
        let proof = look(ctx, kubernetes, &nodes).await?;
        Ok::<_, JobError>(match proof.holds {
            true => Poll::Ready(()),
            false => Poll::Pending(nodes::missing(&proof)),
        })
    })
    .await?;
    ctx.prove("nodes", || look(ctx, kubernetes, &nodes)).await
}

/// The spec's section.
pub(super) fn of_spec(ctx: &Ctx) -> Result<&Kubernetes, JobError> {
    let section = ctx.spec().kubernetes.as_ref();
    section.ok_or_else(|| JobError::fatal("the spec has no `kubernetes` section"))
}

/// The nodes that get Kubernetes, in the order of the spec.
pub(super) fn nodes_of(ctx: &Ctx) -> Vec<Node> {
    let nodes = ctx.spec().nodes().into_iter();
    nodes.filter(|node| node.role != Role::Bastion).collect()
}

/// The nodes as the API shows them, against what the spec says.
async fn look(ctx: &Ctx, kubernetes: &Kubernetes, nodes: &[Node]) -> Result<Proof, JobError> {
    let server = kubernetes::version(ctx, nodes).await?;
    kubernetes::ask(ctx, nodes, &["get", "nodes"], |answer| {
        nodes::compare(kubernetes, nodes, answer, &server).map_err(JobError::retry)
    })
    .await
}
