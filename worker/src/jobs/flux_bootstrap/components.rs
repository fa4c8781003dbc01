//! Flux' own components: one manifest a version, by its digest, kept in the bucket.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jobs::keys;
use jobs::spec::Flux;
use jobs::store::{Created, Small};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::{Ctx, JobError};
use crate::kube::{Manifest, pods};

/// Where releases are.
const RELEASES: &str = "https://github.com/fluxcd/flux2/releases/download";
/// No manifest is larger, in bytes: 2.8's has half a million.
const LARGEST: u64 = 16 << 20;
/// The download.
const TIMEOUT: Duration = Duration::from_secs(60);
/// What reconciles, and waits for health while it does: in a recovery everything waits at once, and by default four
/// at a time may.
const BUSY: [&str; 2] = ["kustomize-controller", "helm-controller"];
/// So many objects at a time.
const CONCURRENT: &str = "--concurrent=10";
/// Without these it is no manifest of Flux.
const PARTS: [(&str, &str); 5] = [
    (
        "CustomResourceDefinition",
        "kustomizations.kustomize.toolkit.fluxcd.io",
    ),
    (
        "CustomResourceDefinition",
        "helmreleases.helm.toolkit.fluxcd.io",
    ),
    ("Deployment", "source-controller"),
    ("Deployment", BUSY[0]),
    ("Deployment", BUSY[1]),
];

/// The manifest that is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Components {
    /// The version.
    version: String,
    /// SHA-256 of the manifest.
    digest: String,
}

/// Makes sure that the manifest is in the bucket, and is the one that it should be: by the digest of the spec, or by
/// the one of its first use.
pub(super) async fn fetch(ctx: &Ctx, flux: &Flux) -> Result<Components, JobError> {
    let version = &flux.version;
    let store = ctx.store();
    let kept = match store.get_small(&manifest_key(version), LARGEST).await? {
        Small::Body(bytes) => Some(bytes),
        Small::Absent => None,
        Small::TooLarge(size) => return Err(too_large(&manifest_key(version), size)),
    };
    let bytes = match &kept {
        Some(bytes) => bytes.clone(),
        None => download(RELEASES, version).await?,
    };
    let digest = jobs::digest(&bytes);
    match flux.digits() {
        Some(wanted) if wanted != digest => {
            return Err(JobError::fatal(format!(
                "install.yaml of Flux {version} has the digest sha256:{digest}, and `flux.digest` says sha256:{wanted}: correct the spec, or put the right file at `{}` in the bucket",
                manifest_key(version)
            )));
        }
        Some(_) => {
            parse(version, &bytes)?;
        }
        None => {
            parse(version, &bytes)?;
            remember(ctx, version, &digest).await?;
        }
    }
    if kept.is_none() {
        // Somebody else's is seen by its digest when it is read.
        store.create(&manifest_key(version), bytes).await?;
    }
    Ok(Components {
        version: version.clone(),
        digest,
    })
}

/// The manifest, as it is applied.
pub(super) async fn manifest(
    ctx: &Ctx,
    flux: &Flux,
    components: &Components,
) -> Result<Manifest, JobError> {
    let key = manifest_key(&flux.version);
    let bytes = match ctx.store().get_small(&key, LARGEST).await? {
        Small::Body(bytes) => bytes,
        Small::Absent => return Err(JobError::fatal(format!("`{key}` is gone from the bucket"))),
        Small::TooLarge(size) => return Err(too_large(&key, size)),
    };
    let digest = jobs::digest(&bytes);
    if digest != components.digest {
        return Err(JobError::needs_approval(format!(
            "`{key}` in the bucket was changed while it was applied: it was sha256:{}, and is sha256:{digest}",
            components.digest
        )));
    }
    let mut manifest = parse(&flux.version, &bytes)?;
    tune(&mut manifest);
    Ok(manifest)
}

