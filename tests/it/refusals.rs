//! Refusals: how they look, which of several faults answers, and how browsers get to see them.

use crate::{
    application::{Application, Manner},
    client::Client,
    gateway::Gateway,
    holdfast::{Holdfast, TempFile},
    patience::eventually,
};
use rustix::process::Signal;
use serde_json::json;

const STRANGER: &str = "https://evil.example";
const FRIEND: &str = "http://localhost:5173";

/// Checklist 130: path, method, names, origin, too fast, credentials.
#[tokio::test]
async fn of_several_faults_the_first_in_order_answers() {
    let application = Application::start().await;
    let (keys, connect) = (TempFile::holding(r#"{"keys": {}}"#), application.url("/connect"));
    let settings = [("AUTH", "keys"), ("API_KEYS_FILE", keys.path()), ("CONNECT_URL", &connect)];
    let gateway = Gateway::with(settings.into_iter().chain([("RATE_CONNECT", "1/s")])).await;
    // No upgrade either.
    let key_wrong = |path: &str| gateway.get(path).with("X-API-Key", "hf_nobody_has_it");
    let all_wrong = |path: &str| key_wrong(path).with("Origin", STRANGER);
    assert_eq!(all_wrong("/nowhere?room_id=").method("POST").await.status, 404);
    assert_eq!(all_wrong("/websocket?room_id=").method("POST").await.status, 405);
    all_wrong("/websocket?room_id=").await.refuses(400, "Missing or empty room_id query parameter");
    all_wrong("/websocket").await.refuses(400, "Missing room_id query parameter");
    all_wrong("/ws/toolong").await.refuses(400, "Invalid match code");
    all_wrong("/ws").await.refuses(403, "Origin not allowed");
    let too_fast = eventually("it is too fast", async || {
        let answer = key_wrong("/ws").await;
        if answer.status != 401 {
            return Some(answer);
        }
        answer.refuses(401, "Invalid API key");
        None
    });
    assert_eq!(too_fast.await.status, 429);
    assert_eq!(application.asked("/connect").len(), 0);
}

/// Checklist 130: credentials, upgrade headers, draining, full, connect hook; which is asked of nobody who failed before.
#[tokio::test]
async fn the_application_is_asked_last_and_only_of_those_who_may_come_in() {
    let application = Application::start().await;
    let (keys, connect) = (TempFile::holding(r#"{"keys": {}}"#), application.url("/connect"));
    let add = ["keys", "add", "--user", "ann", "--room", "r"];
    let key = Holdfast::command(&add).env("API_KEYS_FILE", keys.path()).run().await.stdout.trim().to_owned();
    let settings = [("AUTH", "keys"), ("API_KEYS_FILE", keys.path()), ("CONNECT_URL", &connect)];
    let settings = settings.into_iter().chain([("MAX_SOCKETS", "1"), ("DRAIN_TIMEOUT", "60s")]);
    let gateway = Gateway::with(settings).await;
    let asked = || application.asked("/connect").len();
    let knock = |query: &str| gateway.knock(&format!("/ws?{query}")).with("X-API-Key", &key);
    // Whatever else is wrong.
    let is_refused_before = async || {
        gateway.get("/ws?room_id=&key=hf_nobody_has_it").await.refuses(400, "Missing or empty room_id query parameter");
        let stranger = gateway.get("/ws?key=hf_nobody_has_it").with("Origin", STRANGER);
        stranger.await.refuses(403, "Origin not allowed");
        gateway.get("/ws?key=hf_nobody_has_it").await.refuses(401, "Invalid API key");
        gateway.get("/ws").await.refuses(401, "Unauthorized. Please log in.");
        knock("room_id=q").without("Upgrade").await.refuses(403, "Not your room");
        knock("user_id=bob").without("Upgrade").await.refuses(403, "Not your user_id");
        let plain = knock("").without("Upgrade").without("Sec-WebSocket-Key");
        plain.await.refuses(426, "Expected Upgrade: websocket");
        knock("").but("Connection", "close").await.refuses(400, "Invalid Connection header");
        knock("").but("Sec-WebSocket-Key", "short").await.refuses(400, "Invalid Sec-WebSocket-Key");
        knock("").but("Sec-WebSocket-Version", "8").await.refuses(426, "Invalid Sec-WebSocket-Version");
    };
    let comes_in = async || {
        application.at("/connect", Manner::status(204));
        // Whoever left a moment ago may not have been counted out yet.
        let mut client = eventually("there is room", async || {
            Client::try_open(gateway.address(), "/ws", &[("X-API-Key", &key)]).await.ok()
        })
        .await;
        client.is_greeted().await;
        application.at("/connect", Manner::status(403));
        client
    };

    // There is room, and the application lets nobody in.
    application.at("/connect", Manner::status(403));
    is_refused_before().await;
    assert_eq!(asked(), 0);
    knock("").await.refuses(403, "Refused by the application");
    application.at("/connect", Manner::status(500));
    knock("").await.refuses(503, "Connect hook failed");
    assert_eq!(asked(), 2);

    let holder = comes_in().await;
    is_refused_before().await;
    for path in ["/ws", "/sse/stream?user_id=ann"] {
        let full = gateway.knock(path).with("X-API-Key", &key).await;
        assert_eq!(full.refuses(503, "Too many sockets")["code"], "full", "{path}");
    }
    assert_eq!(asked(), 3, "whoever finds no room is not asked about");
    holder.leaves().await;

    // It is full and drains, for as long as somebody waits for an answer.
    let mut holder = comes_in().await;
    let call = json!({"socketId": holder.id, "event": "x", "timeoutMs": 60_000});
    let calling = gateway.post("/api/call", &call).into_future();
    let draining = async {
        assert_eq!(holder.hears().await["type"], "x");
        gateway.signal(Signal::TERM);
        eventually("it drains", async || (gateway.get("/health/ready").await.status == 503).then_some(())).await;
        is_refused_before().await;
        for path in ["/ws", "/sse/stream?user_id=ann"] {
            gateway.knock(path).with("X-API-Key", &key).await.refuses(503, "Draining");
        }
        assert_eq!(asked(), 4, "whoever comes too late is not asked about");
    };
    tokio::select! {
        answer = calling => panic!("{}", answer.text()),
        () = draining => {}
    }
}

/// Checklist 105, 142.
#[tokio::test]
async fn a_refusal_is_a_problem_in_the_type_that_was_asked_for() {
    let gateway = Gateway::start().await;
    let plain = gateway.knock("/websocket").await;
    assert_eq!(plain.header("Content-Type"), Some("application/json"));
    assert_eq!(plain.header("Connection").map(str::to_lowercase).as_deref(), Some("close"));
    for accept in ["application/problem+json", "application/json;q=0.5, application/problem+json"] {
        let answer = gateway.knock("/websocket").with("Accept", accept).await;
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{accept}");
        answer.refuses(400, "Missing room_id query parameter");
    }
}

/// Checklist 94, 139.
#[tokio::test]
async fn a_page_of_a_stranger_is_refused_by_name_with_the_setting() {
    let gateway = Gateway::start().await;
    for target in ["/ws", "/health", "/api/handshake?path=/ws", "/api/debug/sockets", "/metrics"] {
        let answer = gateway.knock(target).with("Origin", STRANGER).await;
        let body = answer.refuses(403, "Origin not allowed");
        let said = body.to_string();
        assert!(said.contains(STRANGER) && said.contains("CORS_ORIGINS"), "{said}");
        assert_ne!(answer.header("Access-Control-Allow-Origin"), Some(STRANGER));
    }
    for odd in [
        "null",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "localhost",
        "http://localhost@evil.example",
    ] {
        assert_eq!(gateway.knock("/ws").with("Origin", odd).await.status, 403, "{odd:?}");
    }
    for local in [FRIEND, "http://127.0.0.1:8080", "http://[::1]:3000", "https://localhost"] {
        assert_eq!(gateway.knock("/ws").with("Origin", local).await.status, 101, "{local}");
    }
}

/// Checklist 94, 232.
#[tokio::test]
async fn listed_origins_are_allowed_and_no_others() {
    let listed = "https://App.example.com, https://*.shop.example,http://dev.example:3000/";
    let gateway = Gateway::with([("CORS_ORIGINS", listed)]).await;
    for (origin, status) in [
        ("https://app.example.com", 101),
        ("https://a.shop.example", 101),
        ("https://a.b.shop.example", 101),
        ("http://dev.example:3000", 101),
        ("http://app.example.com", 403),
        ("https://app.example.com:8443", 403),
        ("https://shop.example", 403),
        ("https://evilshop.example", 403),
        ("https://a.shop.example.evil.com", 403),
        (FRIEND, 403),
    ] {
        assert_eq!(gateway.knock("/ws").with("Origin", origin).await.status, status, "{origin}");
    }
    let gateway = Gateway::with([("CORS_ORIGINS", "*")]).await;
    assert_eq!(gateway.knock("/ws").with("Origin", STRANGER).await.status, 101);
}

/// Checklist 94: on refusals too, so that a page can read why.
#[tokio::test]
async fn a_page_may_read_the_answer_and_the_refusal() {
    let gateway = Gateway::start().await;
    for target in ["/health", "/api/handshake?path=/ws", "/api/handshake?path=/websocket", "/websocket"] {
        let answer = gateway.get(target).with("Origin", FRIEND).await;
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(FRIEND), "{target}");
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), Some("true"));
        assert!(answer.header("Vary").is_some_and(|vary| vary.to_lowercase().contains("origin")));
    }
    assert_eq!(gateway.get("/health").await.header("Access-Control-Allow-Origin"), None);
}

/// Checklist 94.
#[tokio::test]
async fn a_browsers_question_before_the_request_is_answered() {
    let gateway = Gateway::start().await;
    let preflight = |origin| {
        let ask = gateway.request("OPTIONS", "/api/handshake").with("Origin", origin);
        ask.with("Access-Control-Request-Method", "GET").with("Access-Control-Request-Headers", "x-api-key")
    };
    let answer = preflight(FRIEND).await;
    assert!(matches!(answer.status, 200 | 204), "{}", answer.status);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(FRIEND));
    assert!(answer.header("Access-Control-Allow-Methods").is_some_and(|methods| methods.contains("GET")));
    assert!(answer.header("Access-Control-Allow-Headers").is_some());
    let answer = preflight(STRANGER).await;
    assert_eq!(answer.status, 403);
    assert_ne!(answer.header("Access-Control-Allow-Origin"), Some(STRANGER));
}

