//! Flux' own components: one manifest a version, by its digest, kept in the bucket.

use std::collections::BTreeMap;

use jobs::spec::Flux;
use serde_json::Value;

use crate::engine::{Ctx, JobError};
use crate::kube::{Manifest, pods};
use crate::pinned::{Pinned, Release};

/// Where releases are.
const RELEASES: &str = "https://github.com/fluxcd/flux2/releases/download";
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

/// Makes sure that the manifest is in the bucket, and is the one that it should be.
pub(super) async fn fetch(ctx: &Ctx, flux: &Flux) -> Result<Pinned, JobError> {
    let url = url(&flux.version);
    let check = |bytes: &[u8]| parse(&flux.version, bytes).map(drop);
    release(flux, &url).fetch(ctx.store(), check).await
}

/// The manifest, as it is applied.
pub(super) async fn manifest(
    ctx: &Ctx,
    flux: &Flux,
    components: &Pinned,
) -> Result<Manifest, JobError> {
    let url = url(&flux.version);
    let bytes = release(flux, &url).read(ctx.store(), components).await?;
    let mut manifest = parse(&flux.version, &bytes)?;
    tune(&mut manifest);
    Ok(manifest)
}

fn url(version: &str) -> String {
    format!("{RELEASES}/v{version}/install.yaml")
}

fn release<'a>(flux: &'a Flux, url: &'a str) -> Release<'a> {
    Release {
        name: "Flux",
        folder: "flux",
        version: &flux.version,
        file: "install.yaml",
        url,
        digest: flux.digits(),
        version_field: "flux.version",
        digest_field: "flux.digest",
    }
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

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
}
