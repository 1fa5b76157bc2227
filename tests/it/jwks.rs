//! Keys that somebody else publishes: fetched, kept, replaced, and not to be had at all.

use crate::{
    application::{Application, Manner},
    client::Client,
    gateway::Gateway,
    http::Answer,
    patience::eventually,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const TITLE: &str = "Invalid session token";
const BLIND: &str = "Credentials cannot be checked";

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Whoever signs: a key, and its name.
struct Signer {
    id: &'static str,
    pair: Ed25519KeyPair,
}

impl Signer {
    fn named(id: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, pair: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap() }
    }

    fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.public());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.id, "x": x})
    }

    fn signs(&self, claims: &Value) -> String {
        let message = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": self.id})), part(claims));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes())))
    }

    /// A good one.
    fn token(&self) -> String {
        self.signs(&claims())
    }
}

fn claims() -> Value {
    json!({"sub": "ann", "exp": now() + 3600, "iss": "https://id.example", "aud": ["other", "gateway"]})
}

/// A good one but for this.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// Where keys are published.
struct Provider(Application);

impl Provider {
    async fn of(signers: &[&Signer]) -> Self {
        let provider = Self(Application::start().await);
        provider.publishes(signers);
        provider
    }

    fn publishes(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        self.0.at("/keys", Manner::json(&json!({"keys": keys})));
    }

    fn asked(&self) -> usize {
        self.0.asked("/keys").len()
    }

    async fn gateway(&self) -> Gateway {
        let url = self.0.url("/keys");
        Gateway::with([
            ("AUTH", "jwt"),
            ("JWKS_URL", url.as_str()),
            ("JWT_ISSUER", "https://id.example"),
            ("JWT_AUDIENCE", "gateway"),
        ])
        .await
    }
}

/// What the doors say to a token; from an address of its own, since refusals are counted by address.
async fn shown(gateway: &Gateway, token: &str) -> Answer {
    let mut address = [0; 2];
    SystemRandom::new().fill(&mut address).unwrap();
    gateway
        .get("/api/handshake?path=/ws")
        .with("X-Forwarded-For", &format!("10.1.{}.{}", address[0], address[1]))
        .with("Authorization", &format!("Bearer {token}"))
        .await
}

async fn is_in(gateway: &Gateway, signer: &Signer) {
    let answer = shown(gateway, &signer.token()).await;
    assert_eq!((answer.status, &answer.json()["userId"]), (200, &json!("ann")), "{}", answer.text());
}

#[tokio::test]
async fn a_published_key_opens_doors_and_nothing_near_it_does() {
    let (one, two) = (Signer::named("1"), Signer::named("2"));
    let provider = Provider::of(&[&one, &two]).await;
    let gateway = provider.gateway().await;
    let mut client = Client::open(gateway.address(), &format!("/ws?key={}", one.token()), &[]).await;
    client.is_greeted().await;
    is_in(&gateway, &two).await;
    let of = |head: Value, claims: &Value| format!("{}.{}", part(&head), part(claims));
    let unsigned = of(json!({"alg": "none", "kid": "1"}), &claims());
    let by_public_key = of(json!({"alg": "HS256", "kid": "1"}), &claims());
    let key = hmac::Key::new(hmac::HMAC_SHA256, one.public());
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key, by_public_key.as_bytes()));
    let head = |alg: &str| part(&json!({"alg": alg, "kid": "1"}));
    let other_algorithm = one.token().replacen(&head("EdDSA"), &head("ES256"), 1);
    for (bad, why) in [
        (format!("{unsigned}."), "algorithm"),
        (format!("{by_public_key}.{tag}"), "algorithm"),
        (other_algorithm, "algorithm"),
        (Signer::named("1").token(), "signature"),
        (one.signs(&json!({"sub": "ann", "iss": "https://id.example", "aud": "gateway"})), "no_expiry"),
        (one.signs(&but("exp", json!((now() + 60).to_string()))), "malformed"),
        (one.signs(&but("exp", json!(now() - 1))), "expired"),
        (one.signs(&but("nbf", json!(now() + 60))), "not_yet"),
        (one.signs(&but("iss", json!("https://id.example.org"))), "issuer"),
        (one.signs(&but("aud", json!(["other"]))), "audience"),
        (one.signs(&but("more", json!("m".repeat(9000)))), "too_long"),
    ] {
        assert_eq!(shown(&gateway, &bad).await.refuses(401, TITLE)["detail"], why);
    }
    let told = shown(&gateway, &one.signs(&but("scope", json!("openid call")))).await;
    assert_eq!(told.refuses(403, "Credential without scope connect")["code"], "credential_without_scope_connect");
    assert_eq!(provider.asked(), 1, "all of this was answered from what was known");
    let output = gateway.stop().await;
    assert!(output.contains("2 keys of JWKS_URL count") && !output.contains(&one.token()[..60]), "{output}");
}

