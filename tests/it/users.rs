//! Users: how many sockets one may have, and who goes when there is one too many.

use crate::{
    gateway::Gateway,
    patience::eventually,
    raw::{PING, Raw},
};
use futures_util::future::join_all;
use serde_json::json;

const CLOSING_OLDEST: &str = "Too many connections, closing oldest";

async fn sockets_of(gateway: &Gateway, user: &str) -> usize {
    let shown = gateway.get("/api/debug/sockets?verbose=1").await.json();
    let sockets = shown["sockets"]["metadata"].as_object().unwrap();
    sockets.values().filter(|socket| socket["userId"] == user).count()
}

/// Checklist 31, 33, 34.
#[tokio::test]
async fn the_sixth_socket_of_a_user_closes_the_oldest_one_only() {
    let gateway = Gateway::start().await;
    let mut clients = Vec::new();
    for n in 1..=5 {
        clients.push(gateway.greeted(&format!("/ws?user_id=u&client_id=c{n}")).await);
    }
    let mut other = gateway.greeted("/ws?user_id=other").await;
    let mut sixth = gateway.greeted("/ws?user_id=u&client_id=c6").await;
    let mut oldest = clients.remove(0);
    assert_eq!(oldest.closed().await, (4410, CLOSING_OLDEST.into()));
    let verdict = gateway.verdict(&oldest.id).await;
    assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&json!("evicted"), &json!(4410)), "{verdict}");
    for client in clients.iter_mut().chain([&mut other, &mut sixth]) {
        client.heard_all().await;
    }
    assert_eq!(sockets_of(&gateway, "u").await, 5);
}

/// Checklist 31: atomic, however many come at once.
#[tokio::test]
async fn however_many_come_at_once_the_cap_holds() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "3")]).await;
    let newcomers = (0..12).map(|n| {
        let gateway = &gateway;
        async move { gateway.connect(&format!("/ws?user_id=u&client_id=c{n}")).await }
    });
    let _clients = join_all(newcomers).await;
    eventually("three are left", async || (sockets_of(&gateway, "u").await == 3).then_some(())).await;
    gateway.is_unharmed().await;
}

/// Checklist 35: no war of tabs that reconnect by themselves.
#[tokio::test]
async fn an_evicted_client_cannot_evict_for_a_while() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut one = gateway.greeted("/ws?user_id=u&client_id=one").await;
    let mut two = gateway.greeted("/ws?user_id=u&client_id=two").await;
    assert_eq!(one.closed().await.0, 4410);
    let mut again = gateway.connect("/ws?user_id=u&client_id=one").await;
    assert_eq!(again.closed().await.0, 4410);
    two.heard_all().await;
    let three = gateway.greeted("/ws?user_id=u&client_id=three").await;
    assert_eq!(two.closed().await.0, 4410);
    three.leaves().await;
    eventually("a free place is for everybody", async || (sockets_of(&gateway, "u").await == 0).then_some(())).await;
    gateway.greeted("/ws?user_id=u&client_id=one").await;
}

/// Checklist 35: ten seconds, that is, and then it may again.
#[tokio::test]
async fn the_cool_down_ends() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut one = gateway.greeted("/ws?user_id=u&client_id=one").await;
    let mut two = gateway.greeted("/ws?user_id=u&client_id=two").await;
    assert_eq!(one.closed().await.0, 4410);
    let holds = async {
        eventually("it may evict again", async || {
            let mut again = gateway.connect("/ws?user_id=u&client_id=one").await;
            again.next().await.filter(|message| message.is_text())
        })
        .await;
    };
    tokio::select! {
        closed = two.closed() => assert_eq!(closed.0, 4410),
        () = holds => assert_eq!(two.closed().await.0, 4410),
    }
}

