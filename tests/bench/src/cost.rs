//! What a step and a node cost at the store. The same counts are held flat by a test (tests/e2e).

use e2e::cost::{JOBS_A_NODE, of_nodes, of_steps};

use crate::figures::Figures;

pub(crate) async fn run(nodes: u32, steps: u32, figures: &mut Figures) -> anyhow::Result<()> {
    for n in sizes(steps) {
        let cost = of_steps(n).await?.per(n);
        figures.price(format!("a step of a job of {n}"), cost);
    }
    for n in sizes(nodes) {
        let cost = of_nodes(n).await?.per(n);
        figures.price(format!("a node of {n}, {JOBS_A_NODE} jobs each"), cost);
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
