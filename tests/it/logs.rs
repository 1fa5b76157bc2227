//! The lines that people grep for, and what must never be in any of them.

use crate::{gateway::Gateway, patience::eventually, raw};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Checklist 3, 5, 9, 14, 16, 32, 106, 148, 199, 200, 201, 261, 262.
#[tokio::test]
async fn the_life_of_a_socket_is_told_in_the_known_words() {
    let mut gateway = Gateway::start().await;
    let mut client = gateway.greeted("/websocket?room_id=r&user_id=u").await;
    let id = client.id.clone();
    gateway.logs(&["INFO", "WebSocket upgrade request for room: r, user: u"]).await;
    gateway.logs(&["DEBUG", "WebSocket accepted, WebSocket pair created", &id]).await;
    gateway.logs(&["DEBUG", "Initial 'hi' message sent", &id, "bytes="]).await;
    gateway.logs(&["INFO", "WebSocket opened", &id]).await;
    gateway.logs(&["INFO", &format!("✅ Socket {id} added. Total active: 1")]).await;
    gateway.logs(&["DEBUG", "🔌 Active socket IDs: [", &id]).await;
    gateway.logs(&["INFO", "User connected", "u"]).await;
    client.asks(r#"{"type":"selectStore","data":{"storeId":"meonutrition"}}"#).await;
    gateway.logs(&["INFO", &format!("🏪 Socket {id} selected store: meonutrition")]).await;
    let second = gateway.greeted("/connect").await;
    gateway.logs(&[&format!("✅ Socket {} added. Total active: 2", second.id)]).await;
    gateway.logs(&["WebSocket upgrade request for room:", "user: anonymous"]).await;
    client.leaves().await;
    gateway.logs(&["INFO", "WebSocket closed:", "100"]).await;
    gateway.logs(&["INFO", "User disconnected", "u"]).await;
}

/// Checklist 15, 16, 112.
#[tokio::test]
async fn a_close_is_told_with_code_and_reason() {
    let mut gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    gateway.delete(&format!("/api/sockets/{}?reason=too-loud", client.id)).await;
    assert_eq!(client.closed().await.0, 4403);
    gateway.logs(&["WebSocket closed:", "4403", "too-loud"]).await;
    let mut raw = gateway.raw_greeted("/ws").await;
    raw.write(&raw::frame(raw::FIN | 3, b"")).await;
    gateway.logs(&["WARN", "WebSocket error:", "protocol_error"]).await;
    gateway.logs(&["WebSocket closed:", "1002"]).await;
}

/// Checklist 83, 99, 101, 102, 107, 135.
#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let mut gateway = Gateway::start().await;
    gateway.knock("/websocket").await;
    gateway.logs(&["Missing room_id query parameter"]).await;
    gateway.logs(&["WebSocket upgrade failed", "Missing room_id query parameter"]).await;
    gateway.knock("/ws").but("Upgrade", "carrier-pigeon").await;
    gateway.logs(&["Invalid Upgrade header", "carrier-pigeon"]).await;
    gateway.knock("/ws").with("Origin", "https://evil.example").await;
    gateway.logs(&["WebSocket upgrade failed", "Origin not allowed", "https://evil.example"]).await;
}

/// Checklist 33, 263, 264, 266.
#[tokio::test]
async fn pushes_are_told_in_the_known_words() {
    let mut gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut client = gateway.greeted("/ws?user_id=u&client_id=a").await;
    gateway.post("/sse/push", &json!({"user_id":"u","data":{"a":1}})).await;
    client.hears().await;
    gateway.logs(&["INFO", "Processing SSE message"]).await;
    gateway.logs(&["INFO", "Message sent to user", "u"]).await;
    gateway.post("/sse/push", &json!({"user_id":"nobody-here","data":{"a":1}})).await;
    gateway.logs(&["WARN", "Attempt to send message to disconnected user", "nobody-here"]).await;
    gateway.greeted("/ws?user_id=u&client_id=b").await;
    gateway.logs(&["INFO", "Too many connections, closing oldest"]).await;
}

