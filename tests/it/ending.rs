//! Endings: of an instance, of a socket, and what is said of each afterwards.

use crate::{
    gateway::Gateway,
    patience::eventually,
    raw::{CLOSE, FIN, PING, Raw, frame, text},
};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

/// Checklist 44, 113.
#[tokio::test]
async fn a_drain_says_retry_then_restart_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut gateway = Gateway::start().await;
        let mut clients = [gateway.greeted("/ws?user_id=a").await, gateway.greeted("/connect").await];
        gateway.signal(signal);
        for client in &mut clients {
            let retry = client.hears_text().await;
            let after = retry.strip_prefix(r#"{"type":"retry","afterMs":"#).and_then(|rest| rest.strip_suffix('}'));
            assert!(after.is_some_and(|ms| ms.parse::<u64>().is_ok()), "{retry}");
            assert_eq!(client.closed().await, (1012, "restart".into()));
        }
        assert_eq!(gateway.exits().await, 0);
    }
}

#[tokio::test]
async fn a_gateway_that_nobody_uses_ends_at_once() {
    let mut gateway = Gateway::start().await;
    let _idle = gateway.raw().await;
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exits().await, 0);
}

/// Sockets that do not close by themselves hold the drain up for the two seconds each side gets.
async fn silent(gateway: &Gateway, count: usize) -> Vec<Raw> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(gateway.raw_greeted("/connect").await);
    }
    sockets
}

#[tokio::test]
async fn while_it_drains_it_is_alive_but_not_ready_and_takes_nobody() {
    let mut gateway = Gateway::start().await;
    let client = gateway.greeted("/ws").await;
    assert_eq!(gateway.get("/health/ready").await.status, 200);
    let _silent = silent(&gateway, 20).await;
    gateway.signal(Signal::TERM);
    let ready = eventually("it is not ready", async || {
        let answer = gateway.get("/health/ready").await;
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(ready.await.status, 503);
    let refused = gateway.knock("/ws").await;
    assert_eq!(refused.status, 503);
    refused.is_problem();
    assert_eq!(refused.json()["code"], "draining");
    assert_eq!(gateway.get("/health/live").await.status, 200);
    let verdict = gateway.verdict(&client.id).await;
    assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&json!("instance_restart"), &json!(1012)), "{verdict}");
    assert!(verdict["sentence"].as_str().unwrap().contains("with 1012: instance restart"), "{verdict}");
    assert_eq!(gateway.exits().await, 0);
}

/// A thousand sockets that do not answer would take it some seconds.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut gateway = Gateway::start().await;
    let mut silent = silent(&gateway, 1000).await;
    gateway.signal(Signal::TERM);
    eventually("it drains", async || (gateway.get("/health/ready").await.status == 503).then_some(())).await;
    let second = Instant::now();
    gateway.signal(Signal::TERM);
    gateway.exits().await;
    assert!(second.elapsed() < Duration::from_secs(2), "{:?}", second.elapsed());
    silent.pop().unwrap().rest().await;
}

/// Checklist 180, 286.
#[tokio::test]
async fn a_silent_socket_is_pinged_and_then_4100() {
    let gateway = Gateway::with([("WS_PING_INTERVAL", "1s"), ("WS_PING_TIMEOUT", "1s")]).await;
    let mut alive = gateway.connect("/ws").await;
    assert_eq!(alive.is_greeted().await["pingInterval"], 1);
    let mut silent = gateway.raw().await;
    silent.upgrade(gateway.address(), "/ws").await;
    let id = silent.is_greeted().await["socketId"].as_str().unwrap().to_owned();
    let ended = async {
        assert_eq!(silent.frame().await.opcode(), PING);
        assert_eq!(silent.closed().await, (4100, "ping timeout".into()));
        gateway.verdict(&id).await
    };
    let verdict = alive.stays_while(ended).await;
    assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&json!("ping_timeout"), &json!(4100)), "{verdict}");
    alive.heard_all().await;
}

