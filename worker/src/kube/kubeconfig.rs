//! Who we are for an API server, and how to know that it is the right one: a kubeconfig, cut to
//! what we need.
//!
//! Only what stands in the text itself counts: no files of this machine, no programs to run, and
//! never a server whose certificate is not checked.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Uri;
use jobs::store::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::ssh::{Command, Host, HostExt, SshError};

/// Where kubeadm leaves the administrator's kubeconfig on each master.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";

/// No kubeconfig is larger; kubeadm's has some six thousand bytes.
const LARGEST: usize = 256 * 1024;

/// What kubeadm calls every API server in its certificate, whatever its address is.
const KUBEADM_NAME: &str = "kubernetes";

/// Where the authority's certificates stand.
const AUTHORITY: &str = "clusters.cluster.certificate-authority-data";

/// Why a kubeconfig cannot be used. Never shows what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It is no kubeconfig.
    #[error("read the kubeconfig from {origin}: {reason}")]
    Unreadable {
        /// Where it came from.
        origin: String,
        /// What is wrong, without its text.
        reason: String,
    },
    /// Something that we need is not there.
    #[error("use the kubeconfig from {origin}: it has no {what}")]
    Missing {
        /// Where it came from.
        origin: String,
        /// What is missing, as a path in the file.
        what: String,
    },
    /// Something in it cannot be used.
    #[error("use the kubeconfig from {origin}: {what}: {reason}")]
    Bad {
        /// Where it came from.
        origin: String,
        /// What it is, as a path in the file.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The master does not give it to us.
    #[error("fetch {ADMIN_CONF}")]
    Fetch(#[source] SshError),
}

/// A server, its authority, and our credentials.
#[derive(Clone)]
pub struct Kubeconfig {
    text: Secret,
    authorities: BTreeSet<String>,
    server: Uri,
    server_name: Option<ServerName<'static>>,
    tls: Arc<ClientConfig>,
    token: Option<Secret>,
}

impl Kubeconfig {
    /// Reads a kubeconfig; `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, KubeconfigError> {
        Reader { origin }.read(text)
    }

    /// Reads a master's `admin.conf`.
    pub async fn fetch(host: &dyn Host) -> Result<Self, KubeconfigError> {
        // One byte more than allowed tells that there is more.
        let most = (LARGEST + 1).to_string();
        let command = Command::new(&["head", "-c", &most, "--", ADMIN_CONF])
            .label(format!("read {ADMIN_CONF}"));
        let output = host.execute_ok(&command).await;
        let output = output.map_err(KubeconfigError::Fetch)?;
        let origin = format!("{ADMIN_CONF} of {}", host.name());
        let text = String::from_utf8(output.stdout);
        let text = text.map_err(|_| KubeconfigError::Unreadable {
            origin: origin.clone(),
            reason: "it is not text".to_owned(),
        })?;
        Self::parse(&text, &origin)
    }

    /// All of it, as it was read.
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// The digests of the certificates that the API's own is verified with.
    pub fn authorities(&self) -> &BTreeSet<String> {
        &self.authorities
    }

    /// Where the API is, as the cluster itself sees it.
    pub fn server(&self) -> &Uri {
        &self.server
    }

    /// The port of the API.
    pub fn port(&self) -> u16 {
        self.server.port_u16().unwrap_or(443)
    }

    /// The host of the API, without brackets.
    pub(super) fn host(&self) -> &str {
        let host = self.server.host().unwrap_or_default();
        host.trim_matches(['[', ']'])
    }

    pub(super) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    pub(super) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// The name that the certificate must have when the server is reached at its own address.
    pub(super) fn name_outside(&self) -> Option<ServerName<'static>> {
        let named = || ServerName::try_from(self.host().to_owned()).ok();
        self.server_name.clone().or_else(named)
    }

    /// The name that the certificate must have when the server is reached on a master's loopback:
    /// the address there is only how we come to it.
    pub(super) fn name_on_master(&self) -> ServerName<'static> {
        let kubeadm = ServerName::try_from(KUBEADM_NAME).expect("it is a DNS name");
        self.server_name.clone().unwrap_or(kubeadm)
    }

    /// A server with its authority (PEM) and a token, where they do not come in one file.
    pub fn with_token(
        server: &str,
        authority: &str,
        token: &Secret,
        origin: &str,
    ) -> Result<Self, KubeconfigError> {
        // JSON is YAML.
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": {
                "server": server, "certificate-authority-data": BASE64.encode(authority),
            }}],
            "users": [{"name": "it", "user": {"token": token.reveal()}}],
        });
        Self::parse(&text.to_string(), origin)
    }
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kubeconfig({})", self.server)
    }
}

