//! How container registries are reached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use jobs::images::Reference;
use runner::image::{BadUrl, Network};
use runner::oci::Repository;

/// Tries in a row that bring not one byte before a registry counts as down; the job's own tries come on top.
const TRIES: u32 = 5;

/// Settings for all registries, made once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registries {
    /// Who we are, as docker's `config.json` has it.
    pub auth_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the host's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Where the images of a registry are read instead, by its host: `oci://host/prefix`.
    pub mirrors: BTreeMap<String, String>,
    /// Tries in a row that bring not one byte.
    pub tries: u32,
}

impl Default for Registries {
    fn default() -> Self {
        Self {
            auth_file: None,
            ca_file: None,
            mirrors: BTreeMap::new(),
            tries: TRIES,
        }
    }
}

impl Registries {
    /// Where an image is read.
    pub fn repository(&self, image: &Reference) -> Result<Repository, BadUrl> {
        let place = match self.mirrors.get(image.registry()) {
            Some(mirror) => mirror.clone(),
            None => format!("oci://{}", image.registry()),
        };
        format!("{place}/{}", image.repository()).parse()
    }

    /// How the network is used.
    pub fn network(&self) -> Network {
        Network {
            tries: self.tries,
            ca_file: self.ca_file.clone(),
            auth_file: self.auth_file.clone(),
        }
    }
}

/// One entry of [`Registries::mirrors`], `HOST=URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The host in the names of images.
    pub registry: String,
    /// Where they are read.
    pub url: String,
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (registry, url) = text.split_once('=').ok_or("it has no `=`")?;
        if registry.is_empty() || registry.contains('/') {
            return Err("it does not begin with the host of a registry".into());
        }
        let url = url.trim_end_matches('/');
        // Any image, to see whether its place can be read.
        let tried: Result<Repository, BadUrl> = format!("{url}/image").parse();
        tried.map_err(|e| e.to_string())?;
        Ok(Self {
            registry: registry.to_owned(),
            url: url.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_mirror_stands_for_its_registry_and_for_no_other() {
        let mirror: Mirror = "registry.k8s.io=oci://r.example/k8s/".parse().unwrap();
        let registries = Registries {
            mirrors: BTreeMap::from([(mirror.registry, mirror.url)]),
            ..Registries::default()
        };
        let place = |image: &str| {
            let image = image.parse().unwrap();
            registries.repository(&image).unwrap().to_string()
        };
        assert_eq!(place("registry.k8s.io/a/b:1"), "oci://r.example/k8s/a/b");
        assert_eq!(place("quay.io/a/b:1"), "oci://quay.io/a/b");
    }
}
