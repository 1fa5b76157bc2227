//! Listeners: sockets without WebSocket, which hear all that is sent to them as events.

use crate::{
    fleet::{Fleet, within},
    gateway::Gateway,
    http::Request,
    nginx::Nginx,
    patience::eventually,
    raw::Raw,
    stream::{Event, Stream},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Server;
use std::time::Duration;

/// Hears `hi` and `reset`; returns the id.
async fn is_greeted(stream: &mut Stream) -> String {
    let hi = stream.hears("hi").await;
    assert_eq!((&hi["type"], &hi["evt"]), (&json!("hi"), &json!("hi")), "{hi}");
    assert_eq!(stream.hears("reset").await, json!({"type": "reset"}));
    hi["socketId"].as_str().unwrap().to_owned()
}

async fn listens(gateway: &Gateway, query: &str) -> (Stream, String) {
    let mut stream = gateway.get(&format!("/sse/stream?{query}")).streams().await;
    let id = is_greeted(&mut stream).await;
    (stream, id)
}

async fn sends(gateway: &Gateway, to: Value, data: Value) -> Value {
    let answer = gateway.post("/api/send", &json!({"to": to, "event": "news", "data": data})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_listener_is_reached_by_every_name_from_every_instance() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[]).await;
    let (mut stream, id) = listens(&fleet[0], "user_id=u&store_id=s&room_id=r").await;
    for from in 0..3 {
        for to in [json!({"socketId": id}), json!({"userId": "u"}), json!({"storeId": "s"}), json!({"roomId": "r"})] {
            let data = json!([from, to, "\n"]);
            let sent = sends(&fleet[from], to, data.clone()).await;
            assert_eq!((&sent["status"], &sent["delivered"]), (&json!("delivered"), &json!(1)));
            assert_eq!(stream.hears("news").await, json!({"type": "news", "data": data}));
        }
        let pushed = fleet[from].post("/sse/push", &json!({"user_id": "u", "data": from})).await.json();
        assert_eq!(pushed["status"], "success");
        assert_eq!(stream.hears("message").await["data"], from);
        let shown = fleet.lookup(from, &id).await.json();
        assert_eq!(
            (&shown["userId"], &shown["storeId"], &shown["instance"]),
            (&json!("u"), &json!("s"), &json!("web1"))
        );
        let users = fleet[from].get("/api/users/u").await.json();
        assert_eq!(users["count"], 1, "{users}");
    }
    drop(stream);
    let verdict = fleet[1].verdict(&id).await;
    assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&json!("client_closed"), &Value::Null));
    fleet.is_sound().await;
}

/// What others in its room say it hears; what is no text it does not.
#[tokio::test]
async fn a_listener_hears_its_room() {
    let gateway = Gateway::start().await;
    let (mut stream, _) = listens(&gateway, "user_id=u&room_id=r").await;
    let mut client = gateway.greeted("/ws?room_id=r").await;
    client.says_bytes(&b"\x00\x01"[..]).await;
    client.says(json!({"type": "publish", "room": "r", "data": 7}).to_string()).await;
    let said = stream.hears("message").await;
    assert_eq!((&said["from"], &said["data"]), (&json!(client.id), &json!(7)));
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_listener_can_be_kicked_and_hears_why() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[]).await;
    let (mut stream, id) = listens(&fleet[0], "user_id=u").await;
    let answer = fleet[1].delete(&format!("/api/sockets/{id}?reason=spam")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let close = stream.hears("close").await;
    assert_eq!(
        (&close["code"], &close["reason"], &close["cause"]),
        (&json!(4403), &json!("kicked: spam"), &json!("kicked"))
    );
    stream.ends().await;
    assert_eq!(fleet[2].verdict(&id).await["cause"], "kicked");
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_listener_counts_under_the_cap() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "1")]).await;
    let (mut first, _) = listens(&gateway, "user_id=u&client_id=a").await;
    let mut client = gateway.greeted("/ws?user_id=u&client_id=b").await;
    assert_eq!(first.hears("close").await["code"], 4410);
    first.ends().await;
    // Who was evicted cannot evict another at once.
    let refused = gateway.get("/sse/stream?user_id=u&client_id=a").await;
    refused.is_problem();
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("cooling_down")));
    let (_second, _) = listens(&gateway, "user_id=u&client_id=c").await;
    assert_eq!(client.closed().await.0, 4410);
}

