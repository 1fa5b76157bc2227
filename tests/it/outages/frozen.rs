//! A link that is half open: the connection stands, and no byte arrives. Only time can tell.

use super::{
    crowd::Crowd,
    fleet::{Fleet, MENDED},
    note, truth,
    witness::Witness,
};
use crate::patience::eventually;
use serde_json::json;
use servers::{Relay, Server};
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

const AT_EACH: usize = 60;
/// Longer than a lease, and shorter than what it takes to be declared dead.
const FROZEN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_behind_a_frozen_link_is_unreachable_and_not_dead() {
    let redis = Server::start();
    let relays = [0; 3].map(|_| Relay::to(redis.port()));
    let urls: Vec<_> = relays.iter().map(|relay| format!("redis://127.0.0.1:{}", relay.port())).collect();
    let fleet = Fleet::at([&urls[0], &urls[1], &urls[2]], &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let before = fleet.incarnations(1).await;
    let witness = Witness::begins((0..3).map(|at| fleet.gateway(at).address()), &crowd.ids());

    relays[0].freeze();
    let thaw_at = Instant::now() + FROZEN;
    let beyond = crowd.one_at(0).id.clone();
    eventually("its lease lapses", async || {
        let answer = fleet.lookup(1, &beyond).await;
        (answer.status == 503).then(|| assert_eq!(answer.json()["code"], "owner_unreachable", "{}", answer.text()))
    })
    .await;
    for from in [1, 2] {
        let answer = fleet.sends(from, json!({"socketId": beyond}), 0).await;
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("owner_unreachable")), "{}", answer.text());
    }
    // Those on both sides of it go on among themselves.
    for at in 0..3 {
        let number = crowd.fresh();
        let here = crowd.one_at(at);
        let answer = fleet.sends(at, json!({"socketId": here.id}), number).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        here.hears(number).await;
    }
    crowd.comes(&fleet, 0, 3).await;
    // Nobody else has ever heard of them, and nobody says that they never were.
    for newcomer in crowd.guests.iter().rev().take(3) {
        for from in [1, 2] {
            let answer = fleet.lookup(from, &newcomer.id).await;
            assert_eq!(answer.status, 503, "{}", answer.text());
        }
    }
    sleep_until(thaw_at.into()).await;
    relays[0].thaw();

    fleet.hears().await;
    let whole = truth::agrees(&fleet, &crowd, || vec![&redis]).await;
    note(&format!("whole {whole:?} after the thaw"));
    witness.ends("a frozen link").await;
    assert_eq!(fleet.incarnations(1).await, before, "nobody was declared dead");
    crowd.all_reach_all(&fleet).await;
    crowd.rooms_reach_everybody(&fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}

/// Its sockets live, and nobody hears from it: who asks for a user there is told that somebody did not say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_behind_a_frozen_link_is_called_offline() {
    let redis = Server::start();
    let relay = Relay::to(redis.port());
    let (plain, frozen) = (redis.url(), format!("redis://127.0.0.1:{}", relay.port()));
    let fleet = Fleet::at([&frozen, &plain, &plain], &[]).await;
    let mut crowd = Crowd::at_each(&fleet, 2).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let (id, user) = (crowd.one_at(0).id.clone(), crowd.one_at(0).user.clone());
    relay.freeze();
    eventually("its lease lapses", async || (fleet.lookup(1, &id).await.status == 503).then_some(())).await;
    let list = fleet.gateway(1).get(&format!("/api/users/{user}")).await.json();
    let sent = fleet.sends(1, json!({"userId": user}), 0).await.json();
    assert_eq!(list["missing"], json!(["web1"]), "{list}");
    assert_eq!(sent["matched"], 1, "{sent}");
    relay.thaw();
    fleet.hears().await;
    crowd.all_reach_all(&fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}
