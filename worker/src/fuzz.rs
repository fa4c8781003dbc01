//! Properties of what we read from outside, and how many cases the fuzz tests of this crate try.
//!
//! `REKINDLE_FUZZ_CASES` runs longer by hand. A case that fails is written down as a plain test.

use proptest::prelude::*;
use proptest::test_runner::FailurePersistence;

use crate::net::Dialer;
use crate::ssh::keys::{generate_host_key, parse_private_key, parse_public_key};

/// As many cases as the environment says, else `default`.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let cases = match std::env::var("REKINDLE_FUZZ_CASES") {
        Ok(text) => text.parse().expect("REKINDLE_FUZZ_CASES is a number"),
        Err(_) => default,
    };
    ProptestConfig {
        cases,
        failure_persistence: None::<Box<dyn FailurePersistence>>,
        ..ProptestConfig::default()
    }
}

/// A text with some bytes replaced.
fn damaged(text: String) -> impl Strategy<Value = String> {
    (0..=text.len(), 0_usize..40, "[\\PC\n\r\t]{0,10}").prop_map(move |(at, len, with)| {
        let mut bytes = text.clone().into_bytes();
        let end = (at + len).min(bytes.len());
        bytes.splice(at..end, with.into_bytes());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn any_key_is_a_key_or_an_error_that_shows_none_of_it(
        text in prop_oneof![
            Just(()).prop_flat_map(|()| damaged(generate_host_key().expect("a key").private.expose().to_owned())),
            Just(()).prop_flat_map(|()| damaged(generate_host_key().expect("a key").public)),
            "\\PC{0,100}",
            "-----BEGIN [A-Z ]{0,30}-----\n(\\PC{0,70}\n){0,4}-----END [A-Z ]{0,30}-----\n",
        ],
    ) {
        let error = match parse_private_key(&text, "SSH_PRIVATE_KEY") {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        for line in text.lines().map(str::trim).filter(|line| line.len() > 30 && !line.starts_with("--")) {
            prop_assert!(!error.contains(line), "{}", error);
        }
        let _ = parse_public_key(&text);
    }

    #[test]
    fn any_proxy_address_is_one_or_an_error_that_shows_no_password(
        scheme in prop_oneof![Just("socks5"), Just("socks5h"), Just("http"), Just("")],
        password in "[a-z%@:/?#]{0,6}pass%word[a-z%@]{0,6}",
        host in prop_oneof![Just("proxy".to_owned()), Just("[::1]".to_owned()), "\\PC{0,12}"],
        rest in prop_oneof![Just(":1080".to_owned()), Just(":99999".to_owned()), "\\PC{0,8}"],
    ) {
        let url = format!("{scheme}://user:{password}@{host}{rest}");
        match Dialer::through(&url) {
            Ok(dialer) => {
                let shown = format!("{dialer:?}");
                prop_assert!(!shown.contains("pass%word"), "{}", shown);
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains("pass%word"), "{}", shown);
            }
        }
    }
}
