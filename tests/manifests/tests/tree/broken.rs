//! Breaks a copy of the tree in memory, one place at a time, and wants the finding.

use anyhow::{Context, ensure};
use manifests::checks;

use crate::{SPEC, cases, lines, spec, tree};

#[test]
fn every_check_sees_what_it_is_for() -> anyhow::Result<()> {
    let (whole, spec) = (tree()?, spec(SPEC)?);
    let mut missed = Vec::new();
    for case in cases::all() {
        let mut tree = whole.clone();
        (case.change)(&mut tree);
        let findings = checks::all(&tree, &spec);
        let mut there = findings.iter().filter(|f| f.place.contains(case.place));
        if !there.any(|f| f.what.contains(case.what)) {
            let found = lines(&findings);
            missed.push(format!(
                "{}: {}\n  found instead:\n{found}",
                case.place, case.what
            ));
        }
    }
    ensure!(missed.is_empty(), "not seen:\n{}", missed.join("\n"));
    Ok(())
}

#[test]
fn a_volume_wants_its_disk_in_the_spec() -> anyhow::Result<()> {
    let tree = tree()?;
    for (from, to, what) in [
        ("cluster: test", "cluster: other", "the spec is of other"),
        (
            "mount: /mnt/disks/data, protected",
            "mount: /mnt/disks/pg, protected",
            "mounts nothing",
        ),
        (
            "postgresqlinstance: num1",
            "postgresqlinstance: num9",
            "pick 0 nodes",
        ),
        (
            r#"    taints: ["postgresqltaint=yestaint:NoSchedule"]"#,
            "",
            "becomes a second volume",
        ),
        ("prometheusnode: yesnaff, ", "", "picks no node"),
    ] {
        ensure!(SPEC.contains(from), "the spec has no {from:?}");
        let spec = spec(&SPEC.replace(from, to)).context(from)?;
        let findings = checks::disks::check(&tree, &spec);
        let seen = findings.iter().any(|f| f.what.contains(what));
        ensure!(seen, "{what}: found instead:\n{}", lines(&findings));
    }
    Ok(())
}
