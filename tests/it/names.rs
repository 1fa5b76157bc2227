//! Names at the door: what is one, what is none, and how each is told.

use crate::{gateway::Gateway, raw::Raw};
use serde_json::json;

const NAMES: [&str; 3] = ["user_id", "store_id", "room_id"];

/// Checklist 85, 105, 119, 138.
#[tokio::test]
async fn a_name_that_is_there_but_blank_is_an_error_and_never_absent() {
    let gateway = Gateway::start().await;
    for name in NAMES {
        for blank in ["", "=", "=%20", "=+", "=%09%20", "=%E3%80%80", "=%C2%A0"] {
            let answer = gateway.knock(&format!("/ws?{name}{blank}")).await;
            let body = answer.refuses(400, &format!("Missing or empty {name} query parameter"));
            assert_eq!(body["error"], format!("{name} parameter is required and must not be empty"));
            assert_eq!(body["code"], format!("missing_or_empty_{name}_query_parameter"));
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
        }
    }
    for path in ["/connect?room_id=", "/ws/Ab3x9?room_id=", "/websocket?room_id", "/ws?room_id=a&room_id="] {
        gateway.knock(path).await.refuses(400, "Missing or empty room_id query parameter");
    }
}

/// Checklist 53.
#[tokio::test]
async fn a_name_has_1_to_256_bytes() {
    let gateway = Gateway::start().await;
    for name in NAMES {
        for good in ["a".to_owned(), "a".repeat(256), "%C3%BC".repeat(128), "%61".repeat(256)] {
            assert_eq!(gateway.knock(&format!("/ws?{name}={good}")).await.status, 101, "{name}={good}");
        }
        for bad in ["a".repeat(257), "%C3%BC".repeat(129), "a".repeat(20_000)] {
            let answer = gateway.knock(&format!("/ws?{name}={bad}")).await;
            answer.refuses(400, &format!("Invalid {name} query parameter"));
        }
    }
}

#[tokio::test]
async fn a_name_has_no_control_characters_and_is_well_encoded() {
    let gateway = Gateway::start().await;
    for name in NAMES {
        for bad in [
            "%00",
            "a%00b",
            "a%0Ab",
            "a%0d",
            "%1b[31m",
            "a%7F",
            "a%C2%85", // control characters
            "%",
            "a%4",
            "%zz",
            "%u0041",
            "100%", // percent signs that encode nothing
            "%ff",
            "%C3",
            "%C3%28",
            "%ED%A0%80",
            "%C0%80",
            "%F5%80%80%80", // no UTF-8
        ] {
            let answer = gateway.knock(&format!("/ws?{name}={bad}")).await;
            let body = answer.refuses(400, &format!("Invalid {name} query parameter"));
            assert_eq!(body["code"], format!("invalid_{name}_query_parameter"));
        }
    }
    gateway.is_unharmed().await;
}

