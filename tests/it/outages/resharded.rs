//! A real Redis Cluster: its slots move, its masters change places, and die.

use super::{
    chatter::{Chatter, Promise, every_promise_is_held},
    crowd::Crowd,
    fleet::{Fleet, MENDED, within},
    guest::Guest,
    note, truth,
    witness::Witness,
};
use crate::patience::eventually;
use serde_json::{Value, json};
use servers::{Cluster, Server};
use std::{
    collections::BTreeMap,
    future::IntoFuture,
    time::{Duration, Instant},
};
use tokio::task::block_in_place;

const AT_EACH: usize = 30;
const PAUSE: Duration = Duration::from_millis(40);
/// By then letters arrive again after a master is gone: two seconds until that is noticed, an election, and
/// what two busy cores need.
const HEARS_AGAIN: Duration = Duration::from_secs(20);

fn masters(cluster: &Cluster) -> Vec<&Server> {
    block_in_place(|| cluster.masters()).into_iter().map(|index| &cluster.nodes()[index]).collect()
}

fn sockets(crowd: &Crowd) -> Vec<Value> {
    crowd.guests.iter().map(|guest| json!({"socketId": guest.id})).collect()
}

async fn bell_slot(fleet: &Fleet, cluster: &Cluster, of: usize) -> u16 {
    let bell = format!("holdfast:{{i:{}}}:bell", fleet.mark(of, of).await);
    cluster.slot_of(&bell)
}

/// Everything from anywhere, as on one server.
async fn all_works(fleet: &Fleet, cluster: &Cluster, crowd: &mut Crowd) {
    fleet.hears().await;
    truth::is_told(fleet, crowd, || masters(cluster), MENDED).await;
    crowd.all_reach_all(fleet).await;
    crowd.rooms_reach_everybody(fleet).await;
    crowd.is_undisturbed();
}

