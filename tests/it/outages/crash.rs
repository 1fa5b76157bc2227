//! An instance is killed: nobody is told goodbye, and the others have to find out.

use super::{
    crowd::Crowd,
    fleet::{Fleet, MENDED, within},
    guest::Guest,
    note, truth,
};
use crate::{asking::open_more_files, http::Answer, patience::eventually};
use futures_util::{StreamExt, stream};
use serde_json::json;
use servers::Server;
use std::time::{Duration, Instant};

const HELD: usize = 2000;
/// Of those, so many come back to the others at once.
const COME_BACK: usize = 400;
/// An answer "at once", with two cores under load.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Not reachable, or gone for a true reason; never live, and never as if it had not been there.
fn is_not_there(answer: &Answer, what: &str) {
    let body = answer.json();
    match answer.status {
        503 => assert_eq!(body["code"], "owner_unreachable", "{what}: {body}"),
        410 => assert_eq!(body["verdict"]["cause"], "instance_crash", "{what}: {body}"),
        _ => panic!("{what}: {}", answer.text()),
    }
}

/// Asks for some of the dead one's sockets; returns the slowest answer.
async fn asks_for_the_dead(fleet: &Fleet, dead: &[Guest], nth: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for (from, guest) in [1, 2].into_iter().zip(dead.iter().cycle().skip(nth * 7)) {
        let asked = Instant::now();
        is_not_there(&fleet.lookup(from, &guest.id).await, "lookup");
        slowest = slowest.max(asked.elapsed());
        let asked = Instant::now();
        is_not_there(&fleet.sends(from, json!({"socketId": guest.id}), 0).await, "send");
        slowest = slowest.max(asked.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_instance_loses_its_sockets_to_the_others() {
    open_more_files();
    let redis = Server::start();
    let mut fleet = Fleet::on(&redis.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, 40).await;
    crowd.comes(&fleet, 0, HELD - 40).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let mark = fleet.mark(1, 0).await;
    let bell = format!("holdfast:{{i:{mark}}}:bell");

    fleet.kill(0);
    let killed = Instant::now();
    eventually("its bell is gone", async || {
        let heard = redis.text(&["EVAL", "return tostring(redis.call('PUBSUB', 'NUMSUB', KEYS[1])[2])", "1", &bell]);
        (heard == "0").then_some(())
    })
    .await;
    let mut dead = crowd.take(|guest| guest.at == 0);
    assert_eq!(dead.len(), HELD);
    let mut slowest = asks_for_the_dead(&fleet, &dead, 0).await;
    let movers = dead.split_off(HELD - COME_BACK);
    let moved: Vec<_> = movers.iter().map(|guest| guest.id.clone()).collect();
    crowd.moves(&fleet, movers, |nth| 1 + nth % 2).await;

    // From the first moment until nothing of it is left: sends elsewhere go on, and whoever is not there is not called live.
    let clean = async {
        let mut nth = 1;
        within(MENDED, "the dead one is in no index any more", async || {
            slowest = slowest.max(asks_for_the_dead(&fleet, &dead, nth).await);
            nth += 1;
            match fleet.lookup(1 + nth % 2, &dead[0].id).await.status {
                410 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
        crowd.all_reach_all(&fleet).await;
        truth::agrees(&fleet, &crowd, || vec![&redis]).await;
    };
    clean.await;
    let took = killed.elapsed();
    note(&format!("clean {took:?} after the kill; the slowest answer took {slowest:?}"));
    assert!(took < MENDED, "{took:?}");
    assert!(slowest < AT_ONCE, "{slowest:?}");

    let ids = dead.iter().map(|guest| guest.id.clone()).chain(moved);
    let verdicts = ids.enumerate().map(|(nth, id)| {
        let fleet = &fleet;
        async move {
            let answer = fleet.lookup(1 + nth % 2, &id).await;
            let verdict = &answer.json()["verdict"];
            assert_eq!(answer.status, 410, "{}", answer.text());
            assert_eq!((&verdict["state"], &verdict["cause"]), (&json!("lost"), &json!("instance_crash")), "{verdict}");
            assert_eq!(verdict["instance"], "web1");
        }
    });
    assert_eq!(stream::iter(verdicts).buffer_unordered(16).count().await, HELD);
    crowd.rooms_reach_everybody(&fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}
