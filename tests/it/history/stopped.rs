//! An owner stands still: before it takes a call, while it does, and afterwards; past the deadline of the call,
//! and past its own lease. Nothing is written late, and nothing is said of a delivery that is not so.

use super::{board::Board, callers, fleet::Fleet, has_words, notes::What, pages, rules::judge};
use crate::{client::Client, http::Answer, patience::eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{future::IntoFuture, time::Duration};
use tokio::{task::JoinHandle, time::sleep};

fn asks(fleet: &Fleet, id: &str, event: &str, ms: u64) -> JoinHandle<Answer> {
    let asked = json!({"socketId": id, "event": event, "timeoutMs": ms});
    tokio::spawn(fleet.gateway(1).post("/api/call", &asked).into_future())
}

fn problem(answer: &Answer, status: u16, code: &str, delivered: impl Into<Value>) {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"], &body["delivered"]), (status, &json!(code), &delivered.into()), "{body}");
}

async fn answers(client: &mut Client) -> Value {
    let call = client.hears().await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    call
}

/// The next call is answered; nothing came before it but what is expected.
async fn goes_on(fleet: &Fleet, client: &mut Client) {
    let id = client.id.clone();
    let asked = eventually("the owner takes calls again", async || {
        let live = fleet.lookup(1, &id).await;
        (live.status == 200).then(|| json!({"socketId": id, "event": "next", "timeoutMs": 15_000}))
    })
    .await;
    let asking = fleet.gateway(1).post("/api/call", &asked).into_future();
    tokio::pin!(asking);
    let mut call = Value::Null;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut asking => break answer,
            next = answers(client) => {
                assert!(next["type"] == "next" || next["type"] == "in time", "{next}");
                call = next;
            }
        }
    };
    assert_eq!((answer.status, &call["type"]), (200, &json!("next")), "{} {call}", answer.text());
    for at in 0..3 {
        assert_eq!(fleet.gateway(at).metric("holdfast_reply_for_unknown_call_total").await, 0.0);
    }
    fleet.is_sound().await;
}

async fn is_not_leased(fleet: &Fleet, id: &str) {
    eventually("its lease lapses", async || {
        let answer = fleet.lookup(1, id).await;
        (answer.status == 503).then(|| assert_eq!(answer.json()["code"], "owner_unreachable", "{}", answer.text()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stood_still_before_writes_nothing_past_the_deadline_and_past_its_lease() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    fleet.gateway(0).stands_still().await;
    let asking: Vec<_> = (0..5).map(|_| asks(&fleet, &client.id, "late", 1000)).collect();
    for asking in asking {
        problem(&asking.await.unwrap(), 504, "no_reply", "unknown");
    }
    // One whose deadline is beyond the lease is told of the end of the lease.
    let patient = asks(&fleet, &client.id, "in time", 60_000);
    is_not_leased(&fleet, &client.id).await;
    problem(&patient.await.unwrap(), 502, "owner_lost", "unknown");
    let refused = asks(&fleet, &client.id, "never", 1000).await.unwrap();
    problem(&refused, 503, "owner_unreachable", Value::Null);
    fleet.gateway(0).signal(Signal::CONT);
    // The one whose deadline has not passed may be written, and nothing else.
    goes_on(&fleet, &mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_still_after_it_took_the_call_has_it_delivered() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    let (short, long) = (asks(&fleet, &client.id, "short", 2000), asks(&fleet, &client.id, "long", 60_000));
    let calls = [client.hears().await, client.hears().await];
    has_words(&fleet, 1, 2.0).await;
    fleet.gateway(0).stands_still().await;
    for call in &calls {
        client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    }
    problem(&short.await.unwrap(), 504, "no_reply", true);
    is_not_leased(&fleet, &client.id).await;
    problem(&long.await.unwrap(), 502, "owner_lost", true);
    fleet.gateway(0).signal(Signal::CONT);
    goes_on(&fleet, &mut client).await;
    eventually("both answers are late", async || {
        let late = fleet.gateway(0).metric("holdfast_replies_late_total").await
            + fleet.gateway(1).metric("holdfast_replies_late_total").await;
        (late == 2.0).then_some(())
    })
    .await;
}

/// Again and again, for longer than most of the calls may take, while many ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_still_at_any_moment_writes_nothing_late_and_nothing_twice() {
    let fleet = Fleet::with(&[]).await;
    let board = Board::of(&fleet, 12);
    let pages = pages::open(&board, 12);
    board.is_full().await;
    let callers = callers::come(&board, 24);
    for nth in 0..12 {
        let at = nth % 3;
        board.hears(40).await;
        board.notes(What::Stopped { instance: at });
        fleet.gateway(at).signal(Signal::STOP);
        sleep(Duration::from_millis(700)).await;
        fleet.gateway(at).signal(Signal::CONT);
        board.notes(What::GoesOn { instance: at });
    }
    board.send_callers_home();
    callers.join_all().await;
    board.send_pages_home();
    pages.join_all().await;
    let faults = judge(&board.history());
    assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), faults.iter().take(20).collect::<Vec<_>>());
    fleet.is_sound().await;
}
