//! A bundle: the index of an OCI image layout that says which images were mirrored, under which names and
//! for which platforms. Its digest names it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Platform, Reference, is_sha256};

/// What the file `oci-layout` of a layout says.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The name that containerd imports an image under.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// What other tools know it by.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Ours: for which platforms the images are there. An index may name more.
const PLATFORMS: &str = "dev.rekindle.platforms";

/// An image as it was found in its registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mirrored {
    /// What it was asked for by.
    pub reference: Reference,
    /// What its manifest or index is.
    pub media_type: String,
    /// `sha256:…`, of the manifest or index.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The images of one mirroring, the same whatever order they were listed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// For which platforms they are there.
    pub platforms: Vec<Platform>,
    /// The images, by name.
    pub images: Vec<Mirrored>,
}

/// Why a text is not a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// No JSON of this form.
    #[error("it is not the index of a bundle: {0}")]
    Unreadable(String),
    /// Not what a bundle of ours says.
    #[error("it is an index, but not of a bundle: {0}")]
    Foreign(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: String,
    manifests: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    annotations: BTreeMap<String, String>,
}

impl Bundle {
    /// The bundle of these images.
    pub fn new(mut platforms: Vec<Platform>, mut images: Vec<Mirrored>) -> Self {
        platforms.sort();
        platforms.dedup();
        images.sort();
        images.dedup();
        Self { platforms, images }
    }

    /// The layout's `oci-layout`.
    pub fn layout() -> &'static str {
        LAYOUT
    }

    /// The layout's `index.json`. An image that is bound to a digest stands there twice, once for each name.
    pub fn index(&self) -> String {
        let manifests = self.images.iter().flat_map(|image| {
            image.reference.names().into_iter().map(|name| Descriptor {
                media_type: image.media_type.clone(),
                digest: image.digest.clone(),
                size: image.size,
                annotations: annotations(image, name),
            })
        });
        let platforms: Vec<&str> = self.platforms.iter().map(Platform::as_str).collect();
        let index = Index {
            schema_version: 2,
            media_type: INDEX.into(),
            manifests: manifests.collect(),
            annotations: BTreeMap::from([(PLATFORMS.into(), platforms.join(","))]),
        };
        serde_json::to_string(&index).expect("an index is plain data")
    }

    /// The digits of its digest.
    pub fn digest(&self) -> String {
        crate::digest(self.index().as_bytes())
    }

    /// Reads an `index.json` that we wrote.
    pub fn parse(text: &[u8]) -> Result<Self, BundleError> {
        let foreign = |why: String| BundleError::Foreign(why);
        let index: Index =
            serde_json::from_slice(text).map_err(|e| BundleError::Unreadable(e.to_string()))?;
        let platforms = index
            .annotations
            .get(PLATFORMS)
            .ok_or_else(|| foreign("it names no platforms".into()))?;
        let platforms: Result<Vec<Platform>, _> = platforms.split(',').map(str::parse).collect();
        let platforms = platforms.map_err(|e| foreign(e.to_string()))?;
        let mut images: BTreeMap<String, Mirrored> = BTreeMap::new();
        for descriptor in index.manifests {
            let name = descriptor.annotations.get(CONTAINERD_NAME).cloned();
            let name = name.ok_or_else(|| foreign("an image has no name".into()))?;
            if !descriptor
                .digest
                .strip_prefix("sha256:")
                .is_some_and(is_sha256)
            {
                return Err(foreign(format!("`{name}` has no SHA-256 digest")));
            }
            let whole = descriptor.annotations.get(REFERENCE).unwrap_or(&name);
            let reference: Reference = whole
                .parse()
                .map_err(|e| foreign(format!("`{name}`: {e}")))?;
            let image = Mirrored {
                reference,
                media_type: descriptor.media_type,
                digest: descriptor.digest,
                size: descriptor.size,
            };
            images.insert(whole.clone(), image);
        }
        let bundle = Self::new(platforms, images.into_values().collect());
        // Whatever else it says would get lost.
        match bundle.index().as_bytes() == text {
            true => Ok(bundle),
            false => Err(foreign("another program wrote it".into())),
        }
    }
}

/// Ours: what the image was asked for by, where that is more than one name.
const REFERENCE: &str = "dev.rekindle.reference";

fn annotations(image: &Mirrored, name: String) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Some(tag) = image.reference.tag() {
        all.insert(REF_NAME.to_owned(), tag.to_owned());
    }
    let whole = image.reference.to_string();
    if whole != name {
        all.insert(REFERENCE.to_owned(), whole);
    }
    all.insert(CONTAINERD_NAME.to_owned(), name);
    all
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn bundle() -> Bundle {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let image = |reference: &str| Mirrored {
            reference: reference.parse().unwrap(),
            media_type: INDEX.into(),
            digest: digest.clone(),
            size: 7,
        };
        let images = vec![
            image("r.io/b:2"),
            image(&format!("r.io/a:1@{digest}")),
            image(&format!("r.io/c@{digest}")),
        ];
        Bundle::new(
            vec!["linux/arm64".parse().unwrap(), Platform::default()],
            images,
        )
    }

    #[test]
    fn a_bundle_is_read_as_it_is_written_whatever_the_order() {
        let bundle = bundle();
        assert_eq!(Bundle::parse(bundle.index().as_bytes()), Ok(bundle.clone()));
        let mut turned = bundle.clone();
        turned.images.reverse();
        turned.platforms.reverse();
        assert_eq!(
            Bundle::new(turned.platforms, turned.images).digest(),
            bundle.digest()
        );
    }

    /// What containerd and other tools read.
    #[test]
    fn the_index_is_that_of_an_oci_layout() {
        let index: serde_json::Value = serde_json::from_str(&bundle().index()).unwrap();
        assert_eq!(index["schemaVersion"], 2);
        assert_eq!(index["mediaType"], INDEX);
        let names: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["annotations"][CONTAINERD_NAME].as_str().unwrap())
            .collect();
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(
            names,
            [
                "r.io/a:1".to_owned(),
                format!("r.io/a@{digest}"),
                "r.io/b:2".into(),
                format!("r.io/c@{digest}")
            ]
        );
        assert_eq!(index["manifests"][0]["annotations"][REF_NAME], "1");
        assert_eq!(index["manifests"][0]["size"], 7);
    }

    #[test]
    fn other_texts_are_no_bundle() {
        let text = bundle().index();
        for (bad, want) in [
            (String::new(), "not the index"),
            ("{}".into(), "not the index"),
            (text.replace("linux/arm64", "plan9"), "plan9"),
            (text.replace(PLATFORMS, "x"), "names no platforms"),
            (text.replace(CONTAINERD_NAME, "x"), "has no name"),
            (text.replace("sha256:0a", "sha256:zz"), "SHA-256"),
            (
                text.replace("\"schemaVersion\":2", "\"schemaVersion\":3"),
                "another program",
            ),
            (
                text.replace("{\"schema", "{\"more\":1,\"schema"),
                "another program",
            ),
        ] {
            let error = Bundle::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
