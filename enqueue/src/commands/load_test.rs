//! `rekindle load-test`: load from outside, and the clean-up after it.

use std::path::Path;

use jobs::message::{Job, LoadTest};
use jobs::plan::{Plan, PlannedJob};
use jobs::spec::{ClusterSpec, Driver};
use jobs::store::Store;

use super::{begin, single};
use crate::cli::LoadJob;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

/// The largest script, in bytes: it travels in a ConfigMap, which etcd keeps below 1 MiB with all that is around it.
const LARGEST: usize = 1_000_000;

pub(crate) async fn run(args: &LoadJob, out: &mut Out) -> Result<ExitCode, CliError> {
    let text = args.script.as_deref().map(script).transpose()?;
    let store = args.single.begin.follow.store.connect().await?;
    let (spec, given) = single::spec(&store, &args.single).await?;
    let mut load = LoadTest {
        script: None,
        driver: args.driver.map(Driver::from),
        target: args.target.clone(),
        virtual_users: args.virtual_users,
        iterations: args.iterations,
        parallelism: args.parallelism,
    };
    let driver = check(&load, &spec.spec)?;
    load.script = put(&store, driver, text).await?;
    let request = single::request("load-test", &args.single, spec, given, plan(load)?)?;
    begin::run(&store, &request, &args.single.begin, out).await
}

/// The plan of a whole recovery with a script of its own.
pub(super) async fn with_script(
    store: &Store,
    plan: &Plan,
    spec: &ClusterSpec,
    path: &Path,
) -> Result<Plan, CliError> {
    let text = script(path)?;
    let mut jobs = plan.jobs().to_vec();
    let payloads = jobs.iter_mut().map(|job| &mut job.payload);
    let mut loads = payloads.filter_map(|payload| match payload {
        Job::LoadTest(load) => Some(load),
        _ => None,
    });
    let load = loads.next().ok_or_else(|| {
        CliError::usage("--load-script is given, and the plan has no job `load-test`")
            .hint("a `load_test` section in the spec brings one")
    })?;
    load.script = put(store, check(load, spec)?, Some(text)).await?;
    Plan::new(jobs).map_err(|problem| CliError::usage(problem.to_string()))
}

/// What is wrong with the test is found before anything is posted. Gives the driver that it comes to.
fn check(load: &LoadTest, spec: &ClusterSpec) -> Result<Driver, CliError> {
    let Some(section) = &spec.load_test else {
        return Err(CliError::usage(
            "the spec has no `load_test` section: it says what the application must bear",
        )
        .hint("deploy/examples/cluster-complete.yaml has one"));
    };
    let told = section.told(load);
    let told = told.map_err(|problems| CliError::Problems {
        file: "the load test, with what the command line says".into(),
        problems,
    })?;
    Ok(told.driver)
}

async fn put(
    store: &Store,
    driver: Driver,
    script: Option<String>,
) -> Result<Option<String>, CliError> {
    match script {
        None => Ok(None),
        Some(_) if driver == Driver::Local => Err(CliError::usage(
            "a script is given, and the driver `local` runs none: it asks for the target only",
        )
        .hint("leave it out, or take another --driver")),
        Some(text) => Ok(Some(store.put_input(text.into()).await?)),
    }
}

fn script(path: &Path) -> Result<String, CliError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::usage(format!("read the script {shown}: {error}")))?;
    match text.len() {
        _ if text.trim().is_empty() => Err(CliError::usage(format!("the script {shown} is empty"))),
        long if long > LARGEST => Err(CliError::usage(format!(
            "the script {shown} has {long} bytes; at most {LARGEST} fit into a ConfigMap"
        ))),
        _ => Ok(text),
    }
}

fn plan(load: LoadTest) -> Result<Plan, CliError> {
    let load = Job::LoadTest(load);
    let clean_up = PlannedJob {
        name: Job::LoadTestCleanUp.name(),
        payload: Job::LoadTestCleanUp,
        needs: vec![load.name()],
        always: true,
    };
    let load = PlannedJob {
        name: load.name(),
        payload: load,
        needs: vec![],
        always: false,
    };
    Plan::new(vec![load, clean_up]).map_err(|problem| CliError::usage(problem.to_string()))
}