/// Checklist 267.
#[tokio::test]
async fn a_mention_of_a_public_account_is_told() {
    let mut gateway = Gateway::with([("PUBLIC_ACCOUNTS", "support,news")]).await;
    gateway.post("/sse/push", &json!({"user_id":"u","data":{"message":"please help @support"}})).await;
    gateway.logs(&["INFO", "Detected @mention of public account", "support"]).await;
}

/// Checklist 215, 216, 217.
#[tokio::test]
async fn too_few_sockets_are_an_alarm() {
    let mut gateway = Gateway::with([("MIN_SOCKETS", "2")]).await;
    let clients = [gateway.greeted("/ws").await, gateway.greeted("/ws").await];
    let both = async || gateway.metric("holdfast_fleet_connections").await == 2.0;
    eventually("enough were seen", async || both().await.then_some(())).await;
    for client in clients {
        client.leaves().await;
    }
    gateway.logs(&["ERROR", "🚨 Socket count below threshold!"]).await;
    gateway.logs(&["ERROR", "🚨 No healthy sockets found!"]).await;
}

/// Checklist 170: a pipe that is full, and one that is closed.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    for closed in [false, true] {
        let mut gateway = Gateway::with([("LOG_LEVEL", "trace")]).await;
        match closed {
            true => gateway.hangs_up().await,
            false => gateway.stops_listening().await,
        }
        let long = "x".repeat(1000);
        for _ in 0..300 {
            assert_eq!(gateway.get(&format!("/health?{long}")).await.status, 200);
        }
        gateway.greeted("/ws?user_id=u").await.leaves().await;
        gateway.is_unharmed().await;
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.exits().await, 0);
    }
}

