//! Bodies that are JSON and do not fit: every fault is told with a pointer to its place.

use crate::gateway::Gateway;
use serde_json::json;

#[tokio::test]
async fn json_of_another_kind_does_not_fit() {
    let gateway = Gateway::start().await;
    for (route, wrong) in [
        ("/api/send", "[]"),
        ("/api/send/batch", "[]"),
        ("/api/rooms/r/send", "[]"),
        ("/sse/push", "[]"),
        ("/sse/push/batch", "{}"),
    ] {
        for body in [wrong, "3", r#""x""#, "null", " true "] {
            assert_eq!(gateway.posts(route, body).await.pointers(), [""], "{route} {body}");
        }
    }
}

/// Checklist 271: each at its place, and once.
#[tokio::test]
async fn every_fault_of_a_body_is_told_with_its_place() {
    let gateway = Gateway::start().await;
    for (body, places) in [
        (r#"{"userId":3}"#, &["/userId"][..]),
        (r#"{"userId":""}"#, &["/userId"]),
        (r#"{"userId":" \u3000"}"#, &["/userId"]),
        (r#"{"roomId":"a\u0000b"}"#, &["/roomId"]),
        (r#"{"storeId":"undefined"}"#, &["/storeId"]),
        (r#"{"socketId":["ws_1"]}"#, &["/socketId"]),
        (r#"{"all":"yes"}"#, &["/all"]),
        (r#"{"to":"u"}"#, &["/to"]),
        (r#"{"to":{"userId":3}}"#, &["/to/userId"]),
        (r#"{"to":{"userId":"u","x":1}}"#, &["/to/x"]),
        (r#"{"to":{"userId":"u"},"data":1,"a/b":1,"m~n":2,"":3}"#, &["/", "/a~1b", "/m~0n"]),
        (r#"{"userId":"u","userId":"u"}"#, &["/userId"]),
        (r#"{"userId":"u","user\u0049d":"v"}"#, &["/userId"]),
        (r#"{"userId":"u","data":1,"data":2}"#, &["/data"]),
        (r#"{"to":{"userId":"u","userId":"v"}}"#, &["/to/userId"]),
        (r#"{"userId":"u","USERID":"u"}"#, &["/USERID"]),
        (
            r#"{"userId":{},"event":4,"timeoutMs":"5","ttlMs":1.5,"durable":"no","exceptSocketId":1,"hello":"world"}"#,
            &["/durable", "/event", "/exceptSocketId", "/hello", "/timeoutMs", "/ttlMs", "/userId"],
        ),
    ] {
        assert_eq!(gateway.posts("/api/send", body).await.pointers(), places, "{body}");
    }
    for ms in ["0", "-1", "600001", "1e3", "true", "\"5000\"", "99999999999999999999"] {
        let body = format!(r#"{{"userId":"u","timeoutMs":{ms}}}"#);
        assert_eq!(gateway.posts("/api/send", body).await.pointers(), ["/timeoutMs"], "{ms}");
    }
    let answer = gateway.posts("/api/rooms/r/send", r#"{"data":1,"event":[],"room":"r"}"#).await;
    assert_eq!(answer.pointers(), ["/event", "/room"]);
}

/// A pointer leads to something that stands in the body, so it is spelled as the body is.
#[tokio::test]
async fn a_place_is_spelled_as_it_was_written() {
    let gateway = Gateway::start().await;
    for (route, body, place) in [
        ("/api/send", r#"{"user_id":3}"#, "/user_id"),
        ("/api/send", r#"{"to":{"user_id":3}}"#, "/to/user_id"),
        ("/api/send", r#"{"userId":"u","timeout_ms":0}"#, "/timeout_ms"),
        ("/api/rooms/r/send", r#"{"except_socket_id":3}"#, "/except_socket_id"),
        ("/sse/push", r#"{"userId":3,"data":1}"#, "/userId"),
        ("/sse/push", r#"{"user_id":"u","data":1,"eventType":3}"#, "/eventType"),
    ] {
        assert_eq!(gateway.posts(route, body).await.pointers(), [place], "{route} {body}");
    }
}

/// Which of the two was meant cannot be known.
#[tokio::test]
async fn a_name_in_both_spellings_is_one_fault() {
    let gateway = Gateway::start().await;
    for (route, body) in [
        ("/api/send", r#"{"userId":"u","user_id":"u"}"#),
        ("/api/send", r#"{"userId":"u","user_id":null}"#),
        ("/api/send", r#"{"to":{"room_id":"r","roomId":"r2"}}"#),
        ("/api/rooms/r/send", r#"{"exceptSocketId":"ws_1","except_socket_id":"ws_1"}"#),
        ("/sse/push", r#"{"user_id":"u","userId":"v","data":1}"#),
    ] {
        let pointers = gateway.posts(route, body).await.pointers();
        assert_eq!(pointers.len(), 1, "{route} {body}: {pointers:?}");
    }
}

/// It says which names it knows, so that a typing error is seen at a glance.
#[tokio::test]
async fn an_unknown_member_is_told_with_those_that_are_known() {
    let gateway = Gateway::start().await;
    let answer = gateway.posts("/api/send", r#"{"usrId":"u","data":1}"#).await;
    assert!(answer.pointers().contains(&"/usrId".to_owned()), "{}", answer.text());
    assert!(answer.text().contains("userId"), "{}", answer.text());
}

/// It can be read, but nobody should have to.
#[tokio::test]
async fn json_that_is_too_deep_does_not_fit() {
    let gateway = Gateway::start().await;
    for (depth, status) in [(100, 200), (1000, 422), (100_000, 422)] {
        let body = format!(r#"{{"userId":"u","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let answer = gateway.posts("/api/send", body).await;
        assert_eq!(answer.status, status, "{depth}: {}", answer.text());
    }
    let endless = gateway.posts("/api/send", "[".repeat(500_000)).await;
    assert!(matches!(endless.status, 400 | 422), "{}", endless.text());
    let quoted = json!({ "userId": "u", "data": "[".repeat(1000) });
    assert_eq!(gateway.post("/api/send", &quoted).await.status, 200);
    gateway.is_unharmed().await;
}
