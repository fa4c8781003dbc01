//! Who asks, and whether they may: the name and the groups of a client certificate, or of a bearer token
//! where somebody knows tokens.
//!
//! There is no RBAC here: `system:masters` may do everything, everybody may discover, others may
//! nothing.

use std::sync::Arc;

use super::call::Target;
use super::kinds::Kind;
use super::refusal::Refusal;

/// Knows whose a bearer token is; `None` where it is nobody's, or not any more.
pub type Tokens = Arc<dyn Fn(&str) -> Option<User> + Send + Sync>;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Their name.
    pub name: String,
    /// Their groups; only `system:masters` counts.
    pub groups: Vec<String>,
}

impl User {
    /// Somebody without credentials.
    pub(super) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }

    /// The owner of a verified certificate.
    pub(super) fn of_certificate(der: &[u8]) -> Option<Self> {
        let (name, groups) = subject(der)?;
        Some(Self { name, groups })
    }

    pub(super) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }

    fn is_known(&self) -> bool {
        self.name != "system:anonymous"
    }

    /// May they see what there is?
    pub(super) fn may_visit(&self, path: &str) -> Result<(), Refusal> {
        let public = ["/version", "/healthz", "/livez", "/readyz"].contains(&path);
        if self.is_known() || public {
            return Ok(());
        }
        let why = format!("forbidden: User {:?} cannot get path {path:?}", self.name);
        Err(Refusal::forbidden_page(why))
    }

    /// May they do this with these objects?
    pub(super) fn may(&self, verb: &str, kind: &Kind, target: &Target) -> Result<(), Refusal> {
        if self.is_master() {
            return Ok(());
        }
        let resource = match &target.sub {
            Some(sub) => format!("{}/{sub}", kind.plural),
            None => kind.plural.clone(),
        };
        let at = match &target.namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        let why = format!(
            "User {:?} cannot {verb} resource {resource:?} in API group {:?} {at}",
            self.name, kind.group
        );
        Err(Refusal::forbidden(kind, target.name.as_deref(), &why))
    }
}

/// The common name and the organisations of an X.509 certificate's subject (RFC 5280, 4.1).
fn subject(certificate: &[u8]) -> Option<(String, Vec<String>)> {
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    let (tag, _, after) = element(rest)?;
    if tag == VERSION {
        rest = after;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        (_, _, rest) = element(rest)?;
    }
    let (_, mut names, _) = element(rest)?;
    let (mut common, mut organisations) = (String::new(), Vec::new());
    while !names.is_empty() {
        let (_, mut set, after) = element(names)?;
        names = after;
        while !set.is_empty() {
            let (_, pair, after) = element(set)?;
            set = after;
            let (_, kind, value) = element(pair)?;
            let (_, text, _) = element(value)?;
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                // 2.5.4.3 and 2.5.4.10
                [0x55, 0x04, 0x03] => common = text,
                [0x55, 0x04, 0x0a] => organisations.push(text),
                _ => {}
            }
        }
    }
    Some((common, organisations))
}

/// The first DER element: its tag, what is in it, and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        if count > 4 || rest.len() < count {
            return None;
        }
        let (digits, after) = rest.split_at(count);
        length = digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = after;
    }
    if rest.len() < length {
        return None;
    }
    let (inside, after) = rest.split_at(length);
    Some((tag, inside, after))
}
