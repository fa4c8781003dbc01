//! What bootstraps Flux, packed from a folder into one input: the cluster gets what stood in the checkout when
//! the recovery was declared, whatever becomes of the repository meanwhile.

use std::path::{Path, PathBuf};

use jobs::spec::{ClusterSpec, Problem};
use serde::Deserialize;
use worker::kube::Manifest;

use crate::error::CliError;
use crate::files;

/// The list of a folder's files, as far as such a folder has a use for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    kind: String,
    resources: Vec<PathBuf>,
}

/// The objects of the cluster's folder as one manifest, if its spec has a `flux` section.
pub(crate) fn pack(given: Option<&Path>, spec: &ClusterSpec) -> Result<Option<String>, CliError> {
    let Some(flux) = &spec.flux else {
        return match given {
            None => Ok(None),
            Some(_) => Err(CliError::usage(
                "--flux is given, and the spec has no `flux` section",
            )),
        };
    };
    let folder = given.map_or_else(|| PathBuf::from(flux.folder(spec)), Path::to_owned);
    pack_folder(&folder).map(Some)
}

fn pack_folder(folder: &Path) -> Result<String, CliError> {
    let list = folder.join("kustomization.yaml");
    let problem = |path: &Path, at: &str, reason: String| CliError::Problems {
        file: path.display().to_string(),
        problems: vec![Problem::new(at, reason)],
    };
    let text = files::read(&list).map_err(|error| {
        error.hint("run it where the repository is checked out, or name the folder with --flux")
    })?;
    let listed: Kustomization = serde_saphyr::from_str(&text)
        .map_err(|error| problem(&list, "", format!("it cannot be read: {error}")))?;
    if listed.kind != "Kustomization" || listed.resources.is_empty() {
        return Err(problem(&list, "resources", "it lists nothing".into()));
    }
    let mut packed = String::new();
    for (i, name) in listed.resources.iter().enumerate() {
        if name.components().count() != 1 || name.extension().is_none_or(|e| e != "yaml") {
            let reason = format!("`{}` is not a YAML file of this folder", name.display());
            return Err(problem(&list, &format!("resources[{i}]"), reason));
        }
        let path = folder.join(name);
        let text = files::read(&path)?;
        check(&path, &text)?;
        packed += "---\n";
        packed += text.trim_end();
        packed += "\n";
    }
    Ok(packed)
}

/// An input is readable by everybody who can read the bucket, and is kept.
fn check(path: &Path, text: &str) -> Result<(), CliError> {
    let origin = path.display().to_string();
    let manifest = Manifest::parse(text, &origin).map_err(|e| CliError::usage(e.to_string()))?;
    let mut objects = manifest.foundation.iter().chain(&manifest.rest);
    match objects.find(|object| object.kind == "Secret") {
        None => Ok(()),
        Some(secret) => Err(CliError::usage(format!(
            "{origin}: {secret} would lie readable in the bucket"
        ))
        .hint("what is secret comes by --secret; see flux/README.md for the Secrets that Rekindle makes")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const LIST: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [b.yaml, a.yaml]\n";
    const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: a, namespace: x }\n";

    #[test]
    fn files_are_packed_in_the_order_of_the_list() {
        let folder = folder(&[
            ("kustomization.yaml", LIST),
            ("a.yaml", MAP),
            ("b.yaml", "# b\n"),
        ]);
        let packed = pack_folder(folder.path()).unwrap();
        assert_eq!(packed, format!("---\n# b\n---\n{MAP}"));
    }

    #[test]
    fn our_own_folder_can_be_packed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../flux/test");
        let packed = pack_folder(&folder).unwrap();
        let manifest = Manifest::parse(&packed, "flux/test").unwrap();
        let kinds: Vec<&str> = manifest.rest.iter().map(|o| o.kind.as_str()).collect();
        assert!(kinds.contains(&"GitRepository"), "{kinds:?}");
        assert_eq!(
            kinds
                .iter()
                .filter(|kind| **kind == "Kustomization")
                .count(),
            2
        );
    }

    #[test]
    fn what_cannot_be_packed_is_named() {
        let check = |files: &[(&str, &str)], why: &str| {
            let folder = folder(files);
            let error = pack_folder(folder.path()).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(why), "{text}");
        };
        check(&[], "kustomization.yaml");
        check(&[("kustomization.yaml", "kind: [")], "cannot be read");
        check(&[("kustomization.yaml", LIST)], "b.yaml");
        let with = |entry: &str| LIST.replace("b.yaml", entry);
        for bad in [
            "../b.yaml",
            "/etc/passwd",
            "sub",
            "https://example.org/x.yaml",
        ] {
            check(
                &[("kustomization.yaml", &with(bad))],
                "is not a YAML file of this folder",
            );
        }
        check(
            &[("kustomization.yaml", &format!("{LIST}patches: []\n"))],
            "patches",
        );
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: { name: a, namespace: x }\nstringData: { p: hunter2 }\n";
        let scene = [
            ("kustomization.yaml", LIST),
            ("b.yaml", MAP),
            ("a.yaml", secret),
        ];
        check(&scene, "would lie readable in the bucket");
        let broken = [
            ("kustomization.yaml", LIST),
            ("b.yaml", "kind: X\n"),
            ("a.yaml", MAP),
        ];
        check(&broken, "has no usable");
    }
}