/// Checklist 35: without a `client_id` it is the user and the address that are remembered.
#[tokio::test]
async fn a_nameless_client_is_known_by_its_user_and_address() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut one = gateway.greeted("/ws?user_id=u").await;
    let mut two = gateway.greeted("/ws?user_id=u").await;
    assert_eq!(one.closed().await.0, 4410);
    let mut three = gateway.connect("/ws?user_id=u").await;
    assert_eq!(three.closed().await.0, 4410);
    two.heard_all().await;
    gateway.greeted("/ws?user_id=other").await;
}

/// Checklist 129, 253.
#[tokio::test]
async fn the_same_client_replaces_itself() {
    let gateway = Gateway::start().await;
    let mut newest = gateway.greeted("/ws?user_id=u&client_id=tab").await;
    let mut other = gateway.greeted("/ws?user_id=u&client_id=other").await;
    let mut of_another = gateway.greeted("/ws?user_id=v&client_id=tab").await;
    for _ in 0..8 {
        let newer = gateway.greeted("/ws?user_id=u&clientId=tab").await;
        let mut old = std::mem::replace(&mut newest, newer);
        assert_eq!(old.closed().await, (4409, "replaced by a newer connection".into()));
        assert_eq!(gateway.verdict(&old.id).await["cause"], "replaced");
    }
    for client in [&mut newest, &mut other, &mut of_another] {
        client.heard_all().await;
    }
    assert_eq!(sockets_of(&gateway, "u").await, 2);
}

/// Checklist 79.
#[tokio::test]
async fn nobody_is_not_counted() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut clients = Vec::new();
    for target in ["/connect", "/ws", "/ws?user_id=anonymous", "/connect?user_id=anonymous", "/connect"] {
        clients.push(gateway.greeted(target).await);
    }
    for client in &mut clients {
        client.heard_all().await;
    }
}

#[tokio::test]
async fn a_cap_of_0_is_no_cap() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "0")]).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(gateway.greeted("/ws?user_id=u").await);
    }
    for client in &mut clients {
        client.heard_all().await;
    }
}

const REJECT: [(&str, &str); 2] = [("MAX_SOCKETS_PER_USER", "1"), ("DUPLICATE_POLICY", "reject")];

/// Checklist 250, 251, 252.
#[tokio::test]
async fn with_reject_the_newcomer_goes() {
    let gateway = Gateway::with(REJECT).await;
    let mut holder = gateway.greeted("/ws?user_id=u").await;
    for _ in 0..3 {
        let newcomer = async { gateway.connect("/ws?user_id=u").await.closed().await };
        let closed = holder.stays_while(newcomer).await;
        assert_eq!(closed, (1008, "User already connected".into()));
    }
    holder.heard_all().await;
    assert_eq!(sockets_of(&gateway, "u").await, 1);
    holder.leaves().await;
    eventually("the place is free", async || (sockets_of(&gateway, "u").await == 0).then_some(())).await;
    gateway.greeted("/ws?user_id=u").await;
}

/// Checklist 253, 269: a dead half-open socket locks nobody out.
#[tokio::test]
async fn with_reject_a_silent_holder_is_probed_and_replaced() {
    let gateway = Gateway::with(REJECT).await;
    let mut holder = Raw::greeted(gateway.address(), "/ws?user_id=u").await;
    let mut newcomer = gateway.greeted("/ws?user_id=u").await;
    assert_eq!(holder.frame().await.opcode(), PING);
    assert_eq!(holder.closed().await.0, 4409);
    newcomer.heard_all().await;
    assert_eq!(sockets_of(&gateway, "u").await, 1);
}

/// Checklist 253.
#[tokio::test]
async fn with_reject_the_same_client_still_replaces_itself() {
    let gateway = Gateway::with(REJECT).await;
    let mut old = gateway.greeted("/ws?user_id=u&client_id=tab").await;
    let mut new = gateway.greeted("/ws?user_id=u&client_id=tab").await;
    assert_eq!(old.closed().await.0, 4409);
    new.heard_all().await;
}
