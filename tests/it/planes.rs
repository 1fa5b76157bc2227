//! Who may call: the three planes, protected mode, and the tokens.

use crate::{
    gateway::Gateway,
    holdfast::TempFile,
    http::{Answer, Request},
    patience::eventually,
};
use rustix::process::Signal;
use serde_json::json;

/// Open to everybody.
const CLIENT: [(&str, &str); 6] = [
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/api/handshake?path=/ws"),
    ("GET", "/api/auth/session"),
    ("GET", "/"),
];
/// For the application's servers.
const SERVER: [(&str, &str); 15] = [
    ("GET", "/metrics"),
    ("GET", "/api/sockets"),
    ("GET", "/api/sockets/ws_123"),
    ("PUT", "/api/sockets/ws_123/rooms/r"),
    ("DELETE", "/api/sockets/ws_123/rooms/r"),
    ("GET", "/api/users/u"),
    ("GET", "/api/stores/s"),
    ("GET", "/api/rooms/r"),
    ("POST", "/api/rooms/r/send"),
    ("POST", "/api/send"),
    ("POST", "/api/send/batch"),
    ("POST", "/sse/push"),
    ("POST", "/sse/push/batch"),
    ("POST", "/sse/send"),
    ("GET", "/api/instances"),
];
/// What reveals or changes the fleet.
const ADMIN: [(&str, &str); 4] = [
    // One that is refused, since what it answers has no end.
    ("GET", "/api/events?scope=none"),
    ("GET", "/api/debug/sockets"),
    ("DELETE", "/api/sockets/ws_123"),
    ("DELETE", "/api/users/u"),
];

fn asks(gateway: &Gateway, (method, target): (&str, &str)) -> Request {
    gateway.request(method, target)
}

/// Refused for want of a token; the sentence names the setting and how it is sent.
fn wants_a_token(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    answer.is_problem();
    assert!(answer.header("WWW-Authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")), "{what}");
    let hint = answer.json()["hint"].to_string();
    assert!(hint.contains("API_TOKEN") && hint.contains("Authorization: Bearer"), "{what}: {hint}");
}

/// Let through, whatever it then finds.
fn is_let_in(answer: &Answer, what: &str) {
    assert!(!matches!(answer.status, 401 | 403), "{what}: {} {}", answer.status, answer.text());
}

/// Ways in which a request shows that it did not come from this machine itself.
fn from_afar(ask: &Request) -> Vec<(&'static str, Request)> {
    let mut asks = Vec::new();
    for host in [
        "gateway.example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "example.com:8080",
        "localhost@example.com",
        "example.com#localhost",
        "[::2]:80",
        "0.0.0.0:80",
        "10.0.0.1",
        "",
    ] {
        asks.push((host, ask.clone().but("Host", host)));
    }
    asks.push(("no Host", ask.clone().without("Host")));
    for name in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-host", "X-Real-IP", "Via"] {
        asks.push((name, ask.clone().with(name, "127.0.0.1")));
        asks.push((name, ask.clone().with(name, "")));
    }
    asks
}

