//! Requests that are to be acted upon once, however often they come: who took one on, and what came of it.
//! Here the words, and the record in memory; the one in Redis is in `redis/once.rs`.

use crate::{
    names::{Incarnation, mark},
    short::{self, Short16},
    travel::travel_as_bytes,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    time::Duration,
};
use tokio::time::Instant;

/// How long an outcome is kept, from when its request was taken on.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Records in memory. When there are as many, the oldest outcome goes, never a request that still runs.
const RECORDS_MAX: usize = 10_000;
/// Bytes of all outcomes in memory together; beyond them, the oldest go.
const BYTES_MAX: usize = 64 << 20;

/// 128 bits of a hash. What is hashed may be a secret, and is as long as its author wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hashed([u8; 16]);

impl Hashed {
    /// Of several texts; where one ends and the next begins counts too.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut short = [0; 16];
        hasher.finalize_xof().fill(&mut short);
        Self(short)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        short::read(text).map(Self)
    }
}

travel_as_bytes! {
    Hashed: Hashed::parse, |hashed| hashed.0, |bytes| Some(Hashed(bytes));
}

impl fmt::Display for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Short16::from(self.0))
    }
}

/// Whoever holds it may say what came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Caller, route and the key that the caller chose.
    pub key: Hashed,
    /// Tells who took it on from whoever else asks with the same key.
    pub token: Box<str>,
}

/// One request that is to be acted upon once.
#[derive(Debug, Clone)]
pub struct Errand {
    pub ticket: Ticket,
    /// What is to be done. The same key with another of these is another request.
    pub body: Hashed,
    pub asker: Incarnation,
    /// When it is over at the latest, by the clock of the registry.
    pub until: u64,
}

impl Errand {
    pub fn new(key: Hashed, body: Hashed, asker: Incarnation, until: u64) -> Self {
        Self { ticket: Ticket { key, token: mark().into() }, body, asker, until }
    }
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// It is new, and the caller's to act upon.
    Ours,
    /// Somebody else acts upon it, until then at the latest.
    Running { ticket: Ticket, until: u64 },
    /// It is done.
    Done(Bytes),
    /// The key was used for something else.
    Other,
}

/// What became of it.
#[derive(Debug, Clone)]
pub enum Outcome {
    Kept(Bytes),
    /// Nothing was done, so it may be tried anew.
    Nothing,
}

struct Record {
    at: Instant,
    errand: Errand,
    outcome: Option<Bytes>,
}

/// The records of the instances of one process.
#[derive(Default)]
pub struct Records {
    of: HashMap<Hashed, Record>,
    /// In the order in which they came; some of them are gone already.
    order: VecDeque<Ticket>,
    bytes: usize,
}

impl Records {
    /// `None`: as many are running as fit.
    pub fn take_on(&mut self, errand: &Errand, now: Instant) -> Option<Once> {
        self.make_room(now);
        if self.of.len() >= RECORDS_MAX && !self.of.contains_key(&errand.ticket.key) {
            return None;
        }
        Some(match self.of.get(&errand.ticket.key) {
            Some(record) if record.errand.body != errand.body => Once::Other,
            Some(Record { outcome: Some(outcome), .. }) => Once::Done(outcome.clone()),
            // Also when somebody asks again since the answer was lost.
            Some(record) if record.errand.ticket == errand.ticket => Once::Ours,
            Some(record) => Once::Running { ticket: record.errand.ticket.clone(), until: record.errand.until },
            None => {
                self.of.insert(errand.ticket.key, Record { at: now, errand: errand.clone(), outcome: None });
                self.order.push_back(errand.ticket.clone());
                Once::Ours
            }
        })
    }

    /// The oldest outcomes go; what runs stays.
    fn make_room(&mut self, now: Instant) {
        let is_stale = |record: &Record| now.duration_since(record.at) >= KEPT;
        while self.order.front().is_some_and(|ticket| self.record(ticket).is_none_or(is_stale)) {
            self.drop_nth(0);
        }
        if self.order.len() > 2 * RECORDS_MAX {
            let of = &self.of;
            self.order.retain(|ticket| of.get(&ticket.key).is_some_and(|record| record.errand.ticket == *ticket));
        }
        while self.of.len() >= RECORDS_MAX || self.bytes > BYTES_MAX {
            let is_done = |ticket: &Ticket| self.record(ticket).is_some_and(|record| record.outcome.is_some());
            let Some(nth) = self.order.iter().position(is_done) else { break };
            self.drop_nth(nth);
        }
    }

