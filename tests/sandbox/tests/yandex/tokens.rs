//! Tokens: which claims are believed, and who is let in.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use reqwest::Method;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sandbox::yandex::{YandexOptions, YandexSim};
use serde_json::{Value, json};

use crate::world::{NETWORKS, World, quick, world};

const TOKENS: &str = "/iam/v1/tokens";
const AUDIENCE: &str = "https://iam.api.cloud.yandex.net/iam/v1/tokens";

/// What a client needs of the key file.
struct Key {
    id: String,
    account: String,
    pem: String,
}

impl Key {
    fn of(sim: &YandexSim) -> Self {
        let file: Value = serde_json::from_str(&sim.service_account_key()).unwrap();
        let text = |field: &str| file[field].as_str().unwrap().to_owned();
        assert_eq!(text("key_algorithm"), "RSA_2048");
        assert!(text("public_key").starts_with("-----BEGIN PUBLIC KEY-----"));
        let private = text("private_key");
        let begin = private.find("-----BEGIN PRIVATE KEY-----").unwrap();
        assert!(begin > 0, "a line stands before the key");
        assert!(private[..begin].contains(&text("id")));
        Self {
            id: text("id"),
            account: text("service_account_id"),
            pem: private[begin..].to_owned(),
        }
    }

    fn header(&self) -> Value {
        json!({ "typ": "JWT", "alg": "PS256", "kid": self.id })
    }

    fn claim(&self) -> Value {
        let now = Timestamp::now().as_second();
        json!({ "iss": self.account, "aud": AUDIENCE, "iat": now - 5, "exp": now + 3000 })
    }

    fn jwt(&self, header: &Value, claim: &Value, scheme: SignatureScheme) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claim));
        let key = PrivateKeyDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        let key = any_supported_type(&key).unwrap();
        let signer = key.choose_scheme(&[scheme]).unwrap();
        let signature = signer.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn exchange(w: &World, body: &Value) -> (u16, Value) {
    let url = format!("{}{TOKENS}", w.sim.base_url());
    World::answer(w.http.post(url).json(body)).await
}

#[tokio::test]
async fn a_signed_claim_gets_a_token_that_opens_everything() {
    let mut w = world().await;
    let key = Key::of(&w.sim);
    assert_eq!(key.account, w.sim.service_account());
    let jwt = key.jwt(&key.header(), &key.claim(), SignatureScheme::RSA_PSS_SHA256);
    let (status, answer) = exchange(&w, &json!({ "jwt": jwt })).await;
    assert_eq!(status, 200, "{answer}");
    let until: Timestamp = answer["expiresAt"].as_str().unwrap().parse().unwrap();
    let hours = until.duration_since(Timestamp::now()).as_hours();
    assert_eq!(hours, 11, "a token lasts for twelve hours");
    w.token = answer["iamToken"].as_str().unwrap().to_owned();
    assert_eq!(w.page(NETWORKS, &[]).await.0, 200);
}

