//! What breaks between a durable send and its page, and what may be missing afterwards: nothing where nothing that
//! keeps it breaks, and of what was lost with a server never without a word.

use crate::{
    client::Client,
    fleet::Fleet,
    http::Answer,
    numbers::{Reader, Senders},
    patience::{eventually, note},
};
use rustix::process::Signal;
use serde_json::json;
use servers::{Relay, Sentinels};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{block_in_place, spawn_blocking},
    time::sleep,
};

/// Its connection is cut, its instance drained, and killed; all in a row.
#[tokio::test]
async fn nothing_is_lost_and_nothing_comes_twice_across_cuts_drains_and_kills() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "3s")]).await;
    let places = [0, 1, 2].map(|at| fleet[at].address());
    let (mut reader, mut client) = Reader::opens(places[0], "user_id=ann").await;
    let senders = Senders::begin(&places[2..], 200, &client.id);
    for at in [1, 0, 0] {
        assert!(reader.reads_on(&mut client, 50).await);
        drop(client);
        // Some come while nobody is there.
        senders.go_on(100).await;
        client = reader.returns(places[at]).await;
    }
    assert!(reader.reads_on(&mut client, 50).await);
    fleet[0].signal(Signal::TERM);
    assert!(!reader.reads(&mut client, |_| false).await, "it is told to go");
    client = reader.returns(places[1]).await;
    assert!(reader.reads_on(&mut client, 50).await);
    fleet.ends(0).await;
    fleet.kill(1);
    assert!(!reader.reads(&mut client, |_| false).await);
    client = reader.returns(places[2]).await;
    assert!(reader.reads_on(&mut client, 50).await);
    let accepted = senders.stop().await;
    let last = accepted.last().unwrap().number;
    assert!(reader.reads(&mut client, |reader| reader.has_heard(last)).await);
    // What was not accepted may have come: nobody was told that it was not. What was, came.
    assert_eq!(reader.resets(), 0, "nothing was lost");
    let missing = reader.misses(&accepted);
    assert!(missing.is_empty(), "{missing:?} of {}", accepted.len());
    fleet.is_sound().await;
}

/// Twice: everything on the way is swallowed, though it was called delivered; and nobody gets through.
#[tokio::test]
async fn a_network_cut_of_five_seconds_loses_nothing_and_repeats_nothing() {
    const CUT: Duration = Duration::from_secs(5);
    let fleet = Fleet::with(&[]).await;
    let places = [0, 1, 2].map(|at| fleet[at].address());
    let relay = Relay::to(fleet[0].port());
    let behind = ([127, 0, 0, 1], relay.port()).into();
    let (mut reader, mut client) = Reader::opens(behind, "user_id=ann").await;
    let senders = Senders::begin(&[places[0], places[1], places[2], places[1]], 50, &client.id);
    assert!(reader.reads_on(&mut client, 100).await);

    relay.freeze();
    sleep(CUT).await;
    relay.cut();
    relay.thaw();
    assert!(!reader.reads(&mut client, |_| false).await, "its connection broke");
    client = reader.returns(places[1]).await;
    assert!(reader.reads_on(&mut client, 500).await);
    drop(client);
    client = reader.returns(behind).await;
    assert!(reader.reads_on(&mut client, 100).await);

    relay.refuse();
    relay.cut();
    assert!(!reader.reads(&mut client, |_| false).await, "its connection broke");
    sleep(CUT).await;
    relay.accept();
    client = reader.returns(behind).await;
    assert!(reader.reads_on(&mut client, 500).await);

    let accepted = senders.stop().await;
    let heard_all = |reader: &Reader| accepted.iter().all(|one| reader.has_heard(one.number));
    assert!(reader.reads(&mut client, heard_all).await);
    client.heard_all().await;
    note(&format!("{} deliveries", accepted.len()));
    assert_eq!((reader.resets(), reader.misses(&accepted).len()), (0, 0));
    fleet.is_sound().await;
}

/// Numbers of nobody else, one for each try: what is not accepted may come all the same.
async fn sends(fleet: &Fleet, id: &str, by: usize, is_enough: impl Fn(&Answer) -> bool) -> (usize, u64) {
    let mut n = 0;
    eventually("it is sent", async || {
        n += 1;
        let body = json!({"socketId": id, "event": "order", "data": [by, n], "durable": true});
        is_enough(&fleet[2].post("/api/send", &body).await).then_some(())
    })
    .await;
    (by, n)
}

async fn a_replica_follows(fleet: &Fleet, id: &str) {
    sends(fleet, id, 8, |answer| answer.status == 202 && answer.json()["durability"] == "replica").await;
}

