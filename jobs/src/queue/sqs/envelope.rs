//! How a message is dressed for SQS, which takes texts of XML's characters only, and how what
//! comes out is read, whoever put it in.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::types::MessageAttributeValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::queue::{MAX_DELAY, cut_reason};

/// Largest body: in base64, with its attributes, it fits into [`WORK_SIZE`].
pub(super) const LARGEST_BODY: usize = 176 * 1024;

/// The work queue takes messages of this size, whoever sends them, so that each fits into the
/// dead queue with a reason.
pub(super) const WORK_SIZE: usize = DEAD_SIZE - 16 * 1024;

/// What every service takes; AWS takes more.
pub(super) const DEAD_SIZE: usize = 256 * 1024;

const ID: &str = "rekindle-id";
const ENCODING: &str = "rekindle-encoding";
/// Whole seconds still to wait after this message was delivered. A remaining time, not a moment:
/// clocks of different machines are never compared.
const DELAY_LEFT: &str = "rekindle-delay-left";
const REASON: &str = "rekindle-reason";

const BASE64: &str = "base64";

/// A message as SQS takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) text: String,
    pub(super) attributes: Vec<(&'static str, String)>,
}

/// A message as we know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) id: Option<String>,
    pub(super) body: Bytes,
    pub(super) delay_left: Duration,
}

impl Letter {
    /// Text where the body is one, else base64.
    pub(super) fn new(id: Option<&str>, body: &[u8]) -> Letter {
        let mut attributes = Vec::new();
        if let Some(id) = id {
            attributes.push((ID, id.to_owned()));
        }
        let text = match std::str::from_utf8(body) {
            // Line ends are among what XML does not keep, and a text must not be empty.
            Ok(text) if !text.is_empty() && text.chars().all(|c| is_xml(c) && c != '\r') => {
                text.to_owned()
            }
            _ => {
                attributes.push((ENCODING, BASE64.to_owned()));
                match body {
                    [] => " ".to_owned(),
                    body => STANDARD.encode(body),
                }
            }
        };
        Letter { text, attributes }
    }

    /// With some of its delay left for whoever receives it.
    pub(super) fn delay_left(mut self, left: Duration) -> Letter {
        if !left.is_zero() {
            self.attributes
                .push((DELAY_LEFT, whole_seconds(left).to_string()));
        }
        self
    }

    /// With the reason of its death.
    pub(super) fn reason(mut self, reason: &str) -> Letter {
        let clean: String = reason
            .chars()
            .map(|c| {
                if is_xml(c) {
                    c
                } else {
                    char::REPLACEMENT_CHARACTER
                }
            })
            .collect();
        if !clean.is_empty() {
            self.attributes
                .push((REASON, cut_reason(&clean).to_owned()));
        }
        self
    }
}

/// Reads a message; the error is a reason for the dead queue.
pub(super) fn open(
    text: &str,
    attributes: &HashMap<String, MessageAttributeValue>,
) -> Result<Opened, String> {
    let attribute = |name: &str| attributes.get(name)?.string_value();
    let body = match attribute(ENCODING) {
        None => Bytes::copy_from_slice(text.as_bytes()),
        Some(BASE64) => STANDARD
            .decode(text.trim())
            .map_err(|error| format!("the body is not base64, as it should be: {error}"))?
            .into(),
        Some(other) => return Err(format!("the body's encoding `{other}` is not known")),
    };
    let delay_left = match attribute(DELAY_LEFT) {
        None => Duration::ZERO,
        Some(seconds) => seconds
            .parse()
            .ok()
            .map(Duration::from_secs)
            .filter(|left| *left <= MAX_DELAY)
            .ok_or_else(|| format!("the delay that is left is no sane one: `{seconds}` s"))?,
    };
    Ok(Opened {
        id: attribute(ID).map(ToOwned::to_owned),
        body,
        delay_left,
    })
}

/// Why a dead message is dead, if it says so.
pub(super) fn reason(attributes: &HashMap<String, MessageAttributeValue>) -> Option<&str> {
    attributes.get(REASON)?.string_value()
}

/// Splits a delay into what the first message takes and what is left, both in whole seconds.
pub(super) fn hop(delay: Duration, longest: Duration) -> (Duration, Duration) {
    let delay = Duration::from_secs(whole_seconds(delay));
    let first = delay.min(longest);
    (first, delay - first)
}

