//! What the clients of clouds have in common: reading answers, and no more of them than is sound.

use std::net::IpAddr;

use jiff::Timestamp;
use reqwest::Url;
use reqwest::header::{DATE, HeaderMap};

/// How much of an answer's body an error keeps.
const BODY_KEPT: usize = 500;

/// When an answer was given, by the cloud's own clock.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

/// Whether a text may stand in a path as an id.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether it leads to this machine; no proxy is asked then.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The whole body, or `None` when it is larger than `limit`.
pub(super) async fn read(
    response: &mut reqwest::Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The first characters of a text.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(BODY_KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_cut_between_characters() {
        let kept = cut(&"я".repeat(2000));
        assert_eq!(kept.chars().count(), BODY_KEPT + 1);
    }
}
