//! Secret: writes keys of a Kubernetes Secret from the recovery's sealed secrets. Other keys stay.
//!
//! Server-side apply takes a key away when the manager that applied it does so no longer. So each set of keys has a
//! manager of its own: writing the same keys again is the same, and writing others never takes these away.
//!
//! The values are compared in the worker's memory. No digest of them is recorded: that of a short password gives
//! it away.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jobs::message::PutSecret;
use jobs::secrets::Secrets;
use serde_json::{Value, json};

use super::switch::patience;
use crate::engine::{Ctx, JobError, Proof, Proven};
use crate::kube::{Force, Object};
use crate::{sealed, switch};

/// The step names.
pub const STEPS: &[&str] = &["namespace", "before", "write", "prove"];

/// Flux makes namespaces within minutes.
const NAMESPACE: Duration = Duration::from_secs(15 * 60);
/// What the names of our managers begin with. Never changed.
const MANAGER: &str = "rekindle-secret";

/// Writes the keys, and proves that the Secret has them.
pub async fn run(ctx: &Ctx, job: &PutSecret) -> Result<Proven, JobError> {
    check(job).map_err(JobError::fatal)?;
    let objects = ctx.world().kube(ctx).await?;
    let namespace = &job.secret.namespace;
    ctx.wait("namespace", patience(ctx, NAMESPACE), || {
        switch::namespace(&objects, namespace)
    })
    .await?;
    let place = at(job);
    // Which keys there were, for whoever asks later what this job changed.
    let _: Vec<String> = ctx
        .step("before", || async {
            let found = objects.get(&place).await?;
            Ok::<_, JobError>(found.map_or_else(Vec::new, |found| keys_of(&found)))
        })
        .await?;
    ctx.step("write", || async {
        let wanted = wanted(job, &sealed::secrets(ctx).await?)?;
        let mut object = place.clone();
        object.body["data"] = json!(wanted);
        objects
            .apply_as(&manager(job), &object, Force::Ours)
            .await
            .map(|_| ())
            .map_err(JobError::from)
    })
    .await?;
    ctx.prove("secret", || async {
        let wanted = wanted(job, &sealed::secrets(ctx).await?)?;
        let found = objects.get(&place).await?;
        Ok::<_, JobError>(compare(&wanted, found.as_ref()))
    })
    .await
}

/// What of the message cannot be right.
fn check(job: &PutSecret) -> Result<(), String> {
    if job.keys.is_empty() {
        return Err(format!("no key of Secret {} is given", job.secret));
    }
    let fits = |key: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        (1..=253).contains(&key.len()) && key.bytes().all(plain) && key != "." && key != ".."
    };
    match job.keys.keys().find(|key| !fits(key)) {
        Some(bad) => Err(format!(
            "`{bad:.80}` is no key of a Secret: letters, digits, `-`, `_` and `.`"
        )),
        None => Ok(()),
    }
}

fn at(job: &PutSecret) -> Object {
    let (namespace, name) = (job.secret.namespace.as_str(), job.secret.name.as_str());
    Object::at("v1", "Secret", Some(namespace), name)
}

/// The manager of this set of keys.
fn manager(job: &PutSecret) -> String {
    let keys: Vec<&str> = job.keys.keys().map(String::as_str).collect();
    let digest = jobs::digest(keys.join("\n").as_bytes());
    format!("{MANAGER}-{}", &digest[..16])
}

/// The keys with their values in base64.
fn wanted(job: &PutSecret, secrets: &Secrets) -> Result<BTreeMap<String, String>, JobError> {
    let mut data = BTreeMap::new();
    for (key, name) in &job.keys {
        let value = sealed::need(secrets, name)?;
        data.insert(key.clone(), BASE64_STANDARD.encode(value.reveal()));
    }
    Ok(data)
}

fn keys_of(secret: &Value) -> Vec<String> {
    let data = secret["data"].as_object().into_iter().flatten();
    data.map(|(key, _)| key.clone()).collect()
}

/// What the Secret has of it, in words.
fn compare(wanted: &BTreeMap<String, String>, found: Option<&Value>) -> Proof {
    let stands = |key: &String, value: &String| {
        let there = found.and_then(|found| found["data"].get(key)?.as_str());
        match there {
            None => "absent",
            Some(there)
                if BASE64_STANDARD.decode(there).ok() == BASE64_STANDARD.decode(value).ok() =>
            {
                "as sealed"
            }
            Some(_) => "other",
        }
    };
    let expected: BTreeMap<_, _> = wanted.keys().map(|key| (key, "as sealed")).collect();
    let observed: BTreeMap<_, _> = wanted
        .iter()
        .map(|(key, value)| (key, stands(key, value)))
        .collect();
    Proof::equal(&expected, &observed)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use jobs::store::Secret;

    use super::*;

    fn job(keys: &[(&str, &str)]) -> PutSecret {
        let own = |(key, name): &(&str, &str)| ((*key).to_owned(), (*name).to_owned());
        PutSecret {
            secret: "pg/keys".parse().unwrap(),
            keys: keys.iter().map(own).collect(),
        }
    }

    #[test]
    fn each_set_of_keys_has_a_manager_of_its_own() {
        let one = manager(&job(&[("a", "X"), ("b", "Y")]));
        assert_eq!(
            one,
            manager(&job(&[("b", "Z"), ("a", "Y")])),
            "whatever their values are"
        );
        assert_ne!(one, manager(&job(&[("a", "X")])));
        assert!(
            one.starts_with("rekindle-secret-") && one.len() <= 128,
            "{one}"
        );
    }

    #[test]
    fn bad_keys_and_missing_secrets_are_named() {
        check(&job(&[("s3.conf", "X")])).unwrap();
        for bad in ["", "a/b", "ä", "..", "a b"] {
            check(&job(&[(bad, "X")])).unwrap_err();
        }
        assert!(check(&job(&[])).unwrap_err().contains("pg/keys"));
        let mut secrets = Secrets::default();
        secrets.add("X", Secret::new("hunter2")).unwrap();
        let error = wanted(&job(&[("a", "X"), ("b", "GONE")]), &secrets).unwrap_err();
        assert!(error.to_string().contains("GONE"), "{error}");
        let data = wanted(&job(&[("a", "X")]), &secrets).unwrap();
        assert_eq!(data["a"], "aHVudGVyMg==");
    }

    #[test]
    fn the_proof_compares_values_and_shows_none() {
        let mut secrets = Secrets::default();
        secrets.add("X", Secret::new("hunter2")).unwrap();
        let wanted = wanted(&job(&[("a", "X"), ("b", "X")]), &secrets).unwrap();
        let check = |found: Option<Value>, a: &str, b: &str| {
            let proof = compare(&wanted, found.as_ref());
            assert_eq!(proof.observed, json!({"a": a, "b": b}));
            assert_eq!(proof.holds, a == "as sealed" && b == "as sealed");
            let shown = format!("{proof:?}");
            assert!(
                !shown.contains("hunter2") && !shown.contains("aHVud"),
                "{shown}"
            );
        };
        check(None, "absent", "absent");
        check(
            Some(json!({"data": {"a": "aHVudGVyMg==", "b": "aHVudGVyMw=="}})),
            "as sealed",
            "other",
        );
        check(
            Some(json!({"data": {"a": "aHVudGVyMg==", "b": "aHVudGVyMg==", "c": "eA=="}})),
            "as sealed",
            "as sealed",
        );
    }
}
