//! The tree of the example cluster has no mistake, and every check would see one.

mod broken;
mod case;
mod cases;
mod folders;
mod switches;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use jobs::spec::ClusterSpec;
use manifests::{BY_REKINDLE, BY_SOPS, Finding, Tree, checks};

/// The spec of the cluster that the tree is for.
const SPEC: &str = include_str!("../../../../deploy/examples/cluster.yaml");

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn kubectl() -> anyhow::Result<PathBuf> {
    let script = repository().join("tests/kubectl");
    let output = Command::new(script).arg("install").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(Path::new(String::from_utf8(output.stdout)?.trim()).join("kubectl"))
}

fn tree() -> anyhow::Result<Tree> {
    Tree::load(&repository(), "test", &kubectl()?).context("load the tree")
}

fn spec(yaml: &str) -> anyhow::Result<ClusterSpec> {
    ClusterSpec::parse(yaml).map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

fn lines(findings: &[Finding]) -> String {
    let lines = findings.iter();
    lines
        .map(|f| format!("{}: {}\n", f.place, f.what))
        .collect()
}

#[test]
fn the_tree_has_no_mistake() -> anyhow::Result<()> {
    let findings = checks::all(&tree()?, &spec(SPEC)?);
    ensure!(findings.is_empty(), "\n{}", lines(&findings));
    Ok(())
}

#[test]
fn what_the_tree_asks_for_is_told_to_people() -> anyhow::Result<()> {
    for (file, all) in [
        ("flux/README.md", BY_REKINDLE),
        ("fluxcd/README.md", BY_SOPS),
    ] {
        let text = std::fs::read_to_string(repository().join(file))?;
        for given in all {
            let names = [given.name, given.namespace].into_iter();
            let words: Vec<_> = names.chain(given.keys.iter().copied()).collect();
            let tells = |line: &str| words.iter().all(|word| line.contains(&format!("`{word}`")));
            ensure!(text.lines().any(tells), "{file} has no line with {given:?}");
        }
    }
    Ok(())
}