/// Bytes that no URL may hold, written as they are: refused somewhere, and never a 500.
#[tokio::test]
async fn bytes_that_no_address_may_hold_are_a_clients_fault() {
    let gateway = Gateway::start().await;
    for odd in ["a\u{1}b", "ü", "a\tb", "<>", "{}", "a\\b", "\"", "`", "^"] {
        let answer = gateway.knock(&format!("/ws?user_id={odd}")).await;
        assert!(answer.status == 101 || (400..500).contains(&answer.status), "{odd:?}: {}", answer.status);
    }
    let mut raw = gateway.raw().await;
    raw.write(b"GET /ws?user_id=\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!((400..500).contains(&raw.answer().await.status));
    gateway.is_unharmed().await;
}

/// Checklist 144: and it says so.
#[tokio::test]
async fn a_placeholder_that_nobody_filled_is_no_name() {
    let gateway = Gateway::start().await;
    for name in NAMES {
        for bad in
            [":code", ":user_id", "{code}", "%7Broom%7D", "undefined", "null", "[object%20Object]", "[object+Object]"]
        {
            let answer = gateway.knock(&format!("/ws?{name}={bad}")).await;
            let body = answer.refuses(400, &format!("Invalid {name} query parameter"));
            assert!(body.to_string().contains("placeholder"), "{body}");
        }
        for good in ["nullable", "code:", "12:30", "a%7Bb%7D"] {
            assert_eq!(gateway.knock(&format!("/ws?{name}={good}")).await.status, 101, "{name}={good}");
        }
    }
}

/// Checklist 53.
#[tokio::test]
async fn names_are_decoded_and_read_in_both_spellings() {
    let gateway = Gateway::start().await;
    let query = "userId=J%C3%BCrgen%20B&storeId=a%26b%3Dc&roomId=x+y&room_id=z%2By&roomId=%F0%9F%8E%B2";
    let client = gateway.greeted(&format!("/ws?{query}")).await;
    let shown = gateway.get("/api/debug/sockets?verbose=1").await.json();
    let metadata = &shown["sockets"]["metadata"][&client.id];
    assert_eq!((&metadata["userId"], &metadata["storeId"]), (&json!("Jürgen B"), &json!("a&b=c")));
    let mut rooms: Vec<_> = metadata["rooms"].as_array().unwrap().iter().filter_map(|room| room.as_str()).collect();
    rooms.sort_unstable();
    assert_eq!(rooms, ["x y", "z+y", "🎲"]);
    assert_eq!(gateway.knock("/websocket?roomId=r").await.status, 101);
}

#[tokio::test]
async fn what_names_a_user_or_a_store_stands_there_once() {
    let gateway = Gateway::start().await;
    for query in ["user_id=a&user_id=b", "user_id=a&userId=b", "store_id=a&storeId=b"] {
        let name = &query[..query.find('=').unwrap()];
        gateway.knock(&format!("/ws?{query}")).await.refuses(400, &format!("Invalid {name} query parameter"));
    }
}

/// Checklist 55: a socket in no room can join one later; and one named twice is one.
#[tokio::test]
async fn a_room_may_repeat_and_counts_once() {
    let gateway = Gateway::start().await;
    let mut twice = gateway.greeted("/ws?room_id=r&room_id=r&roomId=r").await;
    let mut late = gateway.greeted("/ws").await;
    assert_eq!(late.asks(r#"{"type":"join","room":"r"}"#).await, r#"{"type":"joined","room":"r"}"#);
    late.says(r#"{"type":"publish","room":"r","data":"once"}"#).await;
    assert_eq!(twice.hears().await["data"], "once");
    twice.heard_all().await;
}

#[tokio::test]
async fn unknown_parameters_are_nobodys_business() {
    let gateway = Gateway::start().await;
    for query in ["?x=%zz", "?%zz", "?&&&", "?=", "?user=", "?ROOM_ID=", "?a=b=c"] {
        assert_eq!(gateway.knock(&format!("/ws{query}")).await.status, 101, "{query}");
    }
}

/// Checklist 72, 73, 77.
#[tokio::test]
async fn identity_headers_count_from_a_trusted_proxy_and_from_nobody_else() {
    let of = async |gateway: &Gateway| {
        let ask = gateway.get("/api/handshake?path=/websocket&user_id=me&room_id=r");
        let seen = ask.with("X-User-ID", "boss").with("X-Room-ID", "staff").await.json();
        (seen["userId"].clone(), seen["rooms"].clone())
    };
    let trusting = Gateway::start().await;
    assert_eq!(of(&trusting).await, (json!("boss"), json!(["r", "staff"])));
    let wary = Gateway::with([("TRUSTED_PROXIES", "192.0.2.0/24")]).await;
    assert_eq!(of(&wary).await, (json!("me"), json!(["r"])));
}

/// What is dropped is said, once for each peer, and not what it said.
#[tokio::test]
async fn whose_identity_headers_are_dropped_is_said_once() {
    for (settings, header, why) in [
        (&[("TRUSTED_PROXIES", "192.0.2.0/24")][..], "X-User-ID", "TRUSTED_PROXIES"),
        (&[("TRUSTED_PROXIES", "192.0.2.0/24")], "X-Store-ID", "TRUSTED_PROXIES"),
        (&[("AUTH", "jwt"), ("JWT_SECRET", "0123456789abcdef0123456789abcdef")], "X-Room-ID", "add proxy to it"),
        (&[], "X-Store-ID", "store_id"),
    ] {
        let mut gateway = Gateway::with(settings.iter().copied()).await;
        for door in [
            gateway.knock("/ws"),
            gateway.get("/api/handshake?path=/ws"),
            gateway.get("/api/auth/session"),
            gateway.get("/sse/stream?user_id=").but("Connection", "close"),
        ] {
            let seen = door.with(header, "b0ss").await.text();
            assert!(!seen.contains("b0ss"), "{header}: {seen}");
        }
        let said = gateway.logs(&["WARN", &format!("{header} is dropped"), "127.0.0.1", why]).await;
        assert!(!said.contains("b0ss"), "{said}");
        let mut other = Raw::connect_from([127, 0, 0, 2], gateway.address()).await;
        other.write(&gateway.get("/api/auth/session").with(header, "b0ss").bytes()).await;
        other.answer().await;
        gateway.logs(&["WARN", "is dropped", "127.0.0.2"]).await;
        assert_eq!(gateway.stop().await.matches("is dropped").count(), 2);
    }
    let trusting = Gateway::start().await;
    trusting.knock("/ws").with("X-User-ID", "ann").with("X-Room-ID", "r").await;
    assert!(!trusting.stop().await.contains("is dropped"));
}
