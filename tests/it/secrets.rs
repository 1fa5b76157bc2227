//! Secrets are planted wherever one can stand, good ones and bad ones, and are looked for in everything that was written.

use crate::{
    application::{Application, Manner},
    client::Client,
    comebacks::Page,
    gateway::Gateway,
    holdfast::Holdfast,
    http::Request,
    tokens::signed,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use redis::Value as Reply;
use serde_json::{Value, json};
use servers::Server;
use std::collections::HashMap;

const PASSWORD: &str = "planted-redis-password";
const SECRETS: [(&str, &str); 5] = [
    ("JWT_SECRET", crate::tokens::SECRET),
    ("HOOK_SECRET", "planted-hook-secret"),
    ("API_TOKEN", "planted-api-token"),
    ("ADMIN_TOKEN", "planted-admin-token"),
    ("RESUME_SECRET", "planted-resume-secret"),
];

/// So many bytes of a secret in a row are no accident, and enough to begin to guess the rest.
const PART: usize = 12;

/// Where the application is asked, and how it answers there.
fn endpoints() -> [(&'static str, &'static str, Value); 5] {
    [
        ("SESSION_URL", "/session", json!({"userId": "ann"})),
        ("CONNECT_URL", "/connect", json!({"state": {}})),
        ("MESSAGE_URL", "/message", json!(1)),
        ("EVENTS_URL", "/events", json!(null)),
        ("JWKS_URL", "/keys", json!({"keys": []})),
    ]
}

/// What was planted, and everything that somebody wrote.
#[derive(Default)]
struct Search {
    secrets: Vec<String>,
    written: Vec<(String, String)>,
}

impl Search {
    fn plant(&mut self, secret: impl Into<String>) -> String {
        let secret = secret.into();
        assert!(secret.len() >= PART, "{secret} could be found by accident");
        self.secrets.push(secret.clone());
        secret
    }

    fn wrote(&mut self, who: &str, text: impl Into<String>) {
        self.written.push((who.into(), text.into()));
    }

    /// The first secret that somebody wrote, whole or in part, and where.
    fn finds(&self) -> Option<String> {
        let parts =
            self.secrets.iter().flat_map(|secret| secret.as_bytes().windows(PART).map(move |part| (part, secret)));
        let parts: HashMap<_, _> = parts.collect();
        self.written.iter().find_map(|(who, text)| {
            let (part, secret) = text.as_bytes().windows(PART).find_map(|part| parts.get_key_value(part))?;
            Some(format!("{} of {secret} in what {who} wrote:\n{text}", String::from_utf8_lossy(part)))
        })
    }
}

/// Shows it at the doors, well and badly, and keeps what is answered.
async fn show(search: &mut Search, gateway: &Gateway, query: &str, header: Option<(&str, &str)>) {
    let with = |request: Request| match header {
        Some((name, value)) => request.with(name, value),
        None => request,
    };
    let asks = [
        gateway.knock(&format!("/ws?store_id=nobodys&{query}")),
        gateway.knock(&format!("/ws?room_id=&{query}")),
        gateway.knock(&format!("/ws?{query}")).but("Upgrade", "h2c"),
        gateway.get(&format!("/ws?{query}")),
        gateway.get(&format!("/api/handshake?path=/ws&{query}")),
        gateway.get(&format!("/api/auth/session?{query}")),
        gateway.get(&format!("/api/sockets?limit=1&{query}")),
        gateway.get(&format!("/nowhere?{query}")),
    ];
    for (n, ask) in asks.into_iter().enumerate() {
        // Each from elsewhere: whoever is refused too often is not looked at.
        let count = search.written.len();
        let answer = with(ask.with("X-Forwarded-For", &format!("10.9.{}.{}", count / 256, count % 256))).await;
        assert_ne!(answer.status, 429, "{}", answer.text());
        search.wrote(&format!("answer {n}"), format!("{:?} {}", answer.headers, answer.text()));
    }
}

async fn plant_everywhere(format: &str) {
    let mut search = Search::default();
    let application = Application::start().await;
    let server = Server::start();
    // What is packed could not be found.
    server.ask(&["CONFIG", "SET", "rdbcompression", "no"]);
    server.ask(&["ACL", "SETUSER", "holdfast", "reset", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]);
    search.plant(PASSWORD);
    let redis = format!("redis://holdfast:{PASSWORD}@127.0.0.1:{}", server.port());
    let urls = endpoints().map(|(name, path, says)| {
        application.at(path, Manner::json(&says));
        let (login, token) = (search.plant(format!("login-of-{name}")), search.plant(format!("token-of-{name}")));
        search.plant(basic(&login));
        (name, application.url(&format!("{path}?token={token}")).replace("://", &format!("://me:{login}@")))
    });
    let mut settings = vec![
        ("REDIS_URL", redis.as_str()),
        ("AUTH", "keys,jwt,session"),
        ("LOG_LEVEL", "trace"),
        ("LOG_FORMAT", format),
    ];
    settings.extend(urls.iter().map(|(name, url)| (*name, url.as_str())));
    for (name, secret) in SECRETS {
        search.plant(secret);
        settings.push((name, secret));
    }
    let gateway = Gateway::with(settings.iter().copied()).await;

    let keys = async |args: &[&str]| {
        let finished = Holdfast::command(args).env("REDIS_URL", &redis).run().await;
        assert_eq!(finished.code, 0, "{finished:?}");
        finished.stdout.trim().to_owned()
    };
    let key = search.plant(keys(&["keys", "add", "--user", "ann"]).await);
    let caller = search.plant(keys(&["keys", "add", "--user", "shop", "--scope", "call"]).await);
    search.wrote("keys list", keys(&["keys", "list"]).await);
    search.wrote("keys list --json", keys(&["keys", "list", "--json"]).await);
    let now = registry::epoch_ms() / 1000;
    let jwt = search.plant(signed(&json!({"sub": "ann", "exp": now + 3600})));
    let old = search.plant(signed(&json!({"sub": "old", "exp": now - 3600})));
    let with_token = |request: Request, token: &str| request.with("Authorization", &format!("Bearer {token}"));
    let ticket = with_token(gateway.post("/api/tickets", &json!({"userId": "ann"})), SECRETS[2].1).await;
    let ticket = search.plant(ticket.json()["ticket"].as_str().unwrap());
    let wrong = [
        "hf_planted-wrong-key-0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.planted-wrong.token",
        "planted-wrong-text",
        // By a key that is not known, for which the published set is read anew.
        "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.planted-wrong-signature",
    ]
    .map(|wrong| search.plant(wrong));
    let (cookie, session_token) = (search.plant("planted-cookie"), search.plant("planted-session-token"));

    let events = with_token(gateway.get("/api/events"), SECRETS[3].1);
    let mut events = events.streams().await;
    for token in [&key, &caller, &jwt, &old, &wrong[0], &wrong[1], &wrong[2], &wrong[3]] {
        show(&mut search, &gateway, &format!("key={token}"), None).await;
        show(&mut search, &gateway, "", Some(("X-API-Key", token))).await;
        show(&mut search, &gateway, "", Some(("Authorization", &format!("Bearer {token}")))).await;
        show(&mut search, &gateway, "", Some(("Sec-WebSocket-Protocol", &format!("bearer.{token}")))).await;
    }
    show(&mut search, &gateway, "", Some(("Cookie", &format!("sid={cookie}")))).await;
    show(&mut search, &gateway, &format!("session_token={session_token}"), None).await;
    show(&mut search, &gateway, &format!("ticket={}", wrong[2]), None).await;
    show(&mut search, &gateway, &format!("next=%2Fx%3Ftoken%3D{}", wrong[2]), None).await;
    let mut client = Client::open(gateway.address(), &format!("/ws?ticket={ticket}"), &[]).await;
    client.is_greeted().await;
    client.asks(r#"{"type":"request","id":1,"method":"m"}"#).await;
    let mut page = Page::opens(&gateway, &format!("key={key}")).await;
    let token = search.plant(page.token());
    drop(page);
    page = Page::comes(&gateway, &format!("key={key}"), &token, 0).await;
    let body = json!({"socketId": page.id(), "event": "x", "timeoutMs": 1});
    let called = with_token(gateway.post("/api/call", &body), &caller).await;
    search.wrote("a call", called.text());
    // An application that is away, and says so.
    application.at("/session", Manner::Says(500, "Set-Cookie: sid=planted-cookie\r\n", "planted-session-token".into()));
    show(&mut search, &gateway, "session_token=planted-session-token", None).await;
    let admin = |target: &str| with_token(gateway.get(target), SECRETS[3].1);
    for target in ["/metrics", "/api/debug/sockets?verbose=1", "/api/instances", "/health", "/api/users/ann"] {
        let answer = admin(target).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        search.wrote(target, answer.text());
    }
    // Revoked while it is connected, which is told everywhere.
    with_token(gateway.delete(&format!("/api/sockets/{}", page.id())), SECRETS[3].1).await;
    while let Some(event) = events.event().await {
        search.wrote("the feed", event.data.to_string());
        if event.name == "disconnected" && event.data["socketId"] == page.id() {
            break;
        }
    }
    for args in [&["check"][..], &["check", "--json"]] {
        let mut command = Holdfast::command(args);
        for (name, value) in &settings {
            command = command.env(name, value);
        }
        let finished = command.run().await;
        assert_eq!(finished.code, 0, "{finished:?}");
        search.wrote("check", finished.said());
    }
    let output = gateway.stop().await;
    for (name, path, _) in endpoints() {
        let all = application.asked(path);
        assert!(!all.is_empty(), "{name} is asked");
        for asked in all {
            // Its own address and login it was given, and of sessions it is asked.
            assert_eq!(asked.target, format!("{path}?token=token-of-{name}"));
            if name != "SESSION_URL" {
                let login = asked.header("Authorization").unwrap().strip_prefix("Basic ");
                assert_eq!(login, Some(basic(&format!("login-of-{name}")).as_str()));
            }
            let head = asked.head();
            let others =
                head.lines().filter(|line| !line.starts_with("authorization: ") && !line.starts_with("cookie: "));
            let others: Vec<_> = others.collect();
            search.wrote(path, format!("{} {}", others.join("\n"), String::from_utf8_lossy(&asked.body)));
        }
    }
    search.wrote("Redis", stored(&server));
    search.wrote("the gateway", output);
    assert!(search.written.len() > 200 && search.secrets.len() > 25);
    assert_eq!(search.finds(), None);
}

/// A login as it is sent.
fn basic(password: &str) -> String {
    STANDARD.encode(format!("me:{password}"))
}

/// Every key in Redis, and what it holds.
fn stored(server: &Server) -> String {
    let Reply::Array(keys) = server.ask(&["KEYS", "*"]) else { panic!() };
    let text = |reply: &Reply| match reply {
        Reply::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    assert!(keys.len() > 3);
    keys.iter().map(|key| format!("{} {}\n", text(key), text(&server.ask(&["DUMP", &text(key)])))).collect()
}

#[test]
fn any_part_of_a_secret_is_found() {
    let mut search = Search::default();
    let secret = search.plant("0123456789abcdef");
    for part in [&secret[..11], &secret[5..]] {
        search.wrote("somebody", format!("said {part}0123"));
    }
    assert_eq!(search.finds(), None);
    for part in [&secret[..12], &secret[4..], &secret[2..14]] {
        search.written.truncate(2);
        search.wrote("somebody", format!("said {part}!"));
        assert!(search.finds().is_some_and(|found| found.contains("in what somebody wrote")), "{part}");
    }
}

/// Checklist 24.
#[tokio::test]
async fn no_secret_is_written_in_lines_of_text() {
    plant_everywhere("text").await;
}

#[tokio::test]
async fn no_secret_is_written_in_lines_of_json() {
    plant_everywhere("json").await;
}
