//! Secrets as SOPS would seal them: what stands in the bucket of a cluster.

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Key, Nonce};
use age::secrecy::ExposeSecret;
use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use sha2::{Digest, Sha512};

use crate::operators::time::now;

/// A new age key: its file, as `age-keygen` writes it, and its recipient.
pub fn age_key() -> (String, String) {
    let key = age::x25519::Identity::generate();
    let recipient = key.to_public().to_string();
    let secret = key.to_string();
    let file = format!("# public key: {recipient}\n{}\n", secret.expose_secret());
    (file, recipient)
}

/// A Secret's file with its values sealed for a recipient.
pub fn secret(name: &str, data: &[(&str, &str)], recipient: &str) -> anyhow::Result<String> {
    let recipient: age::x25519::Recipient = recipient.parse().map_err(|e: &str| anyhow!(e))?;
    let key: [u8; 32] = rand::random();
    let mut hash = Sha512::new();
    for plain in ["v1", "Secret", name] {
        hash.update(plain);
    }
    let mut document =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name } });
    let mut values: Vec<_> = data.to_vec();
    // The order in which they will stand in the file, which the MAC depends on.
    values.sort_unstable();
    for (field, text) in values {
        hash.update(text);
        document["stringData"][field] = seal(&key, text, &format!("stringData:{field}:"))?.into();
    }
    let changed = now();
    let mac = seal(&key, &hex::encode_upper(hash.finalize()), &changed)?;
    document["sops"] = json!({
        "age": [{
            "recipient": recipient.to_string(),
            "enc": age::encrypt_and_armor(&recipient, &key).context("seal a data key")?,
        }],
        "encrypted_regex": "^(data|stringData)$",
        "lastmodified": changed,
        "mac": mac,
        "version": "3.13.2",
    });
    // JSON is YAML.
    Ok(format!("{document:#}\n"))
}

fn seal(key: &[u8; 32], text: &str, bound: &str) -> anyhow::Result<String> {
    let nonce: [u8; 32] = rand::random();
    let cipher: AesGcm<Aes256, U32> = AesGcm::new(&Key::<AesGcm<Aes256, U32>>::from(*key));
    let payload = Payload {
        msg: text.as_bytes(),
        aad: bound.as_bytes(),
    };
    let sealed = cipher.encrypt(&Nonce::<U32>::from(nonce), payload);
    let mut data = sealed.map_err(|_| anyhow!("seal a value"))?;
    let tag = data.split_off(data.len() - 16);
    let [data, nonce, tag] = [&data[..], &nonce, &tag].map(|bytes| BASE64.encode(bytes));
    Ok(format!(
        "ENC[AES256_GCM,data:{data},iv:{nonce},tag:{tag},type:str]"
    ))
}

/// The Secrets that `fluxcd/README.md` wants, by their path in the bucket of the cluster `test`, with made-up values.
pub fn payload(recipient: &str) -> anyhow::Result<super::Files> {
    let all: [(&str, &str, &[&str]); 14] = [
        ("pg", "clo-s3-secret", &["s3.conf"]),
        ("pg", "pg-db-credentials-postgres", &["password"]),
        ("pg", "slr-credentials", &["password"]),
        ("pg", "harbor-credentials", &["password"]),
        ("pg", "pg-db-pmm-secret", &["PMM_SERVER_TOKEN"]),
        ("pmm", "pmm-secret", &["PMM_ADMIN_PASSWORD"]),
        ("monitoring", "gp", &["admin-user", "admin-password"]),
        (
            "harbor",
            "harbor-s3-secret",
            &[
                "REGISTRY_STORAGE_S3_ACCESSKEY",
                "REGISTRY_STORAGE_S3_SECRETKEY",
            ],
        ),
        ("harbor", "harbor-admin-secret", &["password"]),
        ("harbor", "harbor-db", &["password"]),
        (
            "harbor",
            "harbor-keys",
            &["secretKey", "secret", "CSRF_KEY"],
        ),
        ("harbor", "harbor-token", &["tls.key", "tls.crt"]),
        ("slr", "slr-secrets", &["DATABASE_URL", "SECRET_KEY"]),
        ("dsf", "dsf-secrets", &["NEXT_PUBLIC_SALEOR_API_URL"]),
    ];
    let mut files = super::Files::new();
    for (space, name, keys) in all {
        let data: Vec<_> = keys.iter().map(|key| (*key, "made up")).collect();
        let text = secret(name, &data, recipient)?;
        files.insert(format!("test/{space}/{name}.yaml"), text.into_bytes());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_sealed_here_opens_as_a_sops_file() {
        let (file, recipient) = age_key();
        let text = secret("s", &[("z", "hunter2"), ("a", "line\nline\n")], &recipient).unwrap();
        assert!(!text.contains("hunter2"));
        let opened = worker::sops::open(&text, &file).unwrap();
        assert_eq!(
            opened["stringData"],
            json!({"z": "hunter2", "a": "line\nline\n"})
        );
        assert!(worker::sops::open(&text, &age_key().0).is_err());
    }
}
