//! Streams: what happens on the way of a call, and all that a user answers to a message.

use crate::{
    client::Client,
    fleet::Fleet,
    gateway::Gateway,
    patience::{eventually, soon},
    raw::Raw,
    stream::Stream,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Server;
use std::time::{Duration, Instant};

fn frame(kind: &str, call: &Value, data: impl Into<Value>) -> String {
    json!({"type": kind, "callId": call["callId"], "data": data.into()}).to_string()
}

async fn progresses(client: &mut Client, call: &Value, count: usize) {
    for n in 0..count {
        client.says(frame("progress", call, json!(n))).await;
    }
}

async fn fleet() -> (Server, Fleet) {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[]).await;
    (server, fleet)
}

#[tokio::test]
async fn a_call_tells_what_happens_on_its_way() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let mut client = gateway.greeted("/ws?store_id=s").await;
    for (path, verb) in [("/api/call", "weigh"), ("/api/sync/orders", "sync_orders")] {
        let mut asked = json!({"storeId": "s", "timeoutMs": 20_000});
        if verb == "weigh" {
            asked["event"] = verb.into();
        }
        let mut stream = gateway.post(path, &asked).streams().await;
        let call = client.hears().await;
        assert_eq!(call["type"], verb);
        let accepted = stream.hears("accepted").await;
        assert_eq!(accepted, json!({"callId": call["callId"], "socketId": client.id, "instance": "web1"}));
        for n in [json!(1), json!({"a": "\n\n\r"}), json!(null)] {
            client.says(frame("progress", &call, n.clone())).await;
            assert_eq!(stream.hears("progress").await, n);
        }
        client.says(frame("reply", &call, json!("done"))).await;
        let result = stream.hears("result").await;
        assert_eq!((&result["status"], &result["result"]), (&json!("replied"), &json!("done")), "{result}");
        stream.ends().await;
    }
    gateway.is_unharmed().await;
}

/// What would have been the body of another status is the last event, as it would have been.
#[tokio::test]
async fn what_goes_wrong_on_the_way_is_the_last_event() {
    let gateway = Gateway::start().await;
    let mut nobody = gateway.post("/api/call", &json!({"socketId": "ws_123", "event": "x"})).streams().await;
    let error = nobody.hears("error").await;
    assert_eq!((&error["status"], &error["code"]), (&json!(404), &json!("socket_never_seen")));
    assert_eq!(error["requestId"].as_str(), nobody.answer.header("X-Request-Id"));
    nobody.ends().await;

    let mut client = gateway.greeted("/ws?user_id=u").await;
    let asked = json!({"userId": "u", "event": "x", "timeoutMs": 20_000});
    let mut stream = gateway.post("/api/call", &asked).streams().await;
    let call = client.hears().await;
    client.says(json!({"type": "failed", "callId": call["callId"], "error": "no"}).to_string()).await;
    stream.hears("accepted").await;
    let error = stream.hears("error").await;
    assert_eq!((&error["status"], &error["failure"]), (&json!(409), &json!("no")));
    stream.ends().await;

    let short = json!({"userId": "u", "event": "x", "timeoutMs": 100});
    let mut stream = gateway.post("/api/call", &short).streams().await;
    stream.hears("accepted").await;
    let error = stream.hears("error").await;
    assert_eq!((&error["code"], &error["delivered"]), (&json!("no_reply"), &json!(true)));
    stream.ends().await;

    let mut stream = gateway.post("/api/call", &asked).streams().await;
    stream.hears("accepted").await;
    client.leaves().await;
    let error = stream.hears("error").await;
    assert_eq!((&error["code"], &error["verdict"]["cause"]), (&json!("socket_lost"), &json!("client_closed")));
    stream.ends().await;
}