/// The images of each of its controllers.
pub(super) fn controllers(manifest: &Manifest) -> BTreeMap<String, Vec<String>> {
    let deployments = manifest.rest.iter().filter(|it| it.kind == "Deployment");
    deployments
        .map(|it| {
            let images = pods::images(&it.body).into_iter().map(str::to_owned);
            (it.name.clone(), images.collect())
        })
        .collect()
}

fn manifest_key(version: &str) -> String {
    keys::artifact(&format!("flux/{version}/install.yaml"))
}

fn digest_key(version: &str) -> String {
    keys::artifact(&format!("flux/{version}/sha256"))
}

fn too_large(key: &str, size: u64) -> JobError {
    JobError::fatal(format!(
        "`{key}` has {size} bytes: it is no manifest of Flux"
    ))
}

/// Keeps the digest of the first use, for ever.
async fn remember(ctx: &Ctx, version: &str, digest: &str) -> Result<(), JobError> {
    let key = digest_key(version);
    let ours = Bytes::from(digest.to_owned());
    match ctx.store().create(&key, ours.clone()).await? {
        Created::New => Ok(()),
        Created::Exists(there) if there == ours => Ok(()),
        Created::Exists(there) => Err(JobError::needs_approval(format!(
            "install.yaml of Flux {version} has the digest sha256:{digest}, and when it was first used it was sha256:{}: somebody has changed it. If that is right, say so by `flux.digest` of the spec",
            String::from_utf8_lossy(&there).trim()
        ))),
    }
}

/// Reads a manifest, and sees that it is Flux of that version.
fn parse(version: &str, bytes: &[u8]) -> Result<Manifest, JobError> {
    let wrong =
        |reason: String| JobError::fatal(format!("install.yaml of Flux {version}: {reason}"));
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not text".into()))?;
    let manifest = Manifest::parse(text, &format!("install.yaml of Flux {version}"))?;
    let all = || manifest.foundation.iter().chain(&manifest.rest);
    for (kind, name) in PARTS {
        if !all().any(|it| it.kind == kind && it.name == name) {
            return Err(wrong(format!("it has no {kind} {name}")));
        }
    }
    let of = |it: &crate::kube::Object| {
        let label = &it.body["metadata"]["labels"]["app.kubernetes.io/version"];
        label.as_str().map(str::to_owned)
    };
    let other = all()
        .filter_map(of)
        .find(|label| label.trim_start_matches('v') != version);
    match other {
        Some(other) => Err(wrong(format!("it is that of {other}"))),
        None => Ok(manifest),
    }
}

/// Lets the busy controllers work on more objects at a time. Nothing else of the manifest is changed.
fn tune(manifest: &mut Manifest) {
    let busy = |name: &str| BUSY.contains(&name);
    let deployments = manifest.rest.iter_mut();
    for deployment in deployments.filter(|it| it.kind == "Deployment" && busy(&it.name)) {
        let containers = deployment
            .body
            .pointer_mut("/spec/template/spec/containers")
            .and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if container["name"] != "manager" {
                continue;
            }
            if container["args"].is_null() {
                container["args"] = Value::Array(Vec::new());
            }
            if let Some(args) = container["args"].as_array_mut() {
                let other = |arg: &Value| {
                    let arg = arg.as_str().unwrap_or_default();
                    !arg.starts_with("--concurrent=")
                };
                args.retain(other);
                args.push(CONCURRENT.into());
            }
        }
    }
}

