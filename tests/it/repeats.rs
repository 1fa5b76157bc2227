//! Repeats: a request with an Idempotency-Key is acted upon once, whichever instance it comes to again.

use crate::{client::Client, fleet::Fleet, gateway::Gateway, http::Answer, patience::eventually};
use serde_json::{Value, json};

const KEY: &str = "Idempotency-Key";

async fn answers(client: &mut Client, result: Value) {
    let call = client.hears().await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": result}).to_string()).await;
}

/// The first outcome, told again.
fn repeats(again: &Answer, first: &Answer) {
    assert_eq!((again.status, again.text()), (first.status, first.text()));
    assert_eq!(again.header("Content-Type"), first.header("Content-Type"));
    assert_eq!((again.header("Idempotency-Replayed"), first.header("Idempotency-Replayed")), (Some("true"), None));
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{}", answer.text());
    answer.is_problem();
}

#[tokio::test]
async fn a_repeated_call_gets_the_first_answer() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let asked = json!({"userId": "u", "event": "x", "timeoutMs": 20_000});
    let call = || gateway.post("/api/call", &asked).with(KEY, "k 1");
    let (first, ()) = tokio::join!(call(), answers(&mut client, json!([1])));
    assert_eq!((first.status, &first.json()["result"]), (200, &json!([1])), "{}", first.text());
    repeats(&call().await, &first);
    let other = json!({"userId": "u", "event": "y", "timeoutMs": 20_000});
    refused(&gateway.post("/api/call", &other).with(KEY, "k 1").await, 409, "idempotency_key_reused");
    // Another route, and another caller, mean another request.
    let (synced, ()) =
        tokio::join!(call().with("Authorization", "Bearer somebody"), answers(&mut client, json!("another")),);
    assert_eq!((synced.status, &synced.json()["result"]), (200, &json!("another")), "{}", synced.text());
    client.heard_all().await;
}

#[tokio::test]
async fn the_same_call_at_two_instances_at_once_asks_the_client_once() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet.gateway(0).greeted("/ws?user_id=u").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 20_000});
    let call = |at: usize| fleet.gateway(at).post("/api/call", &asked).with(KEY, "k");
    let (one, two, ()) = tokio::join!(call(1), call(2), answers(&mut client, json!("once")));
    let (first, again) = if one.header("Idempotency-Replayed").is_none() { (&one, &two) } else { (&two, &one) };
    assert_eq!((first.status, &first.json()["result"]), (200, &json!("once")), "{}", first.text());
    repeats(again, first);
    for at in 0..3 {
        repeats(&call(at).await, first);
    }
    client.heard_all().await;
}

/// Its last event is what came of it; who comes again gets that, in the form that they ask for.
#[tokio::test]
async fn a_stream_goes_on_without_its_caller_and_its_end_is_kept() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let asked = json!({"userId": "u", "event": "x", "timeoutMs": 20_000});
    let call = |key: &str| gateway.post("/api/call", &asked).with(KEY, key);
    let mut first = call("k").streams().await;
    let asks = client.hears().await;
    client.says(json!({"type": "progress", "callId": asks["callId"], "data": 1}).to_string()).await;
    first.hears("accepted").await;
    assert_eq!(first.hears("progress").await, 1);
    assert_eq!(first.answer.header("Idempotency-Replayed"), None);
    drop(first);
    client.asks(r#"{"type":"getSocketId"}"#).await;
    client.says(json!({"type": "reply", "callId": asks["callId"], "data": "end"}).to_string()).await;
    let plain = call("k").await;
    assert_eq!((plain.status, &plain.json()["result"]), (200, &json!("end")), "{}", plain.text());
    let mut again = call("k").streams().await;
    assert_eq!(again.answer.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(again.hears("result").await, plain.json());
    again.ends().await;

    // The other way round, and an end that is none to be glad of.
    let fails = async {
        let asks = client.hears().await;
        client.says(json!({"type": "failed", "callId": asks["callId"], "error": "no"}).to_string()).await;
    };
    let (first, ()) = tokio::join!(call("another"), fails);
    refused(&first, 409, "call_failed");
    let mut again = call("another").streams().await;
    assert_eq!(again.hears("error").await, first.json());
    again.ends().await;
    let problem = call("another").with("Accept", "application/problem+json").await;
    assert_eq!((problem.header("Content-Type"), problem.json()), (Some("application/problem+json"), first.json()));
    client.heard_all().await;
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_repeated_send_is_delivered_once() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let sent = json!({"userId": "u", "data": 1});
    let send = || gateway.post("/api/send", &sent).with(KEY, "k");
    let first = send().await;
    assert_eq!((first.status, &first.json()["status"]), (200, &json!("delivered")), "{}", first.text());
    repeats(&send().await, &first);
    assert_eq!(client.hears().await["data"], json!(1));
    client.heard_all().await;
}

#[tokio::test]
async fn a_refusal_is_not_kept() {
    let gateway = Gateway::start().await;
    let asked = json!({"userId": "u", "event": "x", "timeoutMs": 20_000});
    let call = || gateway.post("/api/call", &asked).with(KEY, "k");
    refused(&call().await, 404, "no_live_socket");
    let unfit = gateway.post("/api/call", &json!({"userId": 3})).with(KEY, "k").await;
    assert_eq!(unfit.status, 422, "{}", unfit.text());
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let (answer, ()) = tokio::join!(call(), answers(&mut client, json!(7)));
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(7)), "{}", answer.text());
    assert_eq!(answer.header("Idempotency-Replayed"), None);
}

#[tokio::test]
async fn an_odd_key_is_refused() {
    let gateway = Gateway::start().await;
    let sent = json!({"userId": "u", "data": 1});
    for odd in ["", "\u{e9}", &"k".repeat(256), &"k".repeat(1024)] {
        refused(&gateway.post("/api/send", &sent).with(KEY, odd).await, 400, "invalid_idempotency_key");
    }
    refused(&gateway.post("/api/send", &sent).with(KEY, "a").with(KEY, "b").await, 400, "invalid_idempotency_key");
    let longest = gateway.post("/api/send", &sent).with(KEY, &"~".repeat(255)).await;
    assert_eq!(longest.status, 200, "{}", longest.text());
}

/// Who took the call on died with it: nobody can say what came of it, and the client is not asked again.
#[tokio::test]
async fn a_call_whose_asker_was_killed_is_not_made_again() {
    let mut fleet = Fleet::with(&[]).await;
    let mut client = fleet.gateway(0).greeted("/ws?user_id=u").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 3000});
    let call = fleet.gateway(1).post("/api/call", &asked).with(KEY, "k");
    let calling = tokio::spawn(async move { call.await });
    assert_eq!(client.hears().await["type"], json!("x"));
    calling.abort();
    fleet.kill(1);
    let (first, again) = (fleet.gateway(2).post("/api/call", &asked), fleet.gateway(0).post("/api/call", &asked));
    let waited = first.with(KEY, "k").await;
    assert_eq!((waited.status, &waited.json()["delivered"]), (504, &json!("unknown")), "{}", waited.text());
    let lost = eventually("the first is known to be lost", async || {
        let answer = fleet.gateway(2).post("/api/call", &asked).with(KEY, "k").await;
        (answer.status != 504).then_some(answer)
    })
    .await;
    assert_eq!(
        (lost.status, &lost.json()["code"], &lost.json()["delivered"]),
        (502, &json!("owner_lost"), &json!("unknown")),
        "{}",
        lost.text()
    );
    assert_eq!(again.with(KEY, "k").await.text(), lost.text());
    client.heard_all().await;
}
