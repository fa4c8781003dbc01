//! Where an image comes from, and what may be said about it: a presigned URL is a secret.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ureq::http::Uri;

use crate::oci::Repository;

/// Where an image comes from. Its `Display` leaves the query out: the signature stands there.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of this machine, `file:/path`.
    File(PathBuf),
    /// An object, by https, or by http on this machine.
    Http(Uri),
    /// A repository of a registry, `oci://host/repository`.
    Registry(Repository),
}

/// Why a URL is not taken. The URL is not repeated, because it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Not a URL.
    #[error("the URL cannot be read; give https://…, or file:/absolute/path")]
    Unreadable,
    /// Plain http to another machine.
    #[error("a URL with http: is for this machine only; use https:")]
    Insecure,
    /// Another scheme, or none.
    #[error("the URL is neither https:, oci: nor file:")]
    Scheme,
    /// Not a repository of a registry.
    #[error("the URL names no repository of a registry; give oci://HOST/REPOSITORY")]
    Repository,
    /// User and password in the URL.
    #[error("a URL with a user or password is not taken; use a presigned URL")]
    Credentials,
}

impl FromStr for Source {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(BadUrl::Unreadable);
            }
            return Ok(Self::File(PathBuf::from(path)));
        }
        if text.starts_with("oci:") || text.starts_with("oci+http:") {
            return text.parse().map(Self::Registry);
        }
        let uri: Uri = text.parse().map_err(|_| BadUrl::Unreadable)?;
        let authority = uri.authority().ok_or(BadUrl::Unreadable)?;
        if authority.as_str().contains('@') {
            return Err(BadUrl::Credentials);
        }
        match uri.scheme_str() {
            Some("https") => Ok(Self::Http(uri)),
            Some("http") if is_loopback(authority.host()) => Ok(Self::Http(uri)),
            Some("http") => Err(BadUrl::Insecure),
            _ => Err(BadUrl::Scheme),
        }
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Registry(repository) => repository.fmt(f),
            Self::Http(uri) => {
                let scheme = uri.scheme_str().unwrap_or_default();
                let host = uri.authority().map_or("", |authority| authority.as_str());
                write!(f, "{scheme}://{host}{}", uri.path())
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, BadUrl>) {
        let shown = text.parse::<Source>().map(|source| source.to_string());
        assert_eq!(shown, expected.map(str::to_owned));
    }

    #[test]
    fn urls_are_shown_without_their_signature() {
        check(
            "https://s3.example/b/k.tar.zst?X-Amz-Signature=abc",
            Ok("https://s3.example/b/k.tar.zst"),
        );
        check(
            "http://127.0.0.1:9000/b/k?x=y",
            Ok("http://127.0.0.1:9000/b/k"),
        );
        check("http://[::1]:9000/b", Ok("http://[::1]:9000/b"));
        check("file:/srv/a.tar.zst", Ok("file:/srv/a.tar.zst"));
        check("file:///srv/a.tar.zst", Ok("file:/srv/a.tar.zst"));
    }

    #[test]
    fn urls_that_are_not_taken() {
        check("http://s3.example/b", Err(BadUrl::Insecure));
        check("http://127.0.0.1.example/b", Err(BadUrl::Insecure));
        check("http://localhost@s3.example/b", Err(BadUrl::Credentials));
        check("ftp://s3.example/b", Err(BadUrl::Scheme));
        check("file:relative", Err(BadUrl::Unreadable));
        check("/srv/a.tar.zst", Err(BadUrl::Unreadable));
        check("", Err(BadUrl::Unreadable));
    }

    #[test]
    fn repositories_of_registries() {
        check("oci://r.example/a/b", Ok("oci://r.example/a/b"));
        check(
            "oci://r.example:5000/a:1.2",
            Ok("oci://r.example:5000/a:1.2"),
        );
        check(
            "oci+http://localhost:5000/a",
            Ok("oci+http://localhost:5000/a"),
        );
        check("oci+http://r.example/a", Err(BadUrl::Insecure));
        check("oci://u:p@r.example/a", Err(BadUrl::Repository));
        check("oci://just-a-name", Err(BadUrl::Repository));
        check("oci://library/debian", Err(BadUrl::Repository));
        check("oci://r.example/A", Err(BadUrl::Repository));
        check("oci://r.example/a?x=y", Err(BadUrl::Repository));
        check("oci://r.example/../a", Err(BadUrl::Repository));
        check("oci:r.example/a", Err(BadUrl::Repository));
    }
}