#[tokio::test]
async fn a_request_that_is_no_good_is_answered_plainly() {
    let gateway = Gateway::with([("API_TOKEN", "t")]).await;
    let asks = |body: &str| {
        let request = gateway.posts("/api/call", body).with("Accept", "text/event-stream");
        request.with("Authorization", "Bearer t")
    };
    assert_eq!(asks("no").await.status, 400);
    assert_eq!(asks("{}").await.status, 422);
    assert_eq!(asks("{}").without("Authorization").await.status, 401);
    let sends = gateway.posts("/sse/send", "{}").with("Authorization", "Bearer t");
    assert_eq!(sends.await.pointers(), ["/data", "/user_id"]);
}

#[tokio::test]
async fn who_hangs_up_withdraws_the_call() {
    let (_server, fleet) = fleet().await;
    let mut client = fleet[0].greeted("/ws?user_id=u").await;
    for asker in [0, 1] {
        for (path, asked) in [
            ("/api/call", json!({"userId": "u", "event": "x", "timeoutMs": 60_000})),
            ("/sse/send", json!({"user_id": "u", "data": 1})),
        ] {
            let stream = fleet[asker].post(path, &asked).streams().await;
            let call = client.hears().await;
            client.says(frame("progress", &call, json!(1))).await;
            drop(stream);
            assert_eq!(client.hears().await, json!({"type": "cancel", "callId": call["callId"]}), "{asker} {path}");
        }
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn progress_comes_in_order_from_each_instance() {
    let (_server, fleet) = fleet().await;
    let mut client = fleet[0].greeted("/ws").await;
    for asker in 0..3 {
        let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 20_000});
        let mut stream = fleet[asker].post("/api/call", &asked).streams().await;
        let call = client.hears().await;
        progresses(&mut client, &call, 20).await;
        client.says(frame("reply", &call, json!("end"))).await;
        assert_eq!(stream.hears("accepted").await["instance"], "web1");
        for n in 0..20 {
            assert_eq!(stream.hears("progress").await, n);
        }
        assert_eq!(stream.hears("result").await["result"], "end");
        stream.ends().await;
    }
    fleet.is_sound().await;
}

/// Whoever does not read loses progress, which is counted, and never the end.
#[tokio::test]
async fn a_slow_reader_loses_progress_and_never_the_end() {
    let gateway = Gateway::with([("MAX_MESSAGE_BYTES", "1MiB")]).await;
    let mut client = gateway.greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 60_000});
    let mut raw = Raw::connect_narrow(gateway.address()).await;
    raw.write(&gateway.post("/api/call", &asked).with("Accept", "text/event-stream").bytes()).await;
    let call = client.hears().await;
    let padding = "x".repeat(100_000);
    let mut said = 0;
    eventually("progress is dropped", async || {
        client.says(frame("progress", &call, json!([said, padding]))).await;
        said += 1;
        (gateway.metric("holdfast_progress_dropped_total").await > 10.0).then_some(())
    })
    .await;
    client.says(frame("reply", &call, json!("end"))).await;
    client.heard_all().await;
    let mut stream = Stream::over(raw).await;
    stream.hears("accepted").await;
    let (mut heard, mut last) = (0, None);
    let end = loop {
        let event = stream.event().await.unwrap();
        if event.name == "result" {
            break event.data;
        }
        let n = event.data[0].as_u64();
        assert!(n > last, "{n:?} after {last:?}");
        (last, heard) = (n, heard + 1);
    };
    assert_eq!(end["result"], "end");
    assert!(heard < said, "{heard} of {said}");
    stream.ends().await;
    gateway.is_unharmed().await;
}