/// Rounded up: a delay is never cut short.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// What XML 1.0, and so SQS, allows in a text.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arrives(letter: &Letter) -> Result<Opened, String> {
        open(&letter.text, &attributes(&letter.attributes))
    }

    fn attributes(given: &[(&'static str, String)]) -> HashMap<String, MessageAttributeValue> {
        let value = |text: &String| {
            let value = MessageAttributeValue::builder().data_type("String");
            value.string_value(text).build().expect("a good attribute")
        };
        let all = given
            .iter()
            .map(|(name, text)| (name.to_string(), value(text)));
        all.collect()
    }

    proptest! {
        #[test]
        fn any_body_survives_as_xml(body: Vec<u8>) {
            let letter = Letter::new(Some("id"), &body);
            prop_assert!(!letter.text.is_empty() && letter.text.chars().all(is_xml));
            prop_assert_eq!(&arrives(&letter).expect("ours").body[..], &body[..]);
        }

        #[test]
        fn any_text_survives_as_xml(body: String) {
            let letter = Letter::new(None, body.as_bytes());
            prop_assert!(!letter.text.is_empty() && letter.text.chars().all(is_xml));
            prop_assert_eq!(&arrives(&letter).expect("ours").body[..], body.as_bytes());
        }

        #[test]
        fn any_reason_is_made_fit(reason: String) {
            let letter = Letter::new(None, b"{}").reason(&reason);
            for (_, value) in letter.attributes {
                prop_assert!(!value.is_empty() && value.chars().all(is_xml));
                prop_assert!(value.len() <= crate::queue::MAX_REASON);
            }
        }
    }

    #[test]
    fn json_stays_readable() {
        let letter = Letter::new(Some("one"), b"{\"kind\":\"demo\"}\n");
        assert_eq!(letter.text, "{\"kind\":\"demo\"}\n");
        assert_eq!(letter.attributes, [(ID, "one".to_owned())]);
    }

    #[test]
    fn the_largest_body_fits_with_reason_and_attributes() {
        let body = vec![0xff; LARGEST_BODY];
        let letter = Letter::new(Some(&"i".repeat(128)), &body).delay_left(MAX_DELAY);
        let size = |letter: &Letter| {
            let attributes = letter.attributes.iter();
            let attributes =
                attributes.map(|(name, value)| name.len() + "String".len() + value.len());
            letter.text.len() + attributes.sum::<usize>()
        };
        assert!(size(&letter) <= WORK_SIZE, "{}", size(&letter));
        let dead = letter.reason(&"ß".repeat(10_000));
        assert!(size(&dead) <= DEAD_SIZE, "{}", size(&dead));
        // Of somebody else's message nothing is known but its size.
        const { assert!(WORK_SIZE + crate::queue::MAX_REASON + 1_024 <= DEAD_SIZE) };
    }

    #[test]
    fn nonsense_put_in_by_hand_is_an_error_and_no_panic() {
        let cases = [
            ("x", ENCODING, "rot13"),
            ("ä", ENCODING, BASE64),
            ("{}", DELAY_LEFT, "-1"),
            ("{}", DELAY_LEFT, "soon"),
            ("{}", DELAY_LEFT, "604801"),
            ("{}", DELAY_LEFT, "99999999999999999999999"),
        ];
        for (text, name, value) in cases {
            let attributes = attributes(&[(name, value.to_owned())]);
            let reason = open(text, &attributes).expect_err(value);
            assert!(
                reason.contains("the body") || reason.contains(value),
                "{reason}"
            );
        }
        let plain = open("not ours", &HashMap::new()).expect("any text is a body");
        assert_eq!(plain.body, "not ours");
    }

    #[test]
    fn a_delay_is_split_and_never_cut_short() {
        let seconds = Duration::from_secs;
        let longest = seconds(900);
        for (delay, first, left) in [
            (Duration::ZERO, 0, 0),
            (Duration::from_nanos(1), 1, 0),
            (Duration::from_millis(1_001), 2, 0),
            (seconds(900), 900, 0),
            (Duration::from_millis(900_001), 900, 1),
            (MAX_DELAY, 900, 603_900),
        ] {
            let split = hop(delay, longest);
            assert_eq!(split, (seconds(first), seconds(left)), "{delay:?}");
            let letter = Letter::new(None, b"{}").delay_left(split.1);
            assert_eq!(arrives(&letter).expect("ours").delay_left, split.1);
        }
    }
}
