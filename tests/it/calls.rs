//! Calls: an HTTP request is answered by a client, or with the true reason why it is not.

use crate::{client::Client, gateway::Gateway, http::Answer, patience::eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a page does that answers: ten lines of JavaScript in the README.
async fn answers(client: &mut Client, result: Value) -> Value {
    let call = client.hears().await;
    let reply = json!({"type": "reply", "callId": call["callId"], "data": result});
    client.says(reply.to_string()).await;
    call
}

fn members(body: &Value) -> BTreeSet<&str> {
    body.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A problem of a call that nobody got.
fn problem(answer: &Answer, status: u16, code: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{}", answer.text());
    answer.is_problem();
    body
}

#[tokio::test]
async fn a_clients_reply_is_the_answer() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let mut client = gateway.greeted("/ws?user_id=u&store_id=s").await;
    let asked = json!({"socketId": client.id, "event": "weigh", "data": {"n": 1}, "timeoutMs": 20_000});
    let asking = gateway.post("/api/call", &asked).with("X-Request-Id", "req-7").with("traceparent", TRACE);
    let (answer, call) = tokio::join!(asking, answers(&mut client, json!({"kg": [1, 2.5]})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        members(&body),
        ["callId", "elapsedMs", "fallback", "hop", "instance", "result", "socketId", "status"].into()
    );
    assert_eq!(
        (&body["status"], &body["result"], &body["hop"], &body["fallback"], &body["instance"], &body["socketId"]),
        (
            &json!("replied"),
            &json!({"kg": [1, 2.5]}),
            &json!("local"),
            &json!(false),
            &json!("web1"),
            &json!(client.id)
        )
    );
    assert_eq!(body["callId"], call["callId"]);
    assert_eq!(
        (&call["type"], &call["storeId"], &call["data"], &call["requestId"], &call["traceparent"]),
        (&json!("weigh"), &json!("s"), &json!({"n": 1}), &json!("req-7"), &json!(TRACE))
    );
    let timing = answer.header("Server-Timing").unwrap();
    assert!(["lookup;dur=", "bus;dur=", "client;dur="].iter().all(|part| timing.contains(part)), "{timing}");
    gateway.is_unharmed().await;
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// By the clock that `hi` tells, the client knows until when its answer is wanted.
#[tokio::test]
async fn a_call_tells_its_deadline_by_the_clock_of_hi() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect("/ws").await;
    let hi = client.is_greeted().await["time"].as_u64().unwrap();
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 60_000});
    let (_, call) = tokio::join!(gateway.post("/api/call", &asked), answers(&mut client, json!(1)));
    let deadline = call["deadline"].as_u64().unwrap();
    assert!((hi + 55_000..hi + 120_000).contains(&deadline), "{hi} {deadline}");
}

#[tokio::test]
async fn a_sync_is_a_call_whose_other_members_are_its_data() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?store_id=s").await;
    for (path, verb) in [
        ("/api/sync/orders", "sync_orders"),
        ("/api/shopify/sync-orders", "sync_orders"),
        ("/api/sync/a.b-c_1", "sync_a.b-c_1"),
    ] {
        let asked = json!({"storeId": "s", "timeoutMs": 20_000, "since": 5, "nested": {"a": null}});
        let (answer, call) = tokio::join!(gateway.post(path, &asked), answers(&mut client, json!("done")));
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!("done")), "{}", answer.text());
        assert_eq!(
            (&call["type"], &call["storeId"], &call["data"]),
            (&json!(verb), &json!("s"), &json!({"since": 5, "nested": {"a": null}}))
        );
    }
    client.heard_all().await;
}

/// It becomes part of a verb, and nothing else.
#[tokio::test]
async fn a_kind_looks_like_a_name_or_is_refused() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?store_id=s").await;
    let (longest, longer) = ("k".repeat(64), "k".repeat(65));
    let asked = json!({"storeId": "s", "timeoutMs": 20_000});
    for path in ["/api/sync/", "/api/shopify/sync-"] {
        for (kind, read) in [(&*longest, &*longest), ("%6Frders", "orders"), ("0", "0"), ("%2e%2E", ".."), ("-", "-")] {
            let asking = gateway.post(&format!("{path}{kind}"), &asked);
            let (answer, call) = tokio::join!(asking, answers(&mut client, json!(1)));
            assert_eq!((answer.status, &call["type"]), (200, &json!(format!("sync_{read}"))), "{}", answer.text());
        }
        for kind in [&*longer, "a%20b", "a+b", "%22", "a%2Fb", "%2F", "%00", "%C3%BC", "%F0%9F%98%80", "a:b"] {
            let answer = gateway.post(&format!("{path}{kind}"), &asked).await;
            let hint = answer.refuses(400, "Invalid kind")["hint"].clone();
            assert!(hint.as_str().unwrap().contains("1 to 64"), "{path}{kind}: {hint}");
        }
        let none = gateway.post(path, &asked).await;
        assert!(matches!(none.status, 400 | 404), "{path}: {}", none.text());
        none.is_problem();
    }
    client.heard_all().await;
}

