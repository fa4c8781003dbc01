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
            Some(domain) if !domain.is_empty() => text.replace(domain, DOMAIN),
            _ => text,
        }
    }
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
