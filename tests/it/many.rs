//! Many sockets at once: what holds for one holds for all of them.

use crate::{client::Client, gateway::Gateway, patience::eventually};
use futures_util::{
    StreamExt,
    future::join_all,
    stream::{self, FuturesUnordered},
};
use std::time::Duration;
use tokio::time::sleep;

/// Opens so many at once that handshakes overlap, but not so many that connections queue up.
async fn greeted(gateway: &Gateway, targets: impl IntoIterator<Item = String>) -> Vec<Client> {
    let opening = targets.into_iter().map(|target| async move { gateway.greeted(&target).await });
    stream::iter(opening).buffer_unordered(50).collect().await
}

/// Checklist 1. The minute is the fact here.
#[tokio::test]
async fn a_thousand_fresh_sockets_stay_for_a_minute() {
    let settings = [("WS_PING_INTERVAL", "5s"), ("WS_PING_TIMEOUT", "10s"), ("LOG_LEVEL", "info")];
    let gateway = Gateway::with(settings).await;
    let mut clients = greeted(&gateway, (0..1000).map(|n| format!("/ws?user_id=u{n}&room_id=r{}", n % 10))).await;
    let minute = Duration::from_secs(60);
    join_all(clients.iter_mut().map(|client| client.stays_while(sleep(minute)))).await;
    assert_eq!(gateway.sockets().await, 1000);
    gateway.is_unharmed().await;
}

/// Checklist 128: once each, in a room that is larger than any batch.
#[tokio::test]
async fn a_full_room_hears_a_message_once_each() {
    let gateway = Gateway::with([("LOG_LEVEL", "info")]).await;
    let mut members = greeted(&gateway, (0..500).map(|n| format!("/ws?user_id=u{n}&room_id=r"))).await;
    let mut publisher = members.pop().unwrap();
    publisher.says(r#"{"type":"publish","room":"r","data":"all"}"#).await;
    let hearing: FuturesUnordered<_> = members
        .iter_mut()
        .map(|member| async {
            assert_eq!(member.hears().await["data"], "all");
            member.heard_all().await;
        })
        .collect();
    assert_eq!(hearing.count().await, 499);
    publisher.heard_all().await;
}

/// Checklist 284: the limit holds for those who come in the same moment, too.
#[tokio::test]
async fn no_more_than_fit_come_in_at_once() {
    let gateway = Gateway::with([("MAX_SOCKETS", "5"), ("LOG_LEVEL", "info")]).await;
    for _ in 0..10 {
        let knocks = (0..40).map(|_| async {
            let mut raw = gateway.raw().await;
            raw.write(&gateway.knock("/ws").bytes()).await;
            let status = raw.answer().await.status;
            (raw, status)
        });
        let answers = join_all(knocks).await;
        let inside = answers.iter().filter(|(_, status)| *status == 101).count();
        assert!((1..=5).contains(&inside), "{inside}");
        drop(answers);
        eventually("all have left", async || (gateway.sockets().await == 0).then_some(())).await;
    }
}

/// Lets 150 in at the same moment, of whom one may stay.
async fn rush_for_one_place(gateway: &Gateway, target: impl Fn(usize) -> String) {
    let mut rush = Vec::new();
    for _ in 0..150 {
        rush.push(gateway.raw().await);
    }
    for (n, raw) in rush.iter_mut().enumerate() {
        raw.write(&gateway.knock(&target(n)).bytes()).await;
    }
    for raw in &mut rush {
        assert_eq!(raw.answer().await.status, 101);
        // It is greeted, or told already that it has to go.
        raw.frame().await;
    }
    eventually("one is left", async || (gateway.sockets().await == 1).then_some(())).await;
    drop(rush);
    eventually("all have left", async || (gateway.sockets().await == 0).then_some(())).await;
}

/// Checklist 31, 34: atomic, also for those who are still on their way in when they have to go.
#[tokio::test]
async fn the_cap_holds_in_a_rush() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "1"), ("LOG_LEVEL", "info")]).await;
    for round in 0..20 {
        rush_for_one_place(&gateway, |n| format!("/ws?user_id=u{round}&client_id=c{n}")).await;
    }
}

/// Checklist 129, 253.
#[tokio::test]
async fn one_client_is_one_socket_in_a_rush() {
    let gateway = Gateway::with([("LOG_LEVEL", "info")]).await;
    for _ in 0..20 {
        rush_for_one_place(&gateway, |_| "/ws?user_id=u&client_id=tab".into()).await;
    }
}

/// Checklist 129, 224, 281, 283: connecting and leaving costs nothing that stays.
#[tokio::test]
async fn coming_and_going_leaves_nothing_behind() {
    let gateway = Gateway::with([("LOG_LEVEL", "info")]).await;
    let round = async || {
        let clients = greeted(&gateway, (0..200).map(|n| format!("/ws?user_id=u{n}&store_id=s&room_id=r"))).await;
        for (n, client) in clients.into_iter().enumerate() {
            match n % 2 {
                0 => client.leaves().await,
                _ => drop(client),
            }
        }
        eventually("all have left", async || (gateway.sockets().await == 0).then_some(())).await;
    };
    round().await;
    let files = gateway.metric("process_open_fds").await;
    for _ in 0..4 {
        round().await;
    }
    let back = async || gateway.metric("process_open_fds").await <= files;
    eventually("its files are closed", async || back().await.then_some(())).await;
    let still = async || gateway.metric("holdfast_registry_drift").await == 0.0;
    eventually("the registry agrees", async || still().await.then_some(())).await;
    assert_eq!(gateway.metric("holdfast_sockets_opened_total").await, 1000.0);
    assert_eq!(gateway.get("/api/debug/sockets").await.json()["sockets"]["total"], 0);
    gateway.is_unharmed().await;
}
