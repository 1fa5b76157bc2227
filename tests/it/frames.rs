//! Frames: what a client can say, and what it hears in answer, to the byte where the contract
//! says so.

use crate::{gateway::Gateway, raw};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const ERROR_MESSAGE: &str = "An error occurred while processing your action";

fn epoch_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// An error frame in that key, with everything that the contract gives to one.
fn is_error(text: &str, key: &str, codes: &[&str]) -> Value {
    let frame: Value = serde_json::from_str(text).unwrap();
    assert!(text.starts_with(&format!(r#"{{"{key}":"error","#)), "{text}");
    assert_eq!(frame["message"], ERROR_MESSAGE, "{text}");
    assert!(codes.contains(&frame["code"].as_str().unwrap()), "{codes:?} in {text}");
    assert!(frame["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{text}");
    frame
}

/// Checklist 1, 10, 11, 12, 13, 82.
#[tokio::test]
async fn hi_comes_first_then_reset() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let before = epoch_ms();
    let mut client = gateway.connect("/ws?user_id=u").await;
    let text = client.hears_text().await;
    let hi: Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<_> = hi.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["type", "evt", "ver", "time", "socketId", "instance", "resumed", "pingInterval", "state"]);
    assert!(text.starts_with(r#"{"type":"hi","evt":"hi","ver":"1","time":"#), "{text}");
    assert!((before..=epoch_ms()).contains(&hi["time"].as_u64().unwrap()), "{text}");
    assert!(hi["socketId"].as_str().unwrap().starts_with("ws_"));
    assert_eq!(hi["instance"], "web1");
    assert!(text.ends_with(r#""resumed":false,"pingInterval":30,"state":{}}"#), "{text}");
    assert_eq!(client.hears_text().await, r#"{"type":"reset"}"#);
    client.heard_all().await;
}

#[tokio::test]
async fn every_socket_has_an_id_of_its_own() {
    let gateway = Gateway::start().await;
    let one = gateway.greeted("/ws").await;
    let other = gateway.greeted("/ws").await;
    assert_ne!(one.id, other.id);
}

/// Checklist 80, 158: whoever reads the id can use it at once.
#[tokio::test]
async fn the_registry_holds_the_socket_before_it_is_greeted() {
    let gateway = Gateway::start().await;
    for _ in 0..20 {
        let mut client = gateway.connect("/ws").await;
        let id = client.hears().await["socketId"].as_str().unwrap().to_owned();
        assert_eq!(gateway.get(&format!("/api/sockets/{id}")).await.status, 200);
    }
}

#[tokio::test]
async fn whoever_wants_no_greeting_gets_none() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect("/ws?greeting=none").await;
    client.heard_all().await;
    let id: Value = serde_json::from_str(&client.asks(r#"{"type":"getSocketId"}"#).await).unwrap();
    let id = id["data"].as_str().unwrap();
    assert_eq!(gateway.get(&format!("/api/sockets/{id}")).await.status, 200);
}

/// Checklist 6, 7, 38.
#[tokio::test]
async fn the_answer_to_each_verb_is_exact() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    let own = client.id.clone();
    let id_as = |key: &str| format!(r#"{{"{key}":"getSocketId","data":"{own}"}}"#);
    for (said, heard) in [
        (r#"{"evt":"ping"}"#, r#"{"evt":"pong"}"#.to_owned()),
        (r#"{"type":"ping"}"#, r#"{"type":"pong"}"#.to_owned()),
        (r#"{"action":"ping"}"#, r#"{"type":"pong"}"#.to_owned()),
        (r#"{"type":"getSocketId"}"#, id_as("type")),
        (r#"{"evt":"getSocketId"}"#, id_as("evt")),
        (r#"{"action":"getSocketId"}"#, id_as("type")),
        (r#"{"type":"join","room":"r"}"#, r#"{"type":"joined","room":"r"}"#.to_owned()),
        (r#"{"evt":"join","room":"ü\"\\"}"#, r#"{"evt":"joined","room":"ü\"\\"}"#.to_owned()),
        (r#"{"action":"leave","room":"r"}"#, r#"{"type":"left","room":"r"}"#.to_owned()),
        (
            r#"{"type":"selectStore","data":{"storeId":"s"}}"#,
            r#"{"type":"storeSelected","data":{"storeId":"s"}}"#.to_owned(),
        ),
        (
            r#"{"evt":"selectStore","data":{"storeId":"t"}}"#,
            r#"{"evt":"storeSelected","data":{"storeId":"t"}}"#.to_owned(),
        ),
    ] {
        assert_eq!(client.asks(said).await, heard, "{said}");
    }
    client.heard_all().await;
}

/// Checklist 6: extra members come back only if they were sent.
#[tokio::test]
async fn a_ping_with_more_in_it_is_still_a_ping() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    for (said, heard) in [
        (r#"{"type":"ping","id":7}"#, json!({"type":"pong","id":7})),
        (r#"{"evt":"ping","t":123,"id":"x"}"#, json!({"evt":"pong","t":123,"id":"x"})),
        (r#" { "evt" : "ping" } "#, json!({"evt":"pong"})),
        (r#"{"type":"ping","evt":"hi"}"#, json!({"type":"pong"})),
    ] {
        let answer: Value = serde_json::from_str(&client.asks(said).await).unwrap();
        assert_eq!(answer, heard, "{said}");
    }
}

/// Checklist 7.
#[tokio::test]
async fn pings_are_counted() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    for _ in 0..10 {
        client.heard_all().await;
    }
    assert_eq!(gateway.metric("holdfast_app_pings_total").await, 10.0);
}

/// Checklist 11.
#[tokio::test]
async fn a_client_of_another_version_is_told_so() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    client.says(r#"{"evt":"hi","ver":"99"}"#).await;
    assert_eq!(client.hears().await["evt"], "hi");
    is_error(&client.hears_text().await, "evt", &["invalid"]);
}

/// Checklist 11, 12.
#[tokio::test]
async fn hi_is_answered_by_hi_and_changes_nothing_else() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect("/ws").await;
    let first = client.is_greeted().await;
    client.says(r#"{"evt":"hi","ver":"1"}"#).await;
    let mut second = client.hears().await;
    assert!(second["time"].as_u64() >= first["time"].as_u64());
    second["time"] = first["time"].clone();
    assert_eq!(first, second);
    client.heard_all().await;
}

/// Checklist 198, 201.
#[tokio::test]
async fn a_store_is_selected_after_the_registry_knows() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?store_id=first").await;
    for store in ["second", "third", "x y ü"] {
        let ask = format!(r#"{{"type":"selectStore","data":{{"storeId":"{store}"}}}}"#);
        let heard = client.asks(ask).await;
        assert_eq!(heard, format!(r#"{{"type":"storeSelected","data":{{"storeId":"{store}"}}}}"#));
        let shown = gateway.get("/api/debug/sockets").await.json();
        assert_eq!(shown["sockets"]["metadata"][&client.id]["storeId"], store);
    }
}

/// Checklist 37, 38, 271: the frame fails, the socket stays.
#[tokio::test]
async fn what_cannot_be_read_is_bad_json() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_object = format!(r#"{{"type":"ping","a":{}1{}}}"#, r#"{"a":"#.repeat(5000), "}".repeat(5000));
    for said in [
        "{",
        "hello",
        r#"{"type":"ping""#,
        r#"{"type":"ping"}}"#,
        r#"{'type':'ping'}"#,
        "[1,",
        "nul",
        &deep,
        &deep_object,
    ] {
        is_error(&client.asks(said).await, "type", &["bad_json"]);
    }
    for said in ["3", "null", "true", r#""ping""#, r#"{"type":"ping","type":"join","room":"r"}"#, "", " "] {
        is_error(&client.asks(said).await, "type", &["bad_json", "invalid"]);
    }
    client.heard_all().await;
    gateway.is_unharmed().await;
}

/// Checklist 38.
#[tokio::test]
async fn an_unknown_verb_is_told_in_the_senders_key_with_its_id() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    for (said, key, id) in [
        (r#"{"type":"dance","id":7}"#, "type", json!(7)),
        (r#"{"evt":"action","id":"a-1"}"#, "evt", json!("a-1")),
        (r#"{"action":"dance","id":null}"#, "type", json!(null)),
        (r#"{"type":"dance"}"#, "type", json!(null)),
        (r#"{"type":"Ping","id":{"a":[1]}}"#, "type", json!({"a":[1]})),
        (r#"{"type":"","id":1}"#, "type", json!(1)),
    ] {
        assert_eq!(is_error(&client.asks(said).await, key, &["unknown_verb"])["id"], id, "{said}");
    }
}

#[tokio::test]
async fn a_verb_that_is_asked_wrongly_is_invalid() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    let long = format!(r#"{{"type":"join","room":"{}","id":1}}"#, "r".repeat(257));
    for said in [
        r#"{"type":"join","id":1}"#,
        r#"{"type":"join","room":"","id":1}"#,
        r#"{"type":"join","room":"  ","id":1}"#,
        r#"{"type":"join","room":3,"id":1}"#,
        r#"{"type":"join","room":"undefined","id":1}"#,
        r#"{"type":"join","room":"a\u0000b","id":1}"#,
        r#"{"type":"leave","room":null,"id":1}"#,
        r#"{"type":"publish","data":1,"id":1}"#,
        r#"{"type":"selectStore","id":1}"#,
        r#"{"type":"selectStore","data":"s","id":1}"#,
        r#"{"type":"selectStore","data":{"storeId":""},"id":1}"#,
        r#"{"type":"selectStore","data":{"storeId":"{store}"},"id":1}"#,
        r#"{"type":3,"id":1}"#,
        r#"{"type":{"a":1},"id":1}"#,
        &long,
    ] {
        assert_eq!(is_error(&client.asks(said).await, "type", &["invalid"])["id"], 1, "{said}");
    }
    is_error(&client.asks(r#"{"evt":"join"}"#).await, "evt", &["invalid"]);
    is_error(&client.asks(r#"{"room":"r"}"#).await, "type", &["invalid", "unknown_verb"]);
}

#[tokio::test]
async fn words_about_a_call_that_nobody_made_are_taken_in_silence() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    for said in [
        r#"{"type":"ack","seq":1}"#,
        r#"{"type":"progress","callId":"c_1","data":1}"#,
        r#"{"type":"reply","callId":"c_1","data":1}"#,
        r#"{"type":"failed","callId":"c_1","error":"no"}"#,
        r#"{"callId":"c_1","data":1}"#,
        r#"{"correlation_id":"c_1","is_final":true}"#,
    ] {
        client.says(said).await;
        client.heard_all().await;
    }
}

/// What only confirms costs nothing.
#[tokio::test]
async fn acks_are_not_counted_by_the_rate() {
    let gateway = Gateway::with([("RATE_MESSAGES", "5/s")]).await;
    let mut client = gateway.greeted("/ws").await;
    for seq in 0..200 {
        client.says(format!(r#"{{"type":"ack","seq":{seq}}}"#)).await;
    }
    client.heard_all().await;
}

#[tokio::test]
async fn a_batch_is_answered_frame_by_frame_in_order() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    client.says(r#"[{"evt":"ping"},{"type":"dance","id":1},{"type":"ack","seq":1},3,{"type":"join","room":"r"},{"action":"ping","id":2}]"#).await;
    assert_eq!(client.hears_text().await, r#"{"evt":"pong"}"#);
    assert_eq!(is_error(&client.hears_text().await, "type", &["unknown_verb"])["id"], 1);
    is_error(&client.hears_text().await, "type", &["bad_json", "invalid"]);
    assert_eq!(client.hears_text().await, r#"{"type":"joined","room":"r"}"#);
    assert_eq!(client.hears().await, json!({"type":"pong","id":2}));
    client.says("[]").await;
    client.heard_all().await;
}

/// Checklist 30, 158: nothing is lost, and nothing overtakes.
#[tokio::test]
async fn frames_sent_before_hi_are_handled_in_order() {
    let gateway = Gateway::start().await;
    let mut raw = gateway.raw().await;
    let mut early = gateway.knock("/ws?room_id=a").bytes();
    let said = [
        r#"{"type":"join","room":"b"}"#,
        r#"{"evt":"ping"}"#,
        r#"{"type":"selectStore","data":{"storeId":"s"}}"#,
        r#"{"type":"leave","room":"b"}"#,
        r#"{"type":"publish","room":"b","data":1,"id":9}"#,
        r#"{"type":"ping"}"#,
    ];
    said.iter().for_each(|said| early.extend(raw::text(said)));
    raw.write(&early).await;
    assert_eq!(raw.answer().await.status, 101);
    raw.is_greeted().await;
    assert_eq!(raw.text().await, r#"{"type":"joined","room":"b"}"#);
    assert_eq!(raw.text().await, r#"{"evt":"pong"}"#);
    assert_eq!(raw.text().await, r#"{"type":"storeSelected","data":{"storeId":"s"}}"#);
    assert_eq!(raw.text().await, r#"{"type":"left","room":"b"}"#);
    assert_eq!(is_error(&raw.text().await, "type", &["not_in_room"])["id"], 9);
    assert_eq!(raw.text().await, r#"{"type":"pong"}"#);
}

/// The verb is the first of `type`, `evt`, `action` that the object has, wherever it stands.
#[tokio::test]
async fn type_beats_evt_and_evt_beats_action() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    let all = r#"{"action":"dance","evt":"dance","room":"r","type":"join"}"#;
    assert_eq!(client.asks(all).await, r#"{"type":"joined","room":"r"}"#);
    let two = r#"{"action":"dance","room":"r","evt":"leave"}"#;
    assert_eq!(client.asks(two).await, r#"{"evt":"left","room":"r"}"#);
}
