//! Repeats: a request with an Idempotency-Key is acted upon once, whichever instance it comes to again.

use crate::{client::Client, comebacks::Page, fleet::Fleet, gateway::Gateway, http::Answer, patience::eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{future::IntoFuture, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

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

/// A call that web2 asks, in the hands of its client at web1.
async fn asked_by_web2(
    timeout_ms: u64,
    settings: &[(&str, &str)],
) -> (Fleet, Client, Value, Value, JoinHandle<Answer>) {
    let fleet = Fleet::with(settings).await;
    let mut client = fleet.gateway(0).greeted("/ws?user_id=u&store_id=s").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": timeout_ms});
    let call = fleet.gateway(1).post("/api/call", &asked).with(KEY, "k").with("X-Request-Id", "first");
    let calling = tokio::spawn(async move { call.await });
    let call = client.hears().await;
    assert_eq!(call["type"], json!("x"));
    (fleet, client, asked, call, calling)
}

async fn killed_asker(timeout_ms: u64) -> (Fleet, Client, Value, Value) {
    let (mut fleet, client, asked, call, calling) = asked_by_web2(timeout_ms, &[]).await;
    calling.abort();
    fleet.kill(1);
    (fleet, client, asked, call)
}

/// The first caller is told that its instance ended, which is not what came of the call.
#[tokio::test]
async fn a_reply_behind_the_end_of_its_asker_is_what_a_repeat_gets() {
    let (mut fleet, mut client, asked, call, calling) = asked_by_web2(60_000, &[("DRAIN_TIMEOUT", "3s")]).await;
    fleet.gateway(1).signal(Signal::TERM);
    refused(&calling.await.unwrap(), 502, "instance_ended");
    fleet.ends(1).await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": {"kg": 7}}).to_string()).await;
    let again = fleet.gateway(2).post("/api/call", &asked).with(KEY, "k").await;
    assert_eq!((again.status, &again.json()["result"]), (200, &json!({"kg": 7})), "{}", again.text());
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    client.heard_all().await;
    fleet.is_sound().await;
}

/// Where the socket was held by the same instance, nobody else knows of the call, although its client comes back.
#[tokio::test]
async fn of_a_call_that_ended_with_asker_and_owner_a_repeat_hears_so_at_once() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "3s")]).await;
    let mut page = Page::opens(&fleet[1], "user_id=u").await;
    let asked = json!({"socketId": page.id(), "event": "x", "timeoutMs": 60_000});
    let calling = tokio::spawn(fleet[1].post("/api/call", &asked).with(KEY, "k").into_future());
    let call = page.client.hears().await;
    assert_eq!(call["type"], json!("x"));
    fleet[1].signal(Signal::TERM);
    let first = calling.await.unwrap();
    refused(&first, 502, "owner_lost");
    assert_eq!(first.json()["delivered"], json!(true));
    fleet.ends(1).await;
    let mut back = Page::comes(&fleet[0], "user_id=u", page.token(), 0).await;
    assert_eq!(back.id(), page.id());
    back.client.says(json!({"type": "reply", "callId": call["callId"], "data": 7}).to_string()).await;
    repeats(&fleet[2].post("/api/call", &asked).with(KEY, "k").await, &first);
    fleet.is_sound().await;
}

