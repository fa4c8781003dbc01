//! Single jobs: a recovery whose plan has one kind of job and no needs.

use jobs::ids::{ClusterName, NodeName};
use jobs::keys;
use jobs::message::{Demo, Job};
use jobs::plan::{Entry, Plan, PlanFile, PlannedJob, Selector};
use jobs::record::SpecRecord;
use jobs::spec::{ClusterSpec, Problem};
use jobs::store::Store;

use crate::cli::{DemoJob, OnNodes, Select, Single};
use crate::commands::begin;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::files::{self, Spec};
use crate::out::Out;
use crate::requester::requester;
use crate::secrets::ToSeal;
use crate::start::Request;

/// A job for each chosen node.
pub(crate) async fn on_nodes(
    kind: &str,
    args: &OnNodes,
    out: &mut Out,
) -> Result<ExitCode, CliError> {
    let store = args.single.begin.follow.store.connect().await?;
    let (spec, given) = spec(&store, &args.single).await?;
    let nodes = choose(&args.select, &spec.spec)?;
    let plan = expand(kind, Some(nodes), &spec.spec)?;
    post(&store, kind, &args.single, spec, given, plan, out).await
}

/// A job for the whole cluster.
pub(crate) async fn of_cluster(
    kind: &str,
    args: &Single,
    out: &mut Out,
) -> Result<ExitCode, CliError> {
    let store = args.begin.follow.store.connect().await?;
    let (spec, given) = spec(&store, args).await?;
    let plan = expand(kind, None, &spec.spec)?;
    post(&store, kind, args, spec, given, plan, out).await
}

/// A demo job, or one for each chosen node. Needs no spec at all.
pub(crate) async fn demo(args: &DemoJob, out: &mut Out) -> Result<ExitCode, CliError> {
    let single = &args.single;
    let store = single.begin.follow.store.connect().await?;
    let (spec, given) = match applied(&store, single).await? {
        Some(spec) => spec,
        None => (stand_in(&single.cluster.name), false),
    };
    let nodes = choose(&args.select, &spec.spec)?;
    let payload = |node: Option<NodeName>| {
        Job::Demo(Demo {
            steps: args.steps,
            step_ms: args.step_ms,
            abort_at: args.abort_at,
            fail_at: args.fail_at,
            child: false,
            node,
        })
    };
    let payloads: Vec<Job> = match nodes.as_slice() {
        [] => vec![payload(None)],
        nodes => nodes
            .iter()
            .map(|node| payload(Some(node.clone())))
            .collect(),
    };
    let plan = alone(payloads)?;
    post(&store, "demo", single, spec, given, plan, out).await
}

/// A plan of jobs that need nothing.
pub(super) fn alone(payloads: Vec<Job>) -> Result<Plan, CliError> {
    let jobs = payloads.into_iter().map(|payload| PlannedJob {
        name: payload.name(),
        payload,
        needs: vec![],
        always: false,
    });
    Plan::new(jobs.collect()).map_err(|problem| CliError::usage(problem.to_string()))
}

/// One job that plays something on the bastion; `payload` makes it for the spec.
pub(super) async fn on_the_bastion(
    args: &Single,
    out: &mut Out,
    payload: impl FnOnce(&ClusterSpec) -> Result<Job, CliError>,
) -> Result<ExitCode, CliError> {
    let store = args.begin.follow.store.connect().await?;
    let (spec, given) = spec(&store, args).await?;
    let payload = payload(&spec.spec)?;
    let kind = payload.kind();
    if spec.spec.kubernetes.is_none() {
        return Err(CliError::usage(format!(
            "the spec has no `kubernetes` section: `{kind}` runs from its image, with the Ansible in it"
        )));
    }
    let plan = alone(vec![payload])?;
    post(&store, kind, args, spec, given, plan, out).await
}

/// One job on the cluster as it runs; `payload` makes it for the spec.
pub(super) async fn of_payload(
    args: &Single,
    out: &mut Out,
    payload: impl FnOnce(&ClusterSpec) -> Result<Job, CliError>,
) -> Result<ExitCode, CliError> {
    let store = args.begin.follow.store.connect().await?;
    let (spec, given) = spec(&store, args).await?;
    let payload = payload(&spec.spec)?;
    let kind = payload.kind();
    post(&store, kind, args, spec, given, alone(vec![payload])?, out).await
}

pub(super) async fn post(
    store: &Store,
    kind: &str,
    args: &Single,
    spec: Spec,
    given: bool,
    plan: Plan,
    out: &mut Out,
) -> Result<ExitCode, CliError> {
    let request = request(kind, args, spec, given, plan)?;
    begin::run(store, &request, &args.begin, out).await
}

