//! The connections on which instances hear each other are cut, and nothing else is: they can speak and do
//! not hear.

use super::{
    chatter::{Chatter, Promise, every_promise_is_held},
    crowd::Crowd,
    fleet::{Fleet, MENDED, within},
    note, truth,
    witness::Witness,
};
use serde_json::json;
use servers::Server;
use std::time::Duration;

const CUTS: usize = 6;
/// Noticed at the next beat at the latest, and mended a moment later; the rest is for two busy cores.
const HEARS_AGAIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_deaf_notices_and_misses_nothing_that_was_called_delivered() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, 20).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let places: Vec<_> = (0..3).map(|at| fleet.gateway(at).address()).collect();
    let targets: Vec<_> = crowd.guests.iter().map(|guest| json!({"socketId": guest.id})).collect();
    let witness = Witness::begins(places.clone(), &crowd.ids());
    let chatter = Chatter::begins(places, &targets, 1_000_000, Duration::from_millis(20));

    let mut slowest = Duration::ZERO;
    for _ in 0..CUTS {
        chatter.goes_on(100).await;
        assert_eq!(redis.cut_subscribers(), 3);
        let hears = within(HEARS_AGAIN, "all three are subscribed again", async || {
            match redis.text(&["EVAL", "return tostring(#redis.call('PUBSUB', 'CHANNELS'))", "0"]).as_str() {
                "3" => Ok(()),
                other => Err(format!("{other} bells are heard")),
            }
        })
        .await;
        slowest = slowest.max(hears);
    }
    fleet.hears().await;
    chatter.goes_on(100).await;
    note(&format!("heard again after {slowest:?} at most"));

    let told = chatter.ends().await;
    let promises = every_promise_is_held(&told, &mut crowd.guests).await;
    let delivered = promises.get(&Promise::Delivered).copied().unwrap_or_default();
    assert!(delivered * 10 > told.len() * 7, "{promises:?}");
    witness.ends("six cuts").await;
    truth::agrees(&fleet, &crowd, || vec![&redis]).await;
    crowd.rooms_reach_everybody(&fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}
