//! Tokens: given for a signed claim, good for a while.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData};
use rustls::SignatureScheme;
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::{Code, Refusal};
use super::world::new_id;

/// Whom a claim must be made for, whatever port the simulator has.
const AUDIENCE: &str = "https://iam.api.cloud.yandex.net/iam/v1/tokens";
/// A claim is good for an hour at most, in seconds.
const LONGEST_CLAIM: i64 = 3600;
/// The longest claim, in characters.
const LARGEST_CLAIM: usize = 8000;

/// One service account with one authorized key, and the tokens that it was given.
pub(super) struct Iam {
    pub(super) account: String,
    key_id: String,
    key: KeyPair,
    lifetime: SignedDuration,
    /// Until when they are good.
    tokens: Mutex<BTreeMap<String, Timestamp>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    yandex_passport_oauth_token: Option<String>,
    jwt: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    typ: String,
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claim {
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
}

impl Iam {
    pub(super) fn new(lifetime: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            account: new_id("aje"),
            key_id: new_id("aje"),
            key: KeyPair::generate_for(&PKCS_RSA_SHA256).context("make a key")?,
            lifetime: lifetime.try_into()?,
            tokens: Mutex::default(),
        })
    }

    /// The authorized key as the console gives it out, with the line before the PEM text that strict
    /// readers stumble over.
    pub(super) fn authorized_key(&self) -> String {
        let warning =
            "PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <".to_owned() + &self.key_id;
        json!({
            "id": self.key_id,
            "service_account_id": self.account,
            "created_at": Timestamp::now().to_string(),
            "key_algorithm": "RSA_2048",
            "public_key": self.key.public_key_pem(),
            "private_key": format!("{warning}>\n{}", self.key.serialize_pem()),
        })
        .to_string()
    }

    /// A new token, without a claim.
    pub(super) fn token(&self) -> (String, Timestamp) {
        let random: [u8; 48] = rand::random();
        let token = format!("t1.{}", URL_SAFE_NO_PAD.encode(random));
        let until = Timestamp::now() + self.lifetime;
        self.lock().insert(token.clone(), until);
        (token, until)
    }

    /// Whether a token is one of ours and good now.
    pub(super) fn knows(&self, token: &str) -> bool {
        let tokens = self.lock();
        tokens
            .get(token)
            .is_some_and(|until| Timestamp::now() < *until)
    }

    /// No token is good any more.
    pub(super) fn expire_all(&self) {
        self.lock().clear();
    }

    /// Answers `POST /iam/v1/tokens`.
    pub(super) fn exchange(&self, body: Value) -> Result<Value, Refusal> {
        let request: Request =
            serde_json::from_value(body).map_err(|error| Refusal::invalid(error.to_string()))?;
        let jwt = match (request.yandex_passport_oauth_token, request.jwt) {
            (None, Some(jwt)) => jwt,
            (Some(_), None) => {
                let why = "OAuth token is invalid or expired, or belongs to no user account";
                return Err(Refusal::new(Code::Unauthenticated, why));
            }
            _ => return Err(Refusal::invalid("exactly one identity is to be given")),
        };
        if jwt.len() > LARGEST_CLAIM {
            return Err(Refusal::invalid("jwt: it is too long"));
        }
        self.check(&jwt).map_err(|why| {
            let why = format!("The JWT is not accepted: {why}");
            Refusal::new(Code::Unauthenticated, why)
        })?;
        let (token, until) = self.token();
        Ok(json!({ "iamToken": token, "expiresAt": until.to_string() }))
    }

    fn check(&self, jwt: &str) -> Result<(), &'static str> {
        let (signed, signature) = jwt.rsplit_once('.').ok_or("it has no signature")?;
        let (header, claim) = signed.split_once('.').ok_or("it has no claim")?;
        let header: Header = part(header).ok_or("its header cannot be read")?;
        if header.typ != "JWT" {
            return Err("typ is not JWT");
        }
        if header.alg != "PS256" {
            return Err("alg is not PS256");
        }
        if header.kid != self.key_id {
            return Err("no such key");
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| "its signature cannot be read")?;
        if !self.has_signed(signed.as_bytes(), &signature) {
            return Err("its signature is wrong");
        }
        let claim: Claim = part(claim).ok_or("its claim cannot be read")?;
        let now = Timestamp::now().as_second();
        if claim.iss != self.account {
            return Err("iss is not the key's service account");
        }
        if claim.aud != AUDIENCE {
            return Err("aud is not this service");
        }
        if claim.iat > now {
            return Err("iat lies in the future");
        }
        if claim.exp <= now {
            return Err("it has expired");
        }
        if claim.exp > claim.iat + LONGEST_CLAIM {
            return Err("exp is more than an hour after iat");
        }
        Ok(())
    }

    /// RSA-PSS with SHA-256, and a salt as long as its digest (RFC 7518, 3.5).
    fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let known = provider.signature_verification_algorithms.mapping;
        let mut able = known
            .iter()
            .filter(|(scheme, _)| *scheme == SignatureScheme::RSA_PSS_SHA256)
            .flat_map(|(_, algorithms)| algorithms.iter());
        able.any(|algorithm| {
            let key = self.key.der_bytes();
            algorithm.verify_signature(key, text, signature).is_ok()
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Iam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Key and tokens stay out.
        write!(f, "Iam({})", self.account)
    }
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok()
}
