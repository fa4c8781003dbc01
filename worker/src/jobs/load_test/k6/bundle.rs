//! The manifest of k6-operator: pinned by its version and digest, with the images that belong to it.
//!
//! The bundle of a release may still name the image of the one before (that of 1.2.0 names 1.1.1), so the
//! controller's image is always set: to that of the spec, or to the one that the version is released with.

use jobs::spec::K6;
use serde_json::Value;

use super::objects::{Marks, OPERATOR};
use crate::engine::{Ctx, JobError};
use crate::kube::{Manifest, Object};
use crate::pinned::{Pinned, Release};

/// Where releases are, by their tags.
const RELEASES: &str = "https://raw.githubusercontent.com/grafana/k6-operator";
/// Where images are.
const IMAGES: &str = "ghcr.io/grafana/k6-operator";
/// What defines a TestRun.
pub(super) const DEFINITION: &str = "testruns.k6.io";
/// The container of the controller's Deployment that is the controller.
const MANAGER: &str = "manager";

/// Makes sure that the bundle is in the bucket, and is the one that it should be.
pub(super) async fn fetch(ctx: &Ctx, k6: &K6) -> Result<Pinned, JobError> {
    let url = url(&k6.operator);
    let check = |bytes: &[u8]| parse(k6, bytes).map(drop);
    release(k6, &url).fetch(ctx.store(), check).await
}

/// The bundle as it is applied: with its images, and with our marks on each object.
pub(super) async fn manifest(ctx: &Ctx, k6: &K6, pinned: &Pinned) -> Result<Manifest, JobError> {
    let url = url(&k6.operator);
    let bytes = release(k6, &url).read(ctx.store(), pinned).await?;
    let mut manifest = parse(k6, &bytes)?;
    let marks = Marks::of(ctx);
    for object in manifest.foundation.iter_mut().chain(&mut manifest.rest) {
        marks.put_on(&mut object.body, OPERATOR);
    }
    Ok(manifest)
}

/// The controller's Deployment.
pub(super) fn controller(manifest: &Manifest) -> Option<&Object> {
    manifest.rest.iter().find(|it| is_controller(it))
}

/// The image of the starter.
pub(super) fn starter(k6: &K6) -> String {
    let ours = || format!("{IMAGES}:starter-v{}", k6.operator);
    k6.starter.as_ref().map_or_else(ours, ToString::to_string)
}

fn url(version: &str) -> String {
    format!("{RELEASES}/v{version}/bundle.yaml")
}

fn release<'a>(k6: &'a K6, url: &'a str) -> Release<'a> {
    Release {
        name: "k6-operator",
        folder: "k6-operator",
        version: &k6.operator,
        file: "bundle.yaml",
        url,
        digest: k6.digest.as_deref().map(digits),
        version_field: "load_test.k6.operator",
        digest_field: "load_test.k6.digest",
    }
}

