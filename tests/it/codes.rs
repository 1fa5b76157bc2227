//! Every code can be looked up where it is met: at the gateway that said it, or with nothing but the binary.

use crate::{gateway::Gateway, holdfast::Holdfast};
use serde_json::{Value, json};

/// The entry that a refusal points at, as a stranger behind a proxy reads it.
async fn entry(gateway: &Gateway, problem: &Value) -> String {
    let address = problem["type"].as_str().unwrap_or_else(|| panic!("{problem} has no type"));
    let stranger = gateway.get(address).but("Host", "gateway.example.com").with("X-Forwarded-For", "192.0.2.1").await;
    assert_eq!((stranger.status, stranger.header("Content-Type")), (200, Some("text/markdown; charset=utf-8")));
    stranger.text()
}

/// Checklist 141, 142: the four that look alike in a browser have a code and an entry each.
#[tokio::test]
async fn a_refusal_points_at_its_entry() {
    let gateway = Gateway::with([("AUTH", "jwt"), ("JWT_SECRET", "0123456789abcdef0123456789abcdef")]).await;
    let page = |target: &str| gateway.knock(target).with("Origin", "https://evil.example");
    for (answer, code) in [
        (gateway.knock("/websocket?room_id=").await, "missing_or_empty_room_id_query_parameter"),
        (gateway.knock("/ws").await, "unauthorized_please_log_in"),
        (page("/ws").await, "origin_not_allowed"),
        (gateway.get("/ws").await, "unauthorized_please_log_in"),
        (gateway.get("/api/sockets").with("X-Forwarded-For", "192.0.2.1").await, "protected_mode"),
        (gateway.get("/api/sockets/ws_123").await, "socket_never_seen"),
        (gateway.get("/api/sockets?limit=none").await, "invalid_limit_query_parameter"),
        (gateway.post("/api/send", &json!({})).await, "invalid_body"),
        (gateway.get("/nowhere").await, "not_found"),
    ] {
        let problem = answer.json();
        assert_eq!((&problem["code"], &problem["type"]), (&json!(code), &json!(format!("/problems/{code}"))));
        let told = entry(&gateway, &problem).await;
        assert!(told.starts_with("### `") && told.len() > 60, "{code}: {told}");
    }
    let open = Gateway::start().await;
    let stripped = open.knock("/ws").without("Upgrade").await.refuses(426, "Expected Upgrade: websocket");
    assert!(entry(&open, &stripped).await.contains("proxy in front"));
}

/// The list is that of the binary; each of it is answered, and may be kept for a while.
#[tokio::test]
async fn every_code_that_there_is_can_be_looked_up() {
    let gateway = Gateway::start().await;
    let unknown = gateway.get("/problems/4999").await.refuses(404, "Unknown code");
    assert!(entry(&gateway, &unknown).await.contains("Another version"), "{unknown}");
    let codes: Vec<_> = unknown["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    let whole = gateway.get("/problems").await.text();
    for code in &codes {
        let code = code.replace("{name}", "room_id");
        let answer = gateway.get(&format!("/problems/{code}")).await;
        assert_eq!((answer.status, answer.header("Cache-Control")), (200, Some("public, max-age=3600")), "{code}");
        assert!(whole.contains(answer.text().trim_end()), "{code}");
    }
    for code in ["4410", "1006", "socket_gone", "bad_json", "connection_lost"] {
        assert!(codes.contains(&code) || code == "1006", "{code}");
        let head = gateway.request("HEAD", &format!("/problems/{code}")).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{code}");
    }
    for odd in ["/problems/", "/problems/..%2Fhealth", "/problems/%00"] {
        assert_eq!(gateway.get(odd).await.status, 404, "{odd}");
    }
}

/// Whoever has nothing but the binary and a code.
#[tokio::test]
async fn a_code_is_explained_without_a_gateway() {
    for (said, part) in [
        ("4410", "MAX_SOCKETS_PER_USER"),
        ("socket_gone", "whenOffline"),
        ("/problems/missing_room_id_query_parameter", "room_id=…"),
        ("\"not_in_room\"", "join"),
        ("ping_timeout", "### `4100`"),
        ("protocol_error", "`4429`"),
    ] {
        let finished = Holdfast::command(&["explain", said]).run().await;
        assert!(finished.code == 0 && finished.stdout.contains(part), "{said}: {finished:?}");
    }
    // Four of its closes have one entry.
    let once = Holdfast::command(&["explain", "protocol_error"]).run().await;
    assert_eq!(once.stdout.matches("### `1002`").count(), 1, "{once:?}");
    let whole = Holdfast::command(&["explain"]).run().await;
    assert!(whole.code == 0 && whole.stdout.contains("## Close codes"), "{whole:?}");
    let unknown = Holdfast::command(&["explain", "socket_gon"]).run().await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (3, ""), "{unknown:?}");
    assert!(unknown.stderr.contains("socket_gone is the nearest"), "{unknown:?}");
    let strange = Holdfast::command(&["explain", "what on earth"]).run().await;
    assert!(strange.code == 3 && !strange.stderr.contains("nearest"), "{strange:?}");
}
