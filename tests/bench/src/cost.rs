//! What a step and a node cost at the store. The same counts are held flat by a test (tests/e2e).

use e2e::cost::{Cost, JOBS_A_NODE, of_nodes, of_steps};

use crate::figures::Figures;

pub(crate) async fn run(nodes: u32, steps: u32, figures: &mut Figures) -> anyhow::Result<()> {
    for n in sizes(steps) {
        let what = format!("a step of a job of {n}");
        note(&what, &of_steps(n).await?.per(n), figures);
    }
    for n in sizes(nodes) {
        let what = format!("a node of {n} ({JOBS_A_NODE} jobs each, and a report)");
        note(&what, &of_nodes(n).await?.per(n), figures);
    }
    Ok(())
}

/// Ten, a hundred where that is less than the most, and the most.
fn sizes(most: u32) -> impl Iterator<Item = u32> {
    [10, 100]
        .into_iter()
        .filter(move |n| *n < most)
        .chain([most])
}

fn note(what: &str, cost: &Cost, figures: &mut Figures) {
    for (part, figure) in cost.parts() {
        let what = format!("{what}: {part}");
        figures.add(&what, "", figure);
        figures.against(&what, "the same for each size", "");
    }
}