/// Whoever holds the socket says it instead, as the asker would have.
#[tokio::test]
async fn a_reply_to_an_asker_that_was_killed_is_what_a_repeat_gets() {
    let (fleet, mut client, asked, call) = killed_asker(60_000).await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": {"kg": 7}}).to_string()).await;
    let again = fleet.gateway(2).post("/api/call", &asked).with(KEY, "k").await;
    let body = again.json();
    assert_eq!((again.status, &body["result"]), (200, &json!({"kg": 7})), "{body}");
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(
        (&body["status"], &body["callId"], &body["socketId"], &body["instance"], &body["hop"], &body["fallback"]),
        (&json!("replied"), &call["callId"], &json!(client.id), &json!("web1"), &json!("remote"), &json!(false))
    );
    assert_eq!(body.as_object().unwrap().len(), 8, "{body}");
    assert_eq!(fleet.gateway(0).post("/api/call", &asked).with(KEY, "k").await.text(), again.text());
    client.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_failure_or_an_end_that_its_asker_does_not_hear_is_what_a_repeat_gets() {
    let (fleet, mut client, asked, call) = killed_asker(60_000).await;
    client.says(json!({"type": "failed", "callId": call["callId"], "error": "no rights"}).to_string()).await;
    let again = fleet.gateway(2).post("/api/call", &asked).with(KEY, "k").await;
    refused_before(&again, 409, "call_failed");
    assert_eq!((&again.json()["failure"], &again.json()["callId"]), (&json!("no rights"), &call["callId"]));
    client.heard_all().await;
    fleet.is_sound().await;

    let (fleet, client, asked, call) = killed_asker(60_000).await;
    client.leaves().await;
    let again = fleet.gateway(2).post("/api/call", &asked).with(KEY, "k").await;
    refused_before(&again, 502, "socket_lost");
    let body = again.json();
    assert_eq!((&body["delivered"], &body["verdict"]["cause"]), (&json!(true), &json!("client_closed")), "{body}");
    assert!(body["verdict"]["storeSockets"].is_u64() && body["callId"] == call["callId"], "{body}");
    fleet.is_sound().await;
}

/// A problem that somebody else was the first to be told.
fn refused_before(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"], &body["requestId"]), (status, &json!(code), &json!("first")), "{body}");
    assert_eq!(answer.header("Idempotency-Replayed"), Some("true"));
}

/// The owner of the socket knows that its client has the call, and that the time is over.
#[tokio::test]
async fn silence_after_the_death_of_the_asker_is_told_when_the_time_is_over() {
    let (fleet, mut client, asked, call) = killed_asker(3000).await;
    let again = async |at: usize| fleet.gateway(at).post("/api/call", &asked).with(KEY, "k").await;
    let told = eventually("the time of the first is over", async || {
        let answer = again(2).await;
        answer.header("Idempotency-Replayed").is_some().then_some(answer)
    })
    .await;
    refused_before(&told, 504, "no_reply");
    assert_eq!((&told.json()["delivered"], &told.json()["callId"]), (&json!(true), &call["callId"]));
    assert_eq!(again(0).await.text(), told.text());
    assert_eq!(client.hears().await, json!({"type": "cancel", "callId": call["callId"]}));
    client.heard_all().await;
    fleet.is_sound().await;
}

/// Where asker and owner are one, nobody is left who knows, and the call is not made again.
#[tokio::test]
async fn a_call_that_died_with_its_owner_is_not_made_again() {
    let mut fleet = Fleet::with(&[]).await;
    let mut client = fleet.gateway(1).greeted("/ws?user_id=u").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 2000});
    let call = fleet.gateway(1).post("/api/call", &asked).with(KEY, "k");
    let calling = tokio::spawn(async move { call.await });
    assert_eq!(client.hears().await["type"], json!("x"));
    calling.abort();
    fleet.kill(1);
    let waited = fleet.gateway(2).post("/api/call", &asked).with(KEY, "k").await;
    refused(&waited, 504, "no_reply");
    let lost = eventually("the first is known to be lost", async || {
        let answer = fleet.gateway(2).post("/api/call", &asked).with(KEY, "k").await;
        (answer.status != 504).then_some(answer)
    })
    .await;
    assert_eq!((lost.status, &lost.json()["code"]), (502, &json!("owner_lost")), "{}", lost.text());
    assert_eq!(lost.json()["delivered"], json!("unknown"));
}

#[tokio::test]
async fn who_hangs_up_and_comes_again_hears_what_came_of_it() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let asked = json!({"userId": "u", "event": "x", "timeoutMs": 20_000});
    let call = || gateway.post("/api/call", &asked).with(KEY, "k");
    let mut raw = gateway.raw().await;
    raw.write(&call().bytes()).await;
    let asks = client.hears().await;
    drop(raw);
    let reply = json!({"type": "reply", "callId": asks["callId"], "data": "late"}).to_string();
    let replies = async {
        client.asks(r#"{"type":"getSocketId"}"#).await;
        client.says(reply).await;
    };
    let (again, ()) = tokio::join!(call(), replies);
    assert_eq!((again.status, &again.json()["result"]), (200, &json!("late")), "{}", again.text());
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    client.heard_all().await;
}