/// Who looks at the feed and falls behind is told how much it did not see, at the place where it would have been.
#[tokio::test]
async fn a_slow_reader_of_the_feed_is_told_what_it_missed() {
    let gateway = Gateway::start().await;
    let mut reader = Raw::connect_narrow(gateway.address()).await;
    reader.write(&gateway.get("/api/events?scope=local").bytes()).await;
    let mut feed = Stream::over(reader).await;
    let mut raw = gateway.raw().await;
    let padding = "x".repeat(8000);
    // The kernel takes some megabytes before anything waits.
    for n in 0..2500 {
        let asked = json!({"userId": "nobody", "event": format!("{n} {padding}")});
        raw.write(&gateway.post("/api/call", &asked).but("Connection", "keep-alive").bytes()).await;
        assert_eq!(raw.answer().await.status, 404);
    }
    let (mut next, mut missed) = (0, 0);
    while next < 2500 {
        let event = feed.event().await.unwrap();
        match event.name.as_str() {
            "call" => {
                let seen = event.data["event"].as_str().and_then(|event| event.split(' ').next()?.parse::<u64>().ok());
                assert_eq!(seen, Some(next));
                next += 1;
            }
            "missed" => {
                let count = event.data["count"].as_u64().unwrap();
                assert!(count > 0, "{}", event.data);
                (next, missed) = (next + count, missed + count);
            }
            other => panic!("{other}: {}", event.data),
        }
    }
    assert!(missed > 0, "it kept up");
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn the_death_of_the_owner_ends_a_stream() {
    let (_server, mut fleet) = fleet().await;
    let mut client = fleet[0].greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 60_000});
    let mut stream = fleet[1].post("/api/call", &asked).streams().await;
    let call = client.hears().await;
    client.says(frame("progress", &call, json!(1))).await;
    stream.hears("accepted").await;
    stream.hears("progress").await;
    let killed = Instant::now();
    fleet.kill(0);
    let error = stream.hears("error").await;
    assert_eq!((&error["code"], &error["delivered"]), (&json!("owner_lost"), &json!(true)));
    assert!(killed.elapsed() < Duration::from_secs(6), "{:?}", killed.elapsed());
    stream.ends().await;
    fleet.is_sound().await;
}

/// Those in flight may end; what does not end in the time is cut, and says so.
#[tokio::test]
async fn a_drain_waits_for_streams_and_then_ends_them() {
    let mut gateway = Gateway::with([("DRAIN_TIMEOUT", "6s")]).await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let asked = json!({"userId": "u", "event": "x", "timeoutMs": 60_000});
    let mut ending = gateway.post("/api/call", &asked).streams().await;
    let first = client.hears().await;
    let mut endless = gateway.post("/api/call", &asked).streams().await;
    let second = client.hears().await;
    gateway.signal(Signal::TERM);
    gateway.logs(&["asked to stop"]).await;
    for n in 0..3 {
        client.says(frame("progress", &first, json!(n))).await;
        client.says(frame("progress", &second, json!(n))).await;
    }
    client.says(frame("reply", &first, json!("end"))).await;
    ending.hears("accepted").await;
    for n in 0..3 {
        assert_eq!(ending.hears("progress").await, n);
    }
    ending.hears("result").await;
    ending.ends().await;
    endless.hears("accepted").await;
    let error = loop {
        let event = endless.event().await.unwrap();
        if event.name == "error" {
            break event.data;
        }
    };
    assert_eq!((&error["code"], &error["delivered"]), (&json!("socket_lost"), &json!(true)), "{error}");
    endless.ends().await;
    assert_eq!(gateway.exits().await, 0);
}