fn digits(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Reads a bundle, sees that it is one of k6-operator, and sets the controller's image.
fn parse(k6: &K6, bytes: &[u8]) -> Result<Manifest, JobError> {
    let name = format!("bundle.yaml of k6-operator {}", k6.operator);
    let wrong = |reason: &str| JobError::fatal(format!("{name}: {reason}"));
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not text"))?;
    let mut manifest = Manifest::parse(text, &name)?;
    let definition = manifest.definitions().find(|it| it.name == DEFINITION);
    let definition = definition
        .ok_or_else(|| wrong(&format!("it has no CustomResourceDefinition {DEFINITION}")))?;
    if !serves(&definition.body) {
        return Err(wrong("its TestRun is not that of k6.io/v1alpha1"));
    }
    let image = match &k6.controller {
        Some(image) => image.to_string(),
        None => format!("{IMAGES}:controller-v{}", k6.operator),
    };
    let mut controllers = manifest.rest.iter_mut().filter(|it| is_controller(it));
    let (Some(deployment), None) = (controllers.next(), controllers.next()) else {
        return Err(wrong(
            "it has not one Deployment with a container `manager`",
        ));
    };
    for container in containers(&mut deployment.body) {
        if container["name"] == MANAGER {
            container["image"] = image.as_str().into();
        }
    }
    Ok(manifest)
}

/// A definition serves the TestRun that we write.
pub(super) fn serves(definition: &Value) -> bool {
    let spec = &definition["spec"];
    let mut versions = spec["versions"].as_array().into_iter().flatten();
    spec["group"] == "k6.io"
        && spec["names"]["kind"] == "TestRun"
        && versions.any(|it| it["name"] == "v1alpha1" && it["served"] == true)
}

fn is_controller(object: &Object) -> bool {
    let containers = object.body["spec"]["template"]["spec"]["containers"].as_array();
    let mut containers = containers.into_iter().flatten();
    object.kind == "Deployment" && containers.any(|it| it["name"] == MANAGER)
}

fn containers(deployment: &mut Value) -> impl Iterator<Item = &mut Value> {
    let containers = deployment.pointer_mut("/spec/template/spec/containers");
    let containers = containers.and_then(Value::as_array_mut);
    containers.into_iter().flatten()
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::kube::pods;

    /// k6 as the example has it.
    pub(in crate::jobs::load_test::k6) fn k6() -> K6 {
        serde_json::from_value(json!({"operator": "1.6.0", "image": "docker.io/grafana/k6:2.2.0"}))
            .unwrap()
    }

    /// A bundle like the one of 1.2.0: the image is that of the release before.
    fn text() -> String {
        let all = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "k6-operator-system",
                "labels": {"control-plane": "controller-manager"}}}),
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": DEFINITION}, "spec": {"group": "k6.io", "names": {"kind": "TestRun"},
                "versions": [{"name": "v1alpha1", "served": true, "storage": true}]}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": "k6-operator-controller", "namespace": "k6-operator-system"}}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "k6-operator-controller-manager", "namespace": "k6-operator-system"},
                "spec": {"template": {"spec": {"containers": [
                    {"name": "kube-rbac-proxy", "image": "quay.io/brancz/kube-rbac-proxy:v0.19.1"},
                    {"name": "manager", "image": "ghcr.io/grafana/k6-operator:controller-v1.5.0"}]}}}}),
        ];
        all.map(|it| it.to_string()).join("\n---\n")
    }

    fn images(k6: &K6) -> Vec<String> {
        let manifest = parse(k6, text().as_bytes()).unwrap();
        let deployment = controller(&manifest).unwrap();
        let images = pods::images(&deployment.body).into_iter();
        images.map(str::to_owned).collect()
    }

    #[test]
    fn the_controllers_image_is_that_of_its_version_whatever_the_bundle_says() {
        let mut k6 = k6();
        let proxy = "quay.io/brancz/kube-rbac-proxy:v0.19.1";
        let ours = "ghcr.io/grafana/k6-operator:controller-v1.6.0";
        assert_eq!(images(&k6), [proxy, ours]);
        assert_eq!(starter(&k6), "ghcr.io/grafana/k6-operator:starter-v1.6.0");
        k6.controller = Some("harbor.example.org/k6/controller:1".parse().unwrap());
        k6.starter = Some("harbor.example.org/k6/starter:1".parse().unwrap());
        assert_eq!(images(&k6), [proxy, "harbor.example.org/k6/controller:1"]);
        assert_eq!(starter(&k6), "harbor.example.org/k6/starter:1");
    }

    #[test]
    fn a_bundle_is_one_of_k6_operator() {
        let check = |text: &str, expected: &str| {
            let error = parse(&k6(), text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("", "no CustomResourceDefinition testruns.k6.io");
        check("<html>", "no usable `apiVersion`");
        check(&text().replace("v1alpha1", "v1beta1"), "k6.io/v1alpha1");
        check(
            &text().replace(r#""served":true"#, r#""served":false"#),
            "k6.io/v1alpha1",
        );
        check(&text().replace(r#""manager""#, r#""other""#), "`manager`");
    }

    #[test]
    fn a_bundle_has_its_place_and_its_digest() {
        let mut k6 = k6();
        k6.digest = Some(format!("sha256:{}", "0a".repeat(32)));
        let url = url(&k6.operator);
        let release = release(&k6, &url);
        assert_eq!(
            release.url,
            "https://raw.githubusercontent.com/grafana/k6-operator/v1.6.0/bundle.yaml"
        );
        assert_eq!(release.digest, Some("0a".repeat(32).as_str()));
    }
}
