//! Everything that Flux would apply to one cluster, built as it would build it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::Document;

/// What a chart says of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Chart {
    /// Its name.
    pub name: String,
    /// Its own version, not the application's.
    pub version: String,
}

/// One cluster's objects.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The cluster; its folders are named after it.
    pub cluster: String,
    /// Everything that is applied.
    pub documents: Vec<Document>,
    /// The charts of this repository, by their folder.
    pub charts: BTreeMap<String, Chart>,
    /// Folders and files that nothing applies.
    pub unused: Vec<String>,
}

/// Why a tree could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A folder or file is not as it should be.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// kubectl is not there.
    #[error("run {program}")]
    Run {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Kustomize refuses a folder.
    #[error("build {folder}: {said}")]
    Build {
        /// Below the repository.
        folder: String,
        /// What it wrote.
        said: String,
    },
    /// A text is not YAML.
    #[error("parse {what}: {said}")]
    Parse {
        /// What it is.
        what: String,
        /// What the parser says.
        said: String,
    },
}

impl Tree {
    /// Builds what the folder `flux/<cluster>` of a repository leads to.
    ///
    /// # Errors
    /// A folder that cannot be built, and a file that cannot be read.
    pub fn load(repository: &Path, cluster: &str, kubectl: &Path) -> Result<Self, LoadError> {
        let root = format!("flux/{cluster}");
        let mut documents = Vec::new();
        let mut built = BTreeSet::new();
        // A Kustomization that the root applies says the root's own name.
        let mut open = vec![("flux-system".to_owned(), root)];
        while let Some((layer, folder)) = open.pop() {
            if !built.insert(folder.clone()) {
                continue;
            }
            for value in build(repository, &folder, kubectl)? {
                let document = Document {
                    layer: layer.clone(),
                    value,
                };
                if document.is_kustomization()
                    && document.text("/spec/sourceRef/kind") == "GitRepository"
                {
                    let path = document.text("/spec/path").trim_start_matches("./");
                    let path = path.trim_end_matches('/').to_owned();
                    open.push((document.name().to_owned(), path));
                }
                documents.push(document);
            }
        }
        let mut unused = Vec::new();
        for folder in [format!("flux/{cluster}"), format!("fluxcd/{cluster}")] {
            collect_unused(repository, &folder, &built, &mut unused)?;
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            documents,
            charts: charts(repository)?,
            unused,
        })
    }

    /// The objects of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Document> {
        self.documents.iter().filter(move |d| d.kind() == kind)
    }

    /// The Kustomizations.
    pub fn kustomizations(&self) -> impl Iterator<Item = &Document> {
        self.documents.iter().filter(|d| d.is_kustomization())
    }

    /// The releases.
    pub fn releases(&self) -> impl Iterator<Item = &Document> {
        self.documents.iter().filter(|d| d.is_release())
    }

    /// One object; `None` when the tree does not hold it.
    pub fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Document> {
        self.of_kind(kind)
            .find(|d| d.namespace() == namespace && d.name() == name)
    }

    /// A release's values as this repository says them, one after the other: ConfigMaps, then inline. What is not
    /// YAML counts as none; the check of values says so.
    pub fn values(&self, release: &Document) -> Vec<Value> {
        let mut all: Vec<_> = release
            .items("/spec/valuesFrom")
            .iter()
            .filter_map(|from| {
                let name = from.get("name")?.as_str()?;
                let key = from.get("valuesKey").and_then(Value::as_str);
                let map = self.find("ConfigMap", release.namespace(), name)?;
                let data = map.value.get("data")?;
                let text = data.get(key.unwrap_or("values.yaml"))?.as_str()?;
                parse(text).ok()
            })
            .collect();
        all.extend(release.value.pointer("/spec/values").cloned());
        all
    }
}

/// Reads one YAML document.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|e| e.to_string())
}

fn build(repository: &Path, folder: &str, kubectl: &Path) -> Result<Vec<Value>, LoadError> {
    let output = Command::new(kubectl)
        .arg("kustomize")
        .arg(folder)
        .current_dir(repository)
        .output()
        .map_err(|source| LoadError::Run {
            program: kubectl.to_owned(),
            source,
        })?;
    if !output.status.success() {
        return Err(LoadError::Build {
            folder: folder.to_owned(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_saphyr::from_multiple(&text).map_err(|e| LoadError::Parse {
        what: folder.to_owned(),
        said: e.to_string(),
    })
}

fn read<T>(path: &Path, how: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, LoadError> {
    how(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}

fn charts(repository: &Path) -> Result<BTreeMap<String, Chart>, LoadError> {
    let folder = repository.join("fluxcd/charts");
    let mut all = BTreeMap::new();
    for name in names(&folder)? {
        let path = folder.join(&name).join("Chart.yaml");
        let text = read(&path, |path| fs::read_to_string(path))?;
        let chart = serde_saphyr::from_str(&text).map_err(|e| LoadError::Parse {
            what: path.display().to_string(),
            said: e.to_string(),
        })?;
        all.insert(format!("fluxcd/charts/{name}"), chart);
    }
    Ok(all)
}

fn names(folder: &Path) -> Result<BTreeSet<String>, LoadError> {
    let mut all = BTreeSet::new();
    for entry in read(folder, |folder| fs::read_dir(folder))? {
        let entry = read(folder, |_| entry)?;
        all.insert(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(all)
}

/// What stands in a folder and is named by no `kustomization.yaml`, and folders that no Kustomization builds.
fn collect_unused(
    repository: &Path,
    folder: &str,
    built: &BTreeSet<String>,
    unused: &mut Vec<String>,
) -> Result<(), LoadError> {
    const INDEX: &str = "kustomization.yaml";
    let path = repository.join(folder);
    let mut names = names(&path)?;
    if names.remove(INDEX) {
        if !built.contains(folder) {
            unused.push(folder.to_owned());
        }
        let text = read(&path.join(INDEX), |path| fs::read_to_string(path))?;
        let index = parse(&text).map_err(|said| LoadError::Parse {
            what: format!("{folder}/{INDEX}"),
            said,
        })?;
        crate::document::texts(&index, &mut |text| {
            names.remove(text);
        });
    }
    for name in names {
        let inner = format!("{folder}/{name}");
        if repository.join(&inner).is_dir() {
            collect_unused(repository, &inner, built, unused)?;
        } else {
            unused.push(inner);
        }
    }
    Ok(())
}
