#![expect(clippy::unwrap_used, reason = "tests")]

use age::secrecy::ExposeSecret;
use serde_json::json;

use super::*;

const KEY: [u8; 32] = [7; 32];

/// A key file, and its recipient.
fn pair() -> (String, age::x25519::Recipient) {
    let key = age::x25519::Identity::generate();
    let file = format!(
        "# created: today\n# public key: {}\n{}\n",
        key.to_public(),
        key.to_string().expose_secret()
    );
    (file, key.to_public())
}

/// Encrypts a value as SOPS does.
fn sealed(text: &str, kind: &str, bound: &str, nonce: u8) -> String {
    let nonce = [nonce; 32];
    let payload = Payload {
        msg: text.as_bytes(),
        aad: bound.as_bytes(),
    };
    let cipher = Cipher::new(&KEY).0;
    let mut data = cipher.encrypt(&Nonce::<U32>::from(nonce), payload).unwrap();
    let tag = data.split_off(data.len() - 16);
    let [data, nonce, tag] = [&data[..], &nonce, &tag].map(|b| BASE64_STANDARD.encode(b));
    format!("ENC[AES256_GCM,data:{data},iv:{nonce},tag:{tag},type:{kind}]")
}

/// The part that opens it; `values` are all that the MAC is over.
fn metadata(to: &age::x25519::Recipient, values: &[&str], only_encrypted: bool) -> String {
    let mut hash = Sha512::new();
    if only_encrypted {
        hash.update(sha2::Sha256::digest(b"sops"));
    }
    values.iter().for_each(|value| hash.update(value));
    let at = "2026-11-23T00:00:00Z";
    let mac = sealed(&hex::encode_upper(hash.finalize()), "str", at, 99);
    let enc = age::encrypt_and_armor(to, &KEY).unwrap();
    let enc = enc.replace('\n', "\n      ");
    format!(
        "sops:\n  kms: []\n  pgp: null\n  age:\n  - recipient: {to}\n    enc: |\n      {enc}\n  lastmodified: \"{at}\"\n  mac: {mac}\n  mac_only_encrypted: {only_encrypted}\n  encrypted_regex: ^(data|stringData)$\n  version: 3.13.2\n"
    )
}

/// A Secret with values of each type, in an order that is not that of the alphabet.
fn secret(to: &age::x25519::Recipient) -> String {
    let data = "stringData:";
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  creationTimestamp: null\nstringData:\n  z: {}\n  a: {}\n  n: {}\n  f: {}\n  b: {}\n  list:\n  - {}\n  empty: \"\"\n{}",
        sealed("hunter2", "str", &format!("{data}z:"), 1),
        sealed("line\nline\n", "str", &format!("{data}a:"), 2),
        sealed("42", "int", &format!("{data}n:"), 3),
        sealed("1.5", "float", &format!("{data}f:"), 4),
        sealed("True", "bool", &format!("{data}b:"), 5),
        sealed("in a list", "str", &format!("{data}list:"), 6),
        metadata(
            to,
            &[
                "v1",
                "Secret",
                "s",
                "hunter2",
                "line\nline\n",
                "42",
                "1.5",
                "True",
                "in a list",
                ""
            ],
            false
        ),
    )
}

#[test]
fn a_file_opens_to_what_was_encrypted() {
    let (file, to) = pair();
    let opened = open(&secret(&to), &file).unwrap();
    assert_eq!(
        opened,
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "s", "creationTimestamp": null},
            "stringData": {
                "z": "hunter2", "a": "line\nline\n", "n": 42, "f": 1.5, "b": true,
                "list": ["in a list"], "empty": "",
            },
        })
    );
}

#[test]
fn one_key_of_several_is_enough_on_both_sides() {
    let (ours, to) = pair();
    let (other, _) = pair();
    open(&secret(&to), &format!("{other}{ours}")).unwrap();
    let (_, another) = pair();
    let foreign = age::encrypt_and_armor(&another, &[1; 32]).unwrap();
    let first = format!(
        "  age:\n  - recipient: {another}\n    enc: |\n      {}\n",
        foreign.replace('\n', "\n      ")
    );
    open(&secret(&to).replace("  age:\n", &first), &ours).unwrap();
}

#[test]
fn a_key_that_does_not_fit_is_told_whose_it_is() {
    let (_, to) = pair();
    let (other, _) = pair();
    let error = open(&secret(&to), &other).unwrap_err();
    assert_eq!(error, SopsError::OtherKey(vec![to.to_string()]));
    for none in ["", "# a comment", "AGE-SECRET-KEY-1HUNTER2", "hunter2"] {
        assert_eq!(open(&secret(&to), none).unwrap_err(), SopsError::NoIdentity);
    }
}

#[test]
fn a_value_that_was_changed_moved_taken_or_added_is_seen() {
    let (file, to) = pair();
    let whole = secret(&to);
    let line = |start: &str| {
        let line = whole
            .lines()
            .find(|line| line.trim_start().starts_with(start));
        line.unwrap().to_owned()
    };
    let (z, a) = (line("z: "), line("a: "));
    for (what, changed) in [
        ("plain", whole.replace("name: s", "name: t")),
        ("moved", whole.replace("  z: ", "  y: ")),
        ("taken", whole.replace(&format!("{z}\n"), "")),
        (
            "added",
            whole.replace("kind: Secret", "kind: Secret\ntype: Opaque"),
        ),
        (
            "order",
            whole.replace(&format!("{z}\n{a}"), &format!("{a}\n{z}")),
        ),
        ("plain now", whole.replace(&z, "  z: hunter2x")),
        (
            "cut off",
            whole.replace(
                &z,
                &format!("{}\"", z.replace(": ENC", ": \"ENC").trim_end_matches(']')),
            ),
        ),
        ("later", whole.replace("2026-11-23", "2026-11-24")),
        ("mac", whole.replace("  mac: ENC", "  mac: XNC")),
    ] {
        assert_ne!(changed, whole, "{what}");
        let error = open(&changed, &file).unwrap_err();
        assert!(matches!(error, SopsError::Damaged(_)), "{what}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_mac_over_encrypted_values_alone_lets_the_others_change() {
    let (file, to) = pair();
    let value = sealed("x", "str", "data:k:", 1);
    let text = format!(
        "kind: Secret\ndata:\n  k: {value}\n{}",
        metadata(&to, &["x"], true)
    );
    open(&text, &file).unwrap();
    open(&text.replace("Secret", "ConfigMap"), &file).unwrap();
    open(
        &text.replace("mac_only_encrypted: true", "mac_only_encrypted: false"),
        &file,
    )
    .unwrap_err();
}

#[test]
fn what_is_no_sops_file_is_an_error_that_repeats_nothing() {
    let (file, _) = pair();
    for bad in [
        "",
        "hunter2",
        "[hunter2]",
        "a: hunter2",
        "a: [hunter2",
        "sops: {}",
        "sops: {age: [], mac: hunter2}",
        "sops: {age: [{recipient: a, enc: hunter2}], mac: m, lastmodified: l}",
        &"x".repeat(LARGEST + 1),
    ] {
        let error = open(bad, &file).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
