//! Looks for secrets where none may be. Secrets are canaries: texts that stand nowhere else, so that
//! whatever looks like one is one, in any of the forms that programs bring a text into.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;

use crate::processes::descendants;

/// A secret shorter than this would be found by chance.
const LEAST: usize = 8;

/// How often processes are looked at. Those that live shorter may be missed.
const LOOK: Duration = Duration::from_millis(20);

/// A place and what was found there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evidence {
    /// Where it comes from, in words.
    pub place: String,
    /// What it says.
    pub text: String,
}

impl Evidence {
    /// Bytes that need not be text.
    pub fn new(place: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        Self {
            place: place.into(),
            text: String::from_utf8_lossy(bytes.as_ref()).into_owned(),
        }
    }
}

/// The secrets that are looked for.
#[derive(Default)]
pub struct Canaries {
    /// What it is, in which form, and how that looks.
    needles: Vec<(String, &'static str, String)>,
}

impl Canaries {
    /// One more secret.
    pub fn add(&mut self, name: &str, secret: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let secret = secret.as_ref();
        ensure!(secret.len() >= LEAST, "{name} is too short for a canary");
        for (form, needle) in forms(secret) {
            let known = self.needles.iter().any(|(_, _, known)| *known == needle);
            if !known && needle.len() >= LEAST {
                self.needles.push((name.to_owned(), form, needle));
            }
        }
        Ok(())
    }

    /// The lines of a private key (OpenSSH PEM) that are secret, and the secret in them.
    pub fn add_private_key(&mut self, name: &str, pem: &str) -> anyhow::Result<()> {
        let lines: Vec<&str> = pem.lines().map(str::trim).collect();
        let body: Vec<&str> = lines
            .into_iter()
            .filter(|line| !line.is_empty() && !line.starts_with("-----"))
            .collect();
        // The first lines hold the public half.
        for line in body.iter().skip(2).filter(|line| line.len() >= 40) {
            self.add(name, line)?;
        }
        let blob = unbase64(&body.concat());
        // PROTOCOL.key: the private half of an ed25519 key is a string of 64 bytes, its seed first.
        let mark = [0, 0, 0, 64];
        let at = blob.windows(4).position(|bytes| bytes == mark);
        if let Some(seed) = at.and_then(|at| blob.get(at + 4..at + 36)) {
            self.add(name, seed)?;
        }
        ensure!(self.has(name), "{name} has no secret lines");
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.needles.iter().any(|(known, _, _)| known == name)
    }

    /// Where which secret stands; nothing of the secret is in the answer.
    pub fn find(&self, evidence: &[Evidence]) -> Vec<String> {
        let mut found = BTreeSet::new();
        for Evidence { place, text } in evidence {
            for (name, form, needle) in &self.needles {
                if let Some(at) = text.find(needle.as_str()) {
                    found.insert(format!("{name} ({form}) in {place}, byte {at}"));
                }
            }
        }
        found.into_iter().collect()
    }
}

impl std::fmt::Debug for Canaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Canaries({})", self.needles.len())
    }
}

/// The forms that a secret may take in a text.
fn forms(secret: &[u8]) -> Vec<(&'static str, String)> {
    let hex: String = secret.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let list = format!("{secret:?}");
    let mut forms = vec![
        ("in upper-case hex", hex.to_uppercase()),
        ("in hex", hex),
        (
            "as a list of bytes",
            list.trim_matches(['[', ']']).to_owned(),
        ),
    ];
    // A text within a longer one begins at any of three places of base64's groups; what its
    // neighbours take part in is left out.
    for shift in 0..3 {
        let mut padded = vec![0; shift];
        padded.extend(secret);
        let whole = padded.len() - padded.len() % 3;
        let coded = base64(&padded[..whole]);
        let inner = coded[if shift == 0 { 0 } else { 4 }..].to_owned();
        forms.push((
            "in base64 for URLs",
            inner.replace('+', "-").replace('/', "_"),
        ));
        forms.push(("in base64", inner));
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        forms.push(("as it is", text.to_owned()));
        let percent: String = text.bytes().fold(String::new(), |mut coded, byte| {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                coded.push(char::from(byte));
            } else {
                let _ = write!(coded, "%{byte:02X}");
            }
            coded
        });
        forms.push(("percent-encoded in lower case", percent.to_lowercase()));
        forms.push(("percent-encoded", percent));
        let json = serde_json::Value::String(text.to_owned()).to_string();
        let json = json[1..json.len() - 1].to_owned();
        forms.push(("escaped for JSON with slashes", json.replace('/', "\\/")));
        // A JSON text within a JSON text.
        let twice = serde_json::Value::String(json.clone()).to_string();
        forms.push(("escaped twice", twice[1..twice.len() - 1].to_owned()));
        forms.push(("escaped for JSON", json));
    }
    forms
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 of whole groups of three bytes.
fn base64(bytes: &[u8]) -> String {
    let mut coded = String::new();
    for group in bytes.chunks_exact(3) {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for shift in [18, 12, 6, 0] {
            coded.push(char::from(ALPHABET[(bits >> shift) as usize & 63]));
        }
    }
    coded
}

