//! Redis is away for a while, in each of the ways in which it can be. Clients come, move and go meanwhile,
//! and the registry knows of all of it afterwards.

use super::{
    crowd::Crowd,
    fleet::{Fleet, MENDED},
    guest::Guest,
    note, truth,
    witness::Witness,
};
use crate::patience::eventually;
use serde_json::json;
use servers::Server;
use std::{collections::BTreeSet, time::Duration};
use tokio::{task::block_in_place, time::sleep};

const AT_EACH: usize = 60;
/// A handshake waits for one answer of Redis at most, and then no more.
const GREETED: Duration = Duration::from_secs(5);

/// One at each instance who will leave, so that nobody is asked for who does.
fn choose_leavers(crowd: &mut Crowd) -> Vec<Guest> {
    let mut seen = BTreeSet::new();
    crowd.take(|guest| seen.insert(guest.at))
}

/// What happens while Redis does not answer; returns the ids of those who left.
async fn life_goes_on(fleet: &Fleet, crowd: &mut Crowd, mut leavers: Vec<Guest>) -> Vec<String> {
    let mut left = Vec::new();
    for at in 0..3 {
        crowd.comes(fleet, at, 3).await;
        let newcomers: Vec<_> = crowd.guests.iter_mut().rev().take(3).collect();
        for (nth, guest) in newcomers.into_iter().enumerate() {
            assert!(guest.greeted_after < GREETED, "hi came after {:?}", guest.greeted_after);
            match nth {
                0 => guest.joins("late").await,
                1 => guest.selects("late").await,
                _ => {}
            }
        }
        let guest = crowd.one_at(at);
        let room = guest.rooms.first().unwrap().clone();
        guest.parts(&room).await;
        guest.joins("changed").await;
        guest.selects("changed").await;
        // One who came while nobody was told.
        let last = crowd.guests.iter().rposition(|guest| guest.at == at).unwrap();
        leavers.push(crowd.guests.remove(last));
    }
    for leaver in leavers {
        left.push(leaver.leaves().await);
    }
    left
}

async fn knows_of_all(what: &str, fleet: &Fleet, crowd: &mut Crowd, left: &[String], redis: &Server) {
    fleet.hears().await;
    let whole = truth::agrees(fleet, crowd, || vec![redis]).await;
    note(&format!("{what}: whole after {whole:?}"));
    for (nth, id) in left.iter().enumerate() {
        let verdict = eventually("those who left have a verdict", async || {
            let answer = fleet.lookup(nth % 3, id).await;
            (answer.status == 410).then(|| answer.json()["verdict"].clone())
        })
        .await;
        assert_eq!((&verdict["state"], &verdict["cause"]), (&json!("closed"), &json!("client_closed")), "{verdict}");
    }
    for nth in 0..crowd.guests.len() {
        let answer = fleet.lookup(nth % 3, &crowd.guests[nth].id).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    crowd.all_reach_all(fleet).await;
    crowd.rooms_reach_everybody(fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_seconds_of_pause_disconnect_nobody() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let witness = Witness::begins((0..3).map(|at| fleet.gateway(at).address()), &crowd.ids());
    redis.pause(Duration::from_secs(3));
    crowd.comes(&fleet, 0, 5).await;
    crowd.comes(&fleet, 1, 5).await;
    let slowest = crowd.guests.iter().map(|guest| guest.greeted_after).max().unwrap();
    assert!(slowest < GREETED, "{slowest:?}");
    // Not asked before the pause is over, since our own questions wait for its end as well.
    sleep(Duration::from_secs(3)).await;
    witness.ends("a pause of 3 s").await;
    knows_of_all("a pause of 3 s", &fleet, &mut crowd, &[], &redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_seconds_without_an_answer_disconnect_nobody() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let leavers = choose_leavers(&mut crowd);
    let witness = Witness::begins((0..3).map(|at| fleet.gateway(at).address()), &crowd.ids());
    redis.stop();
    let (left, ()) = tokio::join!(life_goes_on(&fleet, &mut crowd, leavers), sleep(Duration::from_secs(8)));
    redis.cont();
    knows_of_all("stopped for 8 s", &fleet, &mut crowd, &left, &redis).await;
    witness.ends("stopped for 8 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_seconds_without_redis_disconnect_nobody() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let leavers = choose_leavers(&mut crowd);
    let witness = Witness::begins((0..3).map(|at| fleet.gateway(at).address()), &crowd.ids());
    redis.kill();
    let (left, ()) = tokio::join!(life_goes_on(&fleet, &mut crowd, leavers), sleep(Duration::from_secs(30)));
    block_in_place(|| redis.restart());
    knows_of_all("30 s without Redis", &fleet, &mut crowd, &left, &redis).await;
    witness.ends("30 s without Redis").await;
}
