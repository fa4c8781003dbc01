//! The switches' contents that people are told of.

use anyhow::{Context, ensure};
use manifests::checks::database::check_switch;

use crate::{lines, repository};

/// The indented blocks of the README that set the database's archive: normal, then restore.
fn blocks() -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(repository().join("fluxcd/README.md"))?;
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        match (line.strip_prefix("    "), blocks.last_mut()) {
            (Some(code), Some(block)) => block.extend([code, "\n"]),
            _ => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| block.contains("repo1-path"));
    Ok(blocks)
}

#[test]
fn the_switches_that_people_are_told_of_are_right() -> anyhow::Result<()> {
    let blocks = blocks()?;
    ensure!(blocks.len() == 2, "{blocks:?}");
    for block in &blocks {
        let findings = check_switch(block);
        ensure!(findings.is_empty(), "{block}\n{}", lines(&findings));
    }
    Ok(())
}

#[test]
fn a_switch_that_endangers_the_data_is_seen() -> anyhow::Result<()> {
    let blocks = blocks()?;
    let restore = blocks.last().context("the restore")?;
    for (from, to, what) in [
        (
            "/pgbackrest/test/2",
            "/pgbackrest/test/1",
            "it writes what it reads",
        ),
        (
            "global: { repo1-path: /pgbackrest/test/1 }",
            "global: {}",
            "which generation it reads",
        ),
        (
            "backups: { pgbackrest: { global: { repo1-path: /pgbackrest/test/2 } } }",
            "",
            "no generation",
        ),
        ("[--type=default]", "[]", "it has no options"),
        (
            "--type=default",
            "--target-action=pause",
            "ignores a restore with --target-action",
        ),
        (
            "--type=default",
            "--repo=1",
            "ignores a restore with --repo",
        ),
        (
            "pgbackrest:\n    stanza",
            "postgresCluster:\n    stanza",
            "unknown field `postgresCluster`",
        ),
        (
            "    stanza: db",
            "    stanza: db\n    affinity: {}",
            "unknown field `affinity`",
        ),
        ("pmm:", "PMM:", "unknown field `PMM`"),
    ] {
        ensure!(restore.contains(from), "{restore} has no {from:?}");
        let findings = check_switch(&restore.replace(from, to));
        let seen = findings.iter().any(|f| f.what.contains(what));
        ensure!(seen, "{what}: found instead:\n{}", lines(&findings));
    }
    Ok(())
}
