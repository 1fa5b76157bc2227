//! The routes: which door opens for whom, and what stands beside the doors.

use crate::gateway::Gateway;
use serde_json::json;

const DOORS: [&str; 5] = ["/ws", "/", "/websocket?room_id=lobby", "/ws/Ab3x9", "/connect"];

/// Checklist 10, 13, 17, 82, 104, 235, 259, 277.
#[tokio::test]
async fn every_door_opens_and_greets() {
    let gateway = Gateway::start().await;
    for door in DOORS {
        gateway.greeted(door).await.leaves().await;
    }
    gateway.is_unharmed().await;
}

/// Checklist 52, 60, 68.
#[tokio::test]
async fn a_dev_servers_prefix_is_stripped() {
    let gateway = Gateway::start().await;
    for door in DOORS {
        gateway.greeted(&format!("/__ws{door}")).await.leaves().await;
    }
    let answer = gateway.knock("/__wsx/ws").await;
    assert_eq!(answer.status, 404);
    let answer = gateway.knock("/__ws/websocket").await;
    answer.refuses(400, "Missing room_id query parameter");
}

/// Checklist 49, 57, 61, 120.
#[tokio::test]
async fn websocket_wants_a_room_and_the_others_do_not() {
    let gateway = Gateway::start().await;
    let body = gateway.knock("/websocket").await.refuses(400, "Missing room_id query parameter");
    assert_eq!(body["error"], body["title"]);
    assert_eq!(body["code"], "missing_room_id_query_parameter");
    assert_eq!(gateway.knock("/websocket?room_id=test-room-123").await.status, 101);
    assert_eq!(gateway.knock("/ws").await.status, 101);
    assert_eq!(gateway.knock("/connect").await.status, 101);
}

/// Checklist 20, 236.
#[tokio::test]
async fn ws_wants_what_the_setting_says() {
    let gateway = Gateway::with([("WS_REQUIRE", "user_id, store_id,room_id")]).await;
    for (query, missing) in [
        ("?store_id=s&room_id=r", "user_id"),
        ("?user_id=u&room_id=r", "store_id"),
        ("?user_id=u&store_id=s", "room_id"),
        ("?user_id=u&store_id=s&other=room_id", "room_id"),
    ] {
        for path in ["/ws", "/"] {
            let answer = gateway.knock(&format!("{path}{query}")).await;
            answer.refuses(400, &format!("Missing {missing} query parameter"));
        }
    }
    assert_eq!(gateway.knock("/ws?user_id=u&store_id=s&room_id=r").await.status, 101);
    for other in ["/connect", "/websocket?room_id=r", "/ws/Ab3x9"] {
        assert_eq!(gateway.knock(other).await.status, 101, "{other}");
    }
}

/// Anonymous is nobody, so it is not the user that was asked for.
#[tokio::test]
async fn anonymous_does_not_count_where_a_user_is_wanted() {
    let gateway = Gateway::with([("WS_REQUIRE", "user_id")]).await;
    gateway.knock("/ws?user_id=anonymous").await.refuses(400, "Missing user_id query parameter");
}

/// Checklist 144, 153, 154, 155.
#[tokio::test]
async fn a_code_is_five_letters_or_digits_and_names_the_room() {
    let gateway = Gateway::start().await;
    for code in [
        "abcd",
        "abcdef",
        "ab%20de",
        "ab-de",
        "%C3%BC%C3%BC%C3%BC%C3%BC%C3%BC",
        "%zz",
        "%ff%ff%ff%ff%ff",
        "abcd%00",
        "",
    ] {
        gateway.knock(&format!("/ws/{code}")).await.refuses(400, "Invalid match code");
    }
    let mut one = gateway.greeted("/ws/Ab3x9").await;
    let mut same = gateway.greeted("/websocket?room_id=Ab3x9").await;
    let mut other_case = gateway.greeted("/ws/ab3X9").await;
    one.says(r#"{"type":"publish","room":"Ab3x9","data":1}"#).await;
    assert_eq!(same.hears().await["data"], 1);
    one.heard_all().await;
    other_case.heard_all().await;
}

/// Checklist 144.
#[tokio::test]
async fn an_unfilled_code_is_refused_by_name() {
    let gateway = Gateway::with([("WS_CODE_PATTERN", "^.+$")]).await;
    assert_eq!(gateway.knock("/ws/whatever").await.status, 101);
    for code in [":code", "{code}", "%7Bcode%7D", "undefined", "null", "[object%20Object]"] {
        let body = gateway.knock(&format!("/ws/{code}")).await.refuses(400, "Invalid match code");
        let said = body.to_string().to_lowercase();
        assert!(said.contains("placeholder") || said.contains("filled"), "{said}");
    }
}

/// Checklist 153.
#[tokio::test]
async fn the_pattern_of_codes_can_be_set_and_counts_characters() {
    let gateway = Gateway::with([("WS_CODE_PATTERN", "^.{3}$")]).await;
    assert_eq!(gateway.knock("/ws/%C3%BC%C3%A4%C3%B6").await.status, 101);
    gateway.knock("/ws/Ab3x9").await.refuses(400, "Invalid match code");
}

/// Checklist 79.
#[tokio::test]
async fn whoever_does_not_say_who_it_is_is_nobody() {
    let gateway = Gateway::start().await;
    for door in ["/connect", "/connect?user_id=anonymous", "/ws", "/ws?user_id=anonymous"] {
        let client = gateway.greeted(door).await;
        let shown = gateway.get("/api/debug/sockets?verbose=1").await.json();
        let metadata = &shown["sockets"]["metadata"][&client.id];
        assert_eq!(metadata["userId"], json!(null), "{door}: {shown}");
        client.leaves().await;
    }
}

/// Checklist 103.
#[tokio::test]
async fn a_caller_can_ask_who_it_is_taken_for() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/api/auth/session?user_id=u").await;
    assert_eq!(answer.json(), serde_json::json!({"authenticated": false, "auth": "none", "userId": "u"}));
    let answer = gateway.get("/api/auth/session").with("X-User-ID", "from-the-proxy").await;
    assert_eq!(answer.json()["userId"], "from-the-proxy");
    assert_eq!(gateway.get("/api/auth/session?user_id=anonymous").await.json()["userId"], serde_json::Value::Null);
}

