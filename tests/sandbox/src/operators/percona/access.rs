//! How people come to the database: its users' Secrets, its certificate, its Services.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::Inner;
use super::json::{owner, text, texts};
use super::{MANAGER, Percona, job};
use crate::ca::Signed;
use crate::operators::Tick;
use crate::postgres::{Content, Role};

const CHARACTERS: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789()*+,-./;<=>@[]^_{|}";

/// `primary` last: it points to `ha`.
const SERVICES: [&str; 4] = ["ha", "replicas", "pgbouncer", "primary"];

const YEAR: Duration = Duration::from_secs(365 * 86_400);

impl Percona {
    /// Makes what is missing, and gives the users their passwords: roles of a restored database that stand in no spec
    /// keep theirs.
    pub(super) async fn access(&mut self, tick: &Tick, inner: &Inner) -> anyhow::Result<()> {
        self.certificate(tick, inner).await?;
        self.services(tick, inner).await?;
        for (user, databases) in users(inner) {
            let password = self.user(tick, inner, &user, &databases).await?;
            let superuser = user == "postgres";
            self.settings.disks.with(&inner.disk(), |disk| {
                let Content::Data(data) = &mut disk.content else {
                    return;
                };
                let role = Role {
                    password: Some(password),
                    superuser,
                };
                data.roles.insert(user, role);
                for database in databases {
                    data.databases.entry(database).or_default();
                }
            });
        }
        Ok(())
    }

