//! What goes wrong before there are objects to check.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use manifests::{LoadError, Tree, checks};

use crate::{kubectl, lines};

const LAYER: &str = "
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: { name: one, namespace: flux-system }
spec:
  path: ./fluxcd/small/one
  sourceRef: { kind: GitRepository, name: flux-system }
";

const OBJECT: &str = "
apiVersion: v1
kind: ConfigMap
metadata: { name: one, namespace: default }
";

/// A repository with one Kustomization and one object.
fn repository() -> anyhow::Result<tempfile::TempDir> {
    let repository = tempfile::tempdir()?;
    let write = |path: &str, text: &str| write(repository.path(), path, text);
    write("flux/small/kustomization.yaml", "resources: [one.yaml]")?;
    write("flux/small/one.yaml", LAYER)?;
    write(
        "fluxcd/small/one/kustomization.yaml",
        "resources: [object.yaml]",
    )?;
    write("fluxcd/small/one/object.yaml", OBJECT)?;
    write(
        "fluxcd/charts/app/Chart.yaml",
        "{ apiVersion: v2, name: app, version: 1.0.0 }",
    )?;
    Ok(repository)
}

fn write(repository: &Path, path: &str, text: &str) -> anyhow::Result<()> {
    let path = repository.join(path);
    fs::create_dir_all(path.parent().context("a file in a folder")?)?;
    Ok(fs::write(path, text)?)
}

#[test]
fn what_nothing_applies_is_found() -> anyhow::Result<()> {
    let repository = repository()?;
    let load = || Tree::load(repository.path(), "small", &kubectl()?).context("load");
    let whole = load()?;
    ensure!(whole.documents.len() == 2, "{:?}", whole.documents);
    ensure!(
        checks::files::check(&whole).is_empty(),
        "{:?}",
        whole.unused
    );

    write(repository.path(), "fluxcd/small/one/forgotten.yaml", OBJECT)?;
    write(
        repository.path(),
        "fluxcd/small/two/kustomization.yaml",
        "resources: [object.yaml]",
    )?;
    write(repository.path(), "fluxcd/small/two/object.yaml", OBJECT)?;
    let findings = lines(&checks::files::check(&load()?));
    for path in ["fluxcd/small/one/forgotten.yaml", "fluxcd/small/two"] {
        ensure!(
            findings.contains(&format!("{path}: nothing applies it")),
            "{findings}"
        );
    }
    Ok(())
}

#[test]
fn a_folder_that_cannot_be_built_is_named() -> anyhow::Result<()> {
    for (path, text, named) in [
        (
            "fluxcd/small/one/kustomization.yaml",
            "resources: [nowhere.yaml]",
            "fluxcd/small/one",
        ),
        (
            "fluxcd/small/one/object.yaml",
            "kind: [",
            "fluxcd/small/one",
        ),
        (
            "flux/small/one.yaml",
            &LAYER.replace("small/one", "small/gone"),
            "fluxcd/small/gone",
        ),
    ] {
        let repository = repository()?;
        write(repository.path(), path, text)?;
        let error = Tree::load(repository.path(), "small", &kubectl()?).err();
        let error = error.with_context(|| format!("{path} is built"))?;
        let folder = match &error {
            LoadError::Build { folder, .. } => folder.as_str(),
            _ => "",
        };
        ensure!(folder == named, "{error:?}");
    }
    Ok(())
}
