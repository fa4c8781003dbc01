//! Reading YAML so that every error names its place: line and column while it is not YAML, the
//! path of the field once it is.

use serde::de::DeserializeOwned;

use crate::spec::Problem;

/// Reads a document into `T`.
pub(crate) fn parse<T: DeserializeOwned>(yaml: &str) -> Result<T, Problem> {
    let value: serde_json::Value = serde_saphyr::from_str(yaml).map_err(|e| {
        Problem::new(
            "(document)",
            format!("not valid YAML: {}", first_line(&e.to_string())),
        )
    })?;
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = match e.path().to_string() {
            path if path == "." => "(top level)".to_owned(),
            path => path,
        };
        Problem::new(path, e.into_inner().to_string())
    })
}

fn first_line(text: &str) -> &str {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("unreadable")
}
