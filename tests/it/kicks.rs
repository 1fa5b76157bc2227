//! Kicks: what the client hears, and what is true at once for everybody else.

use crate::{asking::keys, gateway::Gateway};
use serde_json::{Value, json};

/// What a close frame has room for beside its code.
const REASON_BYTES_MAX: usize = 123;

/// Kicks a fresh socket; returns code and reason as its client hears them.
async fn kicked(gateway: &Gateway, query: &str) -> (u16, String) {
    let mut client = gateway.greeted("/ws").await;
    let answer = gateway.delete(&format!("/api/sockets/{}{query}", client.id)).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let told = client.closed().await;
    assert!(client.next().await.is_none(), "nothing follows a close");
    told
}

/// Checklist 112, 115.
#[tokio::test]
async fn a_kicked_client_hears_why() {
    let gateway = Gateway::start().await;
    for (query, code, reason) in [
        ("", 4403, "kicked"),
        ("?reason=", 4403, "kicked"),
        ("?reason=too%20loud", 4403, "kicked: too loud"),
        ("?reason=too+loud", 4403, "kicked: too loud"),
        ("?reason=zu+laut%2C+J%C3%BCrgen%21", 4403, "kicked: zu laut, Jürgen!"),
        ("?code=4403&reason=why", 4403, "kicked: why"),
        ("?code=4000&reason=game+over", 4000, "game over"),
        ("?code=3000&reason=r", 3000, "r"),
        ("?code=4999&reason=r", 4999, "r"),
        ("?code=1000&reason=bye", 1000, "bye"),
    ] {
        let (told, why) = kicked(&gateway, query).await;
        assert_eq!(told, code, "{query}");
        assert!(why == reason || (reason == "kicked" && why.starts_with("kicked")), "{query}: {why}");
    }
    // Even a code of the caller's own has a reason that can be read.
    assert_eq!(kicked(&gateway, "?code=4000").await.0, 4000);
}

/// Checklist 115: whatever the caller writes, the frame stays a frame.
#[tokio::test]
async fn a_long_reason_is_cut_at_a_character() {
    let gateway = Gateway::start().await;
    for (query, letter) in [("%C3%BC", "ü"), ("x", "x"), ("%F0%9F%8E%B2", "🎲"), ("%E3%80%82", "。")] {
        for (code, start) in [("", "kicked: "), ("&code=4000", "")] {
            let (_, told) = kicked(&gateway, &format!("?reason={}{code}", query.repeat(200))).await;
            let rest = told.strip_prefix(start).unwrap_or_else(|| panic!("{told}"));
            assert!(rest.len() % letter.len() == 0 && rest == letter.repeat(rest.len() / letter.len()), "{told}");
            assert!(told.len() > REASON_BYTES_MAX - letter.len() && told.len() <= REASON_BYTES_MAX, "{told}");
        }
    }
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_code_that_no_server_may_send_kicks_nobody() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    for bad in ["0", "999", "1004", "1005", "1006", "1015", "2999", "5000", "65536", "-1", "x", "", "4000&code=4001"] {
        for target in [format!("/api/sockets/{}", client.id), "/api/users/u".into()] {
            let answer = gateway.delete(&format!("{target}?code={bad}")).await;
            assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
            answer.is_problem();
        }
    }
    assert_eq!(gateway.delete(&format!("/api/sockets/{}?reason=%ff", client.id)).await.status, 400);
    client.heard_all().await;
}

