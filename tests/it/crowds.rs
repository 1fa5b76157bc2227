//! Rooms over a fleet of three, and how many sockets a user may have in all of it.

use crate::{client::Client, fleet::Fleet, patience::soon};
use serde_json::{Value, json};
use servers::Server;
use std::collections::BTreeMap;

/// Messages of each publisher.
const MESSAGES: u64 = 200;

async fn says_all(client: &mut Client, room: &str) {
    for number in 0..MESSAGES {
        client.says(json!({"type": "publish", "room": room, "data": number}).to_string()).await;
    }
}

/// Hears until it has heard so many, and returns by sender what came, in order.
async fn hears_all(client: &mut Client, count: u64) -> BTreeMap<String, Vec<u64>> {
    let mut heard: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for _ in 0..count {
        let message = client.hears().await;
        let from = message["from"].as_str().unwrap().to_owned();
        heard.entry(from).or_default().push(message["data"].as_u64().unwrap());
    }
    heard
}

#[tokio::test]
async fn every_member_hears_every_message_once_and_in_order() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[("RATE_MESSAGES", "off")]).await;
    let mut publishers = Vec::new();
    let mut listeners = Vec::new();
    for at in 0..3 {
        publishers.push(fleet.gateway(at).greeted("/ws?room_id=r").await);
        listeners.push(fleet.gateway(at).greeted("/ws?room_id=r&room_id=other").await);
        listeners.push(fleet.gateway(at).greeted("/ws?room_id=r").await);
    }
    let [a, b, c] = &mut publishers[..] else { unreachable!() };
    tokio::join!(says_all(a, "r"), says_all(b, "r"), says_all(c, "r"));
    let names: Vec<_> = publishers.iter().map(|publisher| publisher.id.clone()).collect();
    let whole: Vec<_> = (0..MESSAGES).collect();
    for listener in &mut listeners {
        let heard = hears_all(listener, 3 * MESSAGES).await;
        assert!(names.iter().all(|name| heard[name] == whole), "{heard:?}");
        listener.heard_all().await;
    }
    for (at, publisher) in publishers.iter_mut().enumerate() {
        let heard = hears_all(publisher, 2 * MESSAGES).await;
        assert!(!heard.contains_key(&names[at]), "nobody hears itself");
        assert!(heard.values().all(|numbers| *numbers == whole), "{heard:?}");
        publisher.heard_all().await;
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_binary_frame_comes_once_to_who_shares_several_rooms() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[]).await;
    let mut sender = fleet.gateway(0).greeted("/ws?room_id=a&room_id=b").await;
    let mut both = fleet.gateway(1).greeted("/ws?room_id=a&room_id=b").await;
    let mut one = fleet.gateway(2).greeted("/ws?room_id=b").await;
    sender.says_bytes(vec![0, 255, 10]).await;
    assert_eq!(both.hears_bytes().await, [0, 255, 10]);
    assert_eq!(one.hears_bytes().await, [0, 255, 10]);
    both.heard_all().await;
    one.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn the_oldest_of_too_many_goes_wherever_it_is() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[("MAX_SOCKETS_PER_USER", "2")]).await;
    let mut oldest = fleet.gateway(0).greeted("/ws?user_id=ann&client_id=a").await;
    let mut second = fleet.gateway(1).greeted("/ws?user_id=ann&client_id=b").await;
    let mut third = fleet.gateway(2).greeted("/ws?user_id=ann&client_id=c").await;
    assert_eq!(oldest.closed().await, (4410, "Too many connections, closing oldest".to_owned()));
    let verdict = fleet.gateway(2).verdict(&oldest.id).await;
    assert_eq!((&verdict["cause"], &verdict["instance"]), (&json!("evicted"), &json!("web1")));
    // Who was evicted cannot evict in turn, on no instance.
    let mut again = fleet.gateway(2).connect("/ws?user_id=ann&client_id=a").await;
    assert_eq!(again.closed().await.0, 4410);
    second.heard_all().await;
    third.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_client_replaces_itself_elsewhere() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[]).await;
    let mut before = fleet.gateway(0).greeted("/ws?user_id=ann&client_id=tab").await;
    let mut after = fleet.gateway(1).greeted("/ws?user_id=ann&client_id=tab").await;
    assert_eq!(before.closed().await.0, 4409);
    assert_eq!(fleet.gateway(2).verdict(&before.id).await["cause"], "replaced");
    after.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn with_reject_a_living_holder_elsewhere_keeps_its_place_and_a_silent_one_does_not() {
    let server = Server::start();
    let settings = [("MAX_SOCKETS_PER_USER", "1"), ("DUPLICATE_POLICY", "reject")];
    let fleet = Fleet::on(&server.url(), &settings).await;
    let mut living = fleet.gateway(0).greeted("/ws?user_id=ann").await;
    let refused = async {
        let mut newcomer = fleet.gateway(1).connect("/ws?user_id=ann").await;
        newcomer.closed().await
    };
    let refused = soon("the newcomer is told", Box::pin(living.stays_while(refused))).await;
    assert_eq!(refused, (1008, "User already connected".to_owned()));
    living.heard_all().await;
    // One that answers no ping is gone as far as anybody can tell.
    let silent = fleet.gateway(0).raw_greeted("/ws?user_id=bob").await;
    let mut newcomer = fleet.gateway(1).greeted("/ws?user_id=bob").await;
    newcomer.heard_all().await;
    drop(silent);
    fleet.is_sound().await;
}

#[tokio::test]
async fn newcomers_at_once_on_all_instances_keep_the_cap() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[("MAX_SOCKETS_PER_USER", "3")]).await;
    let fleet = &fleet;
    let arriving = (0..12).map(|nth| async move {
        let mut client = fleet.gateway(nth % 3).connect(&format!("/ws?user_id=ann&client_id=c{nth}")).await;
        match client.next().await {
            Some(message) if message.is_text() => Some(client),
            _ => None,
        }
    });
    let arrived: Vec<_> = futures_util::future::join_all(arriving).await.into_iter().flatten().collect();
    assert!(arrived.len() >= 3);
    let three = crate::patience::eventually("three are left", async || {
        let told: Value = fleet.gateway(0).get("/api/users/ann").await.json();
        (told["count"] == 3).then_some(told)
    })
    .await;
    assert_eq!(three["missing"], json!([]));
    fleet.is_sound().await;
}
