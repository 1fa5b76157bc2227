//! An instance is stopped, and goes on: after a moment as if nothing had been, after too long as another one.

use super::{
    chatter::Chatter,
    crowd::Crowd,
    fleet::{Fleet, MENDED, within},
    note, truth,
    witness::Witness,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Server;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::sleep;

const AT_EACH: usize = 60;
const PAUSE: Duration = Duration::from_millis(40);
const FIRST: u64 = 1_000_000;

/// Users and rooms in turn.
fn everybody(crowd: &Crowd) -> Vec<Value> {
    let users = crowd.guests.iter().map(|guest| json!({"userId": guest.user}));
    users
        .enumerate()
        .map(|(n, user)| if n % 4 == 3 { json!({"roomId": format!("r{}", n % 10)}) } else { user })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_slept_until_it_was_declared_dead_begins_anew() {
    let redis = Server::start();
    // Longer than the sleep: what ends sockets here is that they were declared lost.
    let mut fleet = Fleet::on(&redis.url(), &[("WS_PING_INTERVAL", "120s")]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let before = fleet.incarnations(1).await["web1"].clone();
    let tomb = format!("holdfast:{{i:{}}}:tomb", fleet.mark(1, 0).await);
    let places = [1, 2].map(|at| fleet.gateway(at).address());
    let chatter = Chatter::begins(places, &everybody(&crowd), FIRST, PAUSE);
    chatter.goes_on(50).await;

    fleet.gateway(0).signal(Signal::STOP);
    chatter.goes_on(20).await;
    let mut asleep = crowd.take(|guest| guest.at == 0);
    let movers = asleep.split_off(AT_EACH / 3);
    crowd.moves(&fleet, movers, |nth| 1 + nth % 2).await;
    let declared = within(MENDED, "the others declare it dead", async || {
        let listed = fleet.incarnations(1).await.contains_key("web1");
        let tombs = redis.text(&["EXISTS", &tomb]);
        if tombs == "1" && !listed { Ok(()) } else { Err(format!("tombs: {tombs}, listed: {listed}")) }
    })
    .await;
    let answers: Vec<_> = {
        let mut answers = Vec::new();
        for guest in &asleep {
            answers.push(fleet.lookup(2, &guest.id).await);
        }
        answers
    };
    for answer in answers {
        assert_eq!(
            (answer.status, &answer.json()["verdict"]["cause"]),
            (410, &json!("instance_crash")),
            "{}",
            answer.text()
        );
    }

    fleet.gateway(0).signal(Signal::CONT);
    fleet.gateway_mut(0).logs(&["declared dead"]).await;
    for stayer in &mut asleep {
        let (code, reason) = stayer.is_closed().await;
        assert_eq!(code, 1012, "{reason}");
        assert_eq!(stayer.heard_twice(), [0; 0]);
    }
    note(&format!("declared dead after {declared:?}"));
    fleet.hears().await;
    let after = fleet.incarnations(1).await["web1"].clone();
    assert_ne!(before, after);
    crowd.comes(&fleet, 0, 20).await;
    crowd.moves(&fleet, asleep, |_| 0).await;
    crowd.all_reach_all(&fleet).await;
    chatter.goes_on(50).await;

    let mut answers = BTreeMap::new();
    for told in chatter.ends().await {
        *answers.entry((told.status, told.body["status"].to_string())).or_insert(0) += 1;
    }
    note(&format!("sends: {answers:?}"));
    assert!(answers.keys().all(|(status, _)| *status == 200), "{answers:?}");
    truth::agrees(&fleet, &crowd, || vec![&redis]).await;
    crowd.rooms_reach_everybody(&fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}

/// Eight seconds are less than a lease: others wait for answers meanwhile, and that is all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_sleep_is_nobodys_death() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let before = fleet.incarnations(1).await;
    let witness = Witness::begins([1, 2].map(|at| fleet.gateway(at).address()), &crowd.ids());
    let places = [1, 2].map(|at| fleet.gateway(at).address());
    let targets: Vec<_> = crowd.guests.iter().map(|guest| json!({"socketId": guest.id})).collect();
    let chatter = Chatter::begins(places, &targets, FIRST, PAUSE);

    fleet.gateway(0).signal(Signal::STOP);
    sleep(Duration::from_secs(8)).await;
    fleet.gateway(0).signal(Signal::CONT);
    fleet.hears().await;
    chatter.goes_on(100).await;

    let told = chatter.ends().await;
    super::chatter::every_promise_is_held(&told, &mut crowd.guests).await;
    witness.ends("a short sleep").await;
    assert_eq!(fleet.incarnations(1).await, before);
    truth::agrees(&fleet, &crowd, || vec![&redis]).await;
    crowd.rooms_reach_everybody(&fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}

/// Who stood still did not listen, so nobody may be called silent for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_slept_longer_than_a_ping_may_take_calls_nobody_dead() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[("WS_PING_INTERVAL", "2s"), ("WS_PING_TIMEOUT", "2s")]).await;
    let mut crowd = Crowd::at_each(&fleet, 5).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    fleet.gateway(0).signal(Signal::STOP);
    sleep(Duration::from_secs(6)).await;
    fleet.gateway(0).signal(Signal::CONT);
    fleet.hears().await;
    crowd.all_reach_all(&fleet).await;
    truth::agrees(&fleet, &crowd, || vec![&redis]).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}
