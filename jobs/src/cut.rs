//! Quoting what somebody gave us without repeating all of it: errors go into logs and dead queues.

/// A text of at most about `most` bytes: a longer one keeps its beginning and its end.
pub(crate) fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    // serde puts what it expected at the end.
    let head = text.floor_char_boundary(most * 2 / 3);
    let tail = text.ceil_char_boundary(text.len() - most / 3);
    format!("{} … {}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept() {
        assert_eq!(cut("short".into(), 10), "short");
        let long = format!("invalid type: \"{}\", expected u32", "ж".repeat(1000));
        let kept = cut(long, 90);
        assert!(kept.len() < 100, "{kept}");
        assert!(
            kept.starts_with("invalid type: \"ж") && kept.ends_with(", expected u32"),
            "{kept}"
        );
    }
}
