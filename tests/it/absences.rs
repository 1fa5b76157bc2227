//! Sends that cannot be delivered, and the true reason that the caller is told.

use crate::{gateway::Gateway, http::Answer, patience::eventually, raw};
use serde_json::{Value, json};

/// The verdict that comes with a refusal.
fn verdict(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{}", answer.text());
    answer.is_problem();
    let verdict = answer.json()["verdict"].clone();
    let sentence = verdict["sentence"].as_str().unwrap();
    assert!(sentence.contains(verdict["socketId"].as_str().unwrap()), "{sentence}");
    verdict
}

/// Checklist 205, 206, 227: any text is a socket id, and one that we never gave out was never seen.
#[tokio::test]
async fn an_id_that_nobody_got_was_never_seen() {
    let mut gateway = Gateway::start().await;
    for id in ["ws_123", "", "x", "ws_", "WS_01890000-0000-7000-8000-000000000000", "null", "ü 🎲"] {
        let answer = gateway.post("/api/send", &json!({ "socketId": id })).await;
        let verdict = verdict(&answer, 404, "socket_never_seen");
        assert_eq!((&verdict["state"], &verdict["socketId"]), (&json!("never_seen"), &json!(id)));
    }
    let why = gateway.logs(&["⚠️ Socket ws_123 not found in activeSockets", "WARN"]).await;
    assert!(why.len() > "not found in activeSockets".len() + 60, "{why}");
    gateway.logs(&["🔍 Socket lookup failed. Possible causes:"]).await;
    gateway.logs(&["🔄 No socket found, requesting client reconnect"]).await;
}

#[tokio::test]
async fn an_id_writes_no_line_of_its_own() {
    let gateway = Gateway::start().await;
    gateway.post("/api/send", &json!({ "socketId": "ws_1\nFORGED\r\u{1b}[31mFORGED" })).await;
    let printed = gateway.stop().await;
    assert!(printed.contains("FORGED") && !printed.contains("\nFORGED") && !printed.contains('\u{1b}'), "{printed}");
}

/// The registry does not claim what it cannot know: an id from before its time is not "never seen".
#[tokio::test]
async fn an_id_older_than_the_registry_is_forgotten() {
    let gateway = Gateway::start().await;
    let old = "ws_01890000-0000-7000-8000-000000000000";
    let answer = gateway.post("/api/send", &json!({ "socketId": old })).await;
    assert_eq!(verdict(&answer, 404, "socket_forgotten")["state"], "forgotten");
    assert!(!gateway.stop().await.contains("Possible causes:"), "only for an id that was never seen");
}

#[tokio::test]
async fn a_verdict_is_forgotten_after_its_time_by_sends_too() {
    let gateway = Gateway::with([("WHY_TTL", "500ms")]).await;
    let client = gateway.greeted("/ws").await;
    let ask = gateway.post("/api/send", &json!({ "socketId": client.id }));
    client.leaves().await;
    eventually("it is forgotten", async || (ask.clone().await.json()["code"] == "socket_forgotten").then_some(()))
        .await;
}

/// Checklist 178, 205, 206, 227.
#[tokio::test]
async fn a_socket_that_left_is_gone_and_its_client_has_to_come_back() {
    let mut gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let mut leaver = gateway.raw().await;
    leaver.upgrade(gateway.address(), "/ws?store_id=s").await;
    let id = leaver.is_greeted().await["socketId"].as_str().unwrap().to_owned();
    leaver.write(&raw::frame(raw::FIN | raw::CLOSE, b"\x03\xe8bye")).await;
    leaver.closed().await;
    let answer = eventually("it is gone", async || {
        let answer = gateway.post("/api/send", &json!({ "socketId": id })).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.json()["action"], "reconnect");
    let verdict = verdict(&answer, 410, "socket_gone");
    assert_eq!((&verdict["state"], &verdict["cause"]), (&json!("closed"), &json!("client_closed")));
    assert_eq!((&verdict["closeCode"], &verdict["reason"]), (&json!(1000), &json!("bye")));
    gateway.logs(&["⚠️ Socket", &id, "not found in activeSockets", "closed"]).await;
    gateway.logs(&["🔄 No socket found, requesting client reconnect"]).await;
    assert!(!gateway.output().contains("Possible causes:"), "only for an id that was never seen");
}

/// Checklist 282: what does not fit the queue is refused whole, and what was taken is written.
#[tokio::test]
async fn a_socket_that_reads_nothing_is_busy_and_nothing_more_is_written_to_it() {
    let gateway = Gateway::with([("MAX_QUEUE_BYTES", "100KiB"), ("WS_PING_TIMEOUT", "60s")]).await;
    let (mut lazy, id) = gateway.lazy("/ws?user_id=u").await;
    let (taken, refused) = gateway.fills(&id).await;
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("socket_busy")), "{}", refused.text());
    refused.is_problem();
    for n in 0..taken {
        assert_eq!(lazy.reads().await["data"][0], n);
    }
    let heard = gateway.posts("/api/send", format!(r#"{{"socketId":"{id}","data":"small"}}"#));
    eventually("it has room again", async || (heard.clone().await.status == 200).then_some(())).await;
    assert_eq!(lazy.reads().await["data"], "small");
}

#[tokio::test]
async fn a_group_of_which_some_are_full_is_partial() {
    let gateway = Gateway::with([("MAX_QUEUE_BYTES", "100KiB"), ("WS_PING_TIMEOUT", "60s")]).await;
    let (_lazy, _) = gateway.lazy("/ws?room_id=r").await;
    let send = gateway.post("/api/send", &json!({ "roomId": "r", "data": "x".repeat(90 << 10) }));
    // Until nothing fits into the kernel either.
    let becomes = async |status: &str, shown: Value| {
        let receipt = eventually(status, async || {
            let receipt = send.clone().await.json();
            (receipt["status"] == status).then_some(receipt)
        })
        .await;
        assert_eq!(json!([receipt["matched"], receipt["delivered"], receipt["instances"]]), shown);
    };
    becomes("undelivered", json!([1, 0, 1])).await;
    let mut eager = gateway.greeted("/ws?room_id=r").await;
    becomes("partial", json!([2, 1, 1])).await;
    assert_eq!(eager.hears().await["data"], "x".repeat(90 << 10));
}

/// The others do not wait for one that does not read.
#[tokio::test]
async fn in_a_batch_a_busy_socket_is_one_line() {
    let gateway = Gateway::with([("MAX_QUEUE_BYTES", "100KiB"), ("WS_PING_TIMEOUT", "60s")]).await;
    let (_lazy, id) = gateway.lazy("/ws").await;
    let mut eager = gateway.greeted("/ws").await;
    let messages = json!([{ "socketId": id, "data": "x".repeat(90 << 10) }, { "socketId": eager.id, "data": 1 }]);
    let batch = gateway.post("/api/send/batch", &json!({ "messages": messages }));
    eventually("one is busy", async || {
        let results = batch.clone().await.json()["results"].clone();
        assert_eq!(results[1]["status"], "delivered");
        assert_eq!(eager.hears().await["data"], 1);
        (results[0]["code"] == "socket_busy").then_some(())
    })
    .await;
}