#[tokio::test]
async fn what_a_client_could_not_do_is_409_with_its_words() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let asked = json!({"userId": "u", "event": "x"});
    let fails = async {
        let call = client.hears().await;
        client
            .says(json!({"type": "failed", "callId": call["callId"], "error": {"why": "no rights"}}).to_string())
            .await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/api/call", &asked), fails);
    let body = problem(&answer, 409, "call_failed");
    assert_eq!(body["failure"], json!({"why": "no rights"}));
}

/// Python's clients say correlation_id, and no verb.
#[tokio::test]
async fn a_reply_may_be_said_in_other_words() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    for reply in
        [r#"{"correlation_id":"ID","is_final":true,"data":7}"#, r#"{"evt":"reply","correlation_id":"ID","data":7}"#]
    {
        let replies = async {
            let call = client.hears().await;
            client.says(r#"{"callId":"ID","data":"half way"}"#.replace("ID", call["callId"].as_str().unwrap())).await;
            client.says(reply.replace("ID", call["callId"].as_str().unwrap())).await;
        };
        let asked = json!({"userId": "u", "event": "x"});
        let (answer, ()) = tokio::join!(gateway.post("/api/call", &asked), replies);
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(7)), "{}", answer.text());
    }
}

#[tokio::test]
async fn nobody_there_is_told_with_the_reason() {
    let gateway = Gateway::start().await;
    let stranger = "ws_0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    let call = async |target: Value| {
        let mut body = json!({"event": "x", "timeoutMs": 5000});
        body.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        gateway.post("/api/call", &body).await
    };
    problem(&call(json!({"socketId": "ws_123"})).await, 404, "socket_never_seen");
    problem(&call(json!({"socketId": stranger})).await, 404, "socket_forgotten");
    for target in [json!({"userId": "nobody"}), json!({"storeId": "none"})] {
        problem(&call(target).await, 404, "no_live_socket");
    }
    let client = gateway.greeted("/ws?store_id=s").await;
    let id = client.id.clone();
    client.leaves().await;
    gateway.verdict(&id).await;
    let body = problem(&call(json!({"socketId": id})).await, 410, "socket_gone");
    assert_eq!((&body["action"], &body["verdict"]["cause"]), (&json!("reconnect"), &json!("client_closed")));
}

#[tokio::test]
async fn a_named_socket_that_is_gone_gives_way_to_another_of_its_store_or_user() {
    let gateway = Gateway::start().await;
    let gone = gateway.greeted("/ws?user_id=u&store_id=s").await;
    let id = gone.id.clone();
    gone.leaves().await;
    gateway.verdict(&id).await;
    let mut other = gateway.greeted("/ws?user_id=v&store_id=s").await;
    let mut same_user = gateway.greeted("/ws?user_id=u&store_id=t").await;
    // The store that the socket had, without being told.
    let (answer, call) =
        tokio::join!(gateway.post("/api/sync/orders", &json!({"socketId": id})), answers(&mut other, json!(1)));
    let body = answer.json();
    assert_eq!((&body["fallback"], &body["socketId"]), (&json!(true), &json!(other.id)), "{body}");
    assert_eq!(call["storeId"], "s");
    let asked = json!({"socketId": id, "event": "x", "fallback": "user"});
    let (answer, _) = tokio::join!(gateway.post("/api/call", &asked), answers(&mut same_user, json!(2)));
    assert_eq!((&answer.json()["fallback"], &answer.json()["socketId"]), (&json!(true), &json!(same_user.id)));
    // Without it the truth is told.
    problem(&gateway.post("/api/call", &json!({"socketId": id, "event": "x"})).await, 410, "socket_gone");
    // And where nobody else is, too.
    other.leaves().await;
    let answer = gateway.post("/api/sync/orders", &json!({"socketId": id})).await;
    problem(&answer, 410, "socket_gone");
}

#[tokio::test]
async fn the_socket_that_spoke_last_is_asked() {
    let gateway = Gateway::start().await;
    let mut first = gateway.greeted("/ws?store_id=s").await;
    let mut second = gateway.greeted("/ws?store_id=s").await;
    for nth in 0..4 {
        let speaker = if nth % 2 == 0 { &mut first } else { &mut second };
        // The clock that stamps them counts milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        speaker.asks(r#"{"type":"getSocketId"}"#).await;
        let id = speaker.id.clone();
        let asked = json!({"storeId": "s", "event": "x"});
        let (answer, _) = tokio::join!(gateway.post("/api/call", &asked), answers(speaker, json!(nth)));
        assert_eq!(answer.json()["socketId"], json!(id));
    }
}