/// Checklist 133, 211: any frame says that somebody is there.
#[tokio::test]
async fn a_socket_that_talks_is_alive_though_it_answers_no_ping() {
    let gateway = Gateway::with([("WS_PING_INTERVAL", "1s"), ("WS_PING_TIMEOUT", "2s")]).await;
    let mut talker = gateway.raw_greeted("/ws").await;
    for _ in 0..5 {
        assert_eq!(talker.frame().await.opcode(), PING);
        talker.write(&text(r#"{"evt":"ping"}"#)).await;
        assert_eq!(talker.text().await, r#"{"evt":"pong"}"#);
    }
}

/// Checklist 133, 210: or a client that answers every ping would still be found silent.
#[tokio::test]
async fn pings_come_as_often_as_they_are_set() {
    let gateway = Gateway::with([("WS_PING_INTERVAL", "250ms"), ("WS_PING_TIMEOUT", "10s")]).await;
    let mut raw = gateway.raw_greeted("/ws").await;
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(raw.frame().await.opcode(), PING);
    }
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

/// Checklist 16, 112, 184.
#[tokio::test]
async fn the_verdict_names_the_true_cause() {
    let gateway = Gateway::with([("INSTANCE", "web1:5000")]).await;
    let before = gateway.get("/health").await.json()["timestamp"].clone();
    assert!(before.is_string());

    let closed = |code: u16, reason: &str| frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason.as_bytes()].concat());
    for (bytes, cause, code, reason) in [
        (closed(1000, "done"), "client_closed", json!(1000), "done"),
        (closed(1001, ""), "client_closed", json!(1001), ""),
        (frame(FIN | 3, b""), "protocol_error", json!(1002), "protocol"),
        (frame(FIN | 1, b"\xff"), "protocol_error", json!(1007), "UTF-8"),
    ] {
        let mut raw = gateway.raw().await;
        raw.upgrade(gateway.address(), "/ws?store_id=shop").await;
        let id = raw.is_greeted().await["socketId"].as_str().unwrap().to_owned();
        raw.write(&bytes).await;
        let verdict = gateway.verdict(&id).await;
        assert_eq!(
            (&verdict["socketId"], &verdict["state"], &verdict["cause"]),
            (&json!(id), &json!("closed"), &json!(cause))
        );
        assert_eq!(
            (&verdict["closeCode"], &verdict["instance"], &verdict["storeId"]),
            (&code, &json!("web1:5000"), &json!("shop"))
        );
        assert!(verdict["reason"].as_str().unwrap().contains(reason), "{verdict}");
        let (from, to) = (verdict["connectedAt"].as_u64().unwrap(), verdict["closedAt"].as_u64().unwrap());
        assert!(0 < from && from <= to, "{verdict}");
        assert_eq!(verdict["storeSockets"], 0, "{verdict}");
        let sentence = verdict["sentence"].as_str().unwrap();
        assert!(sentence.starts_with(&format!("{id} was on web1:5000 and closed ")), "{sentence}");
        assert!(sentence.contains(&format!(" s ago with {code}: ")), "{sentence}");
    }
}

/// Checklist 184, 206, 240.
#[tokio::test]
async fn what_was_never_seen_is_404_and_what_is_gone_410() {
    let gateway = Gateway::start().await;
    let never = gateway.get("/api/sockets/ws_123").await;
    assert_eq!((never.status, &never.json()["code"]), (404, &json!("socket_never_seen")), "{}", never.text());
    never.is_problem();
    assert_eq!(never.json()["verdict"]["state"], "never_seen");

    let client = gateway.greeted("/ws").await;
    let path = format!("/api/sockets/{}", client.id);
    assert_eq!(gateway.get(&path).await.status, 200);
    client.leaves().await;
    let gone =
        eventually("it is gone", async || Some(gateway.get(&path).await).filter(|answer| answer.status != 200)).await;
    assert_eq!(
        (gone.status, &gone.json()["code"], &gone.json()["action"]),
        (410, &json!("socket_gone"), &json!("reconnect"))
    );
    gone.is_problem();
}

#[tokio::test]
async fn a_verdict_is_forgotten_after_its_time() {
    let gateway = Gateway::with([("WHY_TTL", "1s")]).await;
    let client = gateway.greeted("/ws").await;
    let path = format!("/api/sockets/{}", client.id);
    client.leaves().await;
    let code = eventually("it is forgotten", async || {
        let answer = gateway.get(&path).await;
        (answer.status == 404).then(|| answer.json()["code"].clone())
    });
    assert_eq!(code.await, "socket_forgotten");
}

#[tokio::test]
async fn whoever_is_kicked_is_told_why() {
    let gateway = Gateway::start().await;
    for (query, told) in [
        ("?reason=too%20loud", (4403, "kicked: too loud".to_owned())),
        ("?code=4001&reason=later", (4001, "later".to_owned())),
    ] {
        let mut client = gateway.greeted("/ws?user_id=u").await;
        assert!(gateway.delete(&format!("/api/sockets/{}{query}", client.id)).await.status < 300);
        assert_eq!(client.closed().await, told);
        assert_eq!(gateway.verdict(&client.id).await["cause"], "kicked");
    }
}
