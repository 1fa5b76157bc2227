//! A client that does not read: what waits for it in the gateway is not called delivered.

use super::fleet::Fleet;
use crate::{http::Answer, patience::eventually, raw::Raw};
use serde_json::{Value, json};
use std::future::IntoFuture;

/// Three connections into which little fits, each with as much waiting as makes them full of what nobody reads.
async fn who_does_not_read(fleet: &Fleet) -> (Raw, String) {
    let address = fleet.gateway(0).address();
    let mut raw = Raw::connect_narrow(address).await;
    raw.upgrade(address, "/ws?store_id=s").await;
    let id = raw.is_greeted().await["socketId"].as_str().unwrap().to_owned();
    eventually("its queue holds something", async || {
        let sent = fleet.sends(0, json!({"socketId": id}), "x".repeat(100_000)).await;
        assert_eq!(sent.status, 200, "{}", sent.text());
        (fleet.gateway(0).metric("holdfast_queued_bytes").await > 200_000.0).then_some(())
    })
    .await;
    (raw, id)
}

fn problem(answer: &Answer, status: u16, code: &str, delivered: impl Into<Value>) {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"], &body["delivered"]), (status, &json!(code), &delivered.into()), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_client_that_does_not_read_is_not_called_delivered() {
    let fleet = Fleet::with(&[("MAX_QUEUE_BYTES", "64MiB"), ("WS_PING_TIMEOUT", "60s")]).await;
    let (raw, id) = who_does_not_read(&fleet).await;
    let asked = |ms: u64| json!({"socketId": id, "event": "x", "timeoutMs": ms});
    let [here, there] = [0, 1].map(|at| fleet.gateway(at).post("/api/call", &asked(1500)).into_future());
    let (here, there) = tokio::join!(here, there);
    problem(&here, 504, "no_reply", "unknown");
    problem(&there, 504, "no_reply", "unknown");
    // Its connection breaks: nothing of it was ever written.
    let [here, there] =
        [0, 1].map(|at| tokio::spawn(fleet.gateway(at).post("/api/call", &asked(15_000)).into_future()));
    eventually("both are in its queue", async || {
        (fleet.gateway(0).metric("holdfast_calls_given").await == 2.0).then_some(())
    })
    .await;
    drop(raw);
    for asking in [here, there] {
        problem(&asking.await.unwrap(), 410, "socket_gone", Value::Null);
    }
    fleet.is_sound().await;
}

/// Also on the instance that had it in its hands before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_connection_that_broke_goes_to_another() {
    let settings = [("MAX_QUEUE_BYTES", "64MiB"), ("WS_PING_INTERVAL", "60s"), ("WS_PING_TIMEOUT", "60s")];
    let fleet = Fleet::with(&settings).await;
    let (raw, id) = who_does_not_read(&fleet).await;
    let mut other = fleet.gateway(0).greeted("/ws?store_id=s").await;
    let asked = json!({"socketId": id, "event": "x", "fallback": "store", "timeoutMs": 15_000});
    let asking = [0, 1].map(|at| tokio::spawn(fleet.gateway(at).post("/api/call", &asked).into_future()));
    eventually("both are in its queue", async || {
        (fleet.gateway(0).metric("holdfast_calls_given").await == 2.0).then_some(())
    })
    .await;
    raw.breaks();
    for _ in 0..2 {
        let call = other.hears().await;
        other.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    }
    for asking in asking {
        let answer = asking.await.unwrap();
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["fallback"], &body["socketId"]),
            (200, &json!(true), &json!(other.id)),
            "{body}"
        );
    }
    fleet.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_reads_late_is_called_delivered_when_it_does() {
    let settings = [("MAX_QUEUE_BYTES", "64MiB"), ("WS_PING_INTERVAL", "60s"), ("WS_PING_TIMEOUT", "60s")];
    let fleet = Fleet::with(&settings).await;
    let (mut raw, id) = who_does_not_read(&fleet).await;
    let asked = json!({"socketId": id, "event": "x", "timeoutMs": 6000});
    let [here, there] = [0, 1].map(|at| tokio::spawn(fleet.gateway(at).post("/api/call", &asked).into_future()));
    eventually("both are in its queue", async || {
        (fleet.gateway(0).metric("holdfast_calls_given").await == 2.0).then_some(())
    })
    .await;
    let mut heard = 0;
    while heard < 2 {
        heard += usize::from(raw.json().await["type"] == "x");
    }
    for asking in [here, there] {
        problem(&asking.await.unwrap(), 504, "no_reply", true);
    }
    fleet.is_sound().await;
}
