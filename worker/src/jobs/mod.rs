//! The jobs: one file (or folder) a kind, read from top to bottom.
//!
//! A new kind is a variant of [`Job`], a file here, and its lines in [`run`] and [`steps`]; the
//! compiler lists the places.

pub mod add_user;
mod ansible;
pub mod backup;
pub mod demo;
pub mod flux_bootstrap;
mod kubernetes;
pub mod kubespray;
pub mod load_balancer;
pub mod load_test;
pub mod load_test_clean_up;
pub mod mirror_images;
pub mod mount;
pub mod os_update;
pub mod permissions;
pub mod promote;
pub mod provision;
pub mod reachability;
pub mod reap;
pub mod release;
pub mod remove_node;
pub mod report;
pub mod restore;
pub mod secret;
pub mod switch;
pub mod wait_certificates;

use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;
use jobs::message::Job;

use crate::engine::{Ctx, JobError, Proven};
use crate::world::World;

/// The job functions as the engine calls them; a simulation brings its own.
pub trait Functions: Send + Sync + fmt::Debug {
    /// Runs a job's function.
    fn run<'a>(&'a self, ctx: &'a Ctx, job: &'a Job) -> BoxFuture<'a, Result<Proven, JobError>>;

    /// The step names that the job's kind knows.
    fn steps(&self, job: &Job) -> &'static [&'static str];

    /// What is to be looked after now and then beside all jobs; nothing when there is no such thing in this world.
    fn tend<'a>(&'a self, _world: &'a World) -> Option<BoxFuture<'a, ()>> {
        None
    }
}

/// The job functions of this build.
#[derive(Debug, Clone, Copy)]
pub struct Kinds;

impl Functions for Kinds {
    fn run<'a>(&'a self, ctx: &'a Ctx, job: &'a Job) -> BoxFuture<'a, Result<Proven, JobError>> {
        run(ctx, job)
    }

    fn steps(&self, job: &Job) -> &'static [&'static str] {
        steps(job)
    }

    fn tend<'a>(&'a self, world: &'a World) -> Option<BoxFuture<'a, ()>> {
        let yandex = world.yandex.as_ref()?;
        Some(reap::sweep(yandex, world.poll).boxed())
    }
}

/// Runs a job's function: straight-line code that is run again from the top in every turn.
pub fn run<'a>(ctx: &'a Ctx, job: &'a Job) -> BoxFuture<'a, Result<Proven, JobError>> {
    let run = async move {
        match job {
            Job::Provision(on) => provision::run(ctx, on).await,
            Job::LoadBalancer => load_balancer::run(ctx).await,
            Job::Reachability(on) => reachability::run(ctx, on).await,
            Job::Mount(on) => mount::run(ctx, on).await,
            Job::Permissions(on) => permissions::run(ctx, on).await,
            Job::MirrorImages(images) => mirror_images::run(ctx, images).await,
            Job::Kubespray => kubespray::run(ctx).await,
            Job::RemoveNode(remove) => remove_node::run(ctx, remove).await,
            Job::OsUpdate(update) => os_update::run(ctx, update).await,
            Job::AddUser(user) => add_user::run(ctx, user).await,
            Job::FluxBootstrap => flux_bootstrap::run(ctx).await,
            Job::Switch(switch) => switch::run(ctx, switch).await,
            Job::Restore(restore) => restore::run(ctx, restore).await,
            Job::Promote => promote::run(ctx).await,
            Job::Backup(backup) => backup::run(ctx, backup).await,
            Job::WaitCertificates(wait) => wait_certificates::run(ctx, wait).await,
            Job::Secret(secret) => secret::run(ctx, secret).await,
            Job::Release(release) => release::run(ctx, release).await,
            Job::LoadTest(test) => load_test::run(ctx, test).await,
            Job::LoadTestCleanUp => load_test_clean_up::run(ctx).await,
            Job::Reap => reap::run(ctx).await,
            Job::Report => report::run(ctx).await,
            Job::Demo(demo) => demo::run(ctx, demo).await,
        }
    };
    // Boxed: the engine need not know how large the largest job is.
    run.boxed()
}

