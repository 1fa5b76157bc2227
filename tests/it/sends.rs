//! `POST /api/send` and its relatives: who gets it, to the byte, and what the caller is told.

use crate::{asking::keys, client::Client, gateway::Gateway, patience::eventually};
use serde_json::{Value, json};

/// A socket in every kind of group.
async fn everywhere(gateway: &Gateway) -> Client {
    gateway.greeted("/ws?user_id=u&store_id=s&room_id=r&room_id=r2").await
}

async fn undelivered(gateway: &Gateway, body: &str) {
    let answer = gateway.posts("/api/send", body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    let receipt = answer.json();
    assert_eq!((&receipt["status"], &receipt["delivered"]), (&json!("undelivered"), &json!(0)), "{body}: {receipt}");
}

#[tokio::test]
async fn a_send_reaches_its_target_however_that_is_written() {
    let gateway = Gateway::start().await;
    let mut meant = everywhere(&gateway).await;
    let mut other = gateway.greeted("/ws?user_id=r&store_id=u&room_id=s").await;
    let socket = format!(r#""{}""#, meant.id);
    for (camel, snake, value) in [
        ("socketId", "socket_id", socket.as_str()),
        ("userId", "user_id", r#""u""#),
        ("storeId", "store_id", r#""s""#),
        ("roomId", "room_id", r#""r""#),
        ("roomId", "room_id", r#""\u0072""#),
    ] {
        for target in [
            format!(r#""{camel}":{value}"#),
            format!(r#""{snake}":{value}"#),
            format!(r#""to":{{"{camel}":{value}}}"#),
            format!(r#""to":{{"{snake}":{value}}}"#),
            format!(r#""{camel}":{value},"all":false"#),
            format!(r#""{camel}":{value},"to":null"#),
        ] {
            let answer = gateway.posts("/api/send", format!(r#"{{{target},"data":1}}"#)).await;
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            assert_eq!(meant.hears_text().await, r#"{"type":"message","data":1}"#, "{target}");
        }
    }
    meant.heard_all().await;
    other.heard_all().await;
    for target in [r#""all":true"#, r#""to":{"all":true}"#] {
        gateway.posts("/api/send", format!(r#"{{{target},"data":1}}"#)).await;
        for client in [&mut meant, &mut other] {
            assert_eq!(client.hears_text().await, r#"{"type":"message","data":1}"#);
        }
    }
}

#[tokio::test]
async fn a_receipt_has_exactly_these_members() {
    let gateway = Gateway::start().await;
    let _clients = [everywhere(&gateway).await, gateway.greeted("/ws?room_id=r").await];
    for (target, matched) in [(json!({"roomId": "r"}), 2), (json!({"userId": "u"}), 1), (json!({"all": true}), 2)] {
        let answer = gateway.post("/api/send", &target).await;
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        let mut receipt = answer.json();
        let id = receipt["id"].take();
        assert!(id.as_str().is_some_and(|id| !id.is_empty()), "{id}");
        let rest = json!({"id": null, "status": "delivered", "matched": matched, "delivered": matched, "unknown": 0, "instances": 1});
        assert_eq!(receipt, rest);
    }
    let ids: [Value; 2] = [1, 2].map(|n| json!({ "all": true, "data": n }));
    let (one, other) = (gateway.post("/api/send", &ids[0]).await, gateway.post("/api/send", &ids[1]).await);
    assert_ne!(one.json()["id"], other.json()["id"]);
}

#[tokio::test]
async fn a_target_is_exactly_one() {
    let gateway = Gateway::start().await;
    let mut client = everywhere(&gateway).await;
    for body in [
        "{}",
        r#"{"data":1}"#,
        r#"{"all":false}"#,
        r#"{"to":{}}"#,
        r#"{"userId":null,"data":1}"#,
        r#"{"userId":"u","roomId":"r"}"#,
        r#"{"userId":"u","all":true}"#,
        r#"{"userId":"u","to":{"userId":"u"}}"#,
        r#"{"to":{"userId":"u","storeId":"s"}}"#,
    ] {
        let pointers = gateway.posts("/api/send", body).await.pointers();
        assert_eq!(pointers.len(), 1, "{body}: {pointers:?}");
    }
    client.heard_all().await;
}

#[tokio::test]
async fn the_event_is_message_and_the_data_null_unless_given() {
    let gateway = Gateway::start().await;
    let mut client = everywhere(&gateway).await;
    for (rest, frame) in [
        ("", r#"{"type":"message","data":null}"#),
        (r#","event":null,"data":null"#, r#"{"type":"message","data":null}"#),
        (r#","event":"orders.changed","data":[]"#, r#"{"type":"orders.changed","data":[]}"#),
        (r#","data":0,"event":"a \"b\" \\ c""#, r#"{"type":"a \"b\" \\ c","data":0}"#),
    ] {
        gateway.posts("/api/send", format!(r#"{{"userId":"u"{rest}}}"#)).await;
        assert_eq!(client.hears_text().await, frame);
    }
}

/// Payloads are not ours: numbers, escapes and the order of keys come through as they were written.
#[tokio::test]
async fn data_comes_through_to_the_byte() {
    let gateway = Gateway::start().await;
    let mut client = everywhere(&gateway).await;
    let deep = "[".repeat(100) + &"]".repeat(100);
    for data in [
        "1.0e3",
        "-0.0",
        "123456789012345678901234567890.000",
        r#"{"b":1,"a":2,"b2":3,"a":4}"#,
        r#""\u0041\u00fc\ud83c\udfb2\/\u0000é🎲""#,
        "{ \"a\" :\t[ 1 ,\n 2 ] }",
        r#"{"type":"close","data":{"socketId":"ws_1"}}"#,
        &deep,
    ] {
        for (target, body) in [
            ("/api/send", format!(r#"{{"userId":"u","data":{data}}}"#)),
            ("/api/rooms/r/send", format!(r#"{{"data": {data} }}"#)),
            ("/api/send/batch", format!(r#"{{"messages":[{{"data":{data},"storeId":"s"}}]}}"#)),
            ("/sse/push", format!(r#"{{"user_id":"u","data":{data}}}"#)),
            ("/sse/push/batch", format!(r#"[{{"user_id":"u","data":{data}}}]"#)),
        ] {
            let answer = gateway.posts(target, body).await;
            assert_eq!(answer.status, 200, "{target} {data}: {}", answer.text());
            assert_eq!(client.hears_text().await, format!(r#"{{"type":"message","data":{data}}}"#), "{target}");
        }
    }
}

#[tokio::test]
async fn whoever_is_excepted_hears_nothing() {
    let gateway = Gateway::start().await;
    let mut sender = everywhere(&gateway).await;
    let mut other = everywhere(&gateway).await;
    let own = sender.id.clone();
    for target in [r#""userId":"u""#, r#""storeId":"s""#, r#""roomId":"r""#, r#""all":true"#] {
        for except in ["exceptSocketId", "except_socket_id"] {
            let answer = gateway.posts("/api/send", format!(r#"{{{target},"{except}":"{own}","data":1}}"#)).await;
            assert_eq!((&answer.json()["status"], &answer.json()["delivered"]), (&json!("delivered"), &json!(1)));
            other.hears().await;
        }
    }
    gateway.post("/api/rooms/r/send", &json!({ "exceptSocketId": own })).await;
    other.hears().await;
    // It names nobody who is here, so everybody hears it.
    let answer = gateway.post("/api/send", &json!({ "roomId": "r", "exceptSocketId": "ws_123" })).await;
    assert_eq!(answer.json()["delivered"], 2);
    sender.hears().await;
    other.hears().await;
    // Whoever is both meant and excepted is excepted.
    gateway.post("/api/send", &json!({ "socketId": own, "exceptSocketId": own })).await;
    sender.heard_all().await;
    other.heard_all().await;
}

/// Checklist 79, 240.
#[tokio::test]
async fn a_group_with_nobody_in_it_is_undelivered() {
    let gateway = Gateway::start().await;
    let mut nobody = gateway.greeted("/ws?user_id=anonymous").await;
    for target in [r#""userId":"x""#, r#""storeId":"x""#, r#""roomId":"x""#, r#""userId":"anonymous""#] {
        undelivered(&gateway, &format!("{{{target}}}")).await;
    }
    let receipt = gateway.post("/api/rooms/x/send", &json!({ "data": 1 })).await.json();
    assert_eq!((&receipt["matched"], &receipt["instances"]), (&json!(0), &json!(0)));
    nobody.heard_all().await;
    nobody.leaves().await;
    eventually("nobody is here", async || (gateway.sockets().await == 0).then_some(())).await;
    undelivered(&gateway, r#"{"all":true}"#).await;
}

#[tokio::test]
async fn a_room_is_sent_to_by_its_address() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?room_id=a%2Fb%20%C3%BC%2B").await;
    let answer = gateway.post("/api/rooms/a%2Fb%20%C3%BC+/send", &json!({ "event": "e", "data": 1 })).await;
    assert_eq!((answer.status, &answer.json()["delivered"]), (200, &json!(1)), "{}", answer.text());
    assert_eq!(client.hears_text().await, r#"{"type":"e","data":1}"#);
    let answer = gateway.post("/__ws/api/rooms/r/send", &json!({ "data": 1 })).await;
    assert_eq!(answer.json()["status"], "undelivered");
    for bad in ["x".repeat(257), "%00".into(), "undefined".into(), "%20".into()] {
        let answer = gateway.post(&format!("/api/rooms/{bad}/send"), &json!({ "data": 1 })).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
        answer.is_problem();
    }
}

/// Checklist 290: in order, and each by itself.
#[tokio::test]
async fn a_batch_is_answered_line_by_line() {
    let gateway = Gateway::start().await;
    let mut client = everywhere(&gateway).await;
    let messages = json!([
        { "userId": "u", "data": 0 },
        { "socketId": "ws_123", "data": 1 },
        { "roomId": "nobody", "data": 2 },
        { "userId": 3 },
        "nonsense",
        { "to": { "store_id": "s" }, "event": "e", "data": 5 },
    ]);
    let answer = gateway.post("/api/send/batch", &json!({ "messages": messages })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.json()["results"].as_array().unwrap().clone();
    let indices: Vec<_> = results.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
    assert_eq!((&results[0]["status"], &results[5]["status"]), (&json!("delivered"), &json!("delivered")));
    assert_eq!(
        (&results[1]["code"], &results[1]["verdict"]["socketId"]),
        (&json!("socket_never_seen"), &json!("ws_123"))
    );
    assert_eq!(results[2]["status"], "undelivered");
    for wrong in [&results[3], &results[4]] {
        assert!(wrong["errors"].is_array() && wrong["code"].is_string(), "{wrong}");
    }
    assert!(keys(&results[0]).is_superset(&["id", "matched", "delivered", "unknown", "instances"].into()));
    assert_eq!(client.hears_text().await, r#"{"type":"message","data":0}"#);
    assert_eq!(client.hears_text().await, r#"{"type":"e","data":5}"#);
    client.heard_all().await;
}

#[tokio::test]
async fn a_batch_has_1000_messages_at_most() {
    let gateway = Gateway::start().await;
    let mut client = everywhere(&gateway).await;
    let batch = |count: usize| {
        let messages: Vec<_> = (0..count).map(|n| json!({ "userId": "u", "data": n })).collect();
        gateway.post("/api/send/batch", &json!({ "messages": messages }))
    };
    assert_eq!(batch(1001).await.pointers(), ["/messages"]);
    let results = batch(1000).await.json();
    let results = results["results"].as_array().unwrap();
    assert!(results.len() == 1000 && results.iter().all(|line| line["status"] == "delivered"));
    for n in 0..1000 {
        assert_eq!(client.hears().await["data"], n);
    }
    client.heard_all().await;
    assert_eq!(batch(0).await.json(), json!({ "results": [] }));
    for bad in [r#"{"messages":{}}"#, r#"{"messages":"x"}"#, r#"{"messages":null}"#, "{}"] {
        assert_eq!(gateway.posts("/api/send/batch", bad).await.pointers(), ["/messages"], "{bad}");
    }
}
