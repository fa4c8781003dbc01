//! SOPS files, opened as Flux will open them in the cluster: a key that does not fit shows here, before
//! anything is applied.
//!
//! A file is an ordinary YAML document whose secret values are `ENC[AES256_GCM,…]`, with what opens them
//! under `sops`: the data key, encrypted to each age recipient, and a MAC over all values in their order.
//! The format is that of `getsops/sops` 3.13 (`sops.go`, `aes/cipher.go`); age is the only kind of key here.

use std::fmt;

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Key, Nonce};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Options, alias_limits, budget, options};
use sha2::{Digest, Sha512};

/// Larger files are refused; a Secret has 1 MiB at most, and base64 upon base64 doubles it.
const LARGEST: usize = 4 << 20;
/// What a MAC over encrypted values alone begins with: SHA-256 of `sops`, from its source.
const ENCRYPTED_ONLY: &[u8] = b"sops";

/// Why a file does not open. No text of it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SopsError {
    /// There is no private key in what was given.
    #[error("there is no age identity in the SOPS key: a line that begins with `AGE-SECRET-KEY-1`")]
    NoIdentity,
    /// Not a document, or not one of SOPS.
    #[error("not a SOPS file: {0}")]
    NotSops(String),
    /// Encrypted to others.
    #[error("none of the SOPS keys fits: the file is for {}", .0.join(", "))]
    OtherKey(Vec<String>),
    /// A value, or the whole, is not what was encrypted.
    #[error("the SOPS file was changed or is damaged: {0}")]
    Damaged(String),
}

/// Opens a file with the identities of a key file. Gives the document without its `sops` part.
///
/// # Errors
/// See [`SopsError`]: also when a single value was changed, taken away or put in.
pub fn open(yaml: &str, key_file: &str) -> Result<Value, SopsError> {
    let identities = identities(key_file)?;
    if yaml.len() > LARGEST {
        let size = yaml.len();
        return Err(SopsError::NotSops(format!(
            "it has {size} bytes, {LARGEST} at most"
        )));
    }
    let Node::Map(mut entries) = read(yaml)? else {
        return Err(SopsError::NotSops("it is no YAML map".into()));
    };
    let at = entries.iter().position(|(key, _)| key == "sops");
    let at = at.ok_or_else(|| SopsError::NotSops("it has no `sops` part".into()))?;
    let (_, metadata) = entries.remove(at);
    let metadata: Metadata = serde_json::from_value(metadata.value())
        .map_err(|e| SopsError::NotSops(format!("`sops`: {e}")))?;
    let cipher = Cipher::new(&data_key(&metadata, &identities)?);

    let mut hash = Sha512::new();
    if metadata.mac_only_encrypted {
        hash.update(sha2::Sha256::digest(ENCRYPTED_ONLY));
    }
    let mut walk = Walk {
        cipher: &cipher,
        hash,
        only_encrypted: metadata.mac_only_encrypted,
        path: Vec::new(),
    };
    let mut document = Node::Map(entries);
    walk.open(&mut document)?;
    let found = hex::encode_upper(walk.hash.finalize());
    let mac = Sealed::parse(&metadata.mac)
        .ok_or_else(|| SopsError::Damaged("its MAC is none".into()))
        .and_then(|mac| cipher.open(&mac, &metadata.lastmodified))
        .map_err(|_| SopsError::Damaged("its MAC does not open".into()))?;
    match mac == found.as_bytes() {
        true => Ok(document.value()),
        false => Err(SopsError::Damaged("its MAC is that of other values".into())),
    }
}

