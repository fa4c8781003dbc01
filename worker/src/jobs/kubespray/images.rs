//! The images that Kubespray needs, from the bucket to every node: for installs without their registries.
//!
//! The worker checks the bundle against the spec and has the runner bring its blobs to the bastion, by presigned
//! URLs that are made anew for every few of them; no URL reaches the run, which may outlive them by hours. In the
//! run our own playbook packs, sends and imports what a node misses, between Kubespray's container engine and
//! the rest of it.

use std::time::Duration;

use jobs::images::{Bundle, Mirrored, missing};
use jobs::keys;
use jobs::spec::{ImageBundle, Kubernetes};
use serde_json::{Value, json};

use super::release;
use crate::engine::{Ctx, JobError};
use crate::jobs::ansible::inputs::{INPUTS, playbook};
use crate::jobs::ansible::{Files, Large, bring};
use crate::jobs::mirror_images::{blobs_of, wrong};

/// Where the container has the blobs.
const LAYOUT: &str = "/rekindle/images";
const PLAYBOOK: &str = include_str!("import-images.yml");
const TASKS: &str = include_str!("import-image.yml");

/// The spec's bundle, read and found to be what the spec's Kubernetes needs.
#[derive(Debug)]
pub(super) struct Images {
    digits: String,
    bundle: Bundle,
}

impl Images {
    /// Reads and checks it, also when it was mirrored for this spec: both may have changed since.
    pub(super) async fn of(
        ctx: &Ctx,
        kubernetes: &Kubernetes,
        images: &ImageBundle,
    ) -> Result<Self, JobError> {
        let digits = images.digits();
        let key = keys::image_bundle(digits, "index.json");
        let text = ctx.store().get(&key).await?;
        let text = text.ok_or_else(|| {
            let hint = "mirror the images with `rekindle mirror-images`, then `rekindle retry`";
            JobError::fatal(format!("the bucket has no `{key}`: {hint}"))
        })?;
        if jobs::digest(&text) != digits {
            return Err(JobError::fatal(format!(
                "`{key}` is not what its name says: it is damaged"
            )));
        }
        let bundle = Bundle::parse(&text)
            .map_err(|e| JobError::fatal(e).while_doing(format!("read `{key}`")))?;
        let lacks = missing(
            bundle.images.iter().map(|image| &image.reference),
            kubernetes,
        );
        if !lacks.is_empty() {
            return Err(wrong(
                "the bundle of `kubernetes.images` is not for the Kubernetes of the spec",
                &lacks,
            ));
        }
        let digits = digits.to_owned();
        Ok(Self { digits, bundle })
    }

    /// Brings the blobs to the bastion; gives what the container is to have of its file system.
    pub(super) async fn bring(&self, ctx: &Ctx) -> Result<String, JobError> {
        let patience = Duration::from_secs(3 * 60 * 60);
        let folder = bring(ctx, "images", patience, || async {
            let mut files = Vec::new();
            for image in &self.bundle.images {
                let blobs = blobs_of(ctx.store(), image, &self.bundle.platforms).await?;
                files.extend(blobs.sizes.into_iter().map(|(digits, size)| Large {
                    name: format!("blobs/sha256/{digits}"),
                    key: keys::image_blob(&digits),
                    digits,
                    size,
                }));
            }
            files.sort();
            files.dedup();
            Ok(files)
        });
        Ok(format!("{}:{LAYOUT}", folder.await?))
    }

    /// What the run is given for it.
    pub(super) async fn files(&self, ctx: &Ctx) -> Result<Files, JobError> {
        let mut images = Vec::new();
        for image in &self.bundle.images {
            let blobs = blobs_of(ctx.store(), image, &self.bundle.platforms).await?;
            images.push(describe(image, &self.bundle, blobs.sizes.keys()));
        }
        let vars = json!({"rekindle_bundle": self.digits, "rekindle_images": images});
        Ok(files(&vars))
    }
}

/// The commands of an install, with or without images.
pub(super) fn commands(kubernetes: &Kubernetes, with_images: bool) -> Vec<Vec<String>> {
    let with = |mut command: Vec<String>, more: &[&str]| {
        command.extend(more.iter().map(|word| (*word).to_owned()));
        command
    };
    let all = release::playbook(kubernetes, "cluster.yml");
    if !with_images {
        return vec![all];
    }
    let import = playbook(&format!("{INPUTS}/import-images.yml"));
    vec![
        with(all.clone(), &["--tags", "container-engine"]),
        with(import, &["--extra-vars", &format!("@{INPUTS}/images.json")]),
        all,
    ]
}

pub(super) fn files(vars: &Value) -> Files {
    Files::from([
        ("images.json", vars.to_string().into_bytes()),
        ("import-images.yml", PLAYBOOK.into()),
        ("import-image.yml", TASKS.into()),
    ])
}

/// One image, as the playbook wants it.
pub(super) fn describe<'a>(
    image: &Mirrored,
    bundle: &Bundle,
    blobs: impl Iterator<Item = &'a String>,
) -> Value {
    let alone = Bundle::new(bundle.platforms.clone(), vec![image.clone()]);
    let index: Value = serde_json::from_str(&alone.index()).unwrap_or_default();
    let pairs: Vec<String> = image
        .reference
        .names()
        .iter()
        .map(|name| format!("{name} {}", image.digest))
        .collect();
    let blobs: Vec<String> = blobs
        .map(|digits| format!("blobs/sha256/{digits}"))
        .collect();
    // Two names of one image are two archives.
    json!({"archive": alone.digest(), "pairs": pairs, "index": index, "blobs": blobs})
}