    /// The Secret of a user, under the name that the spec gives it; one that is there keeps its password.
    async fn user(
        &self,
        tick: &Tick,
        inner: &Inner,
        user: &str,
        databases: &[String],
    ) -> anyhow::Result<String> {
        let name = secret_of(inner, user);
        let there = tick
            .cluster
            .get("v1", "Secret", &inner.namespace, &name)
            .await?;
        let there = there.unwrap_or_default();
        let known = BASE64.decode(text(&there, "/data/password"))?;
        let letter = |_| char::from(CHARACTERS[rand::random_range(0..CHARACTERS.len())]);
        let password = match known.is_empty() {
            true => (0..24).map(letter).collect(),
            false => String::from_utf8(known)?,
        };
        if !text(&there, "/data/host").is_empty() {
            return Ok(password);
        }
        let host = format!("{}-primary.{}.svc", inner.name, inner.namespace);
        let bouncer = format!("{}-pgbouncer.{}.svc", inner.name, inner.namespace);
        let mut data = vec![
            ("host", host.clone()),
            ("port", "5432".to_owned()),
            ("user", user.to_owned()),
            ("password", password.clone()),
            ("pgbouncer-host", bouncer.clone()),
            ("pgbouncer-port", "5432".to_owned()),
        ];
        if let Some(database) = databases.first() {
            let uri = |host: &str| {
                format!(
                    "postgresql://{user}:{}@{host}:5432/{database}",
                    escaped(&password)
                )
            };
            data.extend([
                ("dbname", database.clone()),
                ("uri", uri(&host)),
                ("pgbouncer-uri", uri(&bouncer)),
            ]);
        }
        let data: Value = data
            .into_iter()
            .map(|(key, value)| (key, json!(BASE64.encode(value))))
            .collect();
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            // Nobody owns it: it outlives the cluster.
            "metadata": { "name": name, "namespace": inner.namespace,
                "labels": { format!("{}cluster", job::LABELS): inner.name, format!("{}role", job::LABELS): "pguser",
                    format!("{}pguser", job::LABELS): user } },
            "data": data,
        });
        tick.cluster.apply(MANAGER, &secret).await?;
        Ok(password)
    }

    /// The certificate that the databases of a cluster show.
    ///
    /// # Errors
    /// When a name is none.
    pub fn certificate_of(&mut self, namespace: &str, name: &str) -> anyhow::Result<Signed> {
        let disk = format!("{namespace}/{name}");
        if let Some(known) = self.certificates.get(&disk) {
            return Ok(known.clone());
        }
        let of = |service: &str| {
            let full = format!("{name}-{service}.{namespace}.svc");
            [
                format!("{full}.cluster.local"),
                full.clone(),
                full.trim_end_matches(".svc").to_owned(),
                format!("{name}-{service}"),
            ]
        };
        let names: Vec<String> = SERVICES.into_iter().flat_map(of).collect();
        let (from, to) = (Timestamp::now() - YEAR / 365, Timestamp::now() + YEAR);
        let signed = self.settings.ca.sign(&names, from, to)?;
        self.certificates.insert(disk, signed.clone());
        Ok(signed)
    }

    async fn certificate(&mut self, tick: &Tick, inner: &Inner) -> anyhow::Result<()> {
        let name = format!("{}-cluster-cert", inner.name);
        if tick
            .cluster
            .get("v1", "Secret", &inner.namespace, &name)
            .await?
            .is_some()
        {
            return Ok(());
        }
        let signed = self.certificate_of(&inner.namespace, &inner.name)?;
        let data = [
            ("ca.crt", self.settings.ca.pem()),
            ("tls.crt", signed.certificate),
            ("tls.key", signed.key),
        ];
        let data: Value = data
            .into_iter()
            .map(|(key, value)| (key, json!(BASE64.encode(value))))
            .collect();
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "data": data,
            "metadata": { "name": name, "namespace": inner.namespace, "ownerReferences": owner(&inner.object) } });
        tick.cluster.apply(MANAGER, &secret).await?;
        Ok(())
    }

    /// Takes away what belongs to the cluster; the Secrets of its users do not.
    pub(super) async fn close(&self, tick: &Tick, inner: &Inner) -> anyhow::Result<()> {
        let services = SERVICES.map(|service| format!("{}-{service}", inner.name));
        let of = |kind: &'static str| services.iter().map(move |name| (kind, name.clone()));
        let certificate = ("Secret", format!("{}-cluster-cert", inner.name));
        for (kind, name) in of("Service").chain(of("Endpoints")).chain([certificate]) {
            let metadata = json!({ "name": name, "namespace": inner.namespace });
            let object = json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata });
            tick.cluster.delete(&object).await?;
        }
        Ok(())
    }

    /// `-primary` has no address: its Endpoints name that of `-ha`.
    async fn services(&self, tick: &Tick, inner: &Inner) -> anyhow::Result<()> {
        let mut primary = String::new();
        for service in SERVICES {
            let name = format!("{}-{service}", inner.name);
            let given = self
                .settings
                .addresses
                .get(&format!("{}/{name}", inner.namespace));
            let address = match service {
                "primary" => Some("None"),
                _ => given.map(String::as_str),
            };
            let there = tick
                .cluster
                .get("v1", "Service", &inner.namespace, &name)
                .await?;
            let there = match there {
                Some(there) => there,
                None => {
                    let mut spec = json!({ "ports": [{ "name": "postgres", "port": 5432, "protocol": "TCP" }] });
                    if let Some(address) = address {
                        spec["clusterIP"] = json!(address);
                    }
                    let service = json!({ "apiVersion": "v1", "kind": "Service", "spec": spec,
                        "metadata": { "name": name, "namespace": inner.namespace, "ownerReferences": owner(&inner.object),
                            "labels": { format!("{}cluster", job::LABELS): inner.name } } });
                    tick.cluster.apply(MANAGER, &service).await?
                }
            };
            match service {
                "ha" => text(&there, "/spec/clusterIP").clone_into(&mut primary),
                "primary"
                    if tick
                        .cluster
                        .get("v1", "Endpoints", &inner.namespace, &name)
                        .await?
                        .is_none() =>
                {
                    let endpoints = json!({ "apiVersion": "v1", "kind": "Endpoints",
                        "metadata": { "name": name, "namespace": inner.namespace },
                        "subsets": [{ "addresses": [{ "ip": primary }], "ports": [{ "name": "postgres", "port": 5432 }] }] });
                    tick.cluster.apply(MANAGER, &endpoints).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The users of a spec with their databases; without any, one named as the cluster.
/// The name of a user's Secret.
fn secret_of(inner: &Inner, user: &str) -> String {
    let users = inner.object["spec"]["users"].as_array();
    let mut users = users.into_iter().flatten();
    let named = users.find(|one| one["name"] == user);
    match named.and_then(|one| one["secretName"].as_str()) {
        Some(name) => name.to_owned(),
        None => format!("{}-pguser-{user}", inner.name),
    }
}

fn users(inner: &Inner) -> Vec<(String, Vec<String>)> {
    match inner.object["spec"]["users"].as_array() {
        None => vec![(inner.name.clone(), vec![inner.name.clone()])],
        Some(users) => {
            let of = |user: &Value| (text(user, "/name").to_owned(), texts(&user["databases"]));
            users.iter().map(of).collect()
        }
    }
}

/// A password inside a URI.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
