//! Who we are for Yandex Cloud: an IAM token, from the authorized key of a service account or as it is.
//!
//! Tokens are worth as much as the account. They and the key show in no `Debug` output, no error and no log.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PSS_SHA256;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jobs::store::Secret;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

/// Whom a JWT is for, also when it goes to a simulated cloud.
const AUDIENCE: &str = "https://iam.api.cloud.yandex.net/iam/v1/tokens";
/// How long a JWT holds: no longer is allowed.
const JWT_LIFETIME: i64 = 3600;
/// Our clock may be a little fast, and a JWT from the future is refused.
const SKEW: i64 = 10;
/// A token with less than this left is exchanged for a new one, unless it never had twice as much.
const MARGIN: Duration = Duration::from_secs(60 * 60);
/// How long a token is kept when its answer does not say when it ends.
const UNTOLD: Duration = Duration::from_secs(10 * 60);

/// What we prove with who we are.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The authorized key of a service account.
    Key(AuthorizedKey),
    /// An IAM token that somebody else got. It ends within 12 hours, and cannot be renewed here.
    Token(Secret),
}

/// Why an authorized key cannot be used. Never shows what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is not the JSON that `yc iam key create` writes.
    #[error("it is no authorized key in JSON with `id`, `service_account_id` and `private_key`")]
    Json,
    /// A field is empty.
    #[error("its `{0}` is empty")]
    Empty(&'static str),
    /// The private key cannot be read.
    #[error("its `private_key` is no RSA key as PKCS#8 in PEM")]
    Key,
    /// A token was not signed.
    #[error("a token cannot be signed with it")]
    Sign,
}

/// The authorized key of a service account.
#[derive(Clone)]
pub struct AuthorizedKey {
    id: String,
    service_account: String,
    private: Secret,
}

impl fmt::Debug for AuthorizedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorizedKey({} of {})", self.id, self.service_account)
    }
}

impl AuthorizedKey {
    /// Reads the JSON that `yc iam key create` writes.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct File {
            id: String,
            service_account_id: String,
            private_key: String,
        }
        let file: File = serde_json::from_str(text).map_err(|_| KeyError::Json)?;
        for (name, value) in [
            ("id", &file.id),
            ("service_account_id", &file.service_account_id),
        ] {
            if value.is_empty() {
                return Err(KeyError::Empty(name));
            }
        }
        // A line of warning stands before the key, and strict readers of PEM stumble over it.
        let begin = file.private_key.find("-----BEGIN").ok_or(KeyError::Key)?;
        let key = Self {
            id: file.id,
            service_account: file.service_account_id,
            private: Secret::new(&file.private_key[begin..]),
        };
        key.pair()?;
        Ok(key)
    }

    fn pair(&self) -> Result<KeyPair, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(self.private.reveal().as_bytes());
        let der = der.map_err(|_| KeyError::Key)?;
        KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| KeyError::Key)
    }

    /// A JWT (PS256) that is exchanged for an IAM token.
    pub(super) fn jwt(&self, now: Timestamp) -> Result<String, KeyError> {
        let issued = now.as_second() - SKEW;
        let header = json!({"typ": "JWT", "alg": "PS256", "kid": self.id});
        let claims = json!({
            "iss": self.service_account,
            "aud": AUDIENCE,
            "iat": issued,
            "exp": issued + JWT_LIFETIME,
        });
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let pair = self.pair()?;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(
            &RSA_PSS_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .map_err(|_| KeyError::Sign)?;
        Ok(format!("{signed}.{}", encode(&signature)))
    }
}

/// The answer to a JWT.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Issued {
    iam_token: String,
    #[serde(default)]
    expires_at: Option<Timestamp>,
}

/// A token that we have, by our own monotonic clock.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) token: Secret,
    /// When a new one should be asked for.
    stale: Instant,
    /// When it ends.
    end: Instant,
}

impl Kept {
    /// Keeps a token that was just issued; nothing when it is none that a header can carry.
    pub(super) fn of(issued: Issued, wall: Timestamp) -> Option<Self> {
        let token = issued.iam_token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let lifetime = match issued.expires_at {
            Some(end) => Duration::try_from(end.duration_since(wall)).unwrap_or_default(),
            None => UNTOLD,
        };
        let now = Instant::now();
        Some(Self {
            token: Secret::new(token),
            stale: now + keep_for(lifetime),
            end: now + lifetime,
        })
    }

    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.stale
    }

    pub(super) fn is_valid(&self) -> bool {
        Instant::now() < self.end
    }
}

/// How long a token that lives so long is used before a new one is asked for.
fn keep_for(lifetime: Duration) -> Duration {
    lifetime - MARGIN.min(lifetime / 2)
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::LazyLock;

    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeySize, PublicKey};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    /// One pair for all tests: making one takes long.
    static PAIR: LazyLock<(String, PublicKey)> = LazyLock::new(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        );
        (pem, pair.public_key().clone())
    });

    /// An authorized key as `yc` writes it, with its line of warning.
    pub(in super::super) fn file() -> Value {
        json!({
            "id": "ajekey", "service_account_id": "ajesa", "created_at": "2026-01-01T00:00:00Z",
            "key_algorithm": "RSA_2048", "public_key": "-----BEGIN PUBLIC KEY-----\n",
            "private_key": format!("PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <ajekey>\n{}", PAIR.0),
        })
    }

    fn part(text: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    #[test]
    fn a_jwt_is_signed_by_the_key_and_says_who_we_are() {
        let key = AuthorizedKey::parse(&file().to_string()).unwrap();
        let now: Timestamp = "2026-05-01T12:00:00Z".parse().unwrap();
        let jwt = key.jwt(now).unwrap();
        let parts: Vec<&str> = jwt.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            panic!("{} parts", parts.len())
        };
        assert_eq!(
            part(header),
            json!({"typ": "JWT", "alg": "PS256", "kid": "ajekey"})
        );
        let iat = now.as_second() - 10;
        assert_eq!(
            part(claims),
            json!({"iss": "ajesa", "aud": AUDIENCE, "iat": iat, "exp": iat + 3600})
        );
        let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, PAIR.1.as_ref());
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        public.verify(signed.as_bytes(), &signature).unwrap();
        assert!(public.verify(header.as_bytes(), &signature).is_err());
    }

    #[test]
    fn a_key_that_cannot_be_used_is_told_and_not_shown() {
        let spoilt = |field: &str, value: Value| {
            let mut file = file();
            file[field] = value;
            let error = AuthorizedKey::parse(&file.to_string()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
            error
        };
        assert_eq!(spoilt("id", json!("")), KeyError::Empty("id"));
        assert_eq!(spoilt("id", Value::Null), KeyError::Json);
        assert_eq!(spoilt("private_key", json!("hunter2")), KeyError::Key);
        let cut = json!("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n");
        assert_eq!(spoilt("private_key", cut), KeyError::Key);
        assert_eq!(AuthorizedKey::parse("hunter2").unwrap_err(), KeyError::Json);
        let good = AuthorizedKey::parse(&file().to_string()).unwrap();
        assert_eq!(format!("{good:?}"), "AuthorizedKey(ajekey of ajesa)");
    }

    #[test]
    fn a_token_is_renewed_an_hour_before_its_end_or_in_its_middle() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        for (lifetime, keep) in [(720, 660), (121, 61), (120, 60), (30, 15), (0, 0)] {
            assert_eq!(keep_for(minutes(lifetime)), minutes(keep), "{lifetime}");
        }
    }
}
