//! Redis forgets everything. The sockets are the memory: nobody is disconnected, nobody who lives is called
//! gone, and everything is there again.

use super::{
    crowd::Crowd,
    fleet::{Fleet, MENDED},
    truth,
    witness::Witness,
};
use crate::patience::eventually;
use serde_json::json;
use servers::Server;
use tokio::task::block_in_place;

const AT_EACH: usize = 100;

/// Everything is as it was, and everybody who was there was never called gone.
async fn is_whole_again(what: &str, fleet: &Fleet, crowd: &mut Crowd, witness: Witness, redis: &Server) {
    fleet.hears().await;
    let whole = truth::agrees(fleet, crowd, || vec![redis]).await;
    witness.goes_on(100).await;
    for nth in 0..crowd.guests.len() {
        let answer = fleet.lookup(nth % 3, &crowd.guests[nth].id).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    witness.ends(&format!("{what}, whole after {whole:?}")).await;
    crowd.all_reach_all(fleet).await;
    crowd.rooms_reach_everybody(fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}

/// While Redis is away, as the contract says of each instance.
async fn serves_on_without_it(fleet: &Fleet, crowd: &mut Crowd) {
    for at in 0..3 {
        let gateway = fleet.gateway(at);
        eventually("it is degraded", async || {
            let health = gateway.get("/health").await;
            assert_eq!(health.status, 200);
            let health = health.json();
            (health["status"] == "degraded" && health["redis"] == "down").then_some(())
        })
        .await;
        assert_eq!(gateway.get("/health/live").await.status, 200);
        gateway.get("/health/ready").await.refuses(503, "Redis does not answer");
        let number = crowd.fresh();
        let here = crowd.one_at(at);
        let answer = fleet.sends(at, json!({"socketId": here.id}), number).await;
        assert_eq!((answer.status, &answer.json()["delivered"]), (200, &json!(1)), "{}", answer.text());
        here.hears(number).await;
        let there = crowd.one_at((at + 1) % 3).id.clone();
        for answer in [fleet.sends(at, json!({"socketId": there}), 0).await, fleet.lookup(at, &there).await] {
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (503, &json!("registry_unavailable")),
                "{}",
                answer.text()
            );
            answer.is_problem();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_told_again_what_is_there() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let witness = Witness::begins((0..3).map(|at| fleet.gateway(at).address()), &crowd.ids());
    redis.kill();
    serves_on_without_it(&fleet, &mut crowd).await;
    witness.goes_on(300).await;
    block_in_place(|| redis.restart());
    is_whole_again("killed and back empty", &fleet, &mut crowd, witness, &redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_flushed_is_told_again_what_is_there() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[]).await;
    let mut crowd = Crowd::at_each(&fleet, AT_EACH).await;
    truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    let witness = Witness::begins((0..3).map(|at| fleet.gateway(at).address()), &crowd.ids());
    for _ in 0..2 {
        redis.ask(&["FLUSHALL"]);
        witness.goes_on(150).await;
        truth::is_told(&fleet, &crowd, || vec![&redis], MENDED).await;
    }
    is_whole_again("flushed twice", &fleet, &mut crowd, witness, &redis).await;
}
