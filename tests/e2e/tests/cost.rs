//! What one more step, one more node and one more version cost at the store stays the same,
//! however many there are. Counts of requests and bytes, so that the machine's speed has no say.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use e2e::cost::{Cost, of_nodes, of_steps};
use e2e::lab::Lab;
use jobs::ids::ClusterName;
use jobs::keys;
use jobs::record::ActiveRecord;
use jobs::store::Appended;

/// One more of many may cost a quarter more than one more of few; the rest is for the reads of flags
/// that a slow machine makes (one LIST and one GET every 2 s).
fn is_flat(of: &str, few: &Cost, many: &Cost) {
    let slack = [0.02, 0.1, 0.1, 64.0, 128.0];
    for (i, ((part, few), (_, many))) in few.parts().into_iter().zip(many.parts()).enumerate() {
        assert!(
            many <= few * 1.25 + slack[i],
            "one more {of} costs {few:.2} {part} where there are few of them, {many:.2} where there are many"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thousandth_step_costs_what_the_tenth_does() -> anyhow::Result<()> {
    let (few, more, many) = (
        of_steps(10).await?,
        of_steps(100).await?,
        of_steps(1_000).await?,
    );
    let each = many.each_more(1_000, &more, 100);
    is_flat("step", &more.each_more(100, &few, 10), &each);
    assert!(each.puts <= 1.0, "a step is one PUT: {each:?}");
    assert!(each.gets + each.lists < 0.1, "and nothing else: {each:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_the_three_hundredth_node_costs_what_the_tenth_does() -> anyhow::Result<()> {
    let (few, more, many) = (
        of_nodes(10).await?,
        of_nodes(60).await?,
        of_nodes(300).await?,
    );
    let each = many.each_more(300, &more, 60);
    is_flat("node", &more.each_more(60, &few, 10), &each);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_version_of_a_long_history_costs_what_that_of_a_short_one_does()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let mut costs = Vec::new();
    for (name, versions) in [("short", 3), ("long", 1_200)] {
        let series = keys::active(&ClusterName::new(name)?);
        for n in 1..=versions {
            lab.sandbox.s3.put_object(&series.version(n), "{}");
        }
        let before = lab.sandbox.s3.stats();
        assert_eq!(lab.store.last_version(&series).await?, Some(versions));
        let after = lab.sandbox.s3.stats();
        costs.push((after.list - before.list, after.bytes_out - before.bytes_out));
        let body = ActiveRecord {
            recovery: None,
            since: jiff::Timestamp::now(),
        };
        let next = lab.store.append(&series, versions + 1, &body).await?;
        assert_eq!(next, Appended::Won);
        assert_eq!(lab.store.last_version(&series).await?, Some(versions + 1));
    }
    let [(1, short), (1, long)] = costs[..] else {
        panic!("one LIST each: {costs:?}");
    };
    assert!(long <= short + 16, "{long} bytes against {short}");
    lab.sandbox.stop().await
}
