//! Rooms: who hears what, once, in order, and to the byte.

use crate::gateway::Gateway;
use serde_json::Value;

/// Checklist 4, 128.
#[tokio::test]
async fn everyone_else_in_the_room_hears_a_message_once() {
    let gateway = Gateway::start().await;
    let mut publisher = gateway.greeted("/ws?room_id=r").await;
    let mut member = gateway.greeted("/ws?room_id=r&room_id=other").await;
    let mut late = gateway.greeted("/ws").await;
    let mut stranger = gateway.greeted("/ws?room_id=R").await;
    late.asks(r#"{"type":"join","room":"r"}"#).await;
    publisher.says(r#"{"type":"publish","room":"r","data":{"n":1}}"#).await;
    let heard = format!(r#"{{"type":"message","room":"r","from":"{}","data":{{"n":1}}}}"#, publisher.id);
    assert_eq!(member.hears_text().await, heard);
    assert_eq!(late.hears_text().await, heard);
    for client in [&mut publisher, &mut member, &mut late, &mut stranger] {
        client.heard_all().await;
    }
}

#[tokio::test]
async fn only_a_member_may_publish() {
    let gateway = Gateway::start().await;
    let mut member = gateway.greeted("/ws?room_id=r").await;
    let mut outsider = gateway.greeted("/ws").await;
    let publish = r#"{"evt":"publish","room":"r","data":1,"id":5}"#;
    let told = |text: String| {
        assert!(text.starts_with(r#"{"evt":"error","#), "{text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&error["code"], &error["id"]), (&"not_in_room".into(), &5.into()));
    };
    told(outsider.asks(publish).await);
    outsider.asks(r#"{"type":"join","room":"r"}"#).await;
    outsider.says(publish).await;
    assert_eq!(member.hears().await["from"], outsider.id.as_str());
    outsider.asks(r#"{"type":"leave","room":"r"}"#).await;
    told(outsider.asks(publish).await);
    member.heard_all().await;
}

#[tokio::test]
async fn whoever_left_hears_no_more() {
    let gateway = Gateway::start().await;
    let mut publisher = gateway.greeted("/ws?room_id=r").await;
    let mut leaver = gateway.greeted("/ws?room_id=r").await;
    assert_eq!(leaver.asks(r#"{"type":"leave","room":"r"}"#).await, r#"{"type":"left","room":"r"}"#);
    publisher.says(r#"{"type":"publish","room":"r","data":1}"#).await;
    publisher.heard_all().await;
    leaver.heard_all().await;
}

/// Payloads are not ours: numbers, escapes and the order of keys come through as they were said.
#[tokio::test]
async fn data_comes_through_untouched() {
    let gateway = Gateway::start().await;
    let mut publisher = gateway.greeted("/ws?room_id=r").await;
    let mut member = gateway.greeted("/ws?room_id=r").await;
    for data in [
        r#"{"b":1,"a":2,"b2":1.0e+5}"#,
        "123456789012345678901234567890.000",
        r#""\u00fc\ud83c\udfb2\/é""#,
        "[ ]",
        "null",
        r#"{"type":"close","nested":[[[[{}]]]]}"#,
    ] {
        publisher.says(format!(r#"{{"type":"publish","data":{data},"room":"r"}}"#)).await;
        let heard = member.hears_text().await;
        assert_eq!(heard, format!(r#"{{"type":"message","room":"r","from":"{}","data":{data}}}"#, publisher.id));
    }
}

/// Checklist 132.
#[tokio::test]
async fn messages_keep_their_order() {
    let gateway = Gateway::with([("RATE_MESSAGES", "off")]).await;
    let mut publisher = gateway.greeted("/ws?room_id=r").await;
    let mut member = gateway.greeted("/ws?room_id=r").await;
    for n in 0..500 {
        publisher.says(format!(r#"{{"type":"publish","room":"r","data":{n}}}"#)).await;
    }
    for n in 0..500 {
        assert_eq!(member.hears().await["data"], n);
    }
    member.heard_all().await;
}

/// Checklist 131.
#[tokio::test]
async fn binary_frames_reach_the_rooms_unchanged_and_once() {
    let gateway = Gateway::start().await;
    let mut sender = gateway.greeted("/ws?room_id=a&room_id=b").await;
    let mut in_both = gateway.greeted("/ws?room_id=a&room_id=b").await;
    let mut in_one = gateway.greeted("/ws?room_id=b").await;
    let mut stranger = gateway.greeted("/ws?room_id=c").await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for bytes in [&every_byte[..], b"", &[0xff; 60_000]] {
        sender.says_bytes(bytes.to_vec()).await;
        assert_eq!(in_both.hears_bytes().await, bytes);
        assert_eq!(in_one.hears_bytes().await, bytes);
    }
    for client in [&mut sender, &mut in_both, &mut in_one, &mut stranger] {
        client.heard_all().await;
    }
    let mut nowhere = gateway.greeted("/ws").await;
    nowhere.says_bytes(b"lost".to_vec()).await;
    nowhere.heard_all().await;
}

#[tokio::test]
async fn there_is_an_end_to_rooms() {
    let gateway = Gateway::with([("MAX_ROOMS", "3")]).await;
    let mut client = gateway.greeted("/ws?room_id=a&room_id=b").await;
    assert_eq!(client.asks(r#"{"type":"join","room":"c"}"#).await, r#"{"type":"joined","room":"c"}"#);
    let refused: Value = serde_json::from_str(&client.asks(r#"{"type":"join","room":"d","id":4}"#).await).unwrap();
    assert_eq!((&refused["type"], &refused["code"], &refused["id"]), (&"error".into(), &"too_many".into(), &4.into()));
    assert_eq!(client.asks(r#"{"type":"join","room":"a"}"#).await, r#"{"type":"joined","room":"a"}"#);
    assert_eq!(client.asks(r#"{"type":"leave","room":"a"}"#).await, r#"{"type":"left","room":"a"}"#);
    assert_eq!(client.asks(r#"{"type":"join","room":"d"}"#).await, r#"{"type":"joined","room":"d"}"#);
}

/// Checklist 129: no ghost stays where somebody was.
#[tokio::test]
async fn a_room_that_everybody_left_is_empty() {
    let gateway = Gateway::start().await;
    let client = gateway.greeted("/ws?room_id=r").await;
    let id = client.id.clone();
    client.leaves().await;
    gateway.verdict(&id).await;
    let shown = gateway.get("/api/rooms/r").await;
    assert!(!shown.text().contains(&id), "{}", shown.text());
}