/// Checklist 49, 96, 113, 114, 145.
#[tokio::test]
async fn reject_close_tells_a_browser_the_reason() {
    let gateway = Gateway::with([("MAX_SOCKETS", "1")]).await;
    for (target, title) in [
        ("/websocket?reject=close", "Missing room_id query parameter"),
        ("/websocket?room_id=&reject=close", "Missing or empty room_id query parameter"),
        ("/ws?reject=close&user_id=%00", "Invalid user_id query parameter"),
        ("/ws/toolong?reject=close", "Invalid match code"),
    ] {
        let closed = gateway.connect(target).await.closed().await;
        assert_eq!(closed, (1008, title.to_owned()), "{target}");
    }
    let _holder = gateway.greeted("/ws").await;
    let (code, _) = gateway.connect("/ws?reject=close").await.closed().await;
    assert_eq!(code, 1013);
    let bare = gateway.knock("/ws?reject=close").with("Origin", STRANGER).await;
    bare.refuses(403, "Origin not allowed");
    gateway.get("/websocket?reject=close").await.refuses(400, "Missing room_id query parameter");
    assert_eq!(gateway.knock("/nowhere?reject=close").await.status, 404);
    assert_eq!(gateway.sockets().await, 1);
}

/// A socket that is only accepted to be told no was never one.
#[tokio::test]
async fn a_socket_that_is_told_no_is_never_greeted_or_counted() {
    let gateway = Gateway::start().await;
    let mut raw = gateway.raw().await;
    raw.upgrade(gateway.address(), "/websocket?reject=close").await;
    let frame = raw.frame().await;
    assert_eq!(frame.close(), Some((1008, "Missing room_id query parameter".into())));
    assert_eq!(gateway.get("/api/debug/sockets").await.json()["sockets"]["total"], 0);
}

