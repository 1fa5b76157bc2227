//! The scripts against the rules: the same random operations on a real Redis and on the model, with the
//! same answers and, in the end, the same keys.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "scripts/answers.rs"]
mod answers;
#[path = "scripts/logs.rs"]
mod logs;
mod model;
#[path = "scripts/once.rs"]
mod once;
#[path = "scripts/real.rs"]
mod real;
#[path = "scripts/steps.rs"]
mod steps;

use model::{Flaw, Store};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use real::Real;
use steps::{LISTENERS, Step, Universe, step};

/// Sequences tried; each is some tens of scripts.
const SEQUENCES: u32 = 250;
/// … at most, until a lack is seen: some show in one of a hundred sequences only.
const UNTIL_SEEN: u32 = 20 * SEQUENCES;

#[test]
fn the_scripts_do_what_the_rules_say() {
    if let Err(error) = try_sequences(None) {
        panic!("{error}");
    }
}

/// A model that lacks a rule is not what the scripts do; else they would be held against nothing.
#[test]
fn a_rule_that_one_of_them_lacks_is_noticed() {
    for flaw in [
        Flaw::ArrivalOrder,
        Flaw::EndsAnybody,
        Flaw::PastClaims,
        Flaw::TakerTells,
        Flaw::LateAdmits,
        Flaw::BlindCount,
        Flaw::EndsLater,
        Flaw::LeftStays,
        Flaw::TokenLives,
        Flaw::EndsNobody,
        Flaw::DropsAway,
    ] {
        assert!(try_sequences(Some(flaw)).is_err(), "{flaw:?}");
    }
}

fn try_sequences(flaw: Option<Flaw>) -> Result<(), String> {
    let server = servers::Server::start();
    let universe = Universe::new();
    // Nobody reads the sequence that shows a lack, so it need not be the shortest.
    let (cases, max_shrink_iters) = if flaw.is_some() { (UNTIL_SEEN, 0) } else { (SEQUENCES, 500) };
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    let outcome = TestRunner::new(config).run(&proptest::collection::vec(step(), 1..60), |steps| {
        let mut real = Real::new(&[server.url()], Box::new(|_| 0), &universe);
        compare(&mut real, &universe, &steps, Store { flaw, ..Store::default() })
    });
    outcome.map_err(|error| error.to_string())
}

/// `EVAL` does not catch a key of another slot while both slots lie on one node, so each script runs on a
/// cluster of three, in the forms that a cluster wants.
#[test]
fn every_script_keeps_to_one_slot() {
    let cluster = servers::Cluster::of(3, 0);
    let universe = Universe::new();
    let urls: Vec<_> = cluster.nodes().iter().map(servers::Server::url).collect();
    let owner = |key: &str| cluster.owner_of(cluster.slot_of(key));
    let mut real = Real::new(&urls, Box::new(owner), &universe);
    if let Err(error) = compare(&mut real, &universe, &steps::each_script_once(), Store::default()) {
        panic!("{error}");
    }
}

fn compare(real: &mut Real<'_>, universe: &Universe, steps: &[Step], store: Store) -> Result<(), TestCaseError> {
    let mut store = store;
    let mut rung: Vec<_> = LISTENERS.iter().map(|listeners| vec![Vec::new(); *listeners]).collect();
    for (nth, step) in steps.iter().enumerate() {
        let before = real.now();
        let (theirs, at) = real.run(universe, step, &store);
        let (ours, rings) = answers::of_model(&mut store, universe, step, at.unwrap_or(before));
        prop_assert_eq!(theirs, ours, "step {}: {:?}", nth, step);
        if let Some((by, text)) = rings {
            rung[by].iter_mut().for_each(|ear: &mut Vec<String>| ear.push(text.clone()));
        }
    }
    prop_assert_eq!(real.rung(universe), rung.concat(), "what the bells said");
    prop_assert_eq!(real.dump(), answers::dump(&store, universe));
    Ok(())
}