/// Checklist 68.
#[tokio::test]
async fn an_unknown_path_is_answered_with_the_known_ones() {
    let gateway = Gateway::start().await;
    for path in ["/nowhere", "/ws/abcde/f", "/websockets", "/api/nowhere"] {
        for request in [gateway.get(path), gateway.knock(path)] {
            let answer = request.await;
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
            answer.is_problem();
        }
    }
    let said = gateway.knock("/nowhere").await.text();
    for door in ["/ws", "/websocket", "/connect"] {
        assert!(said.contains(door), "{said}");
    }
}

#[tokio::test]
async fn another_method_is_405_and_says_which_are_allowed() {
    let gateway = Gateway::start().await;
    for path in ["/ws", "/websocket?room_id=r", "/ws/Ab3x9", "/connect", "/health", "/api/handshake"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
            let answer = gateway.knock(path).method(method).await;
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
            answer.is_problem();
            assert!(answer.header("Allow").is_some_and(|allow| allow.contains("GET")), "{:?}", answer.headers);
        }
    }
    assert_ne!(gateway.knock("/ws").method("HEAD").await.status, 101);
    let answer = gateway.get("/api/send").await;
    assert_eq!((answer.status, answer.header("Allow").map(|allow| allow.contains("POST"))), (405, Some(true)));
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let gateway = Gateway::start().await;
    for path in ["/health", "/health/live", "/health/ready"] {
        let head = gateway.request("HEAD", path).await;
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.header("Content-Type"), gateway.get(path).await.header("Content-Type"));
    }
}

#[tokio::test]
async fn the_root_without_an_upgrade_is_an_index() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(gateway.knock("/").await.status, 101);
}

/// Checklist 143: whatever it holds, and in whatever order. The seed is fixed, so that a failure
/// can be looked at again.
#[tokio::test]
async fn no_knock_is_a_500() {
    const PIECES: [&str; 24] = [
        "user_id",
        "room_id",
        "store_id",
        "roomId",
        "=",
        "=",
        "&",
        "&",
        "%",
        "%00",
        "%ff",
        "%C3%BC",
        "+",
        "a",
        "reject=close",
        "greeting",
        "resume=",
        "client_id=",
        "null",
        "{x}",
        "[object%20Object]",
        "/",
        "//",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    const HEADERS: [(&str, &str); 8] = [
        ("Origin", "null"),
        ("Origin", "http://localhost"),
        ("Sec-WebSocket-Protocol", ",,bearer.,"),
        ("X-Forwarded-For", "1.2.3.4, what"),
        ("X-User-ID", "undefined"),
        ("Cookie", "=;=;a"),
        ("Connection", ","),
        ("Upgrade", ""),
    ];
    let gateway = Gateway::with([("LOG_LEVEL", "info")]).await;
    let mut seed = 42_u64;
    let mut any = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    for _ in 0..1000 {
        let path = ["/ws", "/websocket", "/connect", "/ws/", "/", "/__ws/ws", "/api/handshake"][any(7)];
        let query: String = (0..any(12)).map(|_| PIECES[any(PIECES.len())]).collect();
        let mut knock = gateway.knock(&format!("{path}?{query}"));
        for _ in 0..any(4) {
            let (name, value) = HEADERS[any(HEADERS.len())];
            knock = knock.with(name, value);
        }
        let status = knock.clone().await.status;
        assert!(matches!(status, 101 | 200 | 400..=499), "{status}: {knock:?}");
    }
    gateway.is_unharmed().await;
}
