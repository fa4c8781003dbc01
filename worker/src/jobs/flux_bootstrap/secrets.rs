//! The Secrets that Flux reads first, from the recovery's sealed ones. What each is for says `flux/README.md`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jobs::secrets::Secrets;
use jobs::spec::ClusterSpec;
use serde_json::json;

use super::NAMESPACE;
use crate::kube::{Manifest, Object};
use crate::switch::WATCH;

/// The key that the bucket's files are encrypted to.
pub(super) const AGE_KEY: &str = "SOPS_AGE_KEY";
/// Who we are at the bucket.
pub(super) const ACCESS_KEY: &str = "CLUSTER_S3_ACCESS_KEY";
/// And how we show it.
pub(super) const SECRET_KEY: &str = "CLUSTER_S3_SECRET_KEY";
/// Reads the repository.
const TOKEN: &str = "GITHUB_TOKEN";
/// Let's Encrypt's accounts.
const ACME_EMAIL: &str = "ACME_EMAIL";
/// Names and certificates.
const DOMAIN: &str = "DOMAIN";

/// The secrets that are needed and were not given, each with its reason.
pub(super) fn missing(spec: &ClusterSpec, bootstrap: &Manifest, given: &Secrets) -> Vec<String> {
    let mut needed = vec![
        (
            AGE_KEY,
            "Flux decrypts the bucket's files with it".to_owned(),
        ),
        (
            ACCESS_KEY,
            "it reads the bucket of `flux.secrets`".to_owned(),
        ),
        (
            SECRET_KEY,
            "it reads the bucket of `flux.secrets`".to_owned(),
        ),
    ];
    let all = || bootstrap.foundation.iter().chain(&bootstrap.rest);
    let with_token = all().find(|it| {
        it.kind == "GitRepository" && it.body["spec"]["secretRef"]["name"] == "flux-system"
    });
    if let Some(repository) = with_token {
        needed.push((
            TOKEN,
            format!("{repository} is read with Secret flux-system"),
        ));
    }
    let url = |it: &&jobs::spec::Application| {
        it.url
            .as_deref()
            .is_some_and(|url| url.contains("${DOMAIN}"))
    };
    if let Some(application) = spec.applications.iter().find(url) {
        let name = &application.name;
        needed.push((DOMAIN, format!("the url of application {name} has it")));
    } else if !spec.certificates.is_empty() {
        needed.push((DOMAIN, "the spec has `certificates`".to_owned()));
    }
    if !spec.certificates.is_empty() {
        needed.push((ACME_EMAIL, "the spec has `certificates`".to_owned()));
    }
    let lacks = |(name, _): &(&str, String)| given.get(name).is_none();
    let missing = needed.into_iter().filter(lacks);
    missing
        .map(|(name, why)| format!("this recovery was given no secret {name}, and {why}: start one with --secret {name}"))
        .collect()
}

/// The Secrets of those that were given.
pub(super) fn objects(given: &Secrets) -> Vec<Object> {
    // A newline at the end of a file is not part of a token.
    let text = |name: &str| given.get(name).map(|it| it.reveal().trim().to_owned());
    let git = text(TOKEN).map(|token| vec![("username", "git".to_owned()), ("password", token)]);
    let s3 = text(ACCESS_KEY)
        .zip(text(SECRET_KEY))
        .map(|(access, secret)| vec![("accesskey", access), ("secretkey", secret)]);
    let one = |name: &str, key: &'static str| text(name).map(|value| vec![(key, value)]);
    let all = [
        ("flux-system", git),
        ("s3-sops", s3),
        ("sops-age", one(AGE_KEY, "age.agekey")),
        ("cert-manager-acme-email", one(ACME_EMAIL, "ACME_EMAIL")),
        ("cluster-domain", one(DOMAIN, "DOMAIN")),
    ];
    let made = all
        .into_iter()
        .filter_map(|(name, keys)| Some((name, keys?)));
    made.map(|(name, keys)| secret(name, &keys)).collect()
}