/// The id in a refusal leads to its line, and to what else the log says of it.
#[tokio::test]
async fn every_refusal_is_in_the_log_by_its_id() {
    let mut gateway = Gateway::with([("MAX_BODY_BYTES", "1000"), ("API_TOKEN", "t"), ("LOG_LEVEL", "info")]).await;
    let (call, sync, send) = ("/api/call", "/api/sync/orders", "/api/send");
    let large = "x".repeat(2000);
    for (nth, (status, ask)) in [
        (400, gateway.posts(call, "{")),
        (400, gateway.posts("/api/sync/a%20b", "{}")),
        (401, gateway.posts(call, "{}").without("Authorization")),
        (403, gateway.posts(call, "{}").with("Origin", "https://evil.com")),
        (404, gateway.posts(call, r#"{"socketId":"ws_123","event":"x"}"#)),
        (404, gateway.posts(sync, r#"{"storeId":"s"}"#)),
        (404, gateway.posts(send, r#"{"socketId":"ws_123"}"#)),
        (404, gateway.get("/api/sockets/ws_123")),
        (404, gateway.get("/nowhere")),
        (405, gateway.request("PUT", call)),
        (413, gateway.posts(call, large)),
        (415, gateway.posts(call, "{}").but("Content-Type", "text/plain")),
        (422, gateway.posts(sync, "{}")),
        (426, gateway.get("/ws")),
        (400, gateway.get("/sse/stream")),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("req-{nth}-{status}");
        let ask = if status == 401 { ask } else { ask.with("Authorization", "Bearer t") };
        let answer = ask.with("X-Request-Id", &id).await;
        assert_eq!((answer.status, answer.header("X-Request-Id")), (status, Some(&*id)), "{}", answer.text());
        gateway.logs(&[&id]).await;
    }
}

/// Checklist 48, 98, 135, 199, 201.
#[tokio::test]
async fn json_lines_carry_the_same_words_without_signs() {
    let gateway = Gateway::with([("LOG_FORMAT", "json")]).await;
    let mut client = gateway.greeted("/ws?user_id=u%22%5C&room_id=r").await;
    let id = client.id.clone();
    client.asks(r#"{"type":"selectStore","data":{"storeId":"s"}}"#).await;
    client.leaves().await;
    gateway.verdict(&id).await;
    let output = gateway.stop().await;
    let (_, log) = output.split_once("ready").unwrap();
    let lines: Vec<Value> = log.lines().skip(1).map(|line| serde_json::from_str(line).expect(line)).collect();
    let is_dated = |line: &Value| line["timestamp"].as_str().is_some_and(|at| at.len() > 20 && at.ends_with('Z'));
    assert!(lines.iter().all(is_dated), "{output}");
    let message = |text: &str| {
        lines.iter().find(|line| line["message"].as_str().is_some_and(|message| message.starts_with(text)))
    };
    let added = message(&format!("Socket {id} added. Total active: 1")).expect(&output);
    assert_eq!(added["level"].as_str().map(str::to_lowercase).as_deref(), Some("info"));
    for text in ["Active socket IDs: [", "WebSocket opened", "WebSocket closed:", "User connected", "User disconnected"]
    {
        assert!(message(text).is_some(), "{text} in {output}");
    }
    assert!(message(&format!("Socket {id} selected store: s")).is_some(), "{output}");
}

#[tokio::test]
async fn what_is_for_debugging_is_not_told_at_info() {
    let gateway = Gateway::with([("LOG_LEVEL", "INFO")]).await;
    gateway.greeted("/ws?user_id=u").await.leaves().await;
    let output = gateway.stop().await;
    assert!(output.contains("added. Total active: 1"), "{output}");
    assert!(!output.contains("Active socket IDs") && !output.contains("DEBUG"), "{output}");
}

/// Checklist 2, 24, 27, 107, 254: planted wherever a client can put one, at the loudest level.
#[tokio::test]
async fn no_secret_is_ever_in_the_log() {
    for format in ["text", "json"] {
        let gateway = Gateway::with([("LOG_LEVEL", "trace"), ("LOG_FORMAT", format), ("API_TOKEN", "s3cret-0")]).await;
        let query = "key=s3cret-1&token=s3cret-2&session_token=s3cret-3&ticket=s3cret-4&api_key=s3cret-5&access_token=s3cret-6\
                     &Key=s3cret-7&k%65y=s3cret-8&jwt=s3cret-9&password=s3cret-10&resume=s3cret-11";
        for target in ["/ws", "/websocket", "/nowhere", "/api/handshake", "/health", "/ws/code1", "/api/auth/session"] {
            for ask in [gateway.get(&format!("{target}?{query}")), gateway.knock(&format!("{target}?{query}"))] {
                let ask = ask
                    .with("X-API-Key", "s3cret-20")
                    .with("X-Nano-Key", "s3cret-21")
                    .with("Authorization", "Bearer s3cret-22");
                let ask =
                    ask.with("Cookie", "session=s3cret-23").with("Sec-WebSocket-Protocol", "chat, bearer.s3cret-24");
                let answer = ask.with("X-Custom", "seen").await;
                assert!(!answer.text().contains("s3cret"), "{}", answer.text());
            }
        }
        gateway.get("/api/handshake?path=/ws%3Fkey%3Ds3cret-12").await;
        gateway.greeted(&format!("/ws?user_id=u&{query}")).await.leaves().await;
        gateway.get("/api/debug/sockets").with("Authorization", "Bearer s3cret-0").await;
        let output = gateway.stop().await;
        assert!(output.contains("WebSocket opened"), "{output}");
        let leaks: Vec<_> = output.lines().filter(|line| line.contains("s3cret")).collect();
        assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    }
}

/// A name cannot write a line of its own, nor colour one.
#[tokio::test]
async fn a_client_writes_no_lines_of_its_own() {
    let gateway = Gateway::start().await;
    for name in ["a%0AINFO%20forged", "a%0D%0AINFO%20forged", "a%1b%5b31mforged", "a%E2%80%A8forged"] {
        gateway.knock(&format!("/ws?user_id={name}")).await;
        gateway.knock(&format!("/ws/{name}")).await;
        gateway.knock("/ws").with("Origin", &format!("https://{name}")).await;
    }
    let mut client = gateway.greeted("/ws?user_id=u").await;
    client.asks(r#"{"type":"a\nINFO forged\u001b[31m","id":1}"#).await;
    client.leaves().await;
    let output = gateway.stop().await;
    assert!(!output.lines().any(|line| line.starts_with("INFO forged")), "{output}");
    assert!(!output.contains('\u{1b}'), "{output:?}");
}