/// What a single job is begun with.
pub(super) fn request(
    kind: &str,
    args: &Single,
    spec: Spec,
    given: bool,
    plan: Plan,
) -> Result<Request, CliError> {
    Ok(Request {
        cluster: args.cluster.name.clone(),
        purpose: kind.to_owned(),
        key: args.begin.key.clone(),
        spec: spec.yaml,
        applies_spec: given,
        plan,
        requester: requester(),
        secrets: ToSeal::new(&args.begin.secrets)?,
        flux: None,
    })
}

/// The spec to work with; and whether it was given now.
pub(super) async fn spec(store: &Store, args: &Single) -> Result<(Spec, bool), CliError> {
    let cluster = &args.cluster.name;
    applied(store, args).await?.ok_or_else(|| {
        CliError::failed(format!("the bucket knows no spec of cluster `{cluster}`"))
            .hint("give one with --spec FILE")
    })
}

async fn applied(store: &Store, args: &Single) -> Result<Option<(Spec, bool)>, CliError> {
    let cluster = &args.cluster.name;
    if let Some(path) = &args.spec {
        return Ok(Some((files::spec_of(cluster, path)?, true)));
    }
    let Some(record) = store.read::<SpecRecord>(&keys::spec(cluster)).await? else {
        return Ok(None);
    };
    let yaml = store.get_input(&record.body.digest).await?;
    let yaml = String::from_utf8_lossy(&yaml).into_owned();
    let spec = ClusterSpec::parse(&yaml).map_err(|problems| CliError::Problems {
        file: format!("the spec that was applied last to cluster `{cluster}`"),
        problems,
    })?;
    Ok(Some((Spec { yaml, spec }, false)))
}

/// The nodes that were named: one by one, by group, by role, or all.
pub(super) fn choose(select: &Select, spec: &ClusterSpec) -> Result<Vec<NodeName>, CliError> {
    let nodes = spec.nodes();
    for name in &select.node {
        if !nodes.iter().any(|node| node.name == *name) {
            return Err(no_such(
                "node",
                name.as_str(),
                nodes.iter().map(|n| n.name.as_str()),
            ));
        }
    }
    for group in &select.group {
        if !nodes.iter().any(|node| node.prefix == *group) {
            return Err(no_such(
                "group",
                group,
                nodes.iter().map(|n| n.prefix.as_str()),
            ));
        }
    }
    let chosen = nodes.into_iter().filter(|node| {
        select.all
            || select.node.contains(&node.name)
            || select.group.contains(&node.prefix)
            || select.role.contains(&node.role)
    });
    Ok(chosen.map(|node| node.name).collect())
}

fn no_such<'a>(what: &str, name: &str, there: impl Iterator<Item = &'a str>) -> CliError {
    let mut names: Vec<&str> = there.collect();
    names.dedup();
    CliError::usage(format!("the spec has no switched-on {what} `{name}`"))
        .hint(format!("there are {}", names.join(", ")))
}

/// The plan of one kind, made the same way as one from a file, so that the same checks hold.
fn expand(kind: &str, nodes: Option<Vec<NodeName>>, spec: &ClusterSpec) -> Result<Plan, CliError> {
    let problems = |problems: Vec<Problem>| CliError::Problems {
        file: format!("the plan of `{kind}`"),
        problems,
    };
    // A selector without names would mean every node.
    if nodes.as_ref().is_some_and(Vec::is_empty) {
        return Err(CliError::usage("no node was chosen"));
    }
    let selector = nodes.map(|names| Selector {
        names,
        // Kinds that work on data disks have nothing to do elsewhere.
        data_disks: matches!(kind, "mount" | "permissions").then_some(true),
        ..Selector::default()
    });
    let file = PlanFile {
        version: 1,
        jobs: vec![Entry {
            job: kind.to_owned(),
            nodes: selector,
            needs: vec![],
            always: false,
        }],
    };
    file.expand(spec).map_err(problems)
}

/// A demo job works on nothing, but every recovery has a spec.
fn stand_in(cluster: &ClusterName) -> Spec {
    let yaml = format!(
        "# A stand-in: demo jobs work on no machine.\n\
         version: 1\n\
         cluster: {cluster}\n\
         servers: {{ image: {{ distribution: none, version: \"0\" }}, keypair: none }}\n\
         groups:\n  \
           - {{ prefix: none, role: worker, instances: {{ 1: true }}, vcpus: 1, ram_gb: 1, boot_disk: {{ size_gb: 20 }} }}\n"
    );
    let spec = ClusterSpec::parse(&yaml).expect("the stand-in is valid for every cluster name");
    Spec { yaml, spec }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_is_a_valid_spec() {
        for name in ["a", "test", "0123456789012345678901234567-9"] {
            stand_in(&ClusterName::new(name).expect("valid"));
        }
    }
}
