//! Wrong settings: an error that says what to look at, at once, and shows no secret.

use anyhow::ensure;
use jobs::store::{Credentials, Secret, Store, StoreConfig, StoreError};
use sandbox::s3::{Failure, What, When};

use super::{at, unique};
use crate::store_lab::StoreLab;

const SECRET: &str = "hunter2-hunter2";

/// Whichever operation comes first.
pub async fn wrong_settings_are_refused_by_name_and_without_the_secret(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let keys = |access: &str| Credentials::Keys {
        access: access.to_owned(),
        secret: Secret::new(SECRET),
    };
    let right = lab.config();
    let Credentials::Keys { access, .. } = &right.credentials else {
        anyhow::bail!("the lab has keys");
    };

    let wrong_access = StoreConfig {
        credentials: keys("nobody"),
        ..right.clone()
    };
    refused(&wrong_access, "S3_ACCESS_KEY").await?;

    let wrong_secret = StoreConfig {
        credentials: keys(access),
        ..right.clone()
    };
    if lab.verifies_signatures() {
        refused(&wrong_secret, "S3_SECRET_KEY").await?;
    }

    let wrong_bucket = StoreConfig {
        bucket: "no-such-bucket".into(),
        ..right.clone()
    };
    refused(&wrong_bucket, "S3_BUCKET").await?;

    // As AWS says it; the servers here do not look at the region.
    let mut anywhere = at("", When::Always, What::LoseRequest);
    anywhere.key = None;
    for (failure, named) in [
        (Failure::WrongRegion, "S3_REGION"),
        (Failure::Elsewhere, "S3_REGION"),
        (Failure::WrongSignature, "S3_SECRET_KEY"),
        (Failure::Skewed, "clock"),
    ] {
        lab.faults().clear();
        anywhere.what = What::Fail(failure);
        lab.faults().add(anywhere.clone());
        refused(&right, named).await?;
    }
    Ok(())
}

async fn refused(config: &StoreConfig, named: &str) -> anyhow::Result<()> {
    let store = Store::connect(config).await?;
    let mut into = Vec::new();
    let errors = [
        store.get("key").await.err(),
        store.get_into("key", &mut into).await.err(),
        store.list("", None).await.err(),
        store.list_folders("").await.err(),
        store.create("key", unique()).await.err(),
        store.put("key", unique()).await.err(),
        store.probe().await.err(),
    ];
    for error in errors {
        let shown = format!(
            "{error:?} {}",
            error.as_ref().map_or_else(String::new, ToString::to_string)
        );
        ensure!(
            matches!(error, Some(StoreError::Refused { .. })),
            "{named}: {shown}"
        );
        ensure!(shown.contains(named), "no {named} in {shown}");
        ensure!(!shown.contains(SECRET), "the secret is in {shown}");
    }
    Ok(())
}