/// Checklist 184: nobody has to wait for the client, which may never answer.
#[tokio::test]
async fn a_kicked_socket_is_gone_at_once() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let (mut deaf, id) = gateway.lazy("/ws?user_id=u&store_id=s&room_id=r").await;
    let answer = gateway.delete(&format!("/api/sockets/{id}?reason=why")).await;
    assert_eq!((answer.status, &answer.json()["socketId"]), (200, &json!(id)));
    for (method, target) in [
        ("GET", format!("/api/sockets/{id}")),
        ("DELETE", format!("/api/sockets/{id}")),
        ("PUT", format!("/api/sockets/{id}/rooms/r")),
    ] {
        let gone = gateway.request(method, &target).await;
        assert_eq!((gone.status, &gone.json()["code"]), (410, &json!("socket_gone")), "{method}: {}", gone.text());
        assert_eq!(gone.json()["action"], "reconnect");
        let verdict = gone.json()["verdict"].clone();
        assert_eq!((&verdict["cause"], &verdict["state"]), (&json!("kicked"), &json!("closed")));
        assert_eq!((&verdict["closeCode"], &verdict["reason"]), (&json!(4403), &json!("kicked: why")));
        let sentence = verdict["sentence"].as_str().unwrap();
        assert!(sentence.starts_with(&format!("{id} was on web1 and closed 0 s ago with 4403: ")), "{sentence}");
    }
    assert_eq!(gateway.post("/api/send", &json!({ "socketId": id })).await.json()["verdict"]["cause"], "kicked");
    for target in [r#"{"userId":"u"}"#, r#"{"storeId":"s"}"#, r#"{"roomId":"r"}"#, r#"{"all":true}"#] {
        let receipt = gateway.posts("/api/send", target).await.json();
        assert_eq!((&receipt["status"], &receipt["matched"]), (&json!("undelivered"), &json!(0)), "{target}");
    }
    for list in ["/api/sockets", "/api/sockets?store=s", "/api/users/u", "/api/stores/s", "/api/rooms/r"] {
        assert_eq!(gateway.get(list).await.json()["sockets"], json!([]), "{list}");
    }
    assert_eq!(gateway.get("/api/debug/sockets").await.json()["sockets"]["total"], 0);
    assert_eq!(deaf.closed().await, (4403, "kicked: why".to_owned()));
}

/// What was sent before the kick comes before the close.
#[tokio::test]
async fn a_kick_does_not_overtake_what_was_said_before() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    for n in 0..50 {
        gateway.post("/api/send", &json!({ "socketId": client.id, "data": n })).await;
    }
    gateway.delete(&format!("/api/sockets/{}", client.id)).await;
    for n in 0..50 {
        assert_eq!(client.hears().await["data"], n);
    }
    assert_eq!(client.closed().await.0, 4403);
}

#[tokio::test]
async fn a_user_is_kicked_with_all_sockets_and_nobody_else() {
    let gateway = Gateway::start().await;
    let mut tabs = Vec::new();
    for _ in 0..3 {
        tabs.push(gateway.greeted("/ws?user_id=J%C3%BCrgen%2FB").await);
    }
    let mut other = gateway.greeted("/ws?user_id=other&store_id=u").await;
    let mut nobody = gateway.greeted("/connect").await;
    let answer = gateway.delete("/api/users/J%C3%BCrgen%2FB?reason=go&code=4001").await;
    assert_eq!((answer.status, &answer.json()["closed"]), (200, &json!(3)), "{}", answer.text());
    for tab in &mut tabs {
        assert_eq!(tab.closed().await, (4001, "go".to_owned()));
        let verdict = gateway.get(&format!("/api/sockets/{}", tab.id)).await.json()["verdict"].clone();
        assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&json!("kicked"), &json!(4001)));
    }
    assert_eq!(gateway.get("/api/users/J%C3%BCrgen%2FB").await.json()["sockets"], json!([]));
    for name in ["J%C3%BCrgen%2FB", "anonymous", "never"] {
        let answer = gateway.delete(&format!("/api/users/{name}")).await;
        assert_eq!((answer.status, &answer.json()["closed"]), (200, &json!(0)), "{name}: {}", answer.text());
    }
    for bad in ["%20", "%00", "undefined"] {
        assert_eq!(gateway.delete(&format!("/api/users/{bad}")).await.status, 400, "{bad}");
    }
    other.heard_all().await;
    nobody.heard_all().await;
}

#[tokio::test]
async fn a_kick_of_what_was_never_there_is_404() {
    let gateway = Gateway::start().await;
    let answer = gateway.delete("/api/sockets/ws_123").await;
    assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("socket_never_seen")));
    answer.is_problem();
    assert!(keys(&answer.json()["verdict"]).is_superset(&["socketId", "state", "sentence"].into()));
    assert_eq!(
        gateway.delete("/api/sockets/ws_01890000-0000-7000-8000-000000000000").await.json()["code"],
        "socket_forgotten"
    );
}

/// Checklist 16, 39, 262.
#[tokio::test]
async fn a_kick_is_logged_and_counted_with_its_cause() {
    let mut gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    gateway.delete(&format!("/api/sockets/{}?reason=why", client.id)).await;
    client.closed().await;
    gateway.logs(&["WebSocket closed: 4403 kicked: why", &client.id]).await;
    gateway.logs(&["User disconnected", "4403"]).await;
    assert_eq!(gateway.metric(r#"holdfast_sockets_closed_total{cause="kicked"}"#).await, 1.0);
    let health: Value = gateway.get("/health").await.json();
    assert_eq!(health["connections"], 0);
}
