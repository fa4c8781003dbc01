//! Certificates as kubeadm makes them: the same files, names, organisations and usages.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// What every API server that kubeadm sets up is called.
const SERVER_NAMES: [&str; 5] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
];

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// How long a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Good,
    /// It ended years ago.
    Expired,
}

/// A certificate authority in memory.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: String,
}

impl Authority {
    /// A new one that nobody trusts yet.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = named(name, None, Validity::Good);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        let key = KeyPair::generate()?;
        let text = key.serialize_pem();
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        Ok(Self { issuer, key: text })
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a client: `organisation` is its group.
    pub fn client(
        &self,
        name: &str,
        organisation: Option<&str>,
        validity: Validity,
    ) -> anyhow::Result<Pair> {
        let mut params = named(name, organisation, validity);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn server(&self, name: &str, names: &[&str], addresses: &[IpAddr]) -> anyhow::Result<Pair> {
        let mut params = named(name, None, Validity::Good);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        for name in names {
            let name = SanType::DnsName((*name).try_into()?);
            params.subject_alt_names.push(name);
        }
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> anyhow::Result<Pair> {
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        Ok(Pair { certificate, key })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

fn named(name: &str, organisation: Option<&str>, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(organisation) = organisation {
        let kind = DnType::OrganizationName;
        params.distinguished_name.push(kind, organisation);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = match validity {
        Validity::Good => (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1)),
        Validity::Expired => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
    };
    params
}

/// The authorities of a cluster, and the folder that holds what they signed.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    cluster: Authority,
}

impl Pki {
    /// Makes everything that a master needs below `folder`, as it stands in `/etc/kubernetes/pki`.
    pub(crate) fn create(folder: PathBuf) -> anyhow::Result<Self> {
        let cluster = Authority::new("kubernetes")?;
        let etcd = Authority::new("etcd-ca")?;
        let front = Authority::new("front-proxy-ca")?;
        let masters = Some("system:masters");
        let here = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 96, 0, 1])];
        let pki = Self { folder, cluster };
        fs::create_dir_all(pki.folder.join("etcd")).context("create the PKI's folder")?;
        for (name, authority) in [
            ("ca", &pki.cluster),
            ("etcd/ca", &etcd),
            ("front-proxy-ca", &front),
        ] {
            let (certificate, key) = (authority.pem(), authority.key.clone());
            pki.write(name, &Pair { certificate, key })?;
        }
        let good = Validity::Good;
        let api = pki.cluster.server("kube-apiserver", &SERVER_NAMES, &here)?;
        let to_etcd = etcd.client("kube-apiserver-etcd-client", None, good)?;
        let to_kubelet = pki
            .cluster
            .client("kube-apiserver-kubelet-client", masters, good)?;
        pki.write("apiserver", &api)?;
        pki.write("apiserver-etcd-client", &to_etcd)?;
        pki.write("apiserver-kubelet-client", &to_kubelet)?;
        let front = front.client("front-proxy-client", None, good)?;
        pki.write("front-proxy-client", &front)?;
        let etcd = etcd.server("etcd", &["localhost"], &here[..1])?;
        pki.write("etcd/server", &etcd)?;
        let accounts = KeyPair::generate()?;
        pki.write_file("sa.key", &accounts.serialize_pem())?;
        pki.write_file("sa.pub", &accounts.public_key_pem())?;
        Ok(pki)
    }

    /// The cluster's authority, to sign more certificates.
    pub fn cluster(&self) -> &Authority {
        &self.cluster
    }

    /// Where a file of it is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, pair: &Pair) -> anyhow::Result<()> {
        self.write_file(&format!("{name}.crt"), &pair.certificate)?;
        self.write_file(&format!("{name}.key"), &pair.key)
    }

    fn write_file(&self, name: &str, text: &str) -> anyhow::Result<()> {
        write_secret(&self.folder.join(name), text)
    }
}

/// Writes a file that only we can read.
pub(super) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .with_context(|| format!("write {}", path.display()))
}

/// A kubeconfig in the shape of kubeadm's `admin.conf`.
pub fn kubeconfig(server: &str, authority: &str, user: &str, client: &Pair) -> String {
    let (ca, certificate, key) = (
        BASE64.encode(authority),
        BASE64.encode(&client.certificate),
        BASE64.encode(&client.key),
    );
    format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: {server}
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: {user}
  name: {user}@kubernetes
current-context: {user}@kubernetes
kind: Config
preferences: {{}}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}
