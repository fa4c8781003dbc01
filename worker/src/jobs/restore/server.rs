//! Where the database answers, and as whom we ask: from the objects that the operator makes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jobs::spec::Database;
use jobs::store::Secret;
use serde_json::Value;

use super::link::{self, get};
use crate::engine::{Ctx, JobError, Poll};
use crate::kube::Objects;
use crate::postgres::Server;

/// Finds the server; what is missing may still come.
pub(super) async fn find(
    ctx: &Ctx,
    objects: &Objects,
    database: &Database,
) -> Result<Poll<Server>, JobError> {
    let (namespace, cluster) = (&database.namespace, &database.cluster);
    let missing = |kind: &str, name: &str, why: &str| {
        Ok(Poll::Pending(format!(
            "there is no {kind} {namespace}/{name}{why}"
        )))
    };

    // The first one leads to the second one, and has no address of its own in all versions.
    let (primary, leader) = (format!("{cluster}-primary"), format!("{cluster}-ha"));
    let mut address = None;
    for name in [&primary, &leader] {
        let service = get(objects, ("v1", "Service"), namespace, name).await?;
        address = address.or_else(|| service.as_ref().and_then(place));
    }
    let Some(address) = address else {
        return missing("Service", &leader, " with an address");
    };

    let name = format!("{cluster}-cluster-cert");
    let certificate = get(objects, ("v1", "Secret"), namespace, &name).await?;
    let Some(authority) = certificate.as_ref().and_then(|it| decoded(it, "ca.crt")) else {
        return missing("Secret", &name, " with a `ca.crt`");
    };

    let object = link::database(objects, database).await?;
    let name = user_secret(object.as_ref(), cluster.as_str(), &database.user);
    let secret = get(objects, ("v1", "Secret"), namespace, &name).await?;
    let password = secret.as_ref().and_then(|it| decoded(it, "password"));
    let Some(password) = password.and_then(|bytes| String::from_utf8(bytes).ok()) else {
        let why = format!(
            " with a `password`: database.user of the spec, `{}`, must be one of the cluster's users",
            database.user
        );
        return missing("Secret", &name, &why);
    };

    let server = Server::new(
        ctx.world().masters_of(ctx).await?,
        address,
        format!("{primary}.{namespace}.svc"),
        &authority,
        (database.user.clone(), Secret::new(password)),
    )?;
    Ok(Poll::Ready(server))
}

/// The address and port of a Service, if it has one.
fn place(service: &Value) -> Option<(String, u16)> {
    let ip = service["spec"]["clusterIP"].as_str()?;
    if ip.is_empty() || ip == "None" {
        return None;
    }
    let ports = service["spec"]["ports"].as_array()?;
    let named = ports.iter().find(|port| port["name"] == "postgres");
    let port = named.or_else(|| ports.first())?["port"].as_u64()?;
    Some((ip.to_owned(), u16::try_from(port).ok()?))
}

/// The Secret with a user's password: the one that the cluster names, else the operator's own.
fn user_secret(object: Option<&Value>, cluster: &str, user: &str) -> String {
    let users = object.and_then(|object| object["spec"]["users"].as_array());
    let named = users.into_iter().flatten().find(|it| it["name"] == user);
    let secret = named.and_then(|it| it["secretName"].as_str());
    secret
        .filter(|name| !name.is_empty())
        .map_or_else(|| format!("{cluster}-pguser-{user}"), str::to_owned)
}

fn decoded(secret: &Value, key: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(secret["data"][key].as_str()?).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_without_an_address_is_passed_over() {
        let of = |ip: &str| {
            let ports =
                json!([{"name": "metrics", "port": 9187}, {"name": "postgres", "port": 5432}]);
            place(&json!({"spec": {"clusterIP": ip, "ports": ports}}))
        };
        assert_eq!(of("10.96.0.7"), Some(("10.96.0.7".into(), 5432)));
        assert_eq!(of("None"), None);
        assert_eq!(of(""), None);
        assert_eq!(place(&json!({"spec": {}})), None);
    }

    #[test]
    fn a_users_secret_is_the_one_that_the_cluster_names() {
        let object = json!({"spec": {"users": [
            {"name": "slr"}, {"name": "postgres", "secretName": "pg-db-credentials-postgres"},
        ]}});
        let of = |object, user| user_secret(object, "pg-db", user);
        assert_eq!(of(Some(&object), "postgres"), "pg-db-credentials-postgres");
        assert_eq!(of(Some(&object), "slr"), "pg-db-pguser-slr");
        assert_eq!(of(None, "postgres"), "pg-db-pguser-postgres");
    }

    #[test]
    fn an_empty_or_broken_key_is_none() {
        let secret = json!({"data": {"a": "aGk=", "b": "", "c": "%"}});
        assert_eq!(decoded(&secret, "a"), Some(b"hi".to_vec()));
        for key in ["b", "c", "d"] {
            assert_eq!(decoded(&secret, key), None, "{key}");
        }
    }
}
