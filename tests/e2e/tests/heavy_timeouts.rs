//! Brokers take a delivery back that a consumer keeps too long. No job is slow enough to suffer it.

use std::time::Duration;

use e2e::history;
use e2e::site::{Site, demo};
use jobs::record::Status;
use tokio::time::Instant;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(300);

/// Two workers on a broker of this patience; a job whose steps take longer. Turns are shorter.
struct Case {
    patience: Duration,
    turn: &'static str,
    steps: u32,
    step_ms: u64,
}

impl Case {
    async fn runs_once(self) -> anyhow::Result<()> {
        let site = Site::impatient(self.patience).await?;
        // No sweep: nobody helps.
        let mut workers = site.workers(&["--turn", self.turn, "--lease", "3", "--sweep", "0"])?;
        workers.spawn()?;
        workers.spawn()?;
        let began = Instant::now();
        let plan = vec![demo("a", self.steps, self.step_ms, None)];
        let begun = site.begin(Some(plan)).await?;
        let record = begun.reaches("demo/a", &[Status::Succeeded], LONG).await?;
        eprintln!("{:?}", began.elapsed());
        assert_eq!((record.attempts, record.crashes.in_a_row), (0, 0));
        let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
        // The steps and the proof: a turn ends after each of the long ones.
        let all = u64::from(self.steps) + 1;
        assert_eq!(
            (
                history.steps as u64,
                history.takeovers,
                history.turns as u64
            ),
            (all, 0, all)
        );
        begun.finished(LONG).await?;
        workers.stop().await?;
        site.stop().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_steps_longer_than_the_brokers_patience_run_once() -> anyhow::Result<()> {
    let case = Case {
        patience: Duration::from_secs(7),
        turn: "5",
        steps: 2,
        step_ms: 12_000,
    };
    case.runs_once().await
}

/// With the shortest timeout that an operator would set, and a turn that just fits.
#[tokio::test(flavor = "multi_thread")]
async fn heavy_step_of_two_minutes_is_not_stolen_by_a_timeout_of_one() -> anyhow::Result<()> {
    let case = Case {
        patience: Duration::from_secs(60),
        turn: "45",
        steps: 1,
        step_ms: 130_000,
    };
    case.runs_once().await
}