/// Reads one text.
struct Reader<'a> {
    origin: &'a str,
}

impl Reader<'_> {
    fn read(&self, text: &str) -> Result<Kubeconfig, KubeconfigError> {
        if text.len() > LARGEST {
            return Err(self.unreadable(format!("it has more than {LARGEST} bytes")));
        }
        let file = self.file(text)?;
        let (cluster, user) = self.current(&file)?;
        let server = self.server(cluster)?;
        let authority = self.authority(cluster)?;
        Ok(Kubeconfig {
            text: Secret::new(text),
            authorities: authority.iter().map(|it| jobs::digest(it)).collect(),
            server,
            server_name: self.server_name(cluster)?,
            tls: Arc::new(self.tls(authority, user)?),
            token: user.token.clone(),
        })
    }

    fn file(&self, text: &str) -> Result<File, KubeconfigError> {
        // YAML errors show the lines around them, and these may be keys: only the place is told.
        let wrong = |error: serde_saphyr::Error| {
            let place = error.location().map_or(String::new(), |at| {
                format!(" (line {}, column {})", at.line(), at.column())
            });
            self.unreadable(format!("it is no kubeconfig in YAML{place}"))
        };
        let value: Value = serde_saphyr::from_str(text).map_err(wrong)?;
        if value.get("kind").and_then(Value::as_str) != Some("Config") {
            return Err(self.unreadable("its kind is not `Config`"));
        }
        let file = File::deserialize(&value);
        file.map_err(|_| self.unreadable("its fields are not those of a kubeconfig"))
    }

    /// The cluster and the user of the current context.
    fn current<'f>(&self, file: &'f File) -> Result<(&'f Cluster, &'f User), KubeconfigError> {
        let name = file.current_context.as_deref().filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| self.missing("current-context"))?;
        let context = file.contexts.iter().find(|entry| entry.name == name);
        let context = context.ok_or_else(|| self.missing(format!("context `{name}`")))?;
        let Context { cluster, user } = &context.context;
        let wanted = file.clusters.iter().find(|entry| entry.name == *cluster);
        let found = wanted.ok_or_else(|| self.missing(format!("cluster `{cluster}`")))?;
        let wanted = file.users.iter().find(|entry| entry.name == *user);
        let user = wanted.ok_or_else(|| self.missing(format!("user `{user}`")))?;
        Ok((&found.cluster, &user.user))
    }

    fn server(&self, cluster: &Cluster) -> Result<Uri, KubeconfigError> {
        let what = "clusters.cluster.server";
        let server = cluster.server.as_deref();
        let server = server.ok_or_else(|| self.missing(what))?;
        let uri: Option<Uri> = server.parse().ok();
        let secure = |uri: &Uri| {
            uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty())
        };
        let uri = uri.filter(secure);
        let uri = uri.ok_or_else(|| self.bad(what, format!("`{server}` is no https:// URL")))?;
        if cluster.insecure_skip_tls_verify {
            let reason = "the API's certificate is always verified";
            return Err(self.bad("clusters.cluster.insecure-skip-tls-verify", reason));
        }
        if cluster.proxy_url.is_some() {
            let reason = "a proxy is a setting of the worker";
            return Err(self.bad("clusters.cluster.proxy-url", reason));
        }
        Ok(uri)
    }

    fn server_name(
        &self,
        cluster: &Cluster,
    ) -> Result<Option<ServerName<'static>>, KubeconfigError> {
        let Some(name) = &cluster.tls_server_name else {
            return Ok(None);
        };
        let what = "clusters.cluster.tls-server-name";
        let parsed = ServerName::try_from(name.clone());
        let parsed = parsed.map_err(|_| self.bad(what, format!("`{name}` is no name")))?;
        Ok(Some(parsed))
    }

    fn authority(
        &self,
        cluster: &Cluster,
    ) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
        let data = cluster.certificate_authority_data.as_deref();
        self.certificates(AUTHORITY, data)
    }

    fn tls(
        &self,
        authority: Vec<CertificateDer<'static>>,
        user: &User,
    ) -> Result<ClientConfig, KubeconfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in authority {
            let added = roots.add(certificate);
            added.map_err(|error| self.bad(AUTHORITY, error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the versions of TLS")
            .with_root_certificates(roots);
        if user.exec.is_some() || user.auth_provider.is_some() {
            let reason = "a worker runs no program to log in; use a certificate or a token";
            return Err(self.bad("users.user.exec", reason));
        }
        if user.token.is_some() {
            return Ok(tls.with_no_client_auth());
        }
        let what = "users.user.client-certificate-data";
        let chain = self.certificates(what, user.client_certificate_data.as_deref())?;
        let what = "users.user.client-key-data";
        let key = user.client_key_data.as_ref().map(Secret::reveal);
        let key = PrivateKeyDer::from_pem_slice(&self.decoded(what, key)?);
        // Not even why: the error may show some of it.
        let key = key.map_err(|_| self.bad(what, "it is no private key in PEM"))?;
        tls.with_client_auth_cert(chain, key)
            .map_err(|error| self.bad("users.user", error))
    }

    fn certificates(
        &self,
        what: &str,
        data: Option<&str>,
    ) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
        let pem = self.decoded(what, data)?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        match certificates {
            Ok(some) if !some.is_empty() => Ok(some),
            _ => Err(self.bad(what, "it holds no certificate in PEM")),
        }
    }

    fn decoded(&self, what: &str, data: Option<&str>) -> Result<Vec<u8>, KubeconfigError> {
        let data = data.filter(|data| !data.is_empty());
        let data = data.ok_or_else(|| self.missing(what))?;
        let compact: String = data.split_whitespace().collect();
        let decoded = BASE64.decode(compact);
        decoded.map_err(|_| self.bad(what, "it is not base64"))
    }

    fn unreadable(&self, reason: impl Into<String>) -> KubeconfigError {
        KubeconfigError::Unreadable {
            origin: self.origin.to_owned(),
            reason: reason.into(),
        }
    }

    fn missing(&self, what: impl Into<String>) -> KubeconfigError {
        KubeconfigError::Missing {
            origin: self.origin.to_owned(),
            what: what.into(),
        }
    }

    fn bad(&self, what: &str, reason: impl fmt::Display) -> KubeconfigError {
        KubeconfigError::Bad {
            origin: self.origin.to_owned(),
            what: what.to_owned(),
            reason: reason.to_string(),
        }
    }
}