/// Checklist 192: without a token only this machine may call, and only directly.
#[tokio::test]
async fn in_protected_mode_whoever_may_come_from_afar_is_told_to_bring_a_token() {
    let gateway = Gateway::start().await;
    assert!(gateway.output().contains("API_TOKEN"), "the start says so: {}", gateway.output());
    for route in SERVER.into_iter().chain(ADMIN) {
        is_let_in(&asks(&gateway, route).await, route.1);
        wants_a_token(&asks(&gateway, route).with("X-Forwarded-For", "192.0.2.1").await, route.1);
        wants_a_token(&asks(&gateway, route).but("Host", "gateway.example.com").await, route.1);
    }
    for (how, ask) in from_afar(&gateway.get("/api/sockets")) {
        // Without a Host, or with one that cannot be read, the request is no good anyway.
        match ask.await {
            answer if answer.status == 400 => {}
            answer => wants_a_token(&answer, how),
        }
    }
    let mut raw = gateway.raw().await;
    raw.write(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    wants_a_token(&raw.answer().await, "HTTP/1.0");
    for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:65535", "[::1]", "[::1]:8080"] {
        assert_eq!(gateway.get("/api/sockets").but("Host", host).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn what_is_for_clients_is_open_to_all() {
    for settings in [&[][..], &[("API_TOKEN", "t0ken-a"), ("ADMIN_TOKEN", "t0ken-b")]] {
        let gateway = Gateway::with(settings.iter().copied()).await;
        for route in CLIENT {
            for (how, ask) in from_afar(&asks(&gateway, route)) {
                is_let_in(&ask.await, &format!("{how} {}", route.1));
            }
        }
        assert_eq!(gateway.knock("/ws").but("Host", "gateway.example.com").with("Via", "1.1 nginx").await.status, 101);
    }
}

/// Who calls with which token, and which planes that opens.
#[tokio::test]
async fn a_token_opens_its_plane_from_anywhere() {
    const API: &str = "t0ken-api";
    const ADM: &str = "t0ken-admin";
    for (settings, token, server, admin) in [
        (&[("API_TOKEN", API)][..], API, true, true),
        (&[("API_TOKEN", API)], "", false, false),
        (&[("API_TOKEN", API), ("ADMIN_TOKEN", ADM)], API, true, false),
        (&[("API_TOKEN", API), ("ADMIN_TOKEN", ADM)], ADM, true, true),
        (&[("API_TOKEN", API), ("ADMIN_TOKEN", ADM)], "", false, false),
        (&[("ADMIN_TOKEN", ADM)], "", false, false),
    ] {
        let gateway = Gateway::with(settings.iter().copied()).await;
        for (routes, open) in [(&SERVER[..], server), (&ADMIN, admin)] {
            for route in routes {
                let ask =
                    asks(&gateway, *route).but("Host", "gateway.example.com").with("X-Forwarded-For", "192.0.2.1");
                let ask = if token.is_empty() { ask } else { ask.with("Authorization", &format!("Bearer {token}")) };
                let (answer, what) = (ask.await, format!("{settings:?} {token:?} {route:?}"));
                if open { is_let_in(&answer, &what) } else { wants_a_token(&answer, &what) }
            }
        }
        let printed = gateway.stop().await;
        assert!(!printed.contains("t0ken-"), "a token is in the log: {printed}");
    }
}

/// Whoever has the stronger token needs no weaker one, also where nobody set one.
#[tokio::test]
async fn the_stronger_token_opens_the_weaker_plane() {
    let gateway = Gateway::with([("ADMIN_TOKEN", "t0ken-admin")]).await;
    for route in SERVER.into_iter().chain(ADMIN) {
        let ask = asks(&gateway, route).with("X-Forwarded-For", "192.0.2.1");
        wants_a_token(&ask.clone().with("Authorization", "Bearer t0ken-wrong").await, route.1);
        is_let_in(&ask.with("Authorization", "Bearer t0ken-admin").await, route.1);
    }
    is_let_in(&gateway.get("/api/sockets").await, "from this machine");
    wants_a_token(&gateway.get("/api/debug/sockets").await, "the admin plane, from this machine");
}

/// With a token set, being local is no longer enough, and nothing but the token is one.
#[tokio::test]
async fn nothing_but_the_token_is_a_token() {
    let gateway = Gateway::with([("API_TOKEN", "t0ken")]).await;
    let ask = gateway.get("/api/sockets");
    wants_a_token(&ask.clone().await, "none, from this machine");
    for wrong in
        ["Bearer", "Bearer ", "Bearer t0ke", "Bearer t0kenn", "Bearer T0KEN", "t0ken", "Basic t0ken", "Bearer t0ken x"]
    {
        wants_a_token(&ask.clone().with("Authorization", wrong).await, wrong);
    }
    for (name, value) in
        [("X-API-Key", "t0ken"), ("X-Nano-Key", "t0ken"), ("Cookie", "token=t0ken"), ("API_TOKEN", "t0ken")]
    {
        wants_a_token(&ask.clone().with(name, value).await, name);
    }
    wants_a_token(&gateway.get("/api/sockets?token=t0ken&access_token=t0ken&key=t0ken").await, "query");
    for right in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken"] {
        assert_eq!(ask.clone().with("Authorization", right).await.status, 200, "{right}");
    }
    // What is wrong with a body is nobody's business before the token is right.
    let refused = gateway.posts("/api/send", "{").await;
    wants_a_token(&refused, "a bad body");
    assert!(!gateway.stop().await.contains("t0ken"));
}

/// A path that does not exist is 404 for everybody; that there is no such path is no secret.
#[tokio::test]
async fn a_wrong_path_or_method_is_told_before_the_token() {
    let gateway = Gateway::with([("API_TOKEN", "t0ken")]).await;
    gateway.get("/api/nowhere").await.refuses(404, "Not found");
    let answer = gateway.get("/api/send").await;
    answer.refuses(405, "Method not allowed");
    assert_eq!(answer.header("Allow"), Some("POST"));
}

async fn status(gateway: &Gateway, target: &str, token: &str) -> u16 {
    gateway.get(target).with("Authorization", &format!("Bearer {token}")).await.status
}

/// A secret may stand in a file, and is read again when somebody says so.
#[tokio::test]
async fn tokens_change_without_a_restart() {
    let (api, admin) = (TempFile::holding("first-api\n"), TempFile::holding("first-admin\n"));
    let mut gateway =
        Gateway::with([("API_TOKEN_FILE", api.path()), ("HOLDFAST_ADMIN_TOKEN_FILE", admin.path())]).await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    assert_eq!(status(&gateway, "/api/sockets", "first-api").await, 200);
    assert_eq!(status(&gateway, "/api/debug/sockets", "first-admin").await, 200);
    api.rewrite("second-api");
    admin.rewrite("second-admin");
    assert_eq!(status(&gateway, "/api/sockets", "first-api").await, 200, "nobody has said so yet");
    gateway.signal(Signal::HUP);
    eventually("the new token is known", async || {
        (status(&gateway, "/api/sockets", "second-api").await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&gateway, "/api/debug/sockets", "second-admin").await, 200);
    assert_eq!(
        (
            status(&gateway, "/api/sockets", "first-api").await,
            status(&gateway, "/api/debug/sockets", "first-admin").await
        ),
        (401, 401)
    );
    // A file that is gone is a mistake, and no reason to let everybody in.
    drop(api);
    gateway.signal(Signal::HUP);
    gateway.logs(&["ERROR", "API_TOKEN"]).await;
    assert_eq!(
        (status(&gateway, "/api/sockets", "second-api").await, status(&gateway, "/api/sockets", "").await),
        (200, 401)
    );
    client.heard_all().await;
    let printed = gateway.stop().await;
    assert!(!["first-", "second-"].iter().any(|secret| printed.contains(secret)), "{printed}");
}

/// Checklist 232: a token that is taken away leaves protected mode, not an open door.
#[tokio::test]
async fn without_its_token_a_gateway_is_protected_again() {
    let file = TempFile::holding("api_token = \"t0ken\"\n");
    let mut gateway = Gateway::command(&["--config", file.path()]).serve().await;
    wants_a_token(&gateway.get("/api/sockets").await, "with the token");
    file.rewrite("cors_origins = [\"https://app.example.com\"]\n");
    gateway.signal(Signal::HUP);
    gateway.logs(&["reloaded"]).await;
    assert_eq!(gateway.get("/api/sockets").await.status, 200);
    wants_a_token(&gateway.get("/api/sockets").with("Via", "1.1 nginx").await, "through a proxy");
    let page = gateway.get("/api/sockets").with("Origin", "https://app.example.com").await;
    assert_eq!(page.header("Access-Control-Allow-Origin"), Some("https://app.example.com"));
    assert_eq!(gateway.post("/api/send", &json!({ "all": true })).await.status, 200);
}