/// The keys of a file as `age-keygen` and SOPS write it: one a line, among comments.
fn identities(file: &str) -> Result<Vec<age::x25519::Identity>, SopsError> {
    let lines = file.lines().map(str::trim);
    let found: Vec<_> = lines
        .filter(|line| line.starts_with("AGE-SECRET-KEY-1"))
        .filter_map(|line| line.parse().ok())
        .collect();
    match found.is_empty() {
        true => Err(SopsError::NoIdentity),
        false => Ok(found),
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    age: Vec<Recipient>,
    lastmodified: String,
    mac: String,
    #[serde(default)]
    mac_only_encrypted: bool,
}

#[derive(Debug, Deserialize)]
struct Recipient {
    recipient: String,
    enc: String,
}

/// The key that all values are encrypted with.
fn data_key(
    metadata: &Metadata,
    identities: &[age::x25519::Identity],
) -> Result<[u8; 32], SopsError> {
    for recipient in &metadata.age {
        for identity in identities {
            match age::decrypt(identity, recipient.enc.as_bytes()) {
                Ok(key) => {
                    let long = || SopsError::Damaged("its data key has another length".into());
                    return key.try_into().map_err(|_| long());
                }
                Err(age::DecryptError::NoMatchingKeys) => {}
                Err(_) => {
                    let to = &recipient.recipient;
                    return Err(SopsError::Damaged(format!(
                        "the data key for {to} is not whole"
                    )));
                }
            }
        }
    }
    let recipients = metadata.age.iter().map(|to| to.recipient.clone());
    Err(SopsError::OtherKey(recipients.collect()))
}

/// `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.
struct Sealed {
    /// Ciphertext, and the tag behind it.
    data: Vec<u8>,
    nonce: [u8; 32],
    kind: String,
}

impl Sealed {
    fn parse(text: &str) -> Option<Self> {
        let inside = text
            .strip_prefix("ENC[AES256_GCM,data:")?
            .strip_suffix(']')?;
        let (data, rest) = inside.split_once(",iv:")?;
        let (nonce, rest) = rest.split_once(",tag:")?;
        let (tag, kind) = rest.split_once(",type:")?;
        let mut data = BASE64_STANDARD.decode(data).ok()?;
        data.extend(
            BASE64_STANDARD
                .decode(tag)
                .ok()
                .filter(|tag| tag.len() == 16)?,
        );
        Some(Self {
            data,
            nonce: BASE64_STANDARD.decode(nonce).ok()?.try_into().ok()?,
            kind: kind.to_owned(),
        })
    }
}

struct Cipher(AesGcm<Aes256, U32>);

impl Cipher {
    fn new(key: &[u8; 32]) -> Self {
        Self(AesGcm::new(&Key::<AesGcm<Aes256, U32>>::from(*key)))
    }

    /// The bytes of a value; `bound` is where it must stand.
    fn open(&self, sealed: &Sealed, bound: &str) -> Result<Vec<u8>, SopsError> {
        let payload = Payload {
            msg: &sealed.data,
            aad: bound.as_bytes(),
        };
        let nonce = Nonce::<U32>::from(sealed.nonce);
        let opened = self.0.decrypt(&nonce, payload);
        opened.map_err(|_| SopsError::Damaged(format!("the value at `{bound}` does not open")))
    }
}

/// Opens all values of a document in their order, and adds them up for the MAC.
struct Walk<'a> {
    cipher: &'a Cipher,
    hash: Sha512,
    only_encrypted: bool,
    path: Vec<String>,
}

impl Walk<'_> {
    fn open(&mut self, node: &mut Node) -> Result<(), SopsError> {
        match node {
            Node::Map(entries) => {
                for (key, value) in entries {
                    self.path.push(key.clone());
                    self.open(value)?;
                    self.path.pop();
                }
            }
            // The place of an item is that of its list.
            Node::List(items) => {
                for item in items {
                    self.open(item)?;
                }
            }
            Node::Null => {}
            Node::Text(text) if text.starts_with("ENC[AES256_GCM,") => {
                let at = self.path.join(":") + ":";
                let wrong = || SopsError::Damaged(format!("the value at `{at}` is cut off"));
                let sealed = Sealed::parse(text).ok_or_else(wrong)?;
                let bytes = self.cipher.open(&sealed, &at)?;
                self.hash.update(&bytes);
                *node = typed(&sealed.kind, bytes).ok_or_else(wrong)?;
            }
            _ if self.only_encrypted => {}
            Node::Text(text) => self.hash.update(text.as_bytes()),
            Node::Bool(true) => self.hash.update(b"True"),
            Node::Bool(false) => self.hash.update(b"False"),
            Node::Int(number) => self.hash.update(number.to_string()),
            Node::Float(number) => self.hash.update(number.to_string()),
        }
        Ok(())
    }
}

/// A value as it was before it was encrypted.
fn typed(kind: &str, bytes: Vec<u8>) -> Option<Node> {
    let text = String::from_utf8(bytes).ok()?;
    Some(match kind {
        "str" | "bytes" | "comment" => Node::Text(text),
        "int" => Node::Int(text.parse().ok()?),
        "float" => Node::Float(text.parse().ok()?),
        "bool" => Node::Bool(text.to_ascii_lowercase().parse().ok()?),
        _ => return None,
    })
}

/// A document in the order in which it is written, which the MAC depends on.
enum Node {
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    Text(String),
    Bool(bool),
    Int(i64),
    Float(f64),
    Null,
}

impl Node {
    fn value(self) -> Value {
        match self {
            Node::Map(entries) => {
                let entries = entries.into_iter().map(|(key, node)| (key, node.value()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
            Node::List(items) => items.into_iter().map(Node::value).collect(),
            Node::Text(text) => text.into(),
            Node::Bool(yes) => yes.into(),
            Node::Int(number) => number.into(),
            Node::Float(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
            Node::Null => Value::Null,
        }
    }
}

fn read(yaml: &str) -> Result<Node, SopsError> {
    let limits: Options = options! {
        budget: budget! { max_events: 100_000, max_nodes: 50_000 },
        alias_limits: alias_limits! { max_total_replayed_events: 10_000 },
    };
    serde_saphyr::from_str_with_options(yaml, limits).map_err(|error| {
        // The line itself may hold a secret that somebody forgot to encrypt.
        let place = error.location().map(|at| format!(" (line {})", at.line()));
        SopsError::NotSops(format!("not valid YAML{}", place.unwrap_or_default()))
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Node, E> {
        Ok(Node::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Int(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Node, E> {
        i64::try_from(number).map(Node::Int).map_err(E::custom)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some((key, value)) = from.next_entry()? {
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
#[path = "sops_tests.rs"]
mod tests;
