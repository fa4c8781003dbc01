#![expect(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;
use serde_json::json;

use super::*;

const RUN: &str = "load-r-1-0";
/// When everything was made.
const MADE: &str = "2026-11-23T10:00:00Z";

fn run(stage: &str) -> Value {
    let mut run =
        json!({"metadata": {"name": RUN, "creationTimestamp": MADE}, "status": {"stage": stage}});
    if stage.is_empty() {
        run["status"] = json!({});
    }
    run
}

fn job(name: &str, status: Value) -> Value {
    json!({"metadata": {"name": format!("{RUN}-{name}"), "creationTimestamp": MADE},
        "spec": {"backoffLimit": 0}, "status": status})
}

fn active(name: &str) -> Value {
    job(name, json!({"active": 1}))
}

fn done(name: &str) -> Value {
    job(name, json!({"succeeded": 1}))
}

fn dead(name: &str) -> Value {
    let condition = json!({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"});
    job(name, json!({"failed": 1, "conditions": [condition]}))
}

/// A Pod of one of the run's Jobs.
fn pod(job: &str, status: Value) -> Value {
    let mut labels =
        json!({"app": "k6", "k6_cr": RUN, "batch.kubernetes.io/job-name": format!("{RUN}-{job}")});
    if job.parse::<u32>().is_ok() {
        labels["runner"] = "true".into();
    }
    json!({"metadata": {"name": format!("{RUN}-{job}-abcde"), "creationTimestamp": MADE, "labels": labels},
        "status": status})
}

fn running(job: &str) -> Value {
    pod(
        job,
        json!({"phase": "Running", "containerStatuses": [{"name": "k6", "state": {"running": {}}}]}),
    )
}

fn ended(job: &str, code: i32, reason: &str) -> Value {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    pod(
        job,
        json!({"phase": phase, "containerStatuses": [
            {"name": "k6", "state": {"terminated": {"exitCode": code, "reason": reason}}}]}),
    )
}

fn waiting(job: &str, reason: &str) -> Value {
    pod(
        job,
        json!({"phase": "Pending", "containerStatuses": [
            {"name": "k6", "state": {"waiting": {"reason": reason, "message": "no such image"}}}]}),
    )
}

fn unschedulable(job: &str) -> Value {
    pod(
        job,
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available"}]}),
    )
}

/// How a run of two runners stands so many seconds after it was made.
fn stands(seconds: u64, run: Option<&Value>, jobs: &[Value], pods: &[Value]) -> Standing {
    let made: Timestamp = MADE.parse().unwrap();
    let expected = Expected {
        run: RUN,
        runners: 2,
        begin: Duration::from_secs(600),
        limit: Duration::from_secs(3600),
    };
    let seen = Seen {
        now: made + Duration::from_secs(seconds),
        run,
        jobs,
        pods,
    };
    judge(&expected, &seen)
}

#[track_caller]
fn going(seconds: u64, stage: &str, jobs: &[Value], pods: &[Value], expected: &str) {
    let standing = stands(seconds, Some(&run(stage)), jobs, pods);
    assert_eq!(standing, Standing::Going(expected.into()));
}

#[track_caller]
fn breaks(
    seconds: u64,
    stage: &str,
    jobs: &[Value],
    pods: &[Value],
    expected: &str,
    job: Option<&str>,
) {
    match stands(seconds, Some(&run(stage)), jobs, pods) {
        Standing::Broken { why, pod } => {
            assert!(why.contains(expected), "{why}");
            assert_eq!(pod, job.map(|job| format!("{RUN}-{job}-abcde")));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_goes_through_its_stages() {
    let nothing = "of 2 runners 0 run, 0 are done";
    going(
        1,
        "",
        &[],
        &[],
        &format!("the operator has not seen it yet: {nothing}"),
    );
    let initializer = [active("initializer")];
    let text = format!("initialization: {nothing}");
    going(
        5,
        "initialization",
        &initializer,
        &[running("initializer")],
        &text,
    );
    let initializer = ended("initializer", 0, "Completed");
    let first = done("initializer");
    let text = format!("initialized: {nothing}");
    going(
        9,
        "initialized",
        std::slice::from_ref(&first),
        std::slice::from_ref(&initializer),
        &text,
    );
    let jobs = [first.clone(), active("1"), active("2")];
    let pods = [
        initializer.clone(),
        running("1"),
        waiting("2", "ContainerCreating"),
    ];
    going(
        20,
        "created",
        &jobs,
        &pods,
        "created: of 2 runners 1 run, 0 are done",
    );
    let jobs = [first.clone(), active("1"), active("2"), active("starter")];
    let pods = [
        initializer.clone(),
        running("1"),
        running("2"),
        running("starter"),
    ];
    going(
        30,
        "created",
        &jobs,
        &pods,
        "created: of 2 runners 2 run, 0 are done",
    );
    let jobs = [first.clone(), done("1"), active("2"), done("starter")];
    let pods = [
        initializer.clone(),
        ended("1", 0, "Completed"),
        running("2"),
        ended("starter", 0, "Completed"),
    ];
    // Minutes are nothing while it goes on.
    going(
        1800,
        "started",
        &jobs,
        &pods,
        "started: of 2 runners 1 run, 1 are done",
    );
    // The stage lags behind the Pods.
    let pods = [
        initializer,
        ended("1", 0, "Completed"),
        ended("2", 99, "Error"),
        ended("starter", 0, "Completed"),
    ];
    let jobs = [first, done("1"), dead("2"), done("starter")];
    for stage in ["created", "started", "finished"] {
        assert_eq!(
            stands(99, Some(&run(stage)), &jobs, &pods),
            Standing::Finished
        );
    }
    // The operator's last word counts too.
    assert_eq!(
        stands(99, Some(&run("finished")), &[], &[]),
        Standing::Finished
    );
}

#[test]
fn what_can_become_no_result_any_more_ends_a_run_at_once() {
    let jobs = [done("initializer"), active("1"), active("2")];
    let both = [active("1"), active("2"), done("starter")];
    // Its stage would stay `created` for ever.
    breaks(
        9,
        "created",
        &jobs,
        &[ended("1", 107, "Error"), running("2")],
        "before the load began: pod load-r-1-0-1-abcde: Error, exit code 107",
        Some("1"),
    );
    breaks(
        9,
        "created",
        &jobs,
        &[ended("1", 0, "Completed"), running("2")],
        "before the load began",
        Some("1"),
    );
    breaks(
        60,
        "started",
        &both,
        &[running("1"), ended("2", 137, "OOMKilled")],
        "a runner died: pod load-r-1-0-2-abcde: OOMKilled, exit code 137",
        Some("2"),
    );
    let evicted = pod("1", json!({"phase": "Failed", "reason": "Evicted"}));
    breaks(
        60,
        "started",
        &both,
        &[evicted, running("2")],
        "a runner died: pod load-r-1-0-1-abcde: Evicted",
        Some("1"),
    );
    // Its stage would stay `started` for ever.
    breaks(
        60,
        "started",
        &[active("1"), active("2"), dead("starter")],
        &[running("1"), running("2"), ended("starter", 7, "Error")],
        "the starter failed: pod load-r-1-0-starter-abcde: Error, exit code 7",
        Some("starter"),
    );
    let mut again = dead("starter");
    again["spec"]["backoffLimit"] = 6.into();
    again["status"] = json!({"active": 1, "failed": 1});
    going(
        60,
        "started",
        &[active("1"), active("2"), again],
        &[running("1"), running("2")],
        "started: of 2 runners 2 run, 0 are done",
    );
    breaks(
        5,
        "initialization",
        &[dead("initializer")],
        &[ended("initializer", 1, "Error")],
        "the initializer failed: pod load-r-1-0-initializer-abcde: Error, exit code 1",
        Some("initializer"),
    );
    breaks(
        5,
        "error",
        &[dead("initializer")],
        &[],
        "the initializer failed: Job load-r-1-0-initializer: BackoffLimitExceeded",
        None,
    );
    breaks(5, "error", &[], &[], "stage `error`", None);
    // The Job may not say yet what its Pod says.
    breaks(
        5,
        "error",
        &[active("initializer")],
        &[ended("initializer", 107, "Error")],
        "the initializer failed: pod load-r-1-0-initializer-abcde: Error, exit code 107",
        Some("initializer"),
    );
    breaks(
        5,
        "error",
        &[done("initializer")],
        &[ended("initializer", 0, "Completed")],
        "stage `error`",
        Some("initializer"),
    );
    let mut going = run("started");
    going["metadata"]["deletionTimestamp"] = MADE.into();
    for run in [None, Some(&going)] {
        assert!(matches!(
            stands(60, run, &both, &[]),
            Standing::Broken { .. }
        ));
    }
}

#[test]
fn what_may_go_away_by_itself_gets_the_time_that_nodes_and_images_take() {
    let jobs = [active("1"), active("2")];
    for (stuck, text) in [
        (
            waiting("2", "ImagePullBackOff"),
            "pod load-r-1-0-2-abcde: ImagePullBackOff: no such image",
        ),
        (
            unschedulable("2"),
            "pod load-r-1-0-2-abcde: Unschedulable: 0/3 nodes are available",
        ),
    ] {
        let pods = [running("1"), stuck];
        let so_far = format!("created: of 2 runners 1 run, 0 are done; {text}");
        going(599, "created", &jobs, &pods, &so_far);
        breaks(601, "created", &jobs, &pods, text, None);
    }
    let never = [running("1"), waiting("2", "InvalidImageName")];
    breaks(1, "created", &jobs, &never, "InvalidImageName", None);
    let text = "created: of 2 runners 1 run, 0 are done";
    going(120, "created", &jobs, &[running("1")], text);
    breaks(
        121,
        "created",
        &jobs,
        &[running("1")],
        "Job load-r-1-0-2 has no Pod",
        None,
    );
}

#[test]
fn a_run_has_deadlines_though_the_operator_has_none() {
    let pods = [running("1"), running("2")];
    let jobs = [active("1"), active("2")];
    let text = "created: of 2 runners 2 run, 0 are done";
    going(600, "created", &jobs, &pods, text);
    breaks(
        601,
        "created",
        &jobs,
        &pods,
        "the load has not begun after 10 minutes: created",
        None,
    );
    breaks(
        601,
        "",
        &[],
        &[],
        "10 minutes: the operator has not seen it yet",
        None,
    );
    let text = "started: of 2 runners 2 run, 0 are done";
    going(3600, "started", &jobs, &pods, text);
    breaks(
        3601,
        "started",
        &jobs,
        &pods,
        "not over after 60 minutes: started",
        None,
    );
}

#[test]
fn a_pod_belongs_to_a_runner_by_its_job() {
    let check = |name: &str, labels: Value, expected: Option<u32>| {
        let pod = json!({"metadata": {"name": name, "labels": labels}});
        assert_eq!(number(&pod, RUN), expected, "{pod}");
    };
    check("x", json!({"job-name": "load-r-1-0-12"}), Some(12));
    check(
        "x",
        json!({"batch.kubernetes.io/job-name": "load-r-1-0-1"}),
        Some(1),
    );
    check("load-r-1-0-1-abcde", json!({}), Some(1));
    check("load-r-1-0-11-abcde", json!({}), Some(11));
    check("load-r-1-0-starter-abcde", json!({}), None);
    check("load-r-1-00-1-abcde", json!({}), None);
    check("", json!({}), None);
    // The starter is none of them, whatever else it is called.
    let pods = [running("starter"), running("1"), running("initializer")];
    let names: Vec<&str> = runners(&pods).map(name).collect();
    assert_eq!(names, ["load-r-1-0-1-abcde"]);
}

#[test]
fn the_clusters_time_is_read_as_http_writes_it() {
    let made = Some("2026-11-23T10:00:00Z".parse().unwrap());
    assert_eq!(read("Mon, 23 Nov 2026 10:00:00 GMT"), made);
    assert_eq!(read("yesterday"), None);
}

#[test]
fn a_sidecar_is_not_asked_how_k6_ended() {
    let terminated = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Completed"}});
    let status = json!({"phase": "Failed", "containerStatuses": [
        {"name": "istio-proxy", "state": terminated(0)}, {"name": "k6", "state": terminated(99)}]});
    assert_eq!(end(&pod("1", status)).unwrap().code, Some(99));
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "istio-proxy", "state": terminated(0)}, {"name": "k6", "state": {"running": {}}}]});
    assert_eq!(end(&pod("1", status)), None);
}

proptest! {
    /// A run is only finished by the operator's word, or when each runner has ended by itself.
    #[test]
    fn no_mix_of_pods_is_finished_without_all_results(
        stage in prop::sample::select(vec!["", "initialization", "initialized", "created", "started", "stopped"]),
        kinds in prop::collection::vec(0usize..8, 0..5),
        seconds in 0u64..4000,
    ) {
        let of = |(number, kind): (usize, &usize)| {
            let job = (number + 1).to_string();
            match kind {
                0 => running(&job),
                1 => ended(&job, 0, "Completed"),
                2 => ended(&job, 99, "Error"),
                3 => ended(&job, 137, "OOMKilled"),
                4 => waiting(&job, "ImagePullBackOff"),
                5 => unschedulable(&job),
                6 => ended("starter", 0, "Completed"),
                _ => ended("initializer", 0, "Completed"),
            }
        };
        let pods: Vec<Value> = kinds.iter().enumerate().map(of).collect();
        let results = kinds.iter().filter(|kind| [1, 2].contains(*kind)).count();
        let standing = stands(seconds, Some(&run(stage)), &[], &pods);
        if standing == Standing::Finished {
            prop_assert!(results >= 2 && !kinds.contains(&3));
            prop_assert!(["started", "stopped"].contains(&stage));
        }
    }
}
