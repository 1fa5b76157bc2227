//! The upgrade itself: the headers that ask for it, and the 101.

use crate::{
    gateway::Gateway,
    http::{ACCEPT, Answer},
};

/// Checklist 67, 92, 157.
#[tokio::test]
async fn upgrade_and_connection_are_lists_in_any_case() {
    let gateway = Gateway::start().await;
    for (name, value) in [
        ("Upgrade", "WebSocket"),
        ("Upgrade", "WEBSOCKET"),
        ("Upgrade", "h2c, websocket"),
        ("Upgrade", "websocket ,foo/1"),
        ("Connection", "upgrade"),
        ("Connection", "keep-alive, Upgrade"),
        ("Connection", "UPGRADE,close"),
        ("connection", "\tUpgrade\t"),
    ] {
        let answer = gateway.knock("/ws").but(name, value).await;
        assert_eq!(answer.status, 101, "{name}: {value}: {}", answer.text());
    }
    let doubled = gateway.knock("/ws").but("Connection", "keep-alive").with("Connection", "Upgrade").await;
    assert_eq!(doubled.status, 101);
    let doubled = gateway.knock("/ws").but("Upgrade", "h2c").with("Upgrade", "websocket").await;
    assert_eq!(doubled.status, 101);
}

fn wants_websocket(answer: &Answer) {
    let body = answer.refuses(426, "Expected Upgrade: websocket");
    assert_eq!(answer.header("Upgrade"), Some("websocket"));
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("Expected WebSocket upgrade request"), "{detail}");
    assert_eq!(body["code"], "expected_upgrade_websocket");
}

/// Checklist 78, 92, 160.
#[tokio::test]
async fn a_plain_request_at_a_door_is_426() {
    let gateway = Gateway::start().await;
    for door in ["/ws", "/websocket?room_id=r", "/ws/Ab3x9", "/connect"] {
        wants_websocket(&gateway.get(door).await);
        wants_websocket(&gateway.request("GET", door).with("Accept", "text/html").await);
    }
}

/// Checklist 69, 93, 151, 233.
#[tokio::test]
async fn a_dropped_upgrade_header_is_told_with_the_cure() {
    let gateway = Gateway::start().await;
    for knock in [
        gateway.knock("/ws"),
        gateway.knock("/ws").but("Connection", "close"),
        gateway.knock("/ws").without("Connection"),
    ] {
        let answer = knock.without("Upgrade").await;
        wants_websocket(&answer);
        let hint = answer.json()["hint"].as_str().unwrap().to_owned();
        assert!(hint.contains("proxy_set_header Upgrade $http_upgrade;"), "{hint}");
        assert!(hint.contains("proxy_set_header Connection"), "{hint}");
    }
    let plain = gateway.get("/ws").await.json()["hint"].as_str().unwrap().to_owned();
    assert!(!plain.contains("proxy_set_header"), "{plain}");
}

/// Checklist 92, 102.
#[tokio::test]
async fn each_wrong_header_is_named() {
    let gateway = Gateway::start().await;
    for value in ["h2c", "web socket", "websockets", "foo, bar"] {
        gateway.knock("/ws").but("Upgrade", value).await.refuses(400, "Invalid Upgrade header");
    }
    for value in ["keep-alive", "close", "upgraded", "not-upgrade"] {
        gateway.knock("/ws").but("Connection", value).await.refuses(400, "Invalid Connection header");
    }
    gateway.knock("/ws").without("Connection").await.refuses(400, "Invalid Connection header");
    for version in ["8", "12", "14", "013", "x"] {
        let answer = gateway.knock("/ws").but("Sec-WebSocket-Version", version).await;
        answer.refuses(426, "Invalid Sec-WebSocket-Version");
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    }
    let answer = gateway.knock("/ws").without("Sec-WebSocket-Version").await;
    answer.refuses(426, "Invalid Sec-WebSocket-Version");
}

#[tokio::test]
async fn a_key_is_16_bytes_in_base64_and_there_is_one() {
    let gateway = Gateway::start().await;
    for key in [
        "",
        "short",
        "AAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        "!!!!!!!!!!!!!!!!!!!!!!==",
        "AAAAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ] {
        gateway.knock("/ws").but("Sec-WebSocket-Key", key).await.refuses(400, "Invalid Sec-WebSocket-Key");
    }
    gateway.knock("/ws").without("Sec-WebSocket-Key").await.refuses(400, "Invalid Sec-WebSocket-Key");
    let doubled = gateway.knock("/ws").with("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==").await;
    doubled.refuses(400, "Invalid Sec-WebSocket-Key");
}

/// Checklist 97, 149, 156, 159: the 101 has these headers and no others.
#[tokio::test]
async fn the_101_is_bare() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let answer = gateway.knock("/ws").await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("Sec-WebSocket-Accept"), Some(ACCEPT));
    assert_eq!(answer.header("Upgrade"), Some("websocket"));
    assert!(answer.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(answer.header("X-Holdfast-Instance"), Some("web1"));
    assert!(answer.header("X-Request-Id").is_some_and(|id| !id.is_empty()));
    let mut names: Vec<_> =
        answer.headers.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "date").collect();
    names.sort_unstable();
    assert_eq!(names, ["connection", "sec-websocket-accept", "upgrade", "x-holdfast-instance", "x-request-id"]);
}

/// Checklist 97, 107.
#[tokio::test]
async fn every_answer_has_its_id_and_its_instance() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let answers = [
        gateway.knock("/ws").await,
        gateway.knock("/ws?user_id=").await,
        gateway.get("/health").await,
        gateway.get("/nowhere").await,
        gateway.request("OPTIONS", "/api/handshake").await,
    ];
    let mut ids: Vec<_> = answers.iter().map(|answer| answer.header("X-Request-Id").unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.header("X-Holdfast-Instance") == Some("web1")));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), answers.len(), "{ids:?}");
}

/// Checklist 54.
#[tokio::test]
async fn the_first_subprotocol_that_is_no_credential_is_echoed() {
    let gateway = Gateway::start().await;
    for (offered, echoed) in [
        ("chat", Some("chat")),
        ("chat, superchat", Some("chat")),
        ("bearer.s3cret, chat", Some("chat")),
        ("bearer.s3cret", None),
    ] {
        let answer = gateway.knock("/ws").with("Sec-WebSocket-Protocol", offered).await;
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), echoed, "{offered}");
    }
    let lines =
        gateway.knock("/ws").with("Sec-WebSocket-Protocol", "bearer.s3cret").with("Sec-WebSocket-Protocol", "v2").await;
    assert_eq!(lines.header("Sec-WebSocket-Protocol"), Some("v2"));
    assert_eq!(gateway.knock("/ws").await.header("Sec-WebSocket-Protocol"), None);
}

/// Checklist 159: compression is offered by every browser and taken from none.
#[tokio::test]
async fn no_extension_is_agreed_to() {
    let gateway = Gateway::start().await;
    let answer =
        gateway.knock("/ws").with("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits").await;
    assert_eq!((answer.status, answer.header("Sec-WebSocket-Extensions")), (101, None));
}

/// Checklist 169.
#[tokio::test]
async fn headers_that_mean_nothing_here_do_no_harm() {
    let gateway = Gateway::start().await;
    let knock =
        (0..20).fold(gateway.knock("/ws"), |knock, n| knock.with(&format!("X-Custom-{n}"), &"v".repeat(n * 10)));
    assert_eq!(knock.with("Content-Length", "0").await.status, 101);
}