/// Where the newcomer has to go, the holder is asked for a sign of life first: whoever reads its events gives one.
#[tokio::test]
async fn a_listener_that_lives_keeps_its_place() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[("MAX_SOCKETS_PER_USER", "1"), ("DUPLICATE_POLICY", "reject")]).await;
    let (mut first, id) = listens(&fleet[0], "user_id=u&client_id=a").await;
    for asked in [0, 1] {
        let refused = fleet[asked].get("/sse/stream?user_id=u&client_id=b").await;
        let body = refused.refuses(409, "User already connected");
        assert_eq!(body["code"], "already_connected");
        assert!(body["hint"].as_str().unwrap().contains("MAX_SOCKETS_PER_USER"), "{body}");
        let mut client = fleet[asked].connect("/ws?user_id=u&client_id=c").await;
        assert_eq!(client.closed().await, (1008, "User already connected".into()));
    }
    sends(&fleet[1], json!({"socketId": id}), json!(1)).await;
    first.hears("news").await;
    // It makes way for itself, as it says who it is.
    let (_second, _) = listens(&fleet[1], "user_id=u&client_id=a").await;
    assert_eq!(first.hears("close").await["cause"], "replaced");
    first.ends().await;
    fleet.is_sound().await;
}

/// What it was, before its verdict is looked at, is the same to those who look from elsewhere.
#[tokio::test]
async fn a_listener_that_breaks_off_is_told_from_one_that_leaves() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[]).await;
    let (leaves, left) = listens(&fleet[0], "user_id=u").await;
    let (breaks, broken) = listens(&fleet[0], "user_id=u").await;
    drop(leaves);
    breaks.breaks();
    for (id, cause, reason) in [(left, "client_closed", "ended"), (broken, "connection_lost", "failed")] {
        for asked in [0, 1] {
            let verdict = fleet[asked].verdict(&id).await;
            assert_eq!(
                (&verdict["state"], &verdict["cause"], &verdict["closeCode"]),
                (&json!("closed"), &json!(cause), &Value::Null),
                "{verdict}"
            );
            assert!(verdict["reason"].as_str().is_some_and(|text| text.contains(reason)), "{verdict}");
        }
    }
    fleet.is_sound().await;
}

/// Nothing is kept for it: with the last event that it names or without, it is somebody new, and is told to begin anew.
#[tokio::test]
async fn a_listener_that_comes_back_is_told_that_it_may_have_missed_something() {
    let gateway = Gateway::start().await;
    let (stream, first) = listens(&gateway, "user_id=u").await;
    drop(stream);
    gateway.verdict(&first).await;
    sends(&gateway, json!({"userId": "u"}), json!("missed")).await;
    for last in ["0", "7", "ws_123", "\u{fc}", ""] {
        let asks = gateway.get("/sse/stream?user_id=u").with("Last-Event-ID", last);
        let mut stream = asks.streams().await;
        let id = is_greeted(&mut stream).await;
        assert_ne!(id, first);
        sends(&gateway, json!({"socketId": id}), json!("now")).await;
        assert_eq!(stream.hears("news").await["data"], "now");
    }
    gateway.is_unharmed().await;
}

/// It cannot answer, so that nobody waits for it.
#[tokio::test]
async fn a_listener_is_asked_nothing() {
    let gateway = Gateway::start().await;
    let (_stream, _) = listens(&gateway, "user_id=u").await;
    let answer = gateway.post("/api/call", &json!({"userId": "u", "event": "x"})).await;
    assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("no_live_socket")));
}

#[tokio::test]
async fn who_may_not_come_in_is_told_over_http() {
    let gateway = Gateway::with([("CORS_ORIGINS", "https://app.example.com"), ("MAX_SOCKETS", "1")]).await;
    gateway.get("/sse/stream").await.refuses(400, "Missing user_id query parameter");
    gateway.get("/sse/stream?user_id=%20").await.refuses(400, "Missing or empty user_id query parameter");
    let asks = || gateway.get("/sse/stream?user_id=u");
    asks().with("Origin", "https://evil.com").await.refuses(403, "Origin not allowed");
    // Over plain http the page of a rebound name says nothing but its name.
    asks().but("Host", "evil.com:8080").await.refuses(403, "Origin not allowed");
    asks().but("Host", "evil.com").with("Sec-Fetch-Mode", "navigate").await.refuses(403, "Origin not allowed");
    let mut page = asks().with("Origin", "https://app.example.com").but("Host", "gateway.example.com").streams().await;
    is_greeted(&mut page).await;
    let full = asks().await;
    assert_eq!((full.status, &full.json()["code"]), (503, &json!("full")));
    drop(page);
    // HEAD opens nothing.
    let head = gateway.request("HEAD", "/sse/stream?user_id=u");
    let head =
        eventually("there is room", async || Some(head.clone().await).filter(|answer| answer.status == 200)).await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(gateway.sockets().await, 0);
    let own = asks().but("Host", "app.example.com").streams();
    is_greeted(&mut own.await).await;
}

