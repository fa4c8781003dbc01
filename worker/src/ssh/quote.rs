//! Quoting for a POSIX shell. SSH carries one command line, which the login shell of the user
//! splits again; this makes it split where we want.

/// The command line that a shell splits into exactly `argv`.
pub fn command_line<'a>(argv: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = argv.into_iter().map(quote).collect();
    quoted.join(" ")
}

/// One word for a POSIX shell. Plain words stay readable; all others stand in single quotes,
/// where only the single quote itself is special.
pub fn quote(word: &str) -> String {
    // Not plain: `=` (an assignment when it comes first) and `~` (a home directory).
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:,@%+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_words_stay_readable() {
        for (word, want) in [
            ("/mnt/disks/vdb", "/mnt/disks/vdb"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("A=b", "'A=b'"),
            ("~", "'~'"),
            ("$(reboot)", "'$(reboot)'"),
            ("a\nb", "'a\nb'"),
        ] {
            assert_eq!(quote(word), want);
        }
    }

    /// What a real shell makes of a command line.
    fn split_by_sh(line: &str) -> Vec<String> {
        let script = format!("for word in {line}; do printf '%s\\0' \"$word\"; done");
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(script)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_real_shell_reads_back_what_was_quoted(
            words in prop::collection::vec(
                prop_oneof!["[^\0]{0,20}", "[ '\"$`\\\\!*?~#&;|<>(){}\\[\\]=\t\n-]{0,8}"], 1..5),
        ) {
            let line = command_line(words.iter().map(String::as_str));
            prop_assert_eq!(split_by_sh(&line), words);
        }
    }
}