#[tokio::test]
async fn the_deadline_passes_and_the_client_is_told_to_stop() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 150});
    let (answer, call) = tokio::join!(gateway.post("/api/call", &asked), client.hears());
    let body = problem(&answer, 504, "no_reply");
    assert_eq!(body["delivered"], true);
    assert_eq!(client.hears().await, json!({"type": "cancel", "callId": call["callId"]}));
    // Too late: counted, and nobody is told.
    client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    client.asks(r#"{"type":"getSocketId"}"#).await;
    assert_eq!(gateway.metric("holdfast_replies_late_total").await, 1.0);
    assert_eq!(gateway.metric("holdfast_reply_for_unknown_call_total").await, 0.0);
}

#[tokio::test]
async fn a_caller_that_hangs_up_withdraws_its_call() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    let mut raw = gateway.raw().await;
    let request = gateway.post("/api/call", &json!({"socketId": client.id, "event": "x"}));
    raw.write(&request.bytes()).await;
    let call = client.hears().await;
    drop(raw);
    assert_eq!(client.hears().await, json!({"type": "cancel", "callId": call["callId"]}));
}

#[tokio::test]
async fn a_socket_that_ends_during_its_call_is_told_at_once() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?store_id=s").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 60_000});
    let leaves = async {
        client.hears().await;
        client.leaves().await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/api/call", &asked), leaves);
    let body = problem(&answer, 502, "socket_lost");
    assert_eq!((&body["delivered"], &body["verdict"]["cause"]), (&json!(true), &json!("client_closed")));
}

