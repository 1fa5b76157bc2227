//! A master that sentinels watch gives way to its replica, in good order and in none.

use super::{
    crowd::Crowd,
    fleet::{Fleet, MENDED, within},
    note, truth,
    witness::Witness,
};
use servers::{Sentinels, Server};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

const AT_EACH: usize = 40;
const FOLLOWS: Duration = Duration::from_secs(30);
/// A few hundred sockets are told in less than a second; nobody waits for a comparison to come round.
const TOLD: Duration = Duration::from_secs(10);

fn master(sentinels: &Sentinels) -> Vec<&Server> {
    vec![&sentinels.nodes()[block_in_place(|| sentinels.master())]]
}

async fn follows(what: &str, fleet: &Fleet, sentinels: &Sentinels, crowd: &mut Crowd) {
    let began = Instant::now();
    block_in_place(|| sentinels.settle());
    let settled = began.elapsed();
    fleet.hears().await;
    crowd.reaches_again(fleet, FOLLOWS).await;
    note(&format!("{what}: settled after {settled:?}, letters arrive after {:?}", began.elapsed()));
    // Another master may have lost anything, so it is told everything at once.
    let told = truth::is_told(fleet, crowd, || master(sentinels), TOLD).await;
    note(&format!("{what}: told {told:?} later"));
    crowd.all_reach_all(fleet).await;
    crowd.rooms_reach_everybody(fleet).await;
    crowd.is_undisturbed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_follows_the_sentinels() {
    let sentinels = block_in_place(Sentinels::start);
    let fleet = Fleet::on(&sentinels.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || master(&sentinels), MENDED).await;
    let witness = Witness::begins((0..3).map(|at| fleet.gateway(at).address()), &crowd.ids());

    block_in_place(|| sentinels.failover());
    // They are told to a master that will not be one for long, and to nobody else.
    crowd.comes(&fleet, 0, 5).await;
    let newcomers: Vec<_> = crowd.guests.iter().rev().take(5).map(|guest| guest.id.clone()).collect();
    let late_witness = Witness::begins((0..3).map(|at| fleet.gateway(at).address()), &newcomers);
    follows("a failover", &fleet, &sentinels, &mut crowd).await;

    sentinels.kill_master();
    crowd.comes(&fleet, 1, 5).await;
    follows("a kill", &fleet, &sentinels, &mut crowd).await;
    witness.ends("a failover and a kill").await;
    late_witness.ends("those who came during the failover").await;
    truth::agrees(&fleet, &crowd, || master(&sentinels)).await;
    // What the old master took after the replica was promoted is lost with it.
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}

/// The replica that takes over has never heard of some who live. Their owners tell it, and until then nobody
/// says that they never were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_failover_forgot_is_not_called_unseen() {
    let sentinels = block_in_place(Sentinels::start);
    let fleet = Fleet::on(&sentinels.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, 10).await;
    truth::is_told(&fleet, &crowd, || master(&sentinels), MENDED).await;
    let old = block_in_place(|| sentinels.master());
    let [master_node, replica] = [old, 1 - old].map(|index| &sentinels.nodes()[index]);

    fleet.has_settled_in().await;
    // From here on the replica learns nothing more.
    replica.stop();
    master_node.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    crowd.comes(&fleet, 0, 20).await;
    let newcomers: Vec<_> = crowd.guests.iter().filter(|guest| guest.at == 0).map(|guest| guest.id.clone()).collect();
    let witness = Witness::begins([1, 2].map(|at| fleet.gateway(at).address()), &newcomers);
    master_node.kill();
    replica.cont();
    follows("a failover that forgot", &fleet, &sentinels, &mut crowd).await;
    witness.ends("those whom it forgot").await;
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}

/// The sentinels cannot tell it, so that it goes on answering as if it were the master still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_does_not_know_that_it_was_replaced_is_left() {
    let sentinels = block_in_place(Sentinels::start);
    let fleet = Fleet::on(&sentinels.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, 10).await;
    truth::is_told(&fleet, &crowd, || master(&sentinels), MENDED).await;
    let old = block_in_place(|| sentinels.master());
    let node = &sentinels.nodes()[old];
    // Who is logged in stays so; the sentinels are thrown out and cannot come back.
    node.ask(&["CONFIG", "SET", "requirepass", "secret"]);
    let clients = node.text(&["CLIENT", "LIST"]);
    for client in clients.lines().filter(|client| client.contains(" name=sentinel-")) {
        let id = client.split(['=', ' ']).nth(1).expect("a client has an id");
        node.ask(&["CLIENT", "KILL", "ID", id]);
    }
    within(MENDED, "the sentinels name the other", async || {
        let named = block_in_place(|| sentinels.master());
        (named != old).then_some(()).ok_or_else(|| "the old one".to_owned())
    })
    .await;
    crowd.comes(&fleet, 0, 5).await;
    truth::is_told(&fleet, &crowd, || master(&sentinels), MENDED).await;
    fleet.hears().await;
    crowd.reaches_again(&fleet, FOLLOWS).await;
    crowd.all_reach_all(&fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}
