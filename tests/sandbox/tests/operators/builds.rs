//! Our `kustomize build` against the real one, and what it refuses.

use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox::operators::flux::{Files, build};
use serde_json::Value;

fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// All files below a folder, by their path in the repository, and the folders with a `kustomization.yaml`.
fn collect(path: &str, files: &mut Files, folders: &mut Vec<String>) {
    let here = repository().join(path);
    for entry in std::fs::read_dir(here).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let inner = format!("{path}/{name}");
        if repository().join(&inner).is_dir() {
            collect(&inner, files, folders);
        } else {
            if name == "kustomization.yaml" {
                folders.push(path.to_owned());
            }
            files.insert(
                inner.clone(),
                std::fs::read(repository().join(inner)).unwrap(),
            );
        }
    }
}

fn kubectl() -> PathBuf {
    let installed = Command::new(repository().join("tests/kubectl"))
        .arg("install")
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    Path::new(String::from_utf8(installed.stdout).unwrap().trim()).join("kubectl")
}

fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(|object| format!("{}{}", object["kind"], object["metadata"]));
    objects
}

#[test]
fn every_folder_of_the_tree_builds_as_with_kustomize() {
    let (mut files, mut folders) = (Files::new(), Vec::new());
    collect("flux/test", &mut files, &mut folders);
    collect("fluxcd/test", &mut files, &mut folders);
    assert!(folders.len() > 15, "{folders:?}");
    let kubectl = kubectl();
    for folder in folders {
        let mut command = Command::new(&kubectl);
        command
            .arg("kustomize")
            .arg(&folder)
            .current_dir(repository());
        let theirs = command.output().unwrap();
        assert!(theirs.status.success(), "{theirs:?}");
        let theirs = String::from_utf8(theirs.stdout).unwrap();
        let theirs: Vec<Value> = serde_saphyr::from_multiple(&theirs).unwrap();
        let ours = build(&files, &folder, None, None).unwrap();
        assert_eq!(sorted(ours), sorted(theirs), "{folder}");
    }
}

fn refused(kustomization: &str, expected: &str) {
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let files = [
        ("a/kustomization.yaml", kustomization),
        ("a/a.yaml", object),
        ("a/b.yaml", object),
        ("c.yaml", object),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
    let error = build(&files.into(), "./a", None, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_kustomize_would_do_and_we_do_not_is_a_failed_build_that_names_it() {
    refused(
        "resources: [a.yaml]\nnamePrefix: x-\n",
        "`namePrefix` is not simulated",
    );
    refused(
        "resources: [gone.yaml]\n",
        "gone.yaml: no such file or directory",
    );
    refused(
        "resources: [a.yaml, b.yaml]\n",
        "already registered id: ConfigMap.v1.[noGrp]/a.[noNs]",
    );
    refused("resources: [../../c.yaml]\n", "is not in or below the root");
    refused(
        "configMapGenerator: [{name: x, files: [a.yaml]}]\n",
        "a name with a hash is not simulated",
    );
    let gone = build(&Files::new(), "./test/pg", None, None)
        .unwrap_err()
        .to_string();
    assert!(
        gone.starts_with("kustomization path not found: stat "),
        "{gone}"
    );
}

#[test]
fn a_folder_without_a_kustomization_is_all_of_its_files_in_the_target_namespace() {
    let object = |name: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\n").into_bytes()
    };
    let files = [
        ("test/pg/a.yaml", object("a")),
        ("test/pg/deep/b.yaml", object("b")),
        ("test/slr/c.yaml", object("c")),
        ("test/pg/notes.txt", object("d")),
    ];
    let files: Files = files.map(|(path, text)| (path.to_owned(), text)).into();
    let built = build(&files, "./test/pg", Some("pg"), None).unwrap();
    let names: Vec<_> = built
        .iter()
        .map(|o| format!("{}/{}", o["metadata"]["namespace"], o["metadata"]["name"]))
        .collect();
    assert_eq!(names, ["\"pg\"/\"a\"", "\"pg\"/\"b\""]);
}