#[tokio::test]
async fn a_client_cannot_answer_a_call_that_was_not_sent_to_it() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    let mut thief = gateway.greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x"});
    let play = async {
        let call = client.hears().await;
        let reply = |data: &str| json!({"type": "reply", "callId": call["callId"], "data": data}).to_string();
        thief.says(reply("stolen")).await;
        thief.asks(r#"{"type":"getSocketId"}"#).await;
        client.says(reply("mine")).await;
        client.says(reply("twice")).await;
        client.asks(r#"{"type":"getSocketId"}"#).await;
    };
    let (answer, ()) = tokio::join!(gateway.post("/api/call", &asked), play);
    assert_eq!(answer.json()["result"], "mine");
    assert_eq!(gateway.metric("holdfast_reply_for_unknown_call_total").await, 1.0, "the thief");
    assert_eq!(gateway.metric("holdfast_replies_late_total").await, 1.0, "its second");
    for nonsense in [r#"{"type":"reply","callId":"c_1"}"#, r#"{"type":"progress","callId":""}"#] {
        client.says(nonsense).await;
    }
    client.asks(r#"{"type":"getSocketId"}"#).await;
    assert_eq!(gateway.metric("holdfast_reply_for_unknown_call_total").await, 3.0);
    let error: Value = serde_json::from_str(&client.asks(r#"{"type":"reply"}"#).await).unwrap();
    assert_eq!(error["code"], "invalid");
}

#[tokio::test]
async fn answers_to_calls_are_not_counted_as_frames() {
    let gateway = Gateway::with([("RATE_MESSAGES", "5/s")]).await;
    let mut client = gateway.greeted("/ws").await;
    for nth in 0..20 {
        let asked = json!({"socketId": client.id, "event": "x"});
        let (answer, _) = tokio::join!(gateway.post("/api/call", &asked), answers(&mut client, json!(nth)));
        assert_eq!(answer.json()["result"], json!(nth), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_full_queue_is_429_and_nothing_is_written() {
    let gateway = Gateway::with([("MAX_QUEUE_BYTES", "2KiB"), ("WS_PING_TIMEOUT", "60s")]).await;
    let (_slow, id) = gateway.lazy("/ws").await;
    let asked = json!({"socketId": id, "event": "x", "data": "y".repeat(4096), "timeoutMs": 200});
    // The kernel may take a little more in between.
    let answer = eventually("it is busy", async || {
        gateway.fills(&id).await;
        Some(gateway.post("/api/call", &asked).await).filter(|answer| answer.status != 504)
    })
    .await;
    problem(&answer, 429, "socket_busy");
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_told_where() {
    let gateway = Gateway::start().await;
    for (body, pointer) in [
        (json!({"event": "x"}), ""),
        (json!({"socketId": "a", "userId": "u", "event": "x"}), ""),
        (json!({"socketId": "a", "to": {"storeId": "s"}, "event": "x"}), ""),
        (json!({"to": {"socketId": "a", "storeId": "s"}, "event": "x"}), ""),
        (json!({"to": {}, "event": "x"}), ""),
        (json!({"socketId": null, "to": null, "event": "x"}), ""),
        (json!({"to": "ws_123", "event": "x"}), "/to"),
        (json!({"socketId": 7, "event": "x"}), "/socketId"),
        (json!({"userId": "", "event": "x"}), "/userId"),
        (json!({"user_id": "u", "userId": "u", "event": "x"}), "/user_id"),
        (json!({"socketId": "a"}), "/event"),
        (json!({"socketId": "a", "event": ""}), "/event"),
        (json!({"socketId": "a", "event": 3}), "/event"),
        (json!({"socketId": "a", "event": "x", "extra": 1}), "/extra"),
        (json!({"socketId": "a", "event": "x", "fallback": "room"}), "/fallback"),
        (json!({"to": {"roomId": "r"}, "event": "x"}), "/to/roomId"),
        (json!({"socketId": "a", "event": "x", "whenOffline": "hope"}), "/whenOffline"),
    ] {
        let answer = gateway.post("/api/call", &body).await;
        let problem = answer.refuses(422, "Invalid body");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    for body in [json!({}), json!({"orders": [1]}), json!({"storeId": ""}), json!({"socketId": 1, "storeId": "s"})] {
        gateway.post("/api/sync/orders", &body).await.refuses(422, "Invalid body");
    }
    for path in ["/api/call", "/api/sync/orders"] {
        for body in ["[]", "[{}]", "null", "7", "\"x\"", r#"{"storeId":"s","storeId":"t"}"#] {
            gateway.posts(path, body).await.refuses(422, "Invalid body");
        }
        for body in ["", "{", "storeId=s", "{'storeId':'s'}"] {
            gateway.posts(path, body).await.refuses(400, "Unreadable JSON");
        }
    }
}

/// One sentence for who reads only that, and for a program each fault with its place.
#[tokio::test]
async fn a_body_that_does_not_fit_is_told_in_one_sentence() {
    let gateway = Gateway::start().await;
    let known = "it is not known here; known are socketId, userId, storeId";
    let (to, strange) =
        (format!("to.roomId: {known}"), format!("a/b~c: {known}, to, event, data, fallback, whenOffline, timeoutMs"));
    for (path, body, detail) in [
        ("/api/call", "", "nothing was sent, and JSON is wanted"),
        ("/api/call", " \n", "nothing was sent, and JSON is wanted"),
        ("/api/call", "{", "not JSON: it ends in the middle of an object at line 1 column 1"),
        ("/api/call", "[]", "a JSON object is wanted"),
        ("/api/call", "{}", "event: it is required; a target is wanted: socketId, userId or storeId"),
        ("/api/call", r#"{"to":{"roomId":"r"},"event":"x"}"#, &to),
        ("/api/call", r#"{"userId":"u","event":"x","a/b~c":1}"#, &strange),
        (
            "/api/call",
            r#"{"user_id":"u","userId":"u","event":"x"}"#,
            "user_id: it stands there in both spellings; keep one",
        ),
        ("/api/call", r#"{"userId":"u","userId":"u","event":"x"}"#, "userId: \"userId\" stands there twice; keep one"),
        (
            "/api/call",
            r#"{"userId":" ","event":"","timeoutMs":0,"fallback":"room"}"#,
            "userId: it is empty; fallback: none, store or user is wanted; \
             timeoutMs: a whole number from 1 to 600000 is wanted; and 1 more",
        ),
        (
            "/api/call",
            r#"{"userId":"u","storeId":"s","event":"x"}"#,
            "one target is wanted, not several: keep one of socketId, userId and storeId",
        ),
        ("/api/sync/orders", "{}", "a target is wanted: socketId or storeId"),
        ("/api/sync/orders", r#"{"storeId":3}"#, "storeId: a text is wanted"),
        ("/api/sync/orders", r#"{"storeId":"null"}"#, "storeId: it is a placeholder that was never filled in"),
        ("/api/sync/or%20ders", "{}", "\"or ders\" is no kind"),
    ] {
        let answer = gateway.posts(path, body).await;
        answer.is_problem();
        assert_eq!(answer.json()["detail"], detail, "{body}");
    }
}

#[tokio::test]
async fn a_time_to_wait_is_a_whole_number_of_milliseconds_up_to_ten_minutes() {
    let gateway = Gateway::start().await;
    for (path, event) in [("/api/call", r#","event":"x""#), ("/api/sync/orders", "")] {
        let asks = |ms: &str| gateway.posts(path, format!(r#"{{"storeId":"nobody","timeoutMs":{ms}{event}}}"#));
        for ms in
            ["0", "-1", "600001", "86400000000", "99999999999999999999", "1.5", "1e3", "\"1000\"", "\"1s\"", "true"]
        {
            assert_eq!(asks(ms).await.pointers(), ["/timeoutMs"], "{path} {ms}");
        }
        for ms in ["1000", "600000", "null"] {
            problem(&asks(ms).await, 404, "no_live_socket");
        }
    }
}
