//! What a registry wants to know before it answers: the header `WWW-Authenticate`. Pure.

/// How to prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With a token, which is to be had at a URL.
    Bearer {
        realm: String,
        service: Option<String>,
    },
    /// With user and password.
    Basic,
}

impl Challenge {
    /// The first challenge of a header that we can meet; tokens are preferred.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let known: Vec<_> = headers.filter_map(Self::parse).collect();
        let bearer = known.iter().find(|known| **known != Self::Basic);
        bearer.or(known.first()).cloned()
    }

    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest)?;
        let find = |wanted: &str| {
            let found = parameters
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.clone())
        };
        Some(Self::Bearer {
            realm: find("realm")?,
            service: find("service"),
        })
    }
}

/// `key="value",key=value`, as RFC 9110 has it.
fn parameters(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        if text.is_empty() {
            return Some(found);
        }
        let (key, rest) = text.split_once('=')?;
        let (value, rest) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        found.push((key.trim().to_owned(), value));
        text = rest;
    }
}

/// A quoted text up to its end, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[&str], expected: Option<Challenge>) {
        assert_eq!(Challenge::choose(headers.iter().copied()), expected);
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_of_registries() {
        check(
            &[
                r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a,b:pull""#,
            ],
            bearer("https://auth.example/token", Some("r.example")),
        );
        check(
            &[r#"bearer service=s, realm="https://a/\"t""#],
            bearer("https://a/\"t", Some("s")),
        );
        check(&[r#"Basic realm="x""#], Some(Challenge::Basic));
        check(
            &["Basic", r#"Bearer realm="https://a""#],
            bearer("https://a", None),
        );
    }

    #[test]
    fn challenges_that_cannot_be_met() {
        check(&[], None);
        check(&["Negotiate"], None);
        check(&["Bearer"], None);
        check(&[r#"Bearer service="s""#], None);
        check(&[r#"Bearer realm="https://a"#], None);
    }
}