    fn drop_nth(&mut self, nth: usize) {
        if let Some(ticket) = self.order.remove(nth) {
            self.remove(&ticket);
        }
    }

    pub fn settle(&mut self, ticket: &Ticket, outcome: Outcome) -> bool {
        let Some(record) = self.of.get_mut(&ticket.key).filter(|record| record.errand.ticket == *ticket) else {
            return false;
        };
        match outcome {
            _ if record.outcome.is_some() => return false,
            Outcome::Kept(outcome) => {
                self.bytes += outcome.len();
                record.outcome = Some(outcome);
            }
            Outcome::Nothing => self.remove(ticket),
        }
        true
    }

    fn record(&self, ticket: &Ticket) -> Option<&Record> {
        self.of.get(&ticket.key).filter(|record| record.errand.ticket == *ticket)
    }

    fn remove(&mut self, ticket: &Ticket) {
        if self.record(ticket).is_some()
            && let Some(record) = self.of.remove(&ticket.key)
        {
            self.bytes -= record.outcome.map_or(0, |outcome| outcome.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(n: usize) -> Errand {
        let key = Hashed::of(&[n.to_string().as_bytes()]);
        Errand::new(key, key, Incarnation::fresh("web1"), 0)
    }

    #[test]
    fn where_a_part_ends_counts() {
        assert_ne!(Hashed::of(&[b"ab", b"c"]), Hashed::of(&[b"a", b"bc"]));
        let hashed = Hashed::of(&[b"a"]);
        assert_eq!(hashed.to_string().len(), 22);
        let text = serde_json::to_string(&hashed).unwrap();
        assert_eq!(serde_json::from_str::<Hashed>(&text).unwrap(), hashed);
    }

    #[test]
    fn the_oldest_outcome_makes_room_and_what_runs_does_not() {
        let (mut records, now) = (Records::default(), Instant::now());
        let first = errand(0);
        assert_eq!(records.take_on(&first, now), Some(Once::Ours));
        assert!((1..RECORDS_MAX).all(|n| records.take_on(&errand(n), now) == Some(Once::Ours)));
        assert_eq!(records.take_on(&errand(RECORDS_MAX), now), None);
        assert!(records.settle(&first.ticket, Outcome::Kept(Bytes::from_static(b"x"))));
        assert_eq!(records.take_on(&errand(RECORDS_MAX), now), Some(Once::Ours));
        assert_eq!((records.of.len(), records.bytes), (RECORDS_MAX, 0));
    }

    #[test]
    fn one_that_runs_long_keeps_nobody_out_and_refusals_leave_nothing() {
        let (mut records, now) = (Records::default(), Instant::now());
        assert_eq!(records.take_on(&errand(0), now), Some(Once::Ours));
        for n in 1..3 * RECORDS_MAX {
            let errand = errand(n);
            assert_eq!(records.take_on(&errand, now), Some(Once::Ours), "{n}");
            let outcome = if n % 2 == 0 { Outcome::Nothing } else { Outcome::Kept(Bytes::from_static(b"x")) };
            assert!(records.settle(&errand.ticket, outcome));
        }
        assert!(records.of.len() <= RECORDS_MAX && records.order.len() <= 2 * RECORDS_MAX + 1);
        assert!(matches!(records.take_on(&errand(0), now), Some(Once::Running { .. })));
    }

    #[test]
    fn a_day_later_it_is_another_request() {
        let (mut records, now) = (Records::default(), Instant::now());
        let first = errand(0);
        assert_eq!(records.take_on(&first, now), Some(Once::Ours));
        assert!(matches!(records.take_on(&errand(0), now + KEPT / 2), Some(Once::Running { .. })));
        assert_eq!(records.take_on(&first, now + KEPT), Some(Once::Ours));
    }
}