/// Downloads the manifest of a version.
async fn download(releases: &str, version: &str) -> Result<Bytes, JobError> {
    let url = format!("{releases}/v{version}/install.yaml");
    let failed = |error: reqwest::Error| {
        JobError::retry(error).while_doing(format!(
            "download {url} (without a way there, put the file at `{}` in the bucket)",
            manifest_key(version)
        ))
    };
    let client = reqwest::Client::builder().timeout(TIMEOUT);
    let client = client.build().map_err(JobError::fatal)?;
    let mut answer = client.get(&url).send().await.map_err(failed)?;
    match answer.status().as_u16() {
        200 => {}
        404 => {
            let text = format!("there is no {url}: is `flux.version` right?");
            return Err(JobError::fatal(text));
        }
        status => return Err(JobError::retry(format!("GET {url}: status {status}"))),
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > LARGEST {
            return Err(too_large(&url, bytes.len() as u64));
        }
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use serde_json::json;

    use super::*;
    use crate::engine::Again;

    fn install(version: &str) -> String {
        let definition = |name: &str| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": name, "labels": {"app.kubernetes.io/version": version}}})
        };
        let deployment = |name: &str| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "flux-system"},
                "spec": {"template": {"spec": {"containers": [{"name": "manager", "image": format!("ghcr.io/fluxcd/{name}:v1"),
                    "args": ["--log-level=info", "--concurrent=4"]}]}}}})
        };
        let all = [
            definition(PARTS[0].1),
            definition(PARTS[1].1),
            deployment("source-controller"),
            deployment("kustomize-controller"),
            deployment("helm-controller"),
        ];
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        all.join("\n---\n")
    }

    #[test]
    fn the_busy_controllers_and_no_others_work_on_more_at_a_time() {
        let mut manifest = parse("2.7.5", install("v2.7.5").as_bytes()).unwrap();
        let before = manifest.clone();
        tune(&mut manifest);
        let args = |manifest: &Manifest, name: &str| {
            let found = manifest.rest.iter().find(|it| it.name == name).unwrap();
            found.body["spec"]["template"]["spec"]["containers"][0]["args"].clone()
        };
        for name in BUSY {
            assert_eq!(
                args(&manifest, name),
                json!(["--log-level=info", "--concurrent=10"])
            );
        }
        let other = "source-controller";
        assert_eq!(args(&manifest, other), args(&before, other));
        let once = manifest.clone();
        tune(&mut manifest);
        assert_eq!(manifest, once);
        assert_eq!(manifest.foundation, before.foundation);
        assert_eq!(
            controllers(&manifest)["helm-controller"],
            ["ghcr.io/fluxcd/helm-controller:v1"]
        );
        // A container without arguments gets them.
        let bare =
            install("v2.7.5").replace(r#""args":["--log-level=info","--concurrent=4"],"#, "");
        let mut manifest = parse("2.7.5", bare.as_bytes()).unwrap();
        tune(&mut manifest);
        assert_eq!(args(&manifest, BUSY[0]), json!(["--concurrent=10"]));
    }

    #[test]
    fn a_manifest_is_that_of_flux_and_of_its_version() {
        let check = |version: &str, text: &str, expected: &str| {
            let error = parse(version, text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("2.8.0", &install("v2.7.5"), "that of v2.7.5");
        check("2.7.5", "<html>", "no usable `apiVersion`");
        check("2.7.5", "", "no CustomResourceDefinition kustomizations");
        let less = install("v2.7.5").replace("helm-controller", "other-controller");
        check("2.7.5", &less, "no Deployment helm-controller");
    }

    async fn server() -> String {
        let large = || async { vec![b'#'; LARGEST as usize + 1] };
        let routes = Router::new()
            .route("/v1.0.0/install.yaml", get(|| async { "kind: List" }))
            .route("/v2.0.0/install.yaml", get(large))
            .route(
                "/v3.0.0/install.yaml",
                get(|| async { (StatusCode::BAD_GATEWAY, "later") }),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{at}")
    }

    #[tokio::test]
    async fn a_manifest_is_downloaded_unless_it_is_not_there_or_too_large() {
        crate::install_crypto();
        let releases = server().await;
        assert_eq!(download(&releases, "1.0.0").await.unwrap(), "kind: List");
        let error = download(&releases, "2.0.0").await.unwrap_err();
        assert_eq!(error.again, Again::Fatal);
        let error = download(&releases, "3.0.0").await.unwrap_err();
        assert_eq!(error.again, Again::Retry { after: None });
        let error = download(&releases, "4.0.0").await.unwrap_err();
        assert!(error.to_string().contains("flux.version"), "{error}");
    }
}
