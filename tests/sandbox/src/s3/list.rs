//! One page of ListObjectsV2: which keys and common prefixes, and where the next page begins.

use std::ops::Bound;
use std::sync::Arc;

use super::store::{Keys, Object};

/// What the client asked for, already checked.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: Option<&'a str>,
    /// `start-after`: only keys behind this one.
    pub(super) after: Option<&'a str>,
    /// Where the last page stopped; wins over `after`.
    pub(super) resume: Option<&'a str>,
    pub(super) max: usize,
}

/// One page, in order.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<(Arc<str>, Arc<Object>)>,
    pub(super) prefixes: Vec<String>,
    /// The value of `resume` for the next page, if there is one.
    pub(super) next: Option<String>,
}

pub(super) fn page(keys: &Keys, query: &Query<'_>) -> Page {
    let mut page = Page::default();
    if query.max == 0 {
        return page;
    }
    let mut last = String::new();
    let mut start = start_of(query);
    'seek: loop {
        let range = (start.as_ref().map(String::as_str), Bound::Unbounded);
        for (key, object) in keys.range::<str, _>(range) {
            let Some(rest) = key.strip_prefix(query.prefix) else {
                break 'seek;
            };
            if page.objects.len() + page.prefixes.len() == query.max {
                page.next = Some(last);
                break 'seek;
            }
            let cut = query
                .delimiter
                .and_then(|d| rest.find(d).map(|at| at + d.len()));
            let Some(cut) = cut else {
                last = key.to_string();
                page.objects.push((Arc::clone(key), Arc::clone(object)));
                continue;
            };
            // The keys below a common prefix may be many: jump behind them all.
            let prefix = &key[..query.prefix.len() + cut];
            page.prefixes.push(prefix.to_owned());
            let Some(behind) = behind(prefix) else {
                break 'seek;
            };
            // A page that ends with a prefix is resumed behind everything below it.
            last = format!("{PREFIX_MARK}{prefix}");
            start = Bound::Included(behind);
            continue 'seek;
        }
        break;
    }
    page
}

/// Marks a resume position that is a whole common prefix. No key begins with it: it is a
/// character that XML and therefore S3 clients cannot carry.
const PREFIX_MARK: char = '\u{0}';

fn start_of(query: &Query<'_>) -> Bound<String> {
    let mut start = Bound::Included(query.prefix.to_owned());
    let after = match (query.resume, query.after) {
        (Some(resume), _) => match resume.strip_prefix(PREFIX_MARK) {
            Some(prefix) => behind(prefix).map(Bound::Included),
            None => Some(Bound::Excluded(resume.to_owned())),
        },
        (None, Some(after)) => Some(Bound::Excluded(after.to_owned())),
        (None, None) => None,
    };
    if let Some(after) = after {
        let beyond = match &after {
            Bound::Included(key) | Bound::Excluded(key) => key.as_str() >= query.prefix,
            Bound::Unbounded => false,
        };
        if beyond {
            start = after;
        }
    }
    start
}

/// The smallest string that sorts behind every string beginning with `prefix`.
fn behind(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'), // the surrogates are no characters
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn keys(names: &[&str]) -> Keys {
        let object = Arc::new(Object::in_memory(Bytes::new()));
        names
            .iter()
            .map(|name| (Arc::from(*name), Arc::clone(&object)))
            .collect()
    }

    /// Walks all pages and writes them as `a b | c/`.
    fn walk(keys: &Keys, prefix: &str, delimiter: Option<&str>, max: usize) -> String {
        let mut pages = Vec::new();
        let mut resume: Option<String> = None;
        loop {
            let query = Query {
                prefix,
                delimiter,
                after: None,
                resume: resume.as_deref(),
                max,
            };
            let page = page(keys, &query);
            let mut names: Vec<&str> = page.objects.iter().map(|(key, _)| &**key).collect();
            names.extend(page.prefixes.iter().map(String::as_str));
            names.sort_unstable();
            pages.push(names.join(" "));
            assert!(pages.len() < 100, "the listing does not end: {pages:?}");
            match page.next {
                Some(next) => resume = Some(next),
                None => return pages.join(" | "),
            }
        }
    }

    #[test]
    fn pages_join_without_gap_or_repeat() {
        let all = keys(&["a", "b/1", "b/2", "b/3", "c", "d/e/1", "d/f/2"]);
        assert_eq!(walk(&all, "", None, 3), "a b/1 b/2 | b/3 c d/e/1 | d/f/2");
        assert_eq!(walk(&all, "b/", None, 1), "b/1 | b/2 | b/3");
        assert_eq!(walk(&all, "", Some("/"), 10), "a b/ c d/");
        assert_eq!(walk(&all, "", Some("/"), 1), "a | b/ | c | d/");
        assert_eq!(walk(&all, "d/", Some("/"), 1), "d/e/ | d/f/");
        assert_eq!(walk(&all, "x", Some("/"), 1), "");
        assert_eq!(walk(&all, "", Some("b/"), 2), "a b/ | c d/e/1 | d/f/2");
    }

    #[test]
    fn a_page_can_be_exactly_full() {
        assert_eq!(walk(&keys(&["a", "b"]), "", None, 2), "a b");
        assert_eq!(walk(&keys(&["a/1", "b/1"]), "", Some("/"), 2), "a/ b/");
    }

    #[test]
    fn start_after_need_not_exist_and_may_lie_before_the_prefix() {
        let all = keys(&["a", "p/1", "p/2", "p/3", "q"]);
        let names = |after| {
            let query = Query {
                prefix: "p/",
                after: Some(after),
                max: 10,
                ..Query::default()
            };
            page(&all, &query)
                .objects
                .iter()
                .map(|(k, _)| k.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names("p/1"), ["p/2", "p/3"]);
        assert_eq!(names("p/15"), ["p/2", "p/3"]);
        assert_eq!(names("a"), ["p/1", "p/2", "p/3"]);
        assert!(names("z").is_empty());
    }

    #[test]
    fn behind_a_prefix_is_before_its_neighbour() {
        assert_eq!(behind("a/"), Some("a0".into()));
        assert_eq!(behind("a\u{10ffff}"), Some("b".into()));
        assert_eq!(behind("\u{d7ff}"), Some("\u{e000}".into()));
        assert_eq!(behind("\u{10ffff}"), None);
        assert_eq!(behind(""), None);
    }
}
