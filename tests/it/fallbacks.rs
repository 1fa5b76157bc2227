//! A named socket that is not reached gives way to another of its store or user: to one that is well, past those that
//! are full, on an instance that is not heard, or about to end. Nothing is written to these.

use crate::{client::Client, fleet::Fleet, http::Answer, patience::eventually, raw::Raw};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::{Relay, Server};
use std::{future::IntoFuture, time::Duration};
use tokio::time::timeout;

const BOTH: &str = "/ws?user_id=u&store_id=s";
/// More than any queue here has room for, unless it is empty.
const LARGE: usize = 40_000;

const SMALL_QUEUES: [(&str, &str); 3] =
    [("MAX_QUEUE_BYTES", "64KiB"), ("WS_PING_INTERVAL", "60s"), ("WS_PING_TIMEOUT", "60s")];

fn asked(id: &str, fallback: &str) -> Value {
    json!({"socketId": id, "event": "x", "data": "y".repeat(LARGE), "fallback": fallback, "timeoutMs": 10_000})
}

fn problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{}", answer.text());
}

/// The id of one that was of that store and user, and has left.
async fn gone(fleet: &Fleet) -> String {
    let client = fleet[1].greeted(BOTH).await;
    let id = client.id.clone();
    client.leaves().await;
    fleet[1].verdict(&id).await;
    id
}

/// One on web1 that is full, and its id. It was active last, so that it is who would be asked.
async fn full(fleet: &Fleet) -> (Raw, String) {
    let (stuck, full) = fleet[0].lazy(BOTH).await;
    let mut times = 0;
    eventually("it is full, and stays so", async || {
        fleet[0].fills(&full).await;
        let mut brief = asked(&full, "none");
        brief["timeoutMs"] = 200.into();
        let answer = fleet[2].post("/api/call", &brief).await;
        // The kernel may take a little more in between.
        times = if answer.status == 429 { times + 1 } else { 0 };
        (times == 20).then_some(())
    })
    .await;
    (stuck, full)
}

/// Whoever asks for one of these gets the answer of the one that is well.
async fn give_way(fleet: &Fleet, askers: &[usize], ids: &[&str], well: &mut Client) {
    for (asker, id) in askers.iter().flat_map(|asker| ids.iter().map(move |id| (*asker, *id))) {
        for fallback in ["store", "user"] {
            let answers = async {
                let call = well.hears().await;
                well.says(json!({"type": "reply", "callId": call["callId"], "data": asker}).to_string()).await;
            };
            let asking = fleet[asker].post("/api/call", &asked(id, fallback)).into_future();
            // Where the call went elsewhere, the answer says more than that nobody heard it.
            let (answer, _) = tokio::join!(asking, timeout(Duration::from_secs(11), answers));
            let body = answer.json();
            assert_eq!(
                (answer.status, &body["fallback"], &body["socketId"], &body["result"]),
                (200, &json!(true), &json!(well.id), &json!(asker)),
                "{fallback} in place of {id}: {}",
                answer.text()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_one_that_is_full() {
    let fleet = Fleet::with(&SMALL_QUEUES).await;
    let gone = gone(&fleet).await;
    let mut well = fleet[1].greeted(BOTH).await;
    let (_stuck, full) = full(&fleet).await;
    give_way(&fleet, &[0, 1, 2], &[&full, &gone], &mut well).await;
    well.leaves().await;
    problem(&fleet[2].post("/api/call", &asked(&full, "store")).await, 429, "socket_busy");
    assert_eq!(fleet[0].metric("holdfast_calls_given").await, 0.0);
    fleet.is_sound().await;
}

/// Nor does one that is full hide others of its instance, where nobody was named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_one_that_is_full_another_is_asked() {
    let fleet = Fleet::with(&SMALL_QUEUES).await;
    let mut well = fleet[0].greeted(BOTH).await;
    let mut all_full = Vec::new();
    for (asker, target) in [(1, "storeId"), (0, "storeId"), (2, "userId"), (0, "userId")] {
        all_full.push(full(&fleet).await);
        let mut asked = asked("", "none");
        let name = if target == "storeId" { "s" } else { "u" };
        asked.as_object_mut().unwrap().remove("socketId");
        asked[target] = name.into();
        let answers = async {
            let call = well.hears().await;
            well.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
        };
        let asking = fleet[asker].post("/api/call", &asked).into_future();
        let (answer, _) = tokio::join!(asking, timeout(Duration::from_secs(11), answers));
        assert_eq!((answer.status, &answer.json()["socketId"]), (200, &json!(well.id)), "{}", answer.text());
    }
    well.leaves().await;
    let answer = fleet[1].post("/api/call", &json!({"storeId": "s", "event": "x", "data": "y".repeat(LARGE)})).await;
    problem(&answer, 429, "socket_busy");
    fleet.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_one_whose_instance_is_not_heard() {
    let redis = Server::start();
    let relay = Relay::to(redis.port());
    let (cut, whole) = (format!("redis://127.0.0.1:{}", relay.port()), redis.url());
    let fleet = Fleet::at([&cut, &whole, &whole], &[]).await;
    let gone = gone(&fleet).await;
    let mut well = fleet[1].greeted(BOTH).await;
    let mut deaf = fleet[0].greeted(BOTH).await;
    relay.refuse();
    relay.cut();
    give_way(&fleet, &[1, 2], &[&deaf.id, &gone], &mut well).await;
    well.leaves().await;
    for id in [&deaf.id, &gone] {
        problem(&fleet[2].post("/api/call", &asked(id, "store")).await, 503, "owner_unreachable");
    }
    relay.accept();
    fleet.hears().await;
    // Its own instance had it all the time.
    deaf.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_one_whose_instance_is_about_to_end() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "60s")]).await;
    let gone = gone(&fleet).await;
    let mut well = fleet[1].greeted(BOTH).await;
    let mut leaving = fleet[0].greeted(BOTH).await;
    // It has a call in its hands, and stays until that is answered.
    let long = json!({"socketId": leaving.id, "event": "x", "timeoutMs": 60_000});
    let asking = tokio::spawn(fleet[2].post("/api/call", &long).into_future());
    let call = leaving.hears().await;
    fleet[0].signal(Signal::TERM);
    eventually("it drains", async || (fleet[0].get("/health/ready").await.status == 503).then_some(())).await;
    give_way(&fleet, &[1, 2], &[&leaving.id, &gone], &mut well).await;
    well.leaves().await;
    for id in [&leaving.id, &gone] {
        problem(&fleet[2].post("/api/call", &asked(id, "store")).await, 503, "draining");
    }
    leaving.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    assert_eq!(asking.await.unwrap().status, 200);
    // Nothing else came before the farewell.
    assert_eq!(leaving.hears().await["type"], "retry");
    assert_eq!(leaving.closed().await.0, 1012);
    fleet.ends(0).await;
    fleet.is_sound().await;
}
