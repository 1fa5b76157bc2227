//! Thousands of calls while sockets move, instances are killed, stopped and drained, and Redis stands still.

use super::{
    board::Board,
    callers,
    fleet::Fleet,
    note,
    notes::{Note, What, Word},
    pages,
    rules::judge,
};
use crate::asking::open_more_files;
use rustix::process::Signal;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

const CALLERS: usize = 64;
const PAGES: usize = 36;
const CALLS: u64 = 10_000;
/// Where two cores have so much else to do that fewer are asked in this time, it is enough all the same.
const LONG_ENOUGH: Duration = Duration::from_secs(75);
const CALLS_MIN: u64 = 3000;
/// Between two troubles so many calls are answered.
const CALM: u64 = 500;

struct Storm<'a> {
    fleet: Fleet,
    board: &'a Board,
}

impl Storm<'_> {
    /// What must read 0 is read before it is gone.
    async fn is_sound(&self, at: usize) {
        for figure in ["wrong_owner_delivery", "duplicate_write", "panics"] {
            let gateway = self.fleet.gateway(at);
            let value = gateway.metric(&format!("holdfast_{figure}_total")).await;
            assert_eq!(value, 0.0, "{figure} of {}:\n{}", Fleet::name(at), gateway.output());
        }
    }

    async fn kills(&mut self, at: usize) {
        self.is_sound(at).await;
        self.board.closes(at);
        self.board.notes(What::Killed { instance: at });
        self.fleet.kill(at);
        self.board.hears(CALM).await;
        self.returns(at).await;
    }

    async fn drains(&mut self, at: usize) {
        self.is_sound(at).await;
        self.board.closes(at);
        self.board.notes(What::Drained { instance: at });
        self.fleet.gateway(at).signal(Signal::TERM);
        self.fleet.ends(at).await;
        self.board.notes(What::Ended { instance: at });
        self.board.hears(CALM).await;
        self.returns(at).await;
    }

    async fn returns(&mut self, at: usize) {
        self.fleet.restart(at).await;
        self.board.opens(at, self.fleet.gateway(at).address());
        self.board.hears(CALM).await;
    }

    async fn stops(&self, at: usize, time: Duration) {
        self.board.notes(What::Stopped { instance: at });
        self.fleet.gateway(at).signal(Signal::STOP);
        sleep(time).await;
        self.fleet.gateway(at).signal(Signal::CONT);
        self.board.notes(What::GoesOn { instance: at });
        self.board.hears(CALM).await;
    }

    async fn redis_pauses(&self, time: Duration) {
        self.board.notes(What::RedisAway);
        self.fleet.redis().pause(time);
        sleep(time).await;
        self.board.notes(What::RedisBack);
        self.board.hears(CALM).await;
    }

    async fn redis_stops(&self, time: Duration) {
        self.board.notes(What::RedisAway);
        self.fleet.redis().stop();
        sleep(time).await;
        self.fleet.redis().cont();
        self.board.notes(What::RedisBack);
        self.board.hears(CALM).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_true_of_what_clients_saw() {
    open_more_files();
    let fleet = Fleet::with(&[("DRAIN_TIMEOUT", "6s"), ("LOG_LEVEL", "warn")]).await;
    let board = Board::of(&fleet, PAGES);
    let mut storm = Storm { fleet, board: &board };
    let pages = pages::open(&board, PAGES);
    board.is_full().await;
    let began = Instant::now();
    let callers = callers::come(&board, CALLERS);
    board.hears(CALM).await;

    storm.kills(0).await;
    storm.redis_pauses(Duration::from_secs(2)).await;
    storm.drains(1).await;
    storm.redis_stops(Duration::from_secs(3)).await;
    storm.stops(2, Duration::from_millis(2500)).await;
    storm.kills(2).await;
    storm.redis_pauses(Duration::from_millis(600)).await;
    storm.drains(0).await;
    while board.asked() < CALLS && began.elapsed() < LONG_ENOUGH {
        sleep_until(Instant::now() + Duration::from_millis(100)).await;
    }

    let took = began.elapsed();
    board.send_callers_home();
    callers.join_all().await;
    // Afterwards, so that whatever was written is also read.
    board.send_pages_home();
    pages.join_all().await;
    let history = board.history();
    tells(&history, took);
    let faults = judge(&history);
    assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), faults.iter().take(20).collect::<Vec<_>>());
    assert!(board.asked() >= CALLS_MIN, "{}", board.asked());
    for at in 0..3 {
        storm.is_sound(at).await;
    }
    storm.fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}

/// For whoever reads it: what came out, and how much later than the budget the latest answer came.
fn tells(history: &[Note], took: Duration) {
    let (mut outcomes, mut words) = (BTreeMap::<String, usize>::new(), BTreeMap::<&str, usize>::new());
    let (mut asked, mut latest) = (BTreeMap::new(), Duration::ZERO);
    for Note { at, what } in history {
        match what {
            What::Asked { key, budget, .. } => drop(asked.insert(*key, *at + *budget)),
            What::Answered { key, status, body } => {
                latest = latest.max(at.saturating_sub(asked[key]));
                let code = body["code"].as_str().unwrap_or("replied");
                let fallback = if body["fallback"] == true { " by a fallback" } else { "" };
                let delivered = body.get("delivered").map(|word| format!(" {word}")).unwrap_or_default();
                *outcomes.entry(format!("{status} {code}{delivered}{fallback}")).or_default() += 1;
            }
            What::Broken { .. } => *outcomes.entry("hung up".into()).or_default() += 1,
            What::Delivered { .. } => *words.entry("deliveries").or_default() += 1,
            What::Said { word: Word::Reply, .. } => *words.entry("replies").or_default() += 1,
            What::Withdrawn { .. } => *words.entry("withdrawals").or_default() += 1,
            What::Parted { .. } => *words.entry("partings").or_default() += 1,
            _ => {}
        }
    }
    note(&format!(
        "{} calls in {took:?}: {outcomes:#?} {words:?}, the latest {latest:?} after its budget",
        asked.len()
    ));
}
