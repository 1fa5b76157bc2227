//! Redis' clock, as far as we know it: no two hosts' clocks are ever compared. Every answer that says what
//! time it is there is a sample, the better the shorter its round trip was.

use super::{Redis, beat::ms, scripts::number};
use redis::{Value, cmd};
use rustix::time::{ClockId, clock_gettime};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Samples at the start: the first alone may have waited long for its turn.
const FIRST_SAMPLES: usize = 5;
/// A good sample counts for so long; then clocks have drifted apart, and any other is better.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// Whole milliseconds are told, and kept.
const ROUNDING_MS: u64 = 2;

/// Milliseconds on a clock that also runs while the machine sleeps.
pub fn boottime_ms() -> u64 {
    boottime_us() / 1000
}

fn boottime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

pub struct Clock {
    /// What to add to the milliseconds since the machine was started.
    offset: AtomicU64,
    best: Mutex<Option<(Duration, Instant)>>,
}

impl Clock {
    pub fn new() -> Self {
        let offset = crate::all::epoch_ms().wrapping_sub(boottime_ms());
        Self { offset: AtomicU64::new(offset), best: Mutex::default() }
    }

    /// An answer that said `now` came after a round trip; half of it was the way back.
    pub fn sample(&self, now: u64, round_trip: Duration) {
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        // It is between `now` and the whole round trip later; an estimate outside is one of a clock that was set.
        let was_set = !(now..=now + ms(round_trip) + ROUNDING_MS).contains(&self.now_ms());
        if was_set || best.is_none_or(|(shortest, at)| round_trip <= shortest || at.elapsed() > GOOD_FOR) {
            *best = Some((round_trip, Instant::now()));
            let then = now + ms(round_trip / 2);
            self.offset.store(then.wrapping_sub(boottime_ms()), Ordering::Relaxed);
        }
    }

    pub fn now_ms(&self) -> u64 {
        // A host may have run for longer than Redis' clock says that the world exists.
        self.offset.load(Ordering::Relaxed).wrapping_add(boottime_ms())
    }

    /// As exact as milliseconds, but hardly the same twice.
    pub fn now_us(&self) -> u64 {
        self.offset.load(Ordering::Relaxed).wrapping_mul(1000).wrapping_add(boottime_us())
    }
}

impl Redis {
    /// Reads it a few times, before anybody is told a time.
    pub(super) async fn read_clock(&self) {
        for _ in 0..FIRST_SAMPLES {
            let asked = Instant::now();
            let Ok(Value::Array(time)) = self.link.ask(&cmd("TIME")).await else { return };
            let now = number(time.first()) * 1000 + number(time.get(1)) / 1000;
            self.clock.sample(now, asked.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_round_trip_is_believed_until_the_clock_was_set() {
        let clock = Clock::new();
        clock.sample(1_000_000, Duration::from_millis(100));
        assert!((1_000_050..1_000_100).contains(&clock.now_ms()));
        clock.sample(1_000_020, Duration::from_millis(10));
        assert!((1_000_025..1_000_075).contains(&clock.now_ms()));
        clock.sample(1_000_000, Duration::from_millis(300));
        assert!((1_000_025..1_000_075).contains(&clock.now_ms()), "a worse sample that agrees changes nothing");
        clock.sample(5_000_000, Duration::from_millis(300));
        assert!((5_000_150..5_000_200).contains(&clock.now_ms()));
    }
}
