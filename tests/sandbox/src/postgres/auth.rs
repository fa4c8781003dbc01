//! Who somebody is: the server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), with channel binding as PostgreSQL has it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// PostgreSQL's own default.
const ITERATIONS: u32 = 4096;

/// The exchange, after its first message.
#[derive(Debug)]
pub(super) struct Scram {
    /// `None` when there is no such user or no password: it goes on all the same, so that nobody can tell.
    password: Option<String>,
    /// What the client is to bind itself to.
    binding: Vec<u8>,
    salt: [u8; 16],
    nonce: String,
    client_first_bare: String,
    server_first: String,
}

/// The names of the mechanisms, best first.
pub(super) fn mechanisms(bound: bool) -> &'static [&'static str] {
    match bound {
        true => &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"],
        false => &["SCRAM-SHA-256"],
    }
}

impl Scram {
    /// Takes the client's first message; `certificate` is the server's own as DER, on TLS. `None` when the message
    /// is none.
    pub(super) fn first(
        mechanism: &str,
        message: &[u8],
        certificate: Option<&[u8]>,
        password: Option<String>,
    ) -> Option<(Self, Vec<u8>)> {
        let message = std::str::from_utf8(message).ok()?;
        let (flag, rest) = message.split_once(',')?;
        let (identity, bare) = rest.split_once(',')?;
        let mut binding = format!("{flag},{identity},").into_bytes();
        match (mechanism, flag, certificate) {
            ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point", Some(certificate)) => {
                binding.extend(Sha256::digest(certificate));
            }
            // `y`: the client could bind and thinks that we cannot. On TLS somebody took that out of our offer.
            ("SCRAM-SHA-256", "n", _) | ("SCRAM-SHA-256", "y", None) => {}
            _ => return None,
        }
        let client_nonce = bare.split(',').find_map(|part| part.strip_prefix("r="))?;
        let nonce = format!(
            "{client_nonce}{}",
            BASE64.encode(rand::random::<[u8; 18]>())
        );
        let salt = rand::random::<[u8; 16]>();
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(salt));
        let reply = server_first.clone().into_bytes();
        let client_first_bare = bare.to_owned();
        Some((
            Self {
                password,
                binding,
                salt,
                nonce,
                client_first_bare,
                server_first,
            },
            reply,
        ))
    }

    /// Takes the client's last message; the answer proves to it that we know the password too. `None` when it
    /// is wrong.
    pub(super) fn last(&self, message: &[u8]) -> Option<Vec<u8>> {
        let message = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let field = |name: &str| {
            without_proof
                .split(',')
                .find_map(|part| part.strip_prefix(name))
        };
        if BASE64.decode(field("c=")?).ok()? != self.binding || field("r=")? != self.nonce {
            return None;
        }
        let password = self.password.as_ref()?;
        let mut salted = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), &self.salt, ITERATIONS, &mut salted)
            .ok()?;
        let all = format!(
            "{},{},{without_proof}",
            self.client_first_bare, self.server_first
        );
        let client_key = mac(&salted, b"Client Key");
        let signature = mac(&Sha256::digest(client_key), all.as_bytes());
        let expected: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(key, sign)| key ^ sign)
            .collect();
        if BASE64.decode(proof).ok()? != expected {
            return None;
        }
        let signature = mac(&mac(&salted, b"Server Key"), all.as_bytes());
        Some(format!("v={}", BASE64.encode(signature)).into_bytes())
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}
