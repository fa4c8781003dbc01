//! A URL whose domain is a secret.

use std::fmt;

use jobs::store::Secret;
use reqwest::Url;

use crate::engine::{Ctx, JobError};
use crate::sealed;

/// What stands for the domain in a URL, and the name of its secret.
const DOMAIN: &str = "${DOMAIN}";

/// A URL with its domain in it.
#[derive(Clone)]
pub struct Target {
    url: Url,
    domain: Option<Secret>,
}

impl Target {
    /// Puts the domain into a URL.
    pub fn new(template: &str, domain: Option<&str>) -> Result<Self, String> {
        let url = match domain {
            Some(domain) => template.replace(DOMAIN, domain),
            None => template.to_owned(),
        };
        Ok(Self {
            url: Url::parse(&url).map_err(|error| error.to_string())?,
            domain: domain.map(|domain| Secret::new(domain.to_owned())),
        })
    }

    /// The same with the domain that the recovery was given.
    pub async fn of(ctx: &Ctx, template: &str) -> Result<Self, JobError> {
        let domain = domain(ctx, template).await?;
        let domain = domain.as_ref().map(|domain| domain.reveal().trim());
        Self::new(template, domain)
            .map_err(|error| JobError::fatal(format!("the target `{template}`: {error}")))
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Takes the domain out of a text that goes into a record.
    pub fn hide(&self, text: String) -> String {
        match self.domain.as_ref().map(Secret::reveal) {
            Some(domain) => hide(&text, domain.trim()),
            None => text,
        }
    }
}

/// A text without the domain, however that is spelled: URLs and what they are put into make it small, and write
/// letters beyond ASCII in their own way.
pub fn hide(text: &str, domain: &str) -> String {
    let as_host = Url::parse(&format!("http://{domain}/")).ok();
    let as_host = as_host.and_then(|url| url.host_str().map(str::to_owned));
    let mut text = text.to_owned();
    for spelled in [Some(domain.to_owned()), as_host].into_iter().flatten() {
        let spelled = spelled.to_ascii_lowercase();
        if spelled.is_empty() {
            continue;
        }
        // The same length, byte by byte.
        let small = text.to_ascii_lowercase();
        let mut hidden = String::new();
        let mut end = 0;
        for (at, found) in small.match_indices(&spelled) {
            hidden.push_str(&text[end..at]);
            hidden.push_str(DOMAIN);
            end = at + found.len();
        }
        hidden.push_str(&text[end..]);
        text = hidden;
    }
    text
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").finish()
    }
}

/// The secret domain, if a URL has one.
pub(super) async fn domain(ctx: &Ctx, template: &str) -> Result<Option<Secret>, JobError> {
    match template.contains(DOMAIN) {
        true => Ok(Some(
            sealed::need(&sealed::secrets(ctx).await?, "DOMAIN")?.clone(),
        )),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_hidden_however_it_is_spelled() {
        for (domain, text) in [
            (
                "Shop.Example.org",
                "not valid for name shop.example.org, SHOP.EXAMPLE.ORG",
            ),
            (
                "bücher.example",
                "bücher.example is xn--bcher-kva.example here",
            ),
            ("a.b", "a.ba.b"),
        ] {
            let hidden = hide(text, domain);
            assert_eq!(hidden.matches(DOMAIN).count(), 2, "{hidden}");
            assert!(
                !hidden.contains("xn--") && !hidden.to_lowercase().contains("example"),
                "{hidden}"
            );
        }
        assert_eq!(hide("as it is", ""), "as it is");
    }
}
