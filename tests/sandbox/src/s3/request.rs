//! What a request is about, read from its method and URI, before anybody has parsed it as S3.

use http::{Method, Uri};

/// The operations that faults and counters tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// PutObject.
    Put,
    /// GetObject.
    Get,
    /// HeadObject.
    Head,
    /// ListObjectsV2 (and ListObjects).
    List,
    /// DeleteObject.
    Delete,
    /// Everything about buckets.
    Other,
}

impl Op {
    pub(super) const COUNT: usize = 6;

    pub(super) fn index(self) -> usize {
        match self {
            Op::Put => 0,
            Op::Get => 1,
            Op::Head => 2,
            Op::List => 3,
            Op::Delete => 4,
            Op::Other => 5,
        }
    }

    /// Which operation this is, for path-style requests.
    pub(super) fn of(method: &Method, uri: &Uri) -> Op {
        let has_key = encoded_key(uri).is_some();
        match (method.as_str(), has_key) {
            ("PUT", true) => Op::Put,
            ("GET", true) => Op::Get,
            ("HEAD", true) => Op::Head,
            ("DELETE", true) => Op::Delete,
            ("GET", false) if is_bucket(uri) && !asks_about_bucket(uri) => Op::List,
            _ => Op::Other,
        }
    }
}

/// The object key of a request, decoded.
pub(super) fn key(uri: &Uri) -> Option<String> {
    encoded_key(uri).map(percent_decode)
}

/// Percent-encodes a key for a listing with `encoding-type=url`.
pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).filter(|_| *first == b'%');
        match escape.and_then(|digits| hex::decode(digits).ok()) {
            Some(byte) => {
                out.extend(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn encoded_key(uri: &Uri) -> Option<&str> {
    let (_, key) = uri.path().strip_prefix('/')?.split_once('/')?;
    Some(key).filter(|key| !key.is_empty())
}

fn is_bucket(uri: &Uri) -> bool {
    uri.path().len() > 1
}

/// `GET /bucket?versioning` and its like are questions about the bucket, not listings.
fn asks_about_bucket(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|part| {
        let name = part.split('=').next().unwrap_or_default();
        matches!(
            name,
            "versioning" | "location" | "uploads" | "versions" | "policy" | "lifecycle"
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn operations_are_told_apart() {
        let op = |method: &str, uri: &str| {
            Op::of(&method.parse().unwrap(), &uri.parse::<Uri>().unwrap())
        };
        assert_eq!(op("PUT", "/b/k"), Op::Put);
        assert_eq!(op("PUT", "/b/"), Op::Other);
        assert_eq!(op("PUT", "/b"), Op::Other);
        assert_eq!(op("GET", "/b/k/l?x-id=GetObject"), Op::Get);
        assert_eq!(op("HEAD", "/b/k"), Op::Head);
        assert_eq!(op("HEAD", "/b"), Op::Other);
        assert_eq!(op("GET", "/b/?list-type=2&prefix=versions"), Op::List);
        assert_eq!(op("GET", "/b?list-type=2"), Op::List);
        assert_eq!(op("GET", "/b/?versioning"), Op::Other);
        assert_eq!(op("GET", "/"), Op::Other);
        assert_eq!(op("DELETE", "/b/k"), Op::Delete);
    }

    #[test]
    fn keys_are_decoded() {
        let key = |uri: &str| key(&uri.parse::<Uri>().unwrap()).unwrap();
        assert_eq!(key("/b/a%20b%2Bc+d%25/%D1%8F"), "a b+c+d%/я");
        assert_eq!(key("/b/100%"), "100%");
        assert_eq!(percent_encode("a b+c%/я"), "a%20b%2Bc%25/%D1%8F");
    }
}
