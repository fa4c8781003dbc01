//! The list of images, as Kubespray's `contrib/offline/generate_list.sh` makes it.

use std::collections::BTreeMap;

use super::Reference;
use crate::spec::Problem;

/// More images than anybody has; a longer list is another file.
const MOST: usize = 2000;
/// Problems that are told: a file of another kind has one in every line.
const TOLD: usize = 20;

/// The images that are to be mirrored, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List(Vec<Reference>);

impl List {
    /// Reads a list: a reference a line, empty lines and what follows a `#` left out. Gives the problems with
    /// their lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut found = Vec::new();
        let mut images = Vec::new();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let mut bad = |reason: String| found.push(Problem::new(format!("line {line}"), reason));
            let reference: Reference = match text.parse() {
                Ok(reference) => reference,
                Err(why) => {
                    let shown: String = text.chars().take(100).collect();
                    bad(format!("`{shown}` is not an image: {why}"));
                    continue;
                }
            };
            // Also one tag with and without a digest: on a node the name can mean one image only.
            let twice = reference.names().into_iter().find_map(|name| {
                let first = seen.insert(name.clone(), line)?;
                Some(format!("`{name}` stands in line {first} already"))
            });
            match twice {
                Some(reason) => bad(reason),
                None => images.push(reference),
            }
        }
        if images.is_empty() && found.is_empty() {
            found.push(Problem::new("line 1", "there is no image in the list"));
        }
        if images.len() > MOST {
            let reason = format!(
                "{} images are more than the {MOST} that a list may have",
                images.len()
            );
            found.push(Problem::new("line 1", reason));
        }
        found.truncate(TOLD);
        match found.is_empty() {
            true => Ok(Self(images)),
            false => Err(found),
        }
    }

    /// The images, in the order of the list.
    pub fn images(&self) -> &[Reference] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn comments_and_empty_lines_are_left_out() {
        let list = List::parse("# images\r\n\r\nr.io/a:1 # the first\n  r.io/b:2\t\n").unwrap();
        let names: Vec<String> = list.images().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["r.io/a:1", "r.io/b:2"]);
    }

    #[test]
    fn problems_name_their_lines() {
        #[track_caller]
        fn check(text: &str, want: &[&str]) {
            let problems: Vec<String> = List::parse(text)
                .unwrap_err()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(problems.len(), want.len(), "{problems:?}");
            for (problem, want) in problems.iter().zip(want) {
                assert!(problem.contains(want), "`{problem}` does not say `{want}`");
            }
        }
        let digest = format!("sha256:{}", "0a".repeat(32));
        check("", &["line 1: there is no image"]);
        check("# none\n", &["line 1: there is no image"]);
        check(
            "r.io/a:1\n\nnginx\nr.io/a:1\n",
            &[
                "line 3: `nginx` is not an image",
                "line 4: `r.io/a:1` stands in line 1",
            ],
        );
        check(
            &format!("r.io/a:1@{digest}\nr.io/a:1\n"),
            &["line 2: `r.io/a:1` stands in line 1"],
        );
        check(
            "r.io/a:1 r.io/b:1",
            &["line 1: `r.io/a:1 r.io/b:1` is not an image"],
        );
        check("{{ kube_image_repo }}/pause:3.10", &["line 1"]);
        let html = "<p>not a list</p>\n".repeat(100);
        check(&html, &["is not an image"; TOLD]);
        let many: String = (0..=MOST).map(|n| format!("r.io/a:{n}\n")).collect();
        check(&many, &["2001 images are more than the 2000"]);
    }
}