fn unbase64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0u32, 0);
    for byte in text.bytes() {
        let Some(value) = ALPHABET.iter().position(|known| *known == byte) else {
            continue;
        };
        bits = bits << 6 | u32::try_from(value).unwrap_or_default();
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have & 255) as u8);
        }
    }
    bytes
}

/// Looks at the command lines and environments of processes and all that they start.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<BTreeSet<Evidence>>,
}

impl Watch {
    /// Begins to look. `pids` gives the processes of the moment. Of these it is the command line alone
    /// that counts: what was given to them by environment stands there.
    pub fn start(pids: impl Fn() -> Vec<u32> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                for pid in pids() {
                    seen.extend(look(pid, "cmdline"));
                    for below in descendants(pid) {
                        seen.extend(look(below, "cmdline"));
                        seen.extend(look(below, "environ"));
                    }
                }
                std::thread::sleep(LOOK);
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends; what was seen.
    pub fn stop(self) -> Vec<Evidence> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().unwrap_or_default();
        seen.into_iter().collect()
    }
}

/// What a process was given: its `cmdline` or its `environ`.
pub fn look(pid: u32, what: &str) -> Option<Evidence> {
    let bytes = std::fs::read(format!("/proc/{pid}/{what}")).ok()?;
    // Zombies have neither.
    (!bytes.is_empty()).then(|| Evidence::new(format!("the {what} of a process"), bytes))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const SECRET: &str = "p\"ss/w+rd é\\nine";

    #[track_caller]
    fn check(text: &str) {
        let mut canaries = Canaries::default();
        canaries.add("it", SECRET).unwrap();
        let found = canaries.find(&[Evidence::new("here", text)]);
        assert!(!found.is_empty(), "not found in {text}");
        let said = found.join(" ");
        assert!(!said.contains("ss/w"), "it tells the secret: {said}");
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        check(&format!("user:{SECRET}@host"));
        check(&serde_json::json!({ "key": SECRET }).to_string());
        let inner = serde_json::json!({ "key": SECRET }).to_string();
        check(&serde_json::json!({ "body": inner }).to_string());
        check(&format!("{:?}", SECRET.as_bytes()));
        check("amqp://u:p%22ss%2Fw%2Brd%20%C3%A9%5Cnine@h");
        check("key=702273732f772b726420c3a95c6e696e65");
        // `printf '<0, 1 or 2 bytes>%s<2 bytes>' "$SECRET" | base64`
        check("cCJzcy93K3JkIMOpXG5pbmV4eQ==");
        check("eHAic3MvdytyZCDDqVxuaW5leHk=");
        check("eHlwInNzL3crcmQgw6lcbmluZXh5");
    }

    #[test]
    fn what_is_no_secret_is_not_found() {
        let mut canaries = Canaries::default();
        canaries.add("it", SECRET).unwrap();
        let harmless = Evidence::new("here", "p%22ss and cCJzcy93K, nothing more");
        assert_eq!(canaries.find(&[harmless]), Vec::<String>::new());
        assert!(canaries.add("short", "abc").is_err());
    }

    #[test]
    fn the_secret_half_of_a_key_is_found_and_the_public_one_is_not() {
        let key = worker::ssh::keys::generate_host_key().unwrap();
        let mut canaries = Canaries::default();
        canaries
            .add_private_key("key", key.private.expose())
            .unwrap();
        let found = |text: String| canaries.find(&[Evidence::new("here", text)]);
        assert!(!found(key.private.expose().to_owned()).is_empty());
        let folded = key.private.expose().replace('\n', "\\n");
        assert!(!found(folded).is_empty());
        assert_eq!(found(key.public.to_string()), Vec::<String>::new());
    }

    #[test]
    fn words_of_short_lived_programs_are_seen() {
        let word = format!("{}.5", std::process::id());
        let me = std::process::id();
        let watch = Watch::start(move || vec![me]);
        let mut child = std::process::Command::new("sleep")
            .arg("0.5")
            .env("WORD", &word)
            .spawn()
            .unwrap();
        child.wait().unwrap();
        let seen = watch.stop();
        let has = |place: &str, text: &str| {
            let of = |e: &&Evidence| e.place.contains(place) && e.text.contains(text);
            seen.iter().find(of).is_some()
        };
        assert!(has("environ", &format!("WORD={word}")));
        assert!(has("cmdline", "sleep\0"));
    }
}