#[tokio::test]
async fn a_claim_that_is_wrong_in_one_thing_is_refused() {
    let w = world().await;
    let key = Key::of(&w.sim);
    let now = Timestamp::now().as_second();
    let pss = SignatureScheme::RSA_PSS_SHA256;
    let header = |field: &str, value: Value| {
        let mut header = key.header();
        header[field] = value;
        key.jwt(&header, &key.claim(), pss)
    };
    let claim = |changes: &[(&str, Value)]| {
        let mut claim = key.claim();
        for (field, value) in changes {
            claim[*field] = value.clone();
        }
        key.jwt(&key.header(), &claim, pss)
    };
    let stranger = YandexSim::start(quick()).await.unwrap();
    let forged = Key {
        pem: Key::of(&stranger).pem,
        ..Key::of(&w.sim)
    };
    let good = claim(&[]);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let cases = [
        ("typ", header("typ", json!("JOSE")), "typ"),
        ("alg", header("alg", json!("RS256")), "alg"),
        ("no kid", header("kid", Value::Null), "header"),
        ("kid", header("kid", json!("aje0")), "key"),
        ("iss", claim(&[("iss", json!("aje0"))]), "iss"),
        ("aud", claim(&[("aud", json!(w.sim.base_url()))]), "aud"),
        ("iat to come", claim(&[("iat", json!(now + 60))]), "iat"),
        ("iat is text", claim(&[("iat", json!("now"))]), "claim"),
        (
            "expired",
            claim(&[("iat", json!(now - 99)), ("exp", json!(now - 9))]),
            "expired",
        ),
        ("too long", claim(&[("exp", json!(now + 3700))]), "hour"),
        (
            "PKCS#1 under PS256",
            key.jwt(
                &key.header(),
                &key.claim(),
                SignatureScheme::RSA_PKCS1_SHA256,
            ),
            "signature",
        ),
        (
            "another digest",
            key.jwt(&key.header(), &key.claim(), SignatureScheme::RSA_PSS_SHA512),
            "signature",
        ),
        (
            "somebody else's key",
            forged.jwt(&key.header(), &key.claim(), pss),
            "signature",
        ),
        (
            "another claim under the signature",
            {
                let later = claim(&[("exp", json!(now + 1000))]);
                let (later, _) = later.rsplit_once('.').unwrap();
                assert_ne!(later, signed);
                format!("{later}.{signature}")
            },
            "signature",
        ),
        ("no signature", format!("{signed}."), "signature"),
        ("no JWT", "nonsense".to_owned(), "signature"),
    ];
    for (what, jwt, words) in cases {
        let (status, error) = exchange(&w, &json!({ "jwt": jwt })).await;
        assert_eq!(
            (status, &error["code"]),
            (401, &json!(16)),
            "{what}: {error}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{what}: {message}");
        assert!(!message.contains(&jwt), "{what}");
    }
    assert_eq!(exchange(&w, &json!({ "jwt": good })).await.0, 200);
}

#[tokio::test]
async fn oauth_tokens_and_two_identities_at_once_are_refused() {
    let w = world().await;
    for (body, status) in [
        (json!({ "yandexPassportOauthToken": "y0_secret" }), 401),
        (
            json!({ "yandexPassportOauthToken": "y0_a", "jwt": "b" }),
            400,
        ),
        (json!({}), 400),
        (json!({ "jwt": "a".repeat(8001) }), 400),
        (json!({ "token": "a" }), 400),
    ] {
        let (answered, error) = exchange(&w, &body).await;
        assert_eq!(answered, status, "{body} {error}");
        assert!(!error.to_string().contains("y0_"), "{error}");
    }
}

#[tokio::test]
async fn without_a_good_token_everything_is_refused() {
    let mut w = world().await;
    let good = w.token.clone();
    let key = Key::of(&w.sim);
    let jwt = key.jwt(&key.header(), &key.claim(), SignatureScheme::RSA_PSS_SHA256);
    for bad in ["", "t1.nobody", &jwt] {
        bad.clone_into(&mut w.token);
        for (method, path) in [
            (Method::GET, NETWORKS),
            (Method::POST, NETWORKS),
            (Method::GET, "/operations/enp1"),
            (Method::GET, "/nothing/here"),
        ] {
            let (status, error) = World::answer(w.request(method, path)).await;
            assert_eq!((status, &error["code"]), (401, &json!(16)), "{path}");
        }
    }
    w.token = good;
    assert_eq!(w.page(NETWORKS, &[]).await.0, 200);
    assert_eq!(w.get("/nothing/here").await.0, 404);
}

#[tokio::test]
async fn tokens_end_and_can_be_ended() {
    let short = YandexOptions {
        token_lifetime: Duration::from_millis(20),
        ..quick()
    };
    let w = World::new(short).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while w.page(NETWORKS, &[]).await.0 != 401 {
        assert!(Instant::now() < deadline, "it never ends");
    }
    let mut w = world().await;
    assert_eq!(w.page(NETWORKS, &[]).await.0, 200);
    w.sim.expire_tokens();
    assert_eq!(w.page(NETWORKS, &[]).await.0, 401);
    w.token = w.sim.token();
    assert_eq!(w.page(NETWORKS, &[]).await.0, 200);
}