#[tokio::test]
async fn of_a_large_answer_a_repeat_hears_all_but_what_the_client_said() {
    let gateway = Gateway::with([("MAX_MESSAGE_BYTES", "1MiB")]).await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let asked = json!({"userId": "u", "event": "x", "timeoutMs": 20_000});
    let call = || gateway.post("/api/call", &asked).with(KEY, "k");
    let (first, ()) = tokio::join!(call(), answers(&mut client, json!("y".repeat(70_000))));
    let mut short = first.json();
    assert_eq!(short.as_object_mut().unwrap().remove("result"), Some(json!("y".repeat(70_000))));
    short["omitted"] = json!(["result"]);
    let again = call().await;
    assert_eq!((again.status, again.json()), (200, short));
    client.heard_all().await;
}

/// Nothing was done, and who comes again when Redis is back is served, once.
#[tokio::test]
async fn while_redis_is_away_nothing_is_taken_on() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet.gateway(0).greeted("/ws?user_id=u").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 1000});
    let call = |at: usize, asked: &Value| fleet.gateway(at).post("/api/call", asked).with(KEY, "k");
    fleet.redis().stop();
    let away = call(0, &asked).await;
    fleet.redis().cont();
    refused(&away, 503, "registry_unavailable");
    let served = eventually("it is served", async || {
        let reply = async {
            if let Ok(call) = timeout(Duration::from_secs(2), client.hears()).await {
                client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
            }
        };
        let (answer, ()) = tokio::join!(call(2, &asked), reply);
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(served.header("Idempotency-Replayed"), None);
    repeats(&call(0, &asked).await, &served);
    client.heard_all().await;
    fleet.is_sound().await;
}

/// The first is answered all the same, and its outcome is offered until it is taken.
#[tokio::test]
async fn an_outcome_that_redis_does_not_take_is_kept_when_it_is_back() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet.gateway(0).greeted("/ws?user_id=u").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 20_000});
    let call = |at: usize| fleet.gateway(at).post("/api/call", &asked).with(KEY, "k");
    let plays = async {
        let call = client.hears().await;
        fleet.redis().stop();
        client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    };
    let (first, ()) = tokio::join!(call(0), plays);
    assert_eq!((first.status, &first.json()["result"]), (200, &json!(1)), "{}", first.text());
    fleet.redis().cont();
    let again = eventually("Redis is back", async || {
        let answer = call(2).await;
        (answer.status != 503).then_some(answer)
    })
    .await;
    repeats(&again, &first);
    client.heard_all().await;
    fleet.is_sound().await;
}

/// All that has to be asked and told when the time is over shares what the contract gives beyond it. One that is in
/// time of several is enough: on a busy machine each may be late, and the sum of two waits never is in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_redis_that_stands_still_an_outcome_is_told_in_time() {
    const BUDGET: Duration = Duration::from_millis(2000);
    let fleet = Fleet::with(&[]).await;
    let gateway = fleet.gateway(0);
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(gateway.greeted("/ws?store_id=s").await);
    }
    let began = Instant::now();
    let asking: Vec<_> = clients
        .iter()
        .map(|client| {
            let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 2000});
            let call = gateway.post("/api/call", &asked).with(KEY, &client.id).into_future();
            tokio::spawn(async move { (call.await, began.elapsed()) })
        })
        .collect();
    for client in &mut clients {
        client.hears().await;
    }
    // Not earlier, or it is known to be away, and nobody waits for it.
    sleep_until(began + BUDGET - Duration::from_millis(300)).await;
    fleet.redis().stop();
    sleep_until(began + BUDGET - Duration::from_millis(50)).await;
    drop(clients);
    let mut soonest = Duration::MAX;
    for asking in asking {
        let (answer, took) = asking.await.unwrap();
        assert!(matches!(answer.status, 502 | 504), "{}", answer.text());
        soonest = soonest.min(took);
    }
    fleet.redis().cont();
    // What the contract gives, and what two busy cores may take.
    assert!(soonest <= BUDGET + Duration::from_millis(250 + 100), "{soonest:?}");
}