#[tokio::test]
async fn a_drain_tells_listeners_to_come_back() {
    let mut gateway = Gateway::start().await;
    let mut stream = gateway.get("/sse/stream?user_id=u").with("Last-Event-ID", "7").streams().await;
    is_greeted(&mut stream).await;
    gateway.signal(Signal::TERM);
    let Event { name, data, retry, .. } = stream.event().await.unwrap();
    assert_eq!((name.as_str(), retry), ("retry", data["afterMs"].as_u64()));
    assert_eq!(stream.hears("close").await["code"], 1012);
    stream.ends().await;
    assert_eq!(gateway.exits().await, 0);
}

/// Pings are comments, and whoever takes them lives.
#[tokio::test]
async fn a_quiet_listener_stays() {
    let gateway = Gateway::with([("WS_PING_INTERVAL", "1s"), ("WS_PING_TIMEOUT", "1s")]).await;
    let (mut stream, id) = listens(&gateway, "user_id=u").await;
    for _ in 0..5 {
        assert_eq!(stream.next().await, Some(Event::default()));
    }
    sends(&gateway, json!({"socketId": id}), json!(1)).await;
    stream.hears("news").await;
}

#[tokio::test]
async fn a_listener_that_does_not_read_is_too_slow() {
    let gateway = Gateway::with([("WS_PING_TIMEOUT", "2s"), ("MAX_QUEUE_BYTES", "100KiB")]).await;
    let mut raw = Raw::connect_narrow(gateway.address()).await;
    raw.write(&gateway.get("/sse/stream?user_id=u").bytes()).await;
    let mut stream = Stream::over(raw).await;
    let id = is_greeted(&mut stream).await;
    let body = json!({"socketId": id, "data": "x".repeat(50_000)});
    // The kernel takes some megabytes before anything waits.
    eventually("what waits does not move", async || {
        (gateway.post("/api/send", &body).await.status == 410).then_some(())
    })
    .await;
    assert_eq!(gateway.verdict(&id).await["cause"], "too_slow");
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_killed_instance_loses_its_listeners_to_nobody() {
    let server = Server::start();
    let mut fleet = Fleet::on(&server.url(), &[]).await;
    let (_stream, id) = listens(&fleet[0], "user_id=u").await;
    fleet.kill(0);
    within(Duration::from_secs(60), "the verdict says so", async || {
        let answer = fleet.lookup(1, &id).await;
        let cause = answer.json()["verdict"]["cause"].clone();
        if cause == "instance_crash" { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    fleet.is_sound().await;
}

/// Checklist 280: through a proxy that buffers whatever does not say otherwise.
#[tokio::test]
async fn nginx_passes_on_every_event_at_once() {
    let gateway = Gateway::with([("API_TOKEN", "t"), ("WS_PING_INTERVAL", "60s")]).await;
    let nginx = Nginx::before(&[gateway.address()]).await;
    let through =
        |method: &str, target: &str| Request::new(nginx.address, method, target).with("Authorization", "Bearer t");
    let mut stream = through("GET", "/sse/stream?user_id=u").streams().await;
    let id = is_greeted(&mut stream).await;
    for n in 0..5 {
        let sent = through("POST", "/api/send").json(&json!({"socketId": id, "event": "news", "data": n})).await;
        assert_eq!(sent.json()["status"], "delivered");
        // Each is here before the next is sent.
        assert_eq!(stream.hears("news").await["data"], n);
    }
    let mut client = gateway.greeted("/ws?store_id=s").await;
    let asked = json!({"storeId": "s", "event": "x", "timeoutMs": 20_000});
    let mut call = through("POST", "/api/call").json(&asked).streams().await;
    call.hears("accepted").await;
    let asked = client.hears().await;
    for n in 0..5 {
        client.says(json!({"type": "progress", "callId": asked["callId"], "data": n}).to_string()).await;
        assert_eq!(call.hears("progress").await, n);
    }
    // Who hangs up there has hung up here.
    drop(call);
    assert_eq!(client.hears().await["type"], "cancel");
    drop(stream);
    let gone = async || Some(through("GET", &format!("/api/sockets/{id}")).await).filter(|answer| answer.status == 410);
    assert_eq!(eventually("it is gone", gone).await.json()["verdict"]["cause"], "client_closed");
}
