//! One run: a plan, machines, faults for a while, and the end that must come.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jobs::plan::PlannedJob;
use jobs::queue::{InProcess, Queue};
use worker::engine;

use super::bucket::Bucket;
use super::chaos;
use super::machine::Machine;
use super::operator::{Operator, Word};
use super::program::Programs;
use super::stage::Stage;

/// How to play.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A flaw of the world that the laws must notice.
    pub flaw: Option<Flaw>,
    /// The operator pauses or cancels the recovery in the middle.
    pub words: bool,
    /// Some plans have a job that takes away what the others made, by dice of its own: a seed without one stays
    /// what it was.
    pub clean_up: bool,
}

/// Flaws that no engine can make up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The bucket lets every creator of a key win.
    AllWin,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The seed.
    pub seed: u64,
    /// The law that was broken, if one was.
    pub broken: Option<String>,
    /// How much happened.
    pub events: u64,
    /// A digest of everything that happened.
    pub digest: u64,
    /// Virtual time that passed.
    pub time: Duration,
    /// Versions of job records.
    pub versions: u64,
    programs: String,
    last: Vec<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.last {
            writeln!(f, "{line}")?;
        }
        write!(f, "{}", self.programs)?;
        write!(
            f,
            "seed {}: {}; {} events in {:?} of virtual time",
            self.seed,
            self.broken.as_deref().unwrap_or("all is well"),
            self.events,
            self.time
        )
    }
}

/// Plays one seed from its beginning to its end.
pub fn run(seed: u64, options: Options) -> Ended {
    // The store draws the jitter of its retries from this thread's dice.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without a driver needs nothing of the machine");
    runtime.block_on(play(seed, options))
}

async fn play(seed: u64, options: Options) -> Ended {
    let mut bucket = Bucket::default();
    bucket.lets_all_win = options.flaw == Some(Flaw::AllWin);
    let stage = Arc::new(Stage::new(seed, bucket));
    let (jobs, programs) = Programs::draw(
        &stage,
        options.clean_up && fastrand::Rng::with_seed(seed.rotate_left(32)).u8(..4) == 0,
    );
    let text = jobs
        .iter()
        .map(|job| format!("  {} needs {:?}\n", job.name, job.needs))
        .collect::<String>()
        + &programs.to_string();
    let over = stage.over.clone();
    tokio::select! {
        biased;
        () = over.cancelled() => {}
        ended = whole(seed, options, &stage, jobs, &programs) => if let Err(e) = ended {
            stage.object(format!("{e:#}"));
        }
    }
    let (events, digest) = stage.digest();
    let broken = stage.broken();
    Ended {
        seed,
        events,
        digest,
        time: stage.elapsed(),
        versions: stage.law(|laws| Ok(laws.versions())),
        programs: text,
        last: if broken.is_some() {
            stage.last_lines()
        } else {
            Vec::new()
        },
        broken,
    }
}

async fn whole(
    seed: u64,
    options: Options,
    stage: &Arc<Stage>,
    jobs: Vec<PlannedJob>,
    programs: &Arc<Programs>,
) -> anyhow::Result<()> {
    let broker = InProcess::new();
    let operator = Operator::begin(stage, jobs, &broker).await?;
    // Without the sweep nothing may be lost either, as long as the broker keeps what it has.
    let swept = stage.chance(60);
    let word = match options.words {
        false => Word::Nothing,
        // Without the sweep, what nobody runs is left to the operator's own command.
        true => Word::draw(seed, swept),
    };
    let machines: Vec<Arc<Machine>> = (0..=stage.below(4))
        .map(|n| format!("m{n}"))
        .map(|name| {
            Arc::new(Machine::new(
                stage,
                name,
                programs,
                settings(swept),
                &broker,
            ))
        })
        .collect();
    for machine in &machines {
        machine.start()?;
    }
    let ((), spoken) = tokio::join!(
        chaos::play(stage, &machines, &broker, swept),
        operator.speak(stage, word)
    );
    spoken?;
    let until = tokio::time::Instant::now() + chaos::PATIENCE;
    while !operator.is_settled(stage).await? {
        anyhow::ensure!(
            tokio::time::Instant::now() < until,
            "not everything came to its end: {}",
            operator.states(stage)
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Jobs may have killed their workers.
        for machine in &machines {
            machine.start()?;
        }
    }
    operator.judge(stage, programs).await?;
    // What is left over must go away by itself.
    let until = tokio::time::Instant::now() + chaos::PATIENCE;
    while broker.in_flight() > 0 || broker.depth().await?.delayed + broker.depth().await?.ready > 0
    {
        anyhow::ensure!(
            tokio::time::Instant::now() < until,
            "messages circulate although everything is settled: {broker:?}"
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        // Somebody has to take them: all workers may have been told to stop.
        for machine in &machines {
            machine.start()?;
        }
    }
    for machine in &machines {
        machine.stop();
    }
    Ok(())
}

fn settings(swept: bool) -> engine::Options {
    engine::Options {
        concurrency: 4,
        turn: Duration::from_secs(20),
        lease: Duration::from_secs(10),
        backoff_cap: Duration::from_secs(20),
        sweep: swept.then_some(Duration::from_secs(15)),
        grace: Duration::from_secs(5),
        ..engine::Options::default()
    }
}