/// Checklist 109, 142, 145.
#[tokio::test]
async fn the_check_runs_what_the_door_would() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/handshake?path=/ws&user_id=u&room_id=a&room_id=b").await;
    let body = answer.json();
    assert_eq!((answer.status, &body["ok"], &body["userId"]), (200, &json!(true), &json!("u")), "{body}");
    assert_eq!(body["rooms"], json!(["a", "b"]));
    let body = gateway.get("/api/handshake?path=/ws/Ab3x9").await.json();
    assert_eq!((&body["userId"], &body["rooms"]), (&json!(null), &json!(["Ab3x9"])));
    assert_eq!(gateway.get("/api/handshake?path=/__ws/connect").await.status, 200);
    gateway.get("/api/handshake?path=/websocket").await.refuses(400, "Missing room_id query parameter");
    let empty = gateway.get("/api/handshake?path=/websocket&room_id=").await;
    empty.refuses(400, "Missing or empty room_id query parameter");
    gateway.get("/api/handshake?path=/ws/{code}").await.refuses(400, "Invalid match code");
    assert_eq!(gateway.get("/api/handshake?path=/nowhere").await.status, 404);
    assert_eq!(gateway.sockets().await, 0);
}

#[tokio::test]
async fn an_address_that_knocks_too_often_has_to_wait() {
    let gateway = Gateway::with([("RATE_CONNECT", "1/s")]).await;
    let refused = eventually("it is too fast", async || {
        let answer = gateway.knock("/ws").await;
        (answer.status != 101).then_some(answer)
    })
    .await;
    assert_eq!(refused.status, 429);
    refused.is_problem();
    eventually("it has waited", async || (gateway.knock("/ws").await.status == 101).then_some(())).await;
    let told = async || gateway.connect("/ws?reject=close").await.next().await;
    let close =
        eventually("it is told on the socket", async || told().await.filter(|message| message.is_close())).await;
    assert!(format!("{close:?}").contains("Again") || format!("{close:?}").contains("1013"), "{close:?}");
}

/// Checklist 109: the check counts as an attempt, and addresses behind a trusted proxy are told apart.
#[tokio::test]
async fn every_address_has_a_rate_of_its_own() {
    let gateway = Gateway::with([("RATE_CONNECT", "1/s")]).await;
    let check = |address| gateway.get("/api/handshake?path=/ws").with("X-Forwarded-For", address);
    eventually("one is too fast", async || (check("192.0.2.1").await.status == 429).then_some(())).await;
    assert_eq!(check("192.0.2.2").await.status, 200);
    assert_eq!(check("192.0.2.99, 192.0.2.3").await.status, 200);
}

/// Checklist 284.
#[tokio::test]
async fn a_full_instance_says_so_until_a_place_is_free() {
    let gateway = Gateway::with([("MAX_SOCKETS", "2")]).await;
    let one = gateway.greeted("/ws?user_id=a").await;
    let _two = gateway.greeted("/ws?user_id=b").await;
    let answer = gateway.knock("/ws?user_id=c").await;
    assert_eq!(answer.status, 503);
    answer.is_problem();
    assert_eq!(gateway.get("/health/live").await.status, 200);
    one.leaves().await;
    eventually("a place is free", async || (gateway.knock("/ws").await.status == 101).then_some(())).await;
}
