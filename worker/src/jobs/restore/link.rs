//! The cluster's objects, as the jobs of the database come to them.

use jobs::ids::ObjectName;
use jobs::spec::Database;
use tokio::sync::OnceCell;

use crate::engine::{Ctx, JobError};
use crate::kube::{KubeError, Object, Objects};
use crate::pgbackrest::Seen;
use crate::switch::release::HELM;
use crate::switch::{HelmRelease, Switch, Values};

/// The kind of the database.
pub(in crate::jobs) const PERCONA: &str = "PerconaPGCluster";
/// The version of the operator's kinds.
pub(in crate::jobs) const PGV2: &str = "pgv2.percona.com/v2";

/// The connection of a turn, made when it is first needed.
#[derive(Debug)]
pub(in crate::jobs) struct Kube<'a> {
    ctx: &'a Ctx,
    objects: OnceCell<Objects>,
}

impl<'a> Kube<'a> {
    pub(in crate::jobs) fn new(ctx: &'a Ctx) -> Self {
        Self {
            ctx,
            objects: OnceCell::new(),
        }
    }

    pub(in crate::jobs) async fn get(&self) -> Result<&Objects, JobError> {
        let connect = || self.ctx.world().kube(self.ctx);
        self.objects.get_or_try_init(connect).await
    }
}

/// An object of a kind that need not be there either.
pub(in crate::jobs) async fn get(
    objects: &Objects,
    (api_version, kind): (&str, &str),
    namespace: &ObjectName,
    name: &str,
) -> Result<Seen, JobError> {
    let at = Object::at(api_version, kind, Some(namespace.as_str()), name);
    match objects.get(&at).await {
        Err(KubeError::UnknownKind { .. }) => Ok(None),
        found => Ok(found?),
    }
}

/// The PerconaPGCluster; `None` only if there surely is none. A server that has just started may not know a kind
/// that it has.
pub(in crate::jobs) async fn database(
    objects: &Objects,
    database: &Database,
) -> Result<Seen, JobError> {
    let namespace = Some(database.namespace.as_str());
    let at = Object::at(PGV2, PERCONA, namespace, database.cluster.as_str());
    match objects.get(&at).await {
        Err(error @ KubeError::UnknownKind { .. }) => {
            let kind = "perconapgclusters.pgv2.percona.com";
            let definition = Object::at(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                None,
                kind,
            );
            match objects.get(&definition).await? {
                None => Ok(None),
                Some(_) => Err(error.into()),
            }
        }
        found => Ok(found?),
    }
}

/// The database's switch.
pub(super) fn switch(objects: &Objects, database: &Database) -> Switch {
    Switch::named(objects, &database.namespace, &database.switch)
}

/// Makes the database's switch hold these values and nothing else.
pub(super) async fn write(
    objects: &Objects,
    database: &Database,
    values: &Values,
) -> Result<(), JobError> {
    let switch = switch(objects, database);
    switch.write(|_| Ok(values.clone())).await.map(|_| ())
}

/// Has the database's release written once more, also if nothing changed, with the next request that says `asked`.
pub(super) async fn force(
    objects: &Objects,
    database: &Database,
    asked: &str,
) -> Result<(), JobError> {
    let (namespace, name) = (database.namespace.as_str(), database.release.as_str());
    let release = Object::at(HELM, "HelmRelease", Some(namespace), name);
    let force = [("reconcile.fluxcd.io/forceAt", asked)];
    match objects.annotate(&release, &force).await {
        Err(error) if error.code() == Some(404) => Ok(()),
        done => Ok(done.map(|_| ())?),
    }
}

/// A HelmRelease.
pub(super) fn release(objects: &Objects, namespace: &ObjectName, name: &ObjectName) -> HelmRelease {
    HelmRelease::new(objects, namespace, name)
}