/// A message whose answers come in pieces, in the words of whichever client it is.
#[tokio::test]
async fn all_that_a_user_answers_comes_as_messages() {
    let (_server, fleet) = fleet().await;
    let mut client = fleet[0].greeted("/ws?user_id=u").await;
    for asker in [0, 1] {
        let pushed = json!({"user_id": "u", "data": {"q": 1}, "event_type": "question"});
        for last in [
            json!({"type": "reply", "data": "end"}),
            json!({"type": "final_response", "data": "end"}),
            json!({"is_final": true, "data": "end"}),
        ] {
            let sending = fleet[asker].post("/sse/send", &pushed).streams();
            let answering = async {
                let asked = client.hears().await;
                let id = asked["callId"].clone();
                assert_eq!(asked, json!({"type": "question", "data": {"q": 1}, "callId": id, "correlation_id": id}));
                client.says(json!({"type": "progress", "callId": id, "data": 1}).to_string()).await;
                client.says(json!({"correlation_id": id, "content": "a"}).to_string()).await;
                client.says(json!({"type": "chunk", "correlation_id": id, "data": [2]}).to_string()).await;
                let mut end = last.clone();
                end["correlation_id"] = id.clone();
                client.says(end.to_string()).await;
                id
            };
            let (mut stream, id) = tokio::join!(sending, answering);
            assert_eq!(stream.hears("message").await, 1);
            assert_eq!(stream.hears("message").await, json!({"correlation_id": id, "content": "a"}));
            assert_eq!(stream.hears("message").await, json!([2]));
            assert_eq!(stream.hears("message").await, "end");
            stream.ends().await;
        }
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_message_that_nobody_gets_is_answered_plainly() {
    let gateway = Gateway::start().await;
    let answer = gateway.post("/sse/send", &json!({"user_id": "u", "data": 1})).await;
    assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("no_live_socket")), "{}", answer.text());
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let mut stream = gateway.post("/sse/send", &json!({"user_id": "u", "data": 1})).streams().await;
    let call = client.hears().await;
    client.says(json!({"type": "failed", "callId": call["callId"], "error": {"n": 1}}).to_string()).await;
    let error = stream.hears("error").await;
    assert_eq!((&error["code"], &error["failure"]), (&json!("call_failed"), &json!({"n": 1})));
    stream.ends().await;
}

/// The caller is told when a pause was too long, and the client that nobody listens any more.
#[tokio::test]
async fn thirty_seconds_of_silence_end_the_answers() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let began = Instant::now();
    let mut stream = gateway.post("/sse/send", &json!({"user_id": "u", "data": 1})).streams().await;
    let call = client.hears().await;
    client.says(frame("progress", &call, json!(1))).await;
    assert_eq!(stream.hears("message").await, 1);
    // Within every 20 s there is at least a comment, or this fails.
    let error = stream.hears("error").await;
    assert_eq!((&error["code"], &error["delivered"]), (&json!("no_reply"), &json!(true)));
    assert!(began.elapsed() >= Duration::from_secs(30));
    stream.ends().await;
    assert_eq!(client.hears().await["type"], "cancel");
}

/// HTTP/1.0 knows no chunks: the stream is the rest of the connection.
#[tokio::test]
async fn an_old_caller_gets_its_stream_too() {
    let gateway = Gateway::with([("API_TOKEN", "t")]).await;
    let mut client = gateway.greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 20_000});
    let request =
        gateway.post("/api/call", &asked).with("Accept", "text/event-stream").with("Authorization", "Bearer t");
    let bytes = String::from_utf8(request.bytes()).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut raw = gateway.raw().await;
    raw.write(bytes.as_bytes()).await;
    let call = client.hears().await;
    client.says(frame("reply", &call, json!(1))).await;
    let answer = soon("the stream ends", raw.answer()).await;
    let text = answer.text();
    assert!(text.starts_with("event: accepted\ndata: {") && text.contains("event: result\ndata: {"), "{text}");
}

/// A second request behind a stream waits for its end, however long that takes.
#[tokio::test]
async fn a_request_behind_a_stream_is_answered_after_it() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 20_000});
    let first = gateway.post("/api/call", &asked).with("Accept", "text/event-stream").without("Connection");
    let mut raw = gateway.raw().await;
    raw.write(&first.bytes()).await;
    let call = client.hears().await;
    let second = gateway.get("/health").bytes();
    raw.write(&second[..20]).await;
    // Longer than a head may take.
    let waits = async { tokio::time::sleep(Duration::from_secs(6)).await };
    client.stays_while(waits).await;
    client.says(frame("reply", &call, json!(1))).await;
    let answer = raw.answer().await;
    assert!(answer.text().contains("event: result"), "{}", answer.text());
    raw.write(&second[20..]).await;
    assert_eq!(raw.answer().await.status, 200);
}