/// One more, behind which nothing is on its way.
async fn hears_the_last(reader: &mut Reader, client: &mut Client, fleet: &Fleet) {
    let last = sends(fleet, &client.id, 9, |answer| answer.status == 202).await;
    assert!(reader.reads(client, |reader| reader.has_heard(last)).await, "it is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_was_said_to_have_survives_a_failover() {
    let sentinels = Arc::new(block_in_place(Sentinels::start));
    let fleet = Fleet::on(&sentinels.url(), &[("DURABILITY", "replica")]).await;
    let places = [0, 1, 2].map(|at| fleet[at].address());
    let (mut stays, mut client) = Reader::opens(places[0], "user_id=ann").await;
    let (mut leaves, mut leaving) = Reader::opens(places[1], "user_id=bob").await;
    let gone = leaving.id.clone();
    a_replica_follows(&fleet, &client.id).await;
    a_replica_follows(&fleet, &gone).await;
    let senders = Senders::begin(&places, 30, &client.id);
    let early = Senders::begin(&places, 30, &gone);
    assert!(leaves.reads_on(&mut leaving, 50).await && stays.reads_on(&mut client, 50).await);
    drop(leaving);
    fleet[2].verdict(&gone).await;
    assert!(stays.reads_on(&mut client, 100).await);
    let early = early.stop().await;

    let theirs = sentinels.clone();
    let failing = spawn_blocking(move || {
        theirs.kill_master();
        theirs.settle()
    });
    let (_, there) = tokio::join!(failing, stays.reads_on(&mut client, 100));
    assert!(there, "nobody who is there is disconnected");
    fleet.hears().await;
    let mut back = leaves.returns(places[2]).await;
    hears_the_last(&mut leaves, &mut back, &fleet).await;
    assert!(early.iter().any(|one| one.durability == "replica"));
    let missing = leaves.misses(&early);
    assert_eq!((missing.len(), leaves.resets()), (0, 0), "{missing:?} of {}", early.len());

    let accepted = senders.stop().await;
    hears_the_last(&mut stays, &mut client, &fleet).await;
    let missing = stays.misses(&accepted);
    let (sure, unsure): (Vec<_>, Vec<_>) = accepted.iter().partition(|one| one.durability == "replica");
    note(&format!(
        "{} early, {} sure, {} not, missing {missing:?}, {} resets",
        early.len(),
        sure.len(),
        unsure.len(),
        stays.resets()
    ));
    assert!(missing.iter().all(|one| one.durability != "replica"), "{missing:?}");
    assert!(missing.iter().all(|one| stays.was_told_of(one)), "{missing:?}");
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_the_memory_of_a_server_that_dies_is_never_missed_silently() {
    let sentinels = Arc::new(block_in_place(Sentinels::start));
    let fleet = Fleet::on(&sentinels.url(), &[]).await;
    let places = [0, 1, 2].map(|at| fleet[at].address());
    let (mut stays, mut client) = Reader::opens(places[0], "user_id=ann").await;
    let (mut leaves, mut leaving) = Reader::opens(places[1], "user_id=bob").await;
    let gone = leaving.id.clone();
    let senders = [Senders::begin(&places, 30, &client.id), Senders::begin(&places, 30, &gone)];
    assert!(leaves.reads_on(&mut leaving, 50).await && stays.reads_on(&mut client, 50).await);
    drop(leaving);
    fleet[2].verdict(&gone).await;
    // The replica learns nothing more.
    let old = block_in_place(|| sentinels.master());
    sentinels.nodes()[1 - old].stop();
    sentinels.nodes()[old].ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    assert!(stays.reads_on(&mut client, 100).await);

    let theirs = sentinels.clone();
    let failing = spawn_blocking(move || {
        theirs.nodes()[old].kill();
        theirs.nodes()[1 - old].cont();
        theirs.settle()
    });
    let (_, there) = tokio::join!(failing, stays.reads_on(&mut client, 100));
    assert!(there, "nobody who is there is disconnected");
    fleet.hears().await;
    let mut back = leaves.returns(places[2]).await;
    assert!(leaves.reads_on(&mut back, 50).await);
    let mut lost = 0;
    for (senders, (reader, client)) in senders.into_iter().zip([(&mut stays, &mut client), (&mut leaves, &mut back)]) {
        let accepted = senders.stop().await;
        hears_the_last(reader, client, &fleet).await;
        let missing = reader.misses(&accepted);
        note(&format!("{} of {} are missing, {} resets", missing.len(), accepted.len(), reader.resets()));
        assert!(accepted.iter().all(|one| one.durability == "memory"));
        let silent: Vec<_> = missing.iter().filter(|one| !reader.was_told_of(one)).collect();
        assert!(silent.is_empty(), "{silent:?}");
        lost += missing.len();
    }
    assert!(lost > 50, "{lost}: what the replica did not have was lost with the master");
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}