/// Six of one user come in turn to three places, and four may stay.
async fn caps_count_over_all(fleet: &Fleet, crowd: &mut Crowd) {
    let mut all = Vec::new();
    for nth in 0..6 {
        let address = fleet.gateway(nth % 3).address();
        all.push(Guest::enters(address, nth % 3, "many", None, &format!("&client_id=c{nth}")).await);
    }
    for mut evicted in all.drain(..2) {
        assert_eq!(evicted.is_closed().await.0, 4410);
    }
    crowd.guests.extend(all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_load_and_nothing_is_lost_in_silence() {
    let cluster = block_in_place(|| Cluster::of(3, 0));
    let fleet = Fleet::on(&cluster.url(), &[("MAX_SOCKETS_PER_USER", "4")]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    caps_count_over_all(&fleet, &mut crowd).await;
    all_works(&fleet, &cluster, &mut crowd).await;

    let places: Vec<_> = (0..3).map(|at| fleet.gateway(at).address()).collect();
    let witness = Witness::begins(places.clone(), &crowd.ids());
    let chatter = Chatter::begins(places, &sockets(&crowd), 1_000_000, PAUSE);
    chatter.goes_on(50).await;
    let mut slots = vec![bell_slot(&fleet, &cluster, 0).await, bell_slot(&fleet, &cluster, 1).await];
    // A partition that holds somebody.
    let row = masters(&cluster).iter().flat_map(|server| server.keys()).find(|key| key.contains(":socket:")).unwrap();
    slots.push(cluster.slot_of(&row));
    for slot in slots {
        let from = cluster.owner_of(slot);
        let to = block_in_place(|| cluster.masters()).into_iter().find(|index| *index != from).unwrap();
        // Half of it moves, and for a while clients are sent to and fro.
        let migration = block_in_place(|| cluster.begin_migration(slot, to));
        chatter.goes_on(20).await;
        block_in_place(|| migration.move_keys(1));
        chatter.goes_on(20).await;
        block_in_place(|| migration.finish_with_keys());
        chatter.goes_on(60).await;
    }
    fleet.hears().await;
    chatter.goes_on(100).await;

    let told = chatter.ends().await;
    let promises = every_promise_is_held(&told, &mut crowd.guests).await;
    assert!(promises.get(&Promise::Delivered).is_some_and(|delivered| delivered * 2 > told.len()), "{promises:?}");
    witness.ends("three slots moved").await;
    all_works(&fleet, &cluster, &mut crowd).await;
    truth::agrees(&fleet, &crowd, || masters(&cluster)).await;
    fleet.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_master_carries_the_bell_and_the_fleet_follows() {
    let cluster = block_in_place(|| Cluster::of(3, 1));
    let fleet = Fleet::on(&cluster.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    all_works(&fleet, &cluster, &mut crowd).await;
    let slot = bell_slot(&fleet, &cluster, 0).await;
    let places: Vec<_> = (0..3).map(|at| fleet.gateway(at).address()).collect();
    let witness = Witness::begins(places.clone(), &crowd.ids());
    let chatter = Chatter::begins(places, &sockets(&crowd), 1_000_000, PAUSE);

    chatter.goes_on(50).await;
    block_in_place(|| cluster.failover(slot));
    let began = Instant::now();
    fleet.hears().await;
    note(&format!("all hear {:?} after a failover", began.elapsed()));
    all_works(&fleet, &cluster, &mut crowd).await;

    let master = cluster.owner_of(slot);
    cluster.kill(master);
    let began = Instant::now();
    block_in_place(|| cluster.settle());
    let settled = began.elapsed();
    fleet.hears().await;
    crowd.reaches_again(&fleet, HEARS_AGAIN).await;
    note(&format!("the cluster settled {settled:?} after the kill, letters arrive again after {:?}", began.elapsed()));
    assert!(began.elapsed() < HEARS_AGAIN, "{:?}", began.elapsed());
    chatter.goes_on(50).await;

    let told = chatter.ends().await;
    every_promise_is_held(&told, &mut crowd.guests).await;
    witness.ends("a failover and a kill").await;
    all_works(&fleet, &cluster, &mut crowd).await;
    truth::agrees(&fleet, &crowd, || masters(&cluster)).await;
    // A master that dies takes letters with it that no replica had yet.
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}

/// The replica that takes over has never heard of some who live. Their owners tell it, and until then nobody
/// says that they never were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_failover_forgot_is_not_called_unseen() {
    let cluster = block_in_place(|| Cluster::of(3, 1));
    let fleet = Fleet::on(&cluster.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, 10).await;
    truth::is_told(&fleet, &crowd, || masters(&cluster), MENDED).await;
    let master = block_in_place(|| cluster.masters())[0];
    let port = cluster.nodes()[master].port().to_string();
    let follows = |node: &&Server| node.info("replication", "master_port").as_ref() == Some(&port);
    let replica = cluster.nodes().iter().find(follows).expect("a replica");

    fleet.has_settled_in().await;
    // From here on the replica learns nothing more.
    replica.stop();
    cluster.nodes()[master].ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    crowd.comes(&fleet, 0, 30).await;
    let newcomers: Vec<_> = crowd.guests.iter().filter(|guest| guest.at == 0).map(|guest| guest.id.clone()).collect();
    let witness = Witness::begins([1, 2].map(|at| fleet.gateway(at).address()), &newcomers);
    cluster.kill(master);
    replica.cont();
    block_in_place(|| cluster.settle());
    fleet.hears().await;
    within(MENDED, "all are found again", async || {
        for (nth, id) in newcomers.iter().enumerate() {
            let answer = fleet.lookup(1 + nth % 2, id).await;
            (answer.status == 200).then_some(()).ok_or_else(|| answer.text())?;
        }
        Ok(())
    })
    .await;
    witness.ends("those whom a failover forgot").await;
    all_works(&fleet, &cluster, &mut crowd).await;
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}

/// Who needs it waits; everybody else is served. What is unknown elsewhere is called so, unless an instance is cut
/// off with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_keeps_nobody_from_the_others() {
    let cluster = block_in_place(|| Cluster::of(3, 0));
    cluster.nodes().iter().for_each(|node| drop(node.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"])));
    let fleet = Fleet::on(&cluster.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, 20).await;
    fleet.has_settled_in().await;
    all_works(&fleet, &cluster, &mut crowd).await;
    // Two instances at least have their bells elsewhere, and one of them is asked about all sockets.
    let mut carried = [0; 3];
    let mut carrier_of = [0; 3];
    for (at, carrier) in carrier_of.iter_mut().enumerate() {
        *carrier = cluster.owner_of(bell_slot(&fleet, &cluster, at).await);
        carried[*carrier] += 1;
    }
    let hung = (0..3).min_by_key(|master| carried[*master]).unwrap();
    let asked = (0..3).find(|at| carrier_of[*at] != hung).unwrap();
    // As old as one that lives, and nobody's.
    let (prefix, _) = crowd.guests[0].id.rsplit_once('-').unwrap();
    let strangers: Vec<_> = (0..60_u64).map(|nth| format!("{prefix}-{:012x}", nth * 0x0123_4567_89ab)).collect();

    // Whose lease lies there cannot renew it, and may let in whom nobody else hears of.
    let list = cluster.owner_of(cluster.slot_of("holdfast:{m}:instances"));
    let is_blind = carried[hung] > 0 || list == hung;

    let node = &cluster.nodes()[hung];
    node.stop();
    let count = async |ids: &[String]| {
        let mut answers = BTreeMap::new();
        for id in ids {
            *answers.entry(fleet.lookup(asked, id).await.status).or_insert(0_usize) += 1;
        }
        answers
    };
    within(MENDED, "the others serve on", async || {
        let (began, known, unknown) = (Instant::now(), count(&crowd.ids()).await, count(&strangers).await);
        let took = began.elapsed();
        let some = |answers: &BTreeMap<u16, usize>, status| answers.get(&status) >= Some(&15);
        // A question that waits for the one that hangs takes two seconds.
        let knows =
            if is_blind { unknown == BTreeMap::from([(503, 60)]) } else { some(&unknown, 404) && unknown.len() == 2 };
        let is_right = some(&known, 200) && knows && took.as_secs() < 10;
        assert!(!known.contains_key(&404) && !known.contains_key(&410), "{known:?}");
        is_right.then_some(()).ok_or_else(|| format!("known {known:?}, unknown {unknown:?}, in {took:?}"))
    })
    .await;
    let health = fleet.gateway(asked).get("/health").await;
    assert_eq!(health.json()["status"], "degraded", "{}", health.text());

    node.cont();
    all_works(&fleet, &cluster, &mut crowd).await;
    truth::agrees(&fleet, &crowd, || masters(&cluster)).await;
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}

/// Who has its letters there waits; a word to somebody else is told meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_holds_up_no_words_about_calls_to_others() {
    let cluster = block_in_place(|| Cluster::of(3, 0));
    cluster.nodes().iter().for_each(|node| drop(node.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"])));
    let mut fleet = Fleet::on(&cluster.url(), &[]).await;
    // One of the three has its letters where the two others have not.
    let (slow, hung) = loop {
        let mut carriers = Vec::new();
        for at in 0..3 {
            carriers.push(cluster.owner_of(bell_slot(&fleet, &cluster, at).await));
        }
        let alone = (0..3).find(|at| carriers.iter().filter(|carrier| **carrier == carriers[*at]).count() == 1);
        if let Some(at) = alone {
            break (at, &cluster.nodes()[carriers[at]]);
        }
        fleet.kill(0);
        fleet.restart(0).await;
    };
    let (owner, other) = ((slow + 1) % 3, (slow + 2) % 3);
    let rows = || hung.keys().iter().filter(|key| key.contains("}:socket:")).count();
    let mut held_up = fleet[owner].greeted("/ws").await;
    // And the row of the other's client is elsewhere, too.
    let mut client = loop {
        let before = rows();
        let client = fleet[owner].greeted("/ws").await;
        if rows() == before {
            break client;
        }
    };
    let asked = |id: &str, ms: u64| json!({"socketId": id, "event": "x", "timeoutMs": ms});
    let asking = tokio::spawn(fleet[slow].post("/api/call", &asked(&held_up.id, 20_000)).into_future());
    let call = held_up.hears().await;
    hung.stop();
    eventually("it is on its way to say that it has been given", async || {
        (fleet[owner].metric("holdfast_letters_sent_total{kind=\"of_call\"}").await >= 1.0).then_some(())
    })
    .await;
    // Shorter than what a server is waited for.
    let answer = fleet[other].post("/api/call", &asked(&client.id, 1000)).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["code"], &body["delivered"]), (504, &json!("no_reply"), &json!(true)), "{body}");
    assert_eq!(client.hears().await["type"], "x");
    hung.cont();
    held_up.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    assert_eq!(asking.await.unwrap().status, 200);
    fleet.hears().await;
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}