#[tokio::test]
async fn a_storm_of_unknown_keys_costs_its_place_one_question() {
    let one = Signer::named("1");
    let provider = Provider::of(&[&one]).await;
    let gateway = provider.gateway().await;
    is_in(&gateway, &one).await;
    let strangers: Vec<_> = (0..100).map(|_| Signer::named("nobody's").token()).collect();
    for answer in join_all(strangers.iter().map(|token| shown(&gateway, token))).await {
        assert_eq!(answer.refuses(401, TITLE)["detail"], "unknown_key");
    }
    is_in(&gateway, &one).await;
    assert_eq!(provider.asked(), 2);
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_new_key_counts_at_once_and_one_that_is_gone_no_more() {
    let [one, two, three] = ["1", "2", "3"].map(Signer::named);
    let provider = Provider::of(&[&one]).await;
    let gateway = provider.gateway().await;
    let mut client = Client::open(gateway.address(), &format!("/ws?key={}", one.token()), &[]).await;
    client.is_greeted().await;
    provider.publishes(&[&two]);
    is_in(&gateway, &two).await;
    shown(&gateway, &one.token()).await.refuses(401, TITLE);
    provider.publishes(&[&three]);
    gateway.signal(Signal::HUP);
    eventually("a key that was withdrawn opens nothing", async || {
        (shown(&gateway, &two.token()).await.status == 401).then_some(())
    })
    .await;
    is_in(&gateway, &three).await;
    assert_eq!(provider.asked(), 3);
    // Who is here stays: the token was good when it was shown, and says itself until when.
    assert!(client.asks(r#"{"type":"ping"}"#).await.contains("pong"));
}

#[tokio::test]
async fn keys_that_cannot_be_had_yet_are_nobodys_fault_who_comes() {
    let one = Signer::named("1");
    let mut provider = Provider::of(&[&one]).await;
    provider.0.stops().await;
    let mut gateway = provider.gateway().await;
    gateway.logs(&["JWKS_URL cannot be read", "503", "cannot be reached"]).await;
    shown(&gateway, &one.token()).await.refuses(503, BLIND);
    // What is wrong by itself is told as ever.
    shown(&gateway, "neither").await.refuses(401, TITLE);
    provider.0.returns().await;
    eventually("the keys are there", async || (shown(&gateway, &one.token()).await.status == 200).then_some(())).await;
    gateway.logs(&["JWKS_URL answers again"]).await;
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_place_that_misbehaves_takes_away_no_key() {
    let (one, two) = (Signer::named("1"), Signer::named("2"));
    let provider = Provider::of(&[&one]).await;
    let mut gateway = provider.gateway().await;
    is_in(&gateway, &one).await;
    let elsewhere = format!("Location: {}\r\n", provider.0.url("/elsewhere")).leak();
    provider.0.at("/elsewhere", Manner::json(&json!({"keys": [two.jwk()]})));
    for (manner, why) in [
        (Manner::status(500), "it answered 500"),
        (Manner::Floods(10 << 20), "too large"),
        (Manner::Says(200, "", "{\"keys\": [".into()), "no JWK Set"),
        (Manner::Says(302, elsewhere, String::new()), "points elsewhere"),
        (Manner::Babbles, "cannot be read"),
        (Manner::Hangs, "in time"),
    ] {
        provider.0.at("/keys", manner);
        gateway.signal(Signal::HUP);
        eventually("what may be known there cannot be judged", async || {
            (shown(&gateway, &two.token()).await.status == 503).then_some(())
        })
        .await;
        shown(&gateway, &two.token()).await.refuses(503, BLIND);
        gateway.logs(&["JWKS_URL cannot be read", "stay in force", why]).await;
        is_in(&gateway, &one).await;
        provider.publishes(&[&one]);
        gateway.signal(Signal::HUP);
        eventually("what is not known is refused again", async || {
            (shown(&gateway, &two.token()).await.status == 401).then_some(())
        })
        .await;
    }
    assert_eq!(provider.0.asked("/elsewhere").len(), 0);
    assert!(gateway.metric(r#"holdfast_jwks_fetches_total{outcome="failed"}"#).await >= 6.0);
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn keys_of_ones_own_count_while_those_of_others_cannot_be_had() {
    const SECRET: &str = "a secret of at least thirty-two bytes";
    let one = Signer::named("1");
    let mut provider = Provider::of(&[&one]).await;
    let url = provider.0.url("/keys");
    provider.0.stops().await;
    let gateway = Gateway::with([("AUTH", "jwt"), ("JWKS_URL", url.as_str()), ("JWT_SECRET", SECRET)]).await;
    let message = format!("{}.{}", part(&json!({"alg": "HS256"})), part(&json!({"sub": "ann", "exp": now() + 60})));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    let answer = shown(&gateway, &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    shown(&gateway, &one.token()).await.refuses(503, BLIND);
    assert!(gateway.output().contains("without JWT_ISSUER and JWT_AUDIENCE"), "{}", gateway.output());
}
