//! What goes wrong, and when: drawn from the dice, for a while, at an intensity of its own in each
//! seed.

use std::sync::Arc;
use std::time::Duration;

use jobs::queue::{InProcess, Order};

use super::machine::Machine;
use super::stage::{Stage, Weather};

/// Plays faults until its time is over, then mends everything. The broker is wiped only if it may be.
pub(crate) async fn play(
    stage: &Arc<Stage>,
    machines: &[Arc<Machine>],
    broker: &InProcess,
    may_wipe: bool,
) {
    let intensity = stage.below(4);
    let time = stage.between(20_000, 90_000);
    stage.note(format_args!("chaos of intensity {intensity} for {time:?}"));
    if stage.chance(50) {
        broker.set_order(Order::Shuffled(stage.below(u64::MAX)));
    }
    if intensity > 0 {
        let until = tokio::time::Instant::now() + time;
        let most = [0, 20_000, 10_000, 4_000][intensity as usize];
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(stage.between(100, most)).await;
            strike(stage, machines, broker, may_wipe);
            // A job may have killed its worker.
            if stage.chance(30) {
                let at = stage.below(machines.len() as u64) as usize;
                restart(stage, &machines[at]);
            }
        }
    }
    stage.note(format_args!("chaos ends"));
    stage.set_weather(Weather::default());
    broker.set_order(Order::Fifo);
    for machine in machines {
        if let Err(e) = machine.heal() {
            stage.object(format!("a worker could not start: {e}"));
        }
    }
}

/// One thing goes wrong; it may last.
fn strike(stage: &Arc<Stage>, machines: &[Arc<Machine>], broker: &InProcess, may_wipe: bool) {
    let machine = Arc::clone(&machines[stage.below(machines.len() as u64) as usize]);
    let stage = Arc::clone(stage);
    // What explains a few messages more than usual.
    stage.law(|laws| laws.excuse(2));
    match stage.below(14) {
        0..=2 => {
            tokio::spawn(async move {
                machine.kill().await;
                tokio::time::sleep(stage.between(10, 15_000)).await;
                restart(&stage, &machine);
            });
        }
        3 => {
            tokio::spawn(async move {
                machine.stop();
                tokio::time::sleep(stage.between(100, 20_000)).await;
                restart(&stage, &machine);
            });
        }
        4 | 5 => {
            let time = stage.between(100, 40_000);
            let patience = stage.between(5_000, 20_000);
            tokio::spawn(async move { machine.freeze(time, patience).await });
        }
        6 => {
            tokio::spawn(async move {
                machine.set_away_from_store(true);
                tokio::time::sleep(stage.between(100, 25_000)).await;
                machine.set_away_from_store(false);
            });
        }
        7 => {
            tokio::spawn(async move {
                machine.set_away_from_broker(true);
                tokio::time::sleep(stage.between(100, 25_000)).await;
                machine.set_away_from_broker(false);
            });
        }
        8 => machine.break_connection(),
        9 => {
            stage.note(format_args!("all connections to the broker break"));
            broker.break_connections();
        }
        10 if may_wipe && stage.chance(50) => {
            stage.note(format_args!("the broker is wiped"));
            broker.wipe();
        }
        10 => machine.jump(stage.below(7200) as i64 - 3600),
        _ => {
            let worst = |most| {
                if stage.chance(50) {
                    stage.below(most) as u8
                } else {
                    0
                }
            };
            let weather = Weather {
                store: worst(30),
                queue: worst(30),
                twice: worst(50),
            };
            stage.note(format_args!("{weather:?}"));
            stage.set_weather(weather);
        }
    }
}

fn restart(stage: &Stage, machine: &Machine) {
    if let Err(e) = machine.start() {
        stage.object(format!("a worker could not start: {e}"));
    }
}

/// How long everything may take to come to its end once nothing goes wrong any more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30 * 60);