// The file, as much of it as we look at. What else stands in it is other programs' business.

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    current_context: Option<String>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: Option<String>,
    tls_server_name: Option<String>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    client_key_data: Option<Secret>,
    #[serde(default, deserialize_with = "secret")]
    token: Option<Secret>,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Secret::new))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::LazyLock;

    use super::*;
    use crate::ssh::scripted::{Scripted, fails, prints};

    static PAIR: LazyLock<(String, String)> = LazyLock::new(|| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let encode = |pem: String| BASE64.encode(pem);
        (encode(certificate.pem()), encode(key.serialize_pem()))
    });

    /// What kubeadm writes.
    fn admin_conf() -> String {
        let (certificate, key) = &*PAIR;
        format!(
            "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {certificate}
    server: https://10.0.0.5:6443
  name: cluster.local
contexts:
- context:
    cluster: cluster.local
    user: kubernetes-admin
  name: kubernetes-admin@cluster.local
current-context: kubernetes-admin@cluster.local
kind: Config
preferences: {{}}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
        )
    }

    /// Changes the text once, and gives what is wrong with it then.
    fn wrong(from: &str, to: &str) -> String {
        let text = admin_conf();
        assert!(text.contains(from), "{from}");
        let error = Kubeconfig::parse(&text.replacen(from, to, 1), "a test").unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("a test"), "{shown}");
        assert!(!shown.contains(&PAIR.1[..20]), "{shown}");
        error.to_string()
    }

    #[test]
    fn parts_that_do_not_come_in_one_file_make_one() {
        let pem = String::from_utf8(BASE64.decode(&PAIR.0).unwrap()).unwrap();
        let of = |server: &str, pem: &str| {
            Kubeconfig::with_token(server, pem, &Secret::new("t1.hunter2"), "a test")
        };
        let config = of("https://203.0.113.7", &pem).unwrap();
        assert_eq!((config.host(), config.port()), ("203.0.113.7", 443));
        assert_eq!(config.token().unwrap().reveal(), "t1.hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(of("http://203.0.113.7", &pem).is_err());
        assert!(of("", &pem).is_err());
        assert!(of("https://203.0.113.7", "").is_err());
        assert!(of("https://203.0.113.7", "hunter2").is_err());
    }

    #[test]
    fn an_admin_conf_is_read_and_its_key_never_shown() {
        let config = Kubeconfig::parse(&admin_conf(), "a test").unwrap();
        assert_eq!((config.host(), config.port()), ("10.0.0.5", 6443));
        assert_eq!(config.name_on_master().to_str(), "kubernetes");
        assert_eq!(config.name_outside().unwrap().to_str(), "10.0.0.5");
        assert_eq!(format!("{config:?}"), "Kubeconfig(https://10.0.0.5:6443/)");

        let six = admin_conf().replace(
            "10.0.0.5:6443",
            "[fd00::1]\n    tls-server-name: api.example",
        );
        let config = Kubeconfig::parse(&six, "a test").unwrap();
        assert_eq!((config.host(), config.port()), ("fd00::1", 443));
        for name in [config.name_on_master(), config.name_outside().unwrap()] {
            assert_eq!(name.to_str(), "api.example");
        }
    }

    #[test]
    fn a_token_is_enough() {
        let (certificate, key) = &*PAIR;
        let given = format!("client-certificate-data: {certificate}\n    client-key-data: {key}");
        let text = admin_conf().replace(&given, "token: hunter2");
        let config = Kubeconfig::parse(&text, "a test").unwrap();
        assert_eq!(config.token().unwrap().reveal(), "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |from: &str, to: &str, expected: &str| {
            let error = wrong(from, to);
            assert_eq!(
                error,
                format!("use the kubeconfig from a test: it has no {expected}")
            );
        };
        check("current-context: ", "other: ", "current-context");
        check(
            "- context:\n    cluster: cluster.local",
            "- context:\n    cluster: b",
            "cluster `b`",
        );
        check(
            "    user: kubernetes-admin",
            "    user: nobody",
            "user `nobody`",
        );
        check(
            "current-context: kubernetes-admin",
            "current-context: x",
            "context `x@cluster.local`",
        );
        check("    server: ", "    other: ", "clusters.cluster.server");
        let authority = "certificate-authority-data";
        check(
            authority,
            "certificate-authority",
            "clusters.cluster.certificate-authority-data",
        );
        check(
            "client-certificate-data",
            "x",
            "users.user.client-certificate-data",
        );
        check(
            "client-key-data",
            "client-key",
            "users.user.client-key-data",
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (certificate, key) = &*PAIR;
        let check = |from: &str, to: &str, expected: &str| {
            let error = wrong(from, to);
            assert!(error.contains(expected), "{error}");
        };
        check(
            "https://",
            "http://",
            "`http://10.0.0.5:6443` is no https:// URL",
        );
        check(
            "    server",
            "    insecure-skip-tls-verify: true\n    server",
            "always verified",
        );
        check(
            "    server",
            "    proxy-url: http://a\n    server",
            "proxy-url",
        );
        check(
            "    client-key-data",
            "    exec: {command: aws}\n    client-key-data",
            "runs no program",
        );
        check(
            &format!("client-key-data: {key}"),
            "client-key-data: '*'",
            "client-key-data: it is not base64",
        );
        check(
            &format!("client-key-data: {key}"),
            &format!("client-key-data: {certificate}"),
            "it is no private key",
        );
        check(
            &format!("client-certificate-data: {certificate}"),
            &format!("client-certificate-data: {key}"),
            "it holds no certificate",
        );
        let another = rcgen::KeyPair::generate().unwrap().serialize_pem();
        check(
            &format!("client-key-data: {key}"),
            &format!("client-key-data: {}", BASE64.encode(another)),
            "users.user: ",
        );
        check("kind: Config", "kind: Secret", "its kind is not `Config`");
        check("users:\n", "users: {}\nx:\n", "its fields are not those");
        check(
            "preferences: {}",
            "preferences: {",
            "it is no kubeconfig in YAML (line",
        );
        let large = format!("{}#{}", admin_conf(), "x".repeat(LARGEST));
        let error = Kubeconfig::parse(&large, "a test").unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
    }

    #[tokio::test]
    async fn it_is_fetched_from_a_master_and_no_more_than_is_allowed() {
        let host = Scripted::new(|_, _| prints(&admin_conf()));
        let config = Kubeconfig::fetch(&host).await.unwrap();
        assert_eq!(config.port(), 6443);
        assert_eq!(
            host.lines(),
            ["head -c 262145 -- /etc/kubernetes/admin.conf"]
        );

        let endless = Scripted::new(|_, _| prints(&"a: b\n".repeat(LARGEST)));
        let error = Kubeconfig::fetch(&endless).await.unwrap_err().to_string();
        assert!(
            error.contains("of root@scripted:22: it has more than"),
            "{error}"
        );

        let absent = Scripted::new(|_, _| fails(1, "No such file or directory"));
        let error = Kubeconfig::fetch(&absent).await.unwrap_err();
        let KubeconfigError::Fetch(ssh) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(ssh.status(), Some(1));
        let job = crate::engine::JobError::from(error);
        assert!(
            matches!(job.again, crate::engine::Again::Retry { .. }),
            "{job}"
        );
    }
}
