//! The protocol under every failure that can be thought of, in virtual time: instances that are the real
//! `Owner`, a network that loses, delays and repeats, a store that forgets, and a judge who knows what
//! really happened. A seed is a schedule, and replays to the letter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;
mod sim {
    pub mod back;
    pub mod claims;
    pub mod clients;
    pub mod faults;
    pub mod judge;
    pub mod letters;
    pub mod links;
    pub mod losses;
    pub mod node;
    pub mod reaper;
    pub mod silence;
    pub mod verify;
    pub mod wire;
    pub mod world;
}

use model::Flaw;
use sim::world::World;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// By when everything has to be right again after the last fault.
const CALM_MS: u64 = 60_000;

/// What a schedule came to: the invariant that it violated, if any.
fn run(seed: u64, flaw: Option<Flaw>) -> (Option<String>, World) {
    let shards = if seed.is_multiple_of(2) { 1 } else { 3 };
    let mut world = World::new(seed, shards, flaw);
    let over = world.arrange();
    world.run_until(over);
    world.calm_down();
    world.run_until(over + CALM_MS);
    if world.broken.is_none() {
        world.judge_end();
    }
    (world.broken.clone(), world)
}

fn report(seed: u64, world: &World, why: &str) -> String {
    let faults: Vec<_> = world.faults.iter().map(|(at, fault)| format!("{at:>6} ms {fault:?}")).collect();
    format!(
        "schedule {seed} with {} masters, {} places, {} clients, {:?}\n  {}\nviolates {why}\nreplay: SIM_TELL=1 SIM_SEED={seed} SIM_SCHEDULES=1 cargo test -p holdfast-registry --test simulation -- --ignored night --nocapture\n{}",
        world.shards.len(),
        world.slots.len(),
        world.clients.len(),
        world.noise_was,
        faults.join("\n  "),
        world.told.join("\n"),
    )
}

/// Runs so many schedules on all processors; says which failed, the first in full.
fn run_many(first: u64, schedules: u64, flaw: Option<Flaw>, stop_at: usize) -> (Vec<(u64, String)>, String) {
    let (next, failed) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let events = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + schedules || failed.lock().unwrap().len() >= stop_at {
                        return;
                    }
                    let (broken, world) = run(seed, flaw);
                    events.fetch_add(world.events, Ordering::Relaxed);
                    if let Some(why) = broken {
                        failed.lock().unwrap().push((seed, why.clone(), report(seed, &world, &why)));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let told = format!(
        "{schedules} schedules from {first}, {} events, {:.1} s; {} failed\n{}",
        events.into_inner(),
        began.elapsed().as_secs_f64(),
        failed.len(),
        failed.first().map_or("", |(_, _, report)| report)
    );
    (failed.into_iter().map(|(seed, why, _)| (seed, why)).collect(), told)
}

#[test]
fn a_thousand_schedules_hold_every_invariant() {
    let (failed, told) = run_many(1, 1_000, None, 1);
    assert!(failed.is_empty(), "{told}");
}

#[test]
#[ignore = "nightly: SIM_SCHEDULES=10000 cargo test -p holdfast-registry --release --test simulation -- --ignored night"]
fn night() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (schedules, first) = (number("SIM_SCHEDULES").unwrap_or(10_000), number("SIM_SEED").unwrap_or(1));
    let (failed, told) = run_many(first, schedules, None, usize::MAX);
    println!("{told}");
    for (seed, why) in &failed {
        println!("{seed}: {}", &why[..why.floor_char_boundary(6000)]);
    }
    assert!(failed.is_empty(), "{} schedules failed", failed.len());
}

/// Without a rule some schedule goes wrong, and not only for whoever watches that rule.
#[test]
fn every_rule_would_be_missed() {
    // With each the schedule that has found it before; where it does no more, another of the thousand has to.
    let rules = [
        (Flaw::ArrivalOrder, 8),
        (Flaw::EndsAnybody, 8),
        (Flaw::NoDigest, 3),
        (Flaw::TakerTells, 17),
        (Flaw::LateAdmits, 5882),
        (Flaw::PastStays, 23),
        (Flaw::EndsLater, 1467),
        (Flaw::LeftStays, 28),
        (Flaw::TokenLives, 1),
        (Flaw::EndsNobody, 23),
        (Flaw::DropsAway, 23),
        (Flaw::NoWalker, 1),
        (Flaw::ListIsAll, 25),
        (Flaw::SureAtOnce, 606),
        (Flaw::BornUnwatched, 63),
        (Flaw::RoutesTwice, 403),
        (Flaw::MissingIsLost, 1),
        (Flaw::CountStays, 44),
        (Flaw::SilenceIsAssent, 84),
    ];
    for (flaw, found_before) in rules {
        let (mut failed, _) = run_many(found_before, 1, Some(flaw), 1);
        if failed.is_empty() {
            (failed, _) = run_many(1, 1_000, Some(flaw), 1);
        }
        println!("{flaw:?}: {:?}", failed.first());
        assert!(!failed.is_empty(), "nobody would miss the rule that {flaw:?} leaves out");
    }
}

#[test]
fn a_seed_replays_to_the_letter() {
    for seed in 1..20 {
        let (one, other) = (run(seed, None), run(seed, None));
        assert_eq!((one.0, one.1.events, one.1.now), (other.0, other.1.events, other.1.now));
        assert_eq!(format!("{:?}", one.1.store), format!("{:?}", other.1.store));
    }
}
