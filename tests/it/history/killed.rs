//! Who has a call is killed before its client answers: whoever asked knows it in about three seconds.

use super::{fleet::Fleet, has_words, note, words};
use crate::{client::Client, http::Answer, patience::eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    future::IntoFuture,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Three seconds, says the contract; two busy cores may take some more.
const TOLD_WITHIN: Duration = Duration::from_secs(6);

fn asks(fleet: &Fleet, from: usize, id: &str) -> JoinHandle<(Answer, Instant)> {
    let asked = json!({"socketId": id, "event": "x", "timeoutMs": 60_000});
    let asking = fleet.gateway(from).post("/api/call", &asked).into_future();
    tokio::spawn(async move { (asking.await, Instant::now()) })
}

async fn two_calls(fleet: &Fleet, client: &mut Client) -> Vec<JoinHandle<(Answer, Instant)>> {
    let asking = vec![asks(fleet, 1, &client.id), asks(fleet, 2, &client.id)];
    for _ in &asking {
        client.hears().await;
    }
    asking
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_killed_owner_are_answered_within_three_seconds() {
    let mut fleet = Fleet::with(&[]).await;
    let mut figures = Vec::new();
    for round in 0..5 {
        let mut client = fleet.gateway(0).greeted("/ws").await;
        let before = [words(&fleet, 1).await, words(&fleet, 2).await];
        let asking = two_calls(&fleet, &mut client).await;
        // Every second time long enough for it to be known that the client has it.
        let known = round % 2 == 1;
        if known {
            has_words(&fleet, 1, before[0] + 1.0).await;
            has_words(&fleet, 2, before[1] + 1.0).await;
        }
        fleet.kill(0);
        let killed = Instant::now();
        for asking in asking {
            let (answer, at) = asking.await.unwrap();
            let body = answer.json();
            assert_eq!((answer.status, &body["code"]), (502, &json!("owner_lost")), "{}", answer.text());
            if known {
                assert_eq!(body["delivered"], true, "{body}");
            } else {
                assert!(body["delivered"] == true || body["delivered"] == "unknown", "{body}");
            }
            figures.push(at - killed);
        }
        fleet.restart(0).await;
    }
    note(&format!("owner_lost after the kill: {figures:?}"));
    assert!(figures.iter().all(|figure| *figure < TOLD_WITHIN), "{figures:?}");
    fleet.is_sound().await;
}

/// The one who asked is killed: the client has its call once, its answer goes nowhere, and nothing is kept of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_asker_leaves_nothing_behind() {
    let mut fleet = Fleet::with(&[]).await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 4000});
    let mut calls = Vec::new();
    for _ in 0..10 {
        let mut raw = fleet.gateway(1).raw().await;
        raw.write(&fleet.gateway(1).post("/api/call", &asked).bytes()).await;
        calls.push((raw, client.hears().await));
    }
    assert_eq!(fleet.gateway(0).metric("holdfast_calls_given").await, 10.0);
    let bell = format!("holdfast:{{i:{}}}:bell", fleet.mark(0, 1).await);
    fleet.kill(1);
    eventually("its bell is gone", async || {
        let ask = "return tostring(redis.call('PUBSUB', 'NUMSUB', KEYS[1])[2])";
        (fleet.redis().text(&["EVAL", ask, "1", &bell]) == "0").then_some(())
    })
    .await;
    // Half of them are answered, in vain; the others never.
    for (_, call) in &calls[..5] {
        client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    }
    eventually("the answers are dropped and counted", async || {
        (fleet.gateway(0).metric("holdfast_replies_late_total").await == 5.0).then_some(())
    })
    .await;
    eventually("nothing is kept", async || {
        (fleet.gateway(0).metric("holdfast_calls_given").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(fleet.gateway(0).metric("holdfast_reply_for_unknown_call_total").await, 0.0);
    client.heard_all().await;
    let (answer, call) = tokio::join!(fleet.gateway(2).post("/api/call", &asked), answers(&mut client));
    assert_eq!((answer.status, &call["type"]), (200, &json!("x")), "{}", answer.text());
    fleet.is_sound().await;
}

async fn answers(client: &mut Client) -> Value {
    let call = client.hears().await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    call
}

/// Declared dead while it lives: it goes on under another name, and what was on its way to the former one is told
/// as what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asker_that_was_declared_dead_answers_the_calls_of_its_former_life() {
    let fleet = Fleet::with(&[]).await;
    let mut far = fleet.gateway(0).greeted("/ws").await;
    let mut near = fleet.gateway(1).greeted("/ws").await;
    let (to_far, to_near) = (asks(&fleet, 1, &far.id), asks(&fleet, 1, &near.id));
    let (_, call) = (far.hears().await, near.hears().await);
    has_words(&fleet, 1, 1.0).await;
    let mark = fleet.mark(1, 1).await;
    let tomb = format!("holdfast:{{i:{mark}}}:tomb");
    fleet.redis().ask(&["SET", &tomb, "1", "EX", "3600"]);
    let (answer, _) = to_far.await.unwrap();
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["code"], &body["delivered"]),
        (502, &json!("instance_ended"), &json!(true)),
        "{body}"
    );
    // What never left it goes on.
    near.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    assert_eq!(to_near.await.unwrap().0.status, 200);
    // And so do calls from now on.
    eventually("it is known by its new name", async || {
        let asked = json!({"socketId": far.id, "event": "y", "timeoutMs": 1000});
        let (answer, _) = tokio::join!(fleet.gateway(1).post("/api/call", &asked), answers(&mut far));
        (answer.status == 200).then_some(())
    })
    .await;
    fleet.is_sound().await;
}

/// At the end of its time a drain leaves no caller without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_those_who_still_wait() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "4s")]).await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    let (from_here, from_there) = (asks(&fleet, 0, &client.id), asks(&fleet, 1, &client.id));
    let mut far = fleet.gateway(2).greeted("/ws").await;
    let to_far = asks(&fleet, 0, &far.id);
    let awaited = json!({"userId": "nobody", "event": "x", "timeoutMs": 60_000, "whenOffline": "wait"});
    let to_nobody = tokio::spawn(fleet.gateway(0).post("/api/call", &awaited).into_future());
    let _ = (client.hears().await, client.hears().await, far.hears().await);
    eventually("one waits for nobody", async || {
        (fleet.gateway(0).metric("holdfast_calls_waiting").await == 1.0).then_some(())
    })
    .await;
    fleet.gateway(0).signal(Signal::TERM);
    for asking in [from_here, from_there] {
        let (answer, _) = asking.await.unwrap();
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["code"], &body["delivered"]),
            (502, &json!("socket_lost"), &json!(true)),
            "{body}"
        );
        assert_eq!(body["verdict"]["cause"], "instance_restart");
    }
    let (answer, _) = to_far.await.unwrap();
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["code"], &body["delivered"]),
        (502, &json!("instance_ended"), &json!(true)),
        "{body}"
    );
    // Nothing was written, so that a proxy may ask the next instance.
    let answer = to_nobody.await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("draining")), "{}", answer.text());
    fleet.ends(0).await;
    fleet.is_sound().await;
}
