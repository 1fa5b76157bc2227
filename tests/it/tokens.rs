//! JSON Web Tokens: who comes in with one, and for how long; and what a proxy says of its clients.

use crate::{
    client::Client,
    comebacks::Page,
    gateway::Gateway,
    holdfast::{Holdfast, TempFile},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub const SECRET: &str = "a secret of at least thirty-two bytes";

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn signed_by(secret: &str, head: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", part(head), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

pub fn signed(claims: &Value) -> String {
    signed_by(SECRET, &json!({"alg": "HS256"}), claims)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test]
async fn a_token_says_who_comes_and_what_it_may() {
    let gateway = Gateway::with([("AUTH", "jwt"), ("JWT_SECRET", SECRET), ("JWT_ISSUER", "shop")]).await;
    let good = json!({"sub": "ann", "exp": now() as u64 + 3600, "iss": "shop", "stores": ["s"], "rooms": ["r"]});
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(&claims)
    };
    let token = signed(&good);
    let offered = format!("holdfast.v1, bearer.{token}");
    let headers = [("Sec-WebSocket-Protocol", offered.as_str())];
    let mut client = Client::open(gateway.address(), "/ws?store_id=s&room_id=r", &headers).await;
    client.is_greeted().await;
    let record = gateway.get(&format!("/api/sockets/{}", client.id)).await.json();
    assert_eq!((&record["userId"], &record["storeId"]), (&json!("ann"), &json!("s")));
    let told = gateway.get("/api/auth/session").with("Authorization", &format!("Bearer {token}")).await.json();
    let expected = [json!("jwt"), json!("ann"), json!(["s"]), json!(["r"])];
    assert_eq!(["auth", "userId", "stores", "rooms"].map(|name| told[name].clone()), expected, "{told}");
    for bad in [
        but("exp", json!(now() as u64 - 1)),
        but("exp", json!("soon")),
        but("nbf", json!(now() as u64 + 60)),
        but("iss", json!("other")),
        but("sub", json!("")),
        signed_by("another secret of thirty-two bytes!", &json!({"alg": "HS256"}), &good),
        signed_by(SECRET, &json!({"alg": "none"}), &good),
        format!("{}.{}.", part(&json!({"alg": "none"})), part(&good)),
        format!("{token}x"),
        "x".repeat(7000),
    ] {
        let answer = gateway.knock("/ws").with("Authorization", &format!("Bearer {bad}")).await;
        answer.refuses(401, "Invalid session token");
        assert!(answer.header("WWW-Authenticate").is_some());
    }
    for (query, title) in
        [("store_id=t", "Not your store"), ("room_id=q", "Not your room"), ("user_id=bob", "Not your user_id")]
    {
        gateway.knock(&format!("/ws?{query}&key={token}")).await.refuses(403, title);
    }
    gateway.knock("/ws?key=hf_of_another_kind").await.refuses(401, "Invalid API key");
    gateway.knock("/ws").await.refuses(401, "Unauthorized. Please log in.");
    let output = gateway.stop().await;
    assert!(!output.contains(&token) && !output.contains(token.rsplit('.').next().unwrap()), "{output}");
}

#[tokio::test]
async fn a_token_that_is_over_ends_its_socket() {
    let gateway = Gateway::with([("AUTH", "jwt"), ("JWT_SECRET", SECRET)]).await;
    let late = signed(&json!({"sub": "ann", "exp": now() + 3600.0}));
    let soon = signed(&json!({"sub": "ann", "exp": now() + 2.5}));
    let mut both = Vec::new();
    for token in [&soon, &late] {
        let mut client = Client::open(gateway.address(), &format!("/ws?key={token}"), &[]).await;
        client.is_greeted().await;
        both.push(client);
    }
    let (mut late, mut soon) = (both.pop().unwrap(), both.pop().unwrap());
    assert_eq!(soon.closed().await, (4401, "session token expired".to_owned()));
    assert_eq!(gateway.verdict(&soon.id).await["cause"], "credential_expired");
    assert!(late.asks(r#"{"type":"ping"}"#).await.contains("pong"));
}

/// Whoever comes back is held to it as well, while its former connection goes.
#[tokio::test]
async fn a_token_that_is_over_ends_a_socket_that_came_back() {
    let gateway = Gateway::with([("AUTH", "jwt"), ("JWT_SECRET", SECRET)]).await;
    let token = signed(&json!({"sub": "ann", "exp": now() + 3.0, "stores": ["s"]}));
    let query = format!("key={token}&store_id=s");
    let before = Page::opens(&gateway, &query).await;
    let (id, resume) = (before.id().to_owned(), before.token().to_owned());
    let mut page = Page::comes(&gateway, &query, &resume, 0).await;
    assert_eq!(page.id(), id);
    assert_eq!(page.client.closed().await, (4401, "session token expired".to_owned()));
}

/// What a credential does not grant any more is not had by coming back.
#[tokio::test]
async fn whoever_comes_back_with_less_is_somebody_new() {
    let gateway = Gateway::with([("AUTH", "jwt"), ("JWT_SECRET", SECRET)]).await;
    let of = |stores: Value| signed(&json!({"sub": "ann", "exp": now() as u64 + 60, "stores": stores}));
    let before = Page::opens(&gateway, &format!("key={}&store_id=s", of(json!(["s"])))).await;
    let (id, resume) = before.breaks();
    gateway.verdict(&id).await;
    let page = Page::comes(&gateway, &format!("key={}", of(json!([]))), &resume, 0).await;
    assert!(page.id() != id && page.reset, "{}", page.hi);
    assert_eq!(gateway.verdict(&id).await["cause"], "credential_expired");
    let record = gateway.get(&format!("/api/sockets/{}", page.id())).await.json();
    assert_eq!(record["storeId"], Value::Null);
}

/// A key or a token is told by its form, and one that is bad is not taken for the other.
#[tokio::test]
async fn keys_and_tokens_count_beside_each_other() {
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let place = ("API_KEYS_FILE", file.path());
    let added = Holdfast::command(&["keys", "add", "--user", "ann", "--json"]).env(place.0, place.1).run().await;
    let key = serde_json::from_str::<Value>(&added.stdout).unwrap()["key"].as_str().unwrap().to_owned();
    let gateway = Gateway::with([("AUTH", "keys,jwt"), place, ("JWT_SECRET", SECRET)]).await;
    let token = signed(&json!({"sub": "bob", "exp": now() as u64 + 60}));
    for (shown, user) in [(&key, "ann"), (&token, "bob")] {
        let told = gateway.get(&format!("/api/handshake?key={shown}")).await;
        assert_eq!((told.status, &told.json()["userId"]), (200, &json!(user)), "{}", told.text());
    }
    gateway.knock("/ws?key=nk_0123456789abcdef").await.refuses(401, "Invalid API key");
    gateway.knock("/ws?key=neither").await.refuses(401, "Invalid session token");
}

#[tokio::test]
async fn with_proxy_a_trusted_one_says_who_comes() {
    let gateway = Gateway::with([("AUTH", "proxy"), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let headers = [("X-User-ID", "ann"), ("X-Store-ID", "s")];
    let mut client = Client::open(gateway.address(), "/ws?store_id=s&room_id=r", &headers).await;
    client.is_greeted().await;
    let record = gateway.get(&format!("/api/sockets/{}", client.id)).await.json();
    assert_eq!((&record["userId"], &record["storeId"]), (&json!("ann"), &json!("s")));
    gateway.knock("/ws?store_id=t").with("X-User-ID", "ann").await.refuses(403, "Not your store");
    gateway.knock("/ws?user_id=ann").await.refuses(401, "Unauthorized. Please log in.");
    let elsewhere = Gateway::with([("AUTH", "proxy"), ("TRUSTED_PROXIES", "10.0.0.1")]).await;
    elsewhere.knock("/ws").with("X-User-ID", "ann").await.refuses(401, "Unauthorized. Please log in.");
}