fn secret(name: &str, keys: &[(&str, String)]) -> Object {
    let (label, enabled) = WATCH;
    let mut secret = Object::at("v1", "Secret", Some(NAMESPACE), name);
    secret.body["type"] = "Opaque".into();
    secret.body["metadata"]["labels"] = json!({ label: enabled });
    for (key, value) in keys {
        secret.body["data"][*key] = BASE64_STANDARD.encode(value).into();
    }
    secret
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use jobs::store::Secret;

    use super::*;

    fn given(names: &[&str]) -> Secrets {
        let mut secrets = Secrets::default();
        for name in names {
            secrets
                .add(name, Secret::new(format!("of {name}\n")))
                .unwrap();
        }
        secrets
    }

    fn spec() -> ClusterSpec {
        ClusterSpec::parse(include_str!("../../../../deploy/examples/cluster.yaml")).unwrap()
    }

    const ALWAYS: [&str; 3] = [AGE_KEY, ACCESS_KEY, SECRET_KEY];

    #[test]
    fn what_is_needed_and_not_given_is_named() {
        let none = Manifest::default();
        assert_eq!(
            missing(&spec(), &none, &given(&ALWAYS)),
            Vec::<String>::new()
        );
        let text = missing(&spec(), &none, &given(&[AGE_KEY])).join("; ");
        assert!(
            text.contains(ACCESS_KEY) && text.contains(SECRET_KEY),
            "{text}"
        );
        assert!(!text.contains(AGE_KEY), "{text}");

        let mut spec = spec();
        spec.certificates = vec!["istio-system/slr".parse().unwrap()];
        let text = missing(&spec, &none, &given(&ALWAYS)).join("; ");
        assert!(text.contains(ACME_EMAIL) && text.contains(DOMAIN), "{text}");

        let repository = |secret: &str| {
            let yaml = format!(
                "{{apiVersion: source.toolkit.fluxcd.io/v1, kind: GitRepository, metadata: {{name: flux-system, namespace: flux-system}}, spec: {{{secret}}}}}"
            );
            Manifest::parse(&yaml, "test").unwrap()
        };
        let private = repository("secretRef: {name: flux-system}");
        let spec = self::spec();
        assert!(missing(&spec, &private, &given(&ALWAYS))[0].contains(TOKEN));
        assert!(missing(&spec, &repository(""), &given(&ALWAYS)).is_empty());
        let all = [ALWAYS[0], ALWAYS[1], ALWAYS[2], TOKEN];
        assert!(missing(&spec, &private, &given(&all)).is_empty());
    }

    #[test]
    fn the_secrets_are_those_of_the_table() {
        let all = [AGE_KEY, ACCESS_KEY, SECRET_KEY, TOKEN, ACME_EMAIL, DOMAIN];
        let made = objects(&given(&all));
        let table: Vec<(String, Vec<String>)> = made
            .iter()
            .map(|it| {
                let keys = it.body["data"].as_object().unwrap().keys().cloned();
                (it.name.clone(), keys.collect())
            })
            .collect();
        let row = |name: &str, keys: &[&str]| {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            (name.to_owned(), keys)
        };
        assert_eq!(
            table,
            [
                row("flux-system", &["password", "username"]),
                row("s3-sops", &["accesskey", "secretkey"]),
                row("sops-age", &["age.agekey"]),
                row("cert-manager-acme-email", &["ACME_EMAIL"]),
                row("cluster-domain", &["DOMAIN"]),
            ]
        );
        assert!(
            made.iter()
                .all(|it| it.namespace.as_deref() == Some("flux-system"))
        );
        let password = made[0].body["data"]["password"].as_str().unwrap();
        assert_eq!(
            BASE64_STANDARD.decode(password).unwrap(),
            b"of GITHUB_TOKEN"
        );
        // Without a token there is no Secret without a password.
        let less = objects(&given(&ALWAYS));
        let names: Vec<&str> = less.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["s3-sops", "sops-age"]);
    }
}
