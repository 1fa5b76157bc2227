//! Rooms over a fleet of three.

use crate::{client::Client, fleet::Fleet};
use serde_json::json;
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

/// Checklist 66: a room is one, on whichever instances its members are.
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