/// The step names a kind knows: the part of a step's key before the first `/`. Stored in records
/// and never renamed; a record with other ones is parked.
pub fn steps(job: &Job) -> &'static [&'static str] {
    match job {
        Job::Provision(_) => provision::STEPS,
        Job::LoadBalancer => load_balancer::STEPS,
        Job::Reachability(_) => reachability::STEPS,
        Job::Mount(_) => mount::STEPS,
        Job::Permissions(_) => permissions::STEPS,
        Job::MirrorImages(_) => mirror_images::STEPS,
        Job::Kubespray => kubespray::STEPS,
        Job::RemoveNode(_) => remove_node::STEPS,
        Job::OsUpdate(_) => os_update::STEPS,
        Job::AddUser(_) => add_user::STEPS,
        Job::FluxBootstrap => flux_bootstrap::STEPS,
        Job::Switch(_) => switch::STEPS,
        Job::Restore(_) => restore::STEPS,
        Job::Promote => promote::STEPS,
        Job::Backup(_) => backup::STEPS,
        Job::WaitCertificates(_) => wait_certificates::STEPS,
        Job::Secret(_) => secret::STEPS,
        Job::Release(_) => release::STEPS,
        Job::LoadTest(_) => load_test::STEPS,
        Job::LoadTestCleanUp => load_test_clean_up::STEPS,
        Job::Reap => reap::STEPS,
        Job::Report => report::STEPS,
        Job::Demo(_) => demo::STEPS,
    }
}

#[cfg(test)]
mod tests {
    use jobs::ids::{NodeName, ObjectName};
    use jobs::message::{
        Access, AddUser, Backup, Change, Demo, Image, LoadTest, MirrorImages, OnNode, OsUpdate,
        PutSecret, Release, RemoveNode, Restore, Switch, WaitCertificates,
    };
    use jobs::user::UserName;

    use super::*;

    /// Step names are stored in records: a rename strands every recovery that is under way, so it
    /// must show up in a review.
    #[test]
    fn step_names_are_as_they_were() {
        let on = OnNode {
            node: NodeName::new("n").expect("valid"),
        };
        let name = |text: &str| ObjectName::new(text).expect("valid");
        let demo = Demo {
            steps: 1,
            step_ms: 0,
            abort_at: None,
            fail_at: None,
            child: false,
            node: None,
        };
        let images = MirrorImages {
            images: "0a".repeat(32),
            platforms: vec![],
            read_all: false,
        };
        let all = [
            Job::Provision(on.clone()),
            Job::LoadBalancer,
            Job::Reachability(on.clone()),
            Job::Mount(on.clone()),
            Job::Permissions(on.clone()),
            Job::MirrorImages(images),
            Job::Kubespray,
            Job::RemoveNode(RemoveNode {
                node: on.node,
                dead: false,
            }),
            Job::OsUpdate(OsUpdate::default()),
            Job::AddUser(AddUser {
                name: UserName::new("ann").expect("valid"),
                access: Access::Revoke,
                nodes: vec![],
            }),
            Job::FluxBootstrap,
            Job::Switch(Switch {
                change: Change::Freeze {
                    application: name("slr"),
                },
            }),
            Job::Restore(Restore::default()),
            Job::Promote,
            Job::Backup(Backup::default()),
            Job::WaitCertificates(WaitCertificates::default()),
            Job::Secret(PutSecret {
                secret: "pg/keys".parse().expect("valid"),
                keys: [].into(),
            }),
            Job::Release(Release {
                application: name("slr"),
                image: Image::Former,
            }),
            Job::LoadTest(LoadTest::default()),
            Job::LoadTestCleanUp,
            Job::Reap,
            Job::Report,
            Job::Demo(demo),
        ];
        let lines: Vec<String> = all
            .iter()
            .map(|job| format!("{}: {}", job.kind(), steps(job).join(" ")))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
