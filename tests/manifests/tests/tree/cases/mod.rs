//! One thing wrong at a time: what each check is for.

mod access;
mod data;
mod objects;
mod releases;

use crate::case::Case;

const BUCKET: (&str, &str) = ("Bucket", "secrets");
const SAMPLE_LAYER: (&str, &str) = ("Kustomization", "secrets-pg");
const PG_DB: (&str, &str) = ("HelmRelease", "pg-db");
const SLR: (&str, &str) = ("HelmRelease", "slr");
const HARBOR: (&str, &str) = ("HelmRelease", "harbor");
const PMM: (&str, &str) = ("HelmRelease", "pmm");
const VOLUME: (&str, &str) = ("PersistentVolume", "pg-1");

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let groups = [
        objects::kinds_and_shapes(),
        objects::names(),
        objects::references(),
        objects::order(),
        objects::variables(),
        releases::releases(),
        releases::gates(),
        data::data(),
        data::database(),
        data::disks(),
        access::secrets(),
        access::web(),
    ];
    groups.into_iter().flatten().collect()
}
