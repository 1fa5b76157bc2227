//! `/sse/push` and `/sse/push/batch`: what SSE callers write, and what they rely on being told.

use crate::{asking::keys, gateway::Gateway, patience::eventually};
use serde_json::{Value, json};

/// Checklist 237, 242, 243, 244, 260: the line that stands in their guide.
#[tokio::test]
async fn a_push_reaches_its_user_as_it_is_written_everywhere() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=test123").await;
    let body = r#"{"user_id": "test123", "data": {"message": "Hello"}, "event_type": "notification"}"#;
    let answer = gateway.posts("/sse/push", body).await;
    let told = answer.json();
    assert_eq!(answer.status, 200, "{told}");
    assert_eq!((&told["status"], &told["message"]), (&json!("success"), &json!("Message delivered")));
    assert_eq!(client.hears_text().await, r#"{"type":"notification","data":{"message": "Hello"}}"#);
    for body in [
        r#"{"userId":"test123","data":"Hello","eventType":"notification"}"#,
        r#"{"data":"Hello","event_type":"notification","user_id":"test\u003123"}"#,
    ] {
        assert_eq!(gateway.posts("/sse/push", body).await.json()["status"], "success", "{body}");
        assert_eq!(client.hears_text().await, r#"{"type":"notification","data":"Hello"}"#);
    }
}

/// Checklist 243.
#[tokio::test]
async fn a_push_is_a_message_unless_it_says_more() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    for body in [r#"{"user_id":"u","data":{}}"#, r#"{"user_id":"u","data":{},"event_type":null}"#] {
        gateway.posts("/sse/push", body).await;
        assert_eq!(client.hears_text().await, r#"{"type":"message","data":{}}"#);
    }
}

#[tokio::test]
async fn all_sockets_of_the_user_get_it_and_nobody_else() {
    let gateway = Gateway::start().await;
    let mut tabs = [gateway.greeted("/ws?user_id=u").await, gateway.greeted("/ws/Ab3x9?user_id=u").await];
    let mut other = gateway.greeted("/ws?user_id=U&store_id=u&room_id=u").await;
    gateway.post("/sse/push", &json!({ "user_id": "u", "data": 1 })).await;
    for tab in &mut tabs {
        assert_eq!(tab.hears_text().await, r#"{"type":"message","data":1}"#);
        tab.heard_all().await;
    }
    other.heard_all().await;
}

/// Checklist 79, 240.
#[tokio::test]
async fn a_push_to_nobody_is_partial() {
    let gateway = Gateway::start().await;
    let mut nobody = gateway.greeted("/connect").await;
    for user in ["u", "anonymous", "ünknown 🎲"] {
        let answer = gateway.post("/sse/push", &json!({ "user_id": user, "data": {} })).await;
        let told = answer.json();
        assert_eq!((answer.status, &told["status"]), (200, &json!("partial")), "{told}");
        assert_eq!(told["message"], "User not connected");
    }
    nobody.heard_all().await;
}

/// Checklist 242, 271.
#[tokio::test]
async fn a_push_that_does_not_fit_is_422_with_every_place() {
    let gateway = Gateway::start().await;
    for (body, places) in [
        ("{}", &["/data", "/user_id"][..]),
        (r#"{"user_id":"u"}"#, &["/data"]),
        (r#"{"user_id":"u","data":null}"#, &["/data"]),
        (r#"{"data":{}}"#, &["/user_id"]),
        (r#"{"user_id":7,"data":{},"event_type":7}"#, &["/event_type", "/user_id"]),
        (r#"{"user_id":" ","data":{}}"#, &["/user_id"]),
        (r#"{"user_id":"[object Object]","data":{}}"#, &["/user_id"]),
        (r#"{"user_id":"u","user_id":"v","data":{}}"#, &["/user_id"]),
        (r#"{"user_id":"u","data":{},"priority":1}"#, &["/priority"]),
    ] {
        assert_eq!(gateway.posts("/sse/push", body).await.pointers(), places, "{body}");
    }
    let long = "x".repeat(257);
    assert_eq!(gateway.post("/sse/push", &json!({ "user_id": long, "data": 1 })).await.pointers(), ["/user_id"]);
}

/// Checklist 290.
#[tokio::test]
async fn a_batch_of_pushes_is_answered_one_by_one() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let batch = json!([
        { "user_id": "u", "data": 0 },
        { "user_id": "nobody", "data": 1 },
        { "user_id": "u" },
        "nonsense",
        { "user_id": "u", "data": 4, "event_type": "e" },
    ]);
    let answer = gateway.post("/sse/push/batch", &batch).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.json()["results"].as_array().unwrap().clone();
    let successes = [true, false, false, false, true];
    assert_eq!(results.len(), successes.len());
    for ((at, result), success) in results.iter().enumerate().zip(successes) {
        assert_eq!((&result["index"], &result["success"]), (&json!(at), &json!(success)), "{result}");
        assert!(keys(result).contains("user_id"), "{result}");
    }
    assert_eq!((&results[0]["user_id"], &results[1]["user_id"]), (&json!("u"), &json!("nobody")));
    assert_eq!(client.hears_text().await, r#"{"type":"message","data":0}"#);
    assert_eq!(client.hears_text().await, r#"{"type":"e","data":4}"#);
    client.heard_all().await;
    assert_eq!(gateway.posts("/sse/push/batch", "[]").await.json(), json!({ "results": [] }));
    assert_eq!(gateway.posts("/sse/push/batch", r#"{"user_id":"u","data":1}"#).await.pointers(), [""]);
}

/// Checklist 267.
#[tokio::test]
async fn a_mention_sends_it_to_the_public_account_instead() {
    let gateway = Gateway::with([("PUBLIC_ACCOUNTS", "help, news")]).await;
    let mut writer = gateway.greeted("/ws?user_id=alice").await;
    let mut help = gateway.greeted("/ws?user_id=help").await;
    let mut news = gateway.greeted("/ws?user_id=news").await;
    for data in [
        r#"{"message":"hi @help, please"}"#,
        r#"{"text":"@help"}"#,
        r#"{"data":"(@help)"}"#,
        r#"{"content":"ask @nobody or @help or @news"}"#,
        r#"{"n":1.0e3,"body":"@help!"}"#,
        r#"{"body":"@news","message":"@help"}"#,
    ] {
        let body = format!(r#"{{"user_id":"alice","data":{data},"event_type":"chat"}}"#);
        assert_eq!(gateway.posts("/sse/push", body).await.json()["status"], "success", "{data}");
        let text = help.hears_text().await;
        assert!(text.starts_with(&format!(r#"{{"type":"chat","data":{data},"#)), "{text}");
        let frame: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(keys(&frame["original_sender"]), ["timestamp", "user_id"].into(), "{frame}");
        assert_eq!(frame["original_sender"]["user_id"], "alice");
        let timestamp = frame["original_sender"]["timestamp"].as_str().unwrap();
        assert!(timestamp.len() == 24 && timestamp.contains('T') && timestamp.ends_with('Z'), "{timestamp}");
    }
    let batch = json!([{ "user_id": "alice", "data": { "message": "@news" } }]);
    assert_eq!(gateway.post("/sse/push/batch", &batch).await.json()["results"][0]["success"], true);
    assert_eq!(news.hears().await["original_sender"]["user_id"], "alice");
    for client in [&mut writer, &mut help, &mut news] {
        client.heard_all().await;
    }
}

/// Checklist 267.
#[tokio::test]
async fn what_only_looks_like_a_mention_goes_to_its_user() {
    let gateway = Gateway::with([("PUBLIC_ACCOUNTS", "help")]).await;
    let mut writer = gateway.greeted("/ws?user_id=alice").await;
    let mut help = gateway.greeted("/ws?user_id=help").await;
    for data in [
        r#"{"message":"@helper and @help_desk"}"#,
        r#"{"message":"me@help"}"#,
        r#"{"message":"help"}"#,
        r#"{"subject":"@help"}"#,
        r#"{"message":{"text":"@help"}}"#,
        r#"["@help"]"#,
        "7",
    ] {
        gateway.posts("/sse/push", format!(r#"{{"user_id":"alice","data":{data}}}"#)).await;
        assert_eq!(writer.hears_text().await, format!(r#"{{"type":"message","data":{data}}}"#));
    }
    help.heard_all().await;
    let gateway = Gateway::start().await;
    let mut writer = gateway.greeted("/ws?user_id=alice").await;
    gateway.posts("/sse/push", r#"{"user_id":"alice","data":{"message":"@help"}}"#).await;
    assert_eq!(writer.hears_text().await, r#"{"type":"message","data":{"message":"@help"}}"#);
}

/// Checklist 264, 265: a client that reads nothing is no reason to say that it got it.
#[tokio::test]
async fn a_push_that_could_not_be_written_is_no_success() {
    let mut gateway = Gateway::with([("MAX_QUEUE_BYTES", "100KiB"), ("WS_PING_TIMEOUT", "60s")]).await;
    let (_lazy, _) = gateway.lazy("/ws?user_id=u").await;
    let push = json!({ "user_id": "u", "data": "x".repeat(90 << 10) });
    let told = eventually("it does not fit", async || {
        let told = gateway.post("/sse/push", &push).await.json();
        (told["status"] != "success").then_some(told)
    })
    .await;
    assert_eq!(told["status"], "partial");
    assert_ne!(told["message"], "User not connected", "it is: {told}");
    gateway.logs(&["ERROR", "Error sending to user"]).await;
    let batch = json!([push]);
    eventually("nor in a batch", async || {
        let results = gateway.post("/sse/push/batch", &batch).await.json();
        (results["results"][0]["success"] == false).then_some(())
    })
    .await;
}

/// Checklist 263, 264, 266: in the words that people search for, with the user, and no payload.
#[tokio::test]
async fn pushes_are_logged_without_what_they_say() {
    for format in ["text", "json"] {
        let mut gateway = Gateway::with([("LOG_FORMAT", format), ("PUBLIC_ACCOUNTS", "help")]).await;
        let _client = gateway.greeted("/ws?user_id=alice").await;
        for (user, words) in [("alice", "hush-1"), ("bob", "hush-2"), ("carol", "hush-3 @help")] {
            gateway.post("/sse/push", &json!({ "user_id": user, "data": { "message": words } })).await;
        }
        for (words, user) in [
            ("Processing SSE message", "alice"),
            ("Message sent to user", "alice"),
            ("Attempt to send message to disconnected user", "bob"),
            ("Detected @mention of public account", "carol"),
            ("Attempt to send message to disconnected user", "help"),
        ] {
            gateway.logs(&[words, user]).await;
        }
        let printed = gateway.stop().await;
        assert!(!printed.contains("hush-"), "{printed}");
    }
}
