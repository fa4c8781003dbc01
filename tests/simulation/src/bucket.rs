//! A bucket in memory that speaks as much S3 as the store does: PUT, with a condition or without,
//! GET, and LIST. No sockets, no threads, no signatures: one call, one effect, at one point in time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Mutex;

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use bytes::Bytes;

use super::stage::lock;

/// Its name, the first part of every path.
pub(crate) const NAME: &str = "rekindle";

/// The objects.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// Lets every creator of a key win, as some stores do: to see that the laws notice.
    pub(crate) lets_all_win: bool,
}

/// What a request did.
#[derive(Debug)]
pub(crate) enum Did {
    /// Looked, or was refused.
    Nothing,
    /// Wrote an object.
    Wrote { key: String, body: Bytes },
}

impl Bucket {
    /// Answers a request and says what it did.
    pub(crate) fn answer(&self, request: &HttpRequest) -> (HttpResponse, Did) {
        let (path, query) = split(request.uri());
        match (request.method(), query) {
            ("PUT", _) => self.put(path, request),
            ("GET", query) if query.contains("list-type=2") => (self.list(query), Did::Nothing),
            ("GET", _) => (self.get(path), Did::Nothing),
            (method, _) => (
                refusal(501, "NotImplemented", &format!("{method} {path}")),
                Did::Nothing,
            ),
        }
    }

    fn put(&self, key: &str, request: &HttpRequest) -> (HttpResponse, Did) {
        let body = Bytes::copy_from_slice(request.body().bytes().unwrap_or_default());
        let absent = request.headers().get("if-none-match").is_some();
        let mut objects = lock(&self.objects);
        if absent && objects.contains_key(key) && !self.lets_all_win {
            return (
                refusal(412, "PreconditionFailed", "it is there"),
                Did::Nothing,
            );
        }
        objects.insert(key.to_owned(), body.clone());
        let key = key.to_owned();
        (answer(200, SdkBody::empty()), Did::Wrote { key, body })
    }

    fn get(&self, key: &str) -> HttpResponse {
        match lock(&self.objects).get(key) {
            Some(body) => answer(200, SdkBody::from(body.clone())),
            None => refusal(404, "NoSuchKey", "there is no such key"),
        }
    }

    fn list(&self, query: &str) -> HttpResponse {
        let parameter = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| decode(value))
                .next()
                .unwrap_or_default()
        };
        let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
        let after = parameter("start-after");
        let mut xml = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
        let mut folders = BTreeSet::new();
        for key in lock(&self.objects)
            .range(prefix.clone()..)
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(&prefix))
            .filter(|key| **key > after)
        {
            let folder = key[prefix.len()..]
                .split_once('/')
                .map(|(folder, _)| folder);
            match folder {
                Some(folder) if delimiter == "/" => {
                    folders.insert(folder.to_owned());
                }
                _ => {
                    let _ = write!(xml, "<Contents><Key>{key}</Key></Contents>");
                }
            }
        }
        for folder in folders {
            let _ = write!(
                xml,
                "<CommonPrefixes><Prefix>{prefix}{folder}/</Prefix></CommonPrefixes>"
            );
        }
        xml.push_str("</ListBucketResult>");
        answer(200, SdkBody::from(xml))
    }
}

/// What a request asks for, in a few words.
pub(crate) fn describe(request: &HttpRequest) -> String {
    let (path, query) = split(request.uri());
    if query.contains("list-type=2") {
        let prefix = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("prefix="));
        return format!("LIST {}", decode(prefix.unwrap_or_default()));
    }
    format!("{} {path}", request.method())
}

/// The key and the query of `http://host/bucket/key?query`.
fn split(uri: &str) -> (&str, &str) {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let key = path
        .split_once('/')
        .and_then(|(_, path)| path.strip_prefix(NAME))
        .map_or("", |key| key.trim_start_matches('/'));
    (key, query)
}

/// Takes `%2F` and the like back.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || {
            rest.next()
                .and_then(|b| char::from(b).to_digit(16))
                .unwrap_or(0)
        };
        let (high, low) = (digit(), digit());
        out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An error as S3 words it.
pub(crate) fn refusal(status: u16, code: &str, message: &str) -> HttpResponse {
    let xml = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    answer(status, SdkBody::from(xml))
}

fn answer(status: u16, body: SdkBody) -> HttpResponse {
    let status = StatusCode::try_from(status).expect("all of ours are valid");
    HttpResponse::new(status, body)
}
