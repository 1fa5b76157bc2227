//! The log of a socket that may be resumed: its durable deliveries in order, until its client has acknowledged them
//! or their time is over. Here are the words and the rules; the log in memory is one of these, the one in Redis is held
//! against it.
//!
//! Each entry names its predecessor. So whoever has read up to a number can tell by what follows whether anything is
//! missing in between, whatever became of it: trimmed, expired, or lost by Redis.

use crate::{
    all::Unknown,
    names::{Incarnation, Session},
    once::Hashed,
    verdict::Verdict,
};
use bytes::Bytes;
use std::{collections::VecDeque, time::Duration};

/// What a log holds at most; how long, each delivery says itself.
pub const LIMITS: Limits = Limits { entries: 10_000, bytes: 1 << 20 };

/// What an entry counts for at least, so that as many as fit are none too many, and nobody has to count them.
const COUNTS_MIN: u64 = LIMITS.bytes.div_ceil(LIMITS.entries as u64);

/// What a text counts for.
pub fn counts(text: &[u8]) -> u64 {
    COUNTS_MIN.max(text.len() as u64)
}

/// How much fits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub entries: usize,
    pub bytes: u64,
}

/// How sure it is that what was accepted survives; in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// It is in the memory of one process.
    Memory,
    /// A replica has it, too.
    Replica,
    /// It is on a disk.
    Fsync,
}

impl Durability {
    pub const ALL: [Self; 3] = [Self::Memory, Self::Replica, Self::Fsync];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Replica => "replica",
            Self::Fsync => "fsync",
        }
    }

    /// Reads what [`Durability::as_str`] writes.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

/// What is to be logged, for one socket or for many.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Names it among all others, so that what is tried again is logged once.
    pub key: Hashed,
    pub text: Bytes,
    /// Afterwards nobody wants it any more.
    pub ttl: Duration,
    /// What is waited for before it counts as accepted.
    pub wants: Durability,
}

/// What became of it.
#[derive(Debug, Clone)]
pub enum Appended {
    /// It is in the log, behind `prev`. Who holds the socket, or did when it went away, stands in the same row.
    Logged {
        seq: u64,
        prev: u64,
        owner: Incarnation,
        session: Session,
        away: bool,
        durability: Durability,
    },
    /// The socket is live and cannot be resumed, so it has no log.
    Plain {
        owner: Incarnation,
        session: Session,
    },
    /// There is no room until the client acknowledges something. Nothing was logged.
    Full,
    Gone(Verdict),
    /// Nobody may say. Nothing was logged.
    Unknown(Unknown),
    /// The registry did not answer: it may have been logged.
    Perhaps,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    Done,
    /// Nothing so late was ever logged. Nothing was trimmed.
    Beyond {
        tail: u64,
    },
}

/// What became of a delivery to a group that has no sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// It waits for the first socket that comes.
    Left(Durability),
    /// The group has sockets by now, or may have: it goes to them, and was not left.
    Somebody,
    Full,
    /// Nobody may say. Nothing was left.
    Unknown(Unknown),
    /// The registry did not answer: it may have been left.
    Perhaps,
}

/// What a socket took over of what was left for one of its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mail {
    pub taken: usize,
    /// Some is left: its log has no room for it.
    pub waits: bool,
}

/// One delivery in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Grows, but is not dense: microseconds of Redis' clock, or one more than the last. A number that was lost with
    /// the server that gave it is hardly given again, so that what follows it cannot be taken for its successor.
    pub seq: u64,
    /// The number before it, whether its entry is still there or not.
    pub prev: u64,
    /// Epoch milliseconds by the registry's clock.
    pub until: u64,
    pub text: Bytes,
}

/// Whether all that came after a number is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    Whole,
    /// Something is missing.
    Broken,
}

/// Looks at the entries of a log that ends at `tail`, for someone who has all up to `last_seq`. What was acknowledged
/// needs no look: nobody comes back with less than they acknowledged, and who does finds a gap.
pub fn chain<'a>(last_seq: u64, tail: u64, entries: impl IntoIterator<Item = &'a Entry>, now: u64) -> Chain {
    let mut at = last_seq;
    for entry in entries.into_iter().filter(|entry| entry.seq > last_seq) {
        if entry.prev != at || entry.until <= now {
            return Chain::Broken;
        }
        at = entry.seq;
    }
    if at == tail { Chain::Whole } else { Chain::Broken }
}

/// Entries in a row, and where the log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The last number that was given, even if nothing is left of it; 0 if there was none.
    pub tail: u64,
    pub entries: Vec<Entry>,
    /// Whether there are more behind them.
    pub more: bool,
}

impl Page {
    /// Whether it goes on, without a gap, where somebody stands who has all up to `last_seq`.
    pub fn follows(&self, last_seq: u64, now: u64) -> Chain {
        let end = self.entries.last().filter(|_| self.more).map_or(self.tail, |last| last.seq);
        chain(last_seq, end, &self.entries, now)
    }
}

/// The number after `tail`.
pub fn next(tail: u64, now_us: u64) -> u64 {
    tail.saturating_add(1).max(now_us)
}

/// A log in memory.
#[derive(Debug, Default)]
pub struct Log {
    tail: u64,
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl Log {
    /// The entry's own number and the one before it; `None` if there is no room.
    pub fn append(&mut self, text: Bytes, ttl: Duration, now_us: u64, bytes_max: u64) -> Option<(u64, u64)> {
        let (now, more) = (now_us / 1000, counts(&text));
        let has_room = |log: &Self| log.bytes + more <= bytes_max;
        if !has_room(self) {
            self.expire(now);
        }
        if !has_room(self) {
            return None;
        }
        let (seq, prev) = (next(self.tail, now_us), self.tail);
        let until = now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        self.entries.push_back(Entry { seq, prev, until, text });
        self.bytes += more;
        self.tail = seq;
        Some((seq, prev))
    }

    pub fn ack(&mut self, seq: u64) -> Acked {
        if seq > self.tail {
            return Acked::Beyond { tail: self.tail };
        }
        while self.entries.front().is_some_and(|first| first.seq <= seq) {
            self.drop_first();
        }
        Acked::Done
    }

    /// Up to so many entries and bytes after a number, one at least.
    pub fn read(&self, after: u64, most: Limits) -> Page {
        let from = self.entries.partition_point(|entry| entry.seq <= after);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in self.entries.range(from..).take(most.entries) {
            bytes += entry.text.len() as u64;
            if bytes > most.bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        let more = from + entries.len() < self.entries.len();
        Page { tail: self.tail, entries, more }
    }

    /// Something of it was lost: whatever comes next names a number that nobody has.
    pub fn break_off(&mut self, now_us: u64) {
        self.tail = next(self.tail, now_us);
    }

    /// Drops the first of it whose time is over; says how much that was.
    pub fn expire(&mut self, now: u64) -> u64 {
        let before = self.bytes;
        while self.entries.front().is_some_and(|first| first.until <= now) {
            self.drop_first();
        }
        before - self.bytes
    }

    /// Whether nobody wants any of it.
    pub fn is_over(&self, now: u64) -> bool {
        self.entries.iter().all(|entry| entry.until <= now)
    }

    /// As they count.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn drop_first(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |first| counts(&first.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1000;
    const LONG: Duration = Duration::from_secs(60);
    /// Eight fit.
    const SMALL: u64 = 8 * COUNTS_MIN;

    fn entry(prev: u64, seq: u64) -> Entry {
        Entry { seq, prev, until: NOW + 1, text: Bytes::new() }
    }

    fn over(prev: u64, seq: u64) -> Entry {
        Entry { until: NOW, ..entry(prev, seq) }
    }

    #[test]
    fn a_chain_is_whole_if_each_names_the_one_before_up_to_the_tail() {
        use Chain::{Broken, Whole};
        #[rustfmt::skip]
        let table: [(&str, u64, u64, Vec<Entry>, Chain); 14] = [
            ("nothing ever", 0, 0, vec![], Whole),
            ("all is had", 7, 7, vec![entry(0, 7)], Whole),
            ("all is had and trimmed", 7, 7, vec![], Whole),
            ("the first after nothing", 0, 7, vec![entry(0, 7)], Whole),
            ("several", 7, 9, vec![entry(0, 7), entry(7, 8), entry(8, 9)], Whole),
            ("one expired that is had", 7, 9, vec![over(0, 7), entry(7, 9)], Whole),
            ("one expired that is not", 0, 9, vec![over(0, 7), entry(7, 9)], Broken),
            ("one expired in the middle", 0, 9, vec![entry(0, 7), over(7, 8), entry(8, 9)], Broken),
            ("one expired and trimmed", 6, 9, vec![entry(7, 9)], Broken),
            ("all expired and trimmed", 6, 9, vec![], Broken),
            ("beyond the tail", 10, 9, vec![entry(7, 9)], Broken),
            ("beyond nothing", 1, 0, vec![], Broken),
            ("broken off behind all", 9, 11, vec![entry(7, 9)], Broken),
            ("broken off before the next", 9, 12, vec![entry(7, 9), entry(11, 12)], Broken),
        ];
        for (what, last_seq, tail, entries, expected) in table {
            assert_eq!(chain(last_seq, tail, &entries, NOW), expected, "{what}");
        }
    }

    #[test]
    fn as_many_as_fit_are_none_too_many() {
        let mut log = Log::default();
        let fit = (0..).take_while(|_| log.append(Bytes::new(), LONG, 1, LIMITS.bytes).is_some()).count();
        assert!((LIMITS.entries - 100..=LIMITS.entries).contains(&fit), "{fit}");
    }

    #[test]
    fn a_page_that_is_not_the_last_is_judged_up_to_its_own_end() {
        let page = |more| Page { tail: 20, entries: vec![entry(7, 9)], more };
        assert_eq!(page(true).follows(7, NOW), Chain::Whole);
        assert_eq!(page(false).follows(7, NOW), Chain::Broken);
        assert_eq!(page(true).follows(6, NOW), Chain::Broken);
    }

    #[test]
    fn a_full_log_refuses_until_something_is_acknowledged_or_expired() {
        let mut log = Log::default();
        let append = |log: &mut Log, ttl, now_us| log.append(Bytes::from_static(b"12345"), ttl, now_us, SMALL);
        let numbers: Vec<_> = (0..8).map(|_| append(&mut log, LONG, 5).unwrap()).collect();
        assert_eq!(numbers[..3], [(5, 0), (6, 5), (7, 6)]);
        assert_eq!(append(&mut log, LONG, 5), None);
        assert_eq!(log.ack(13), Acked::Beyond { tail: 12 });
        assert_eq!((log.ack(5), log.bytes()), (Acked::Done, 7 * COUNTS_MIN));
        assert_eq!(append(&mut log, LONG, 5), Some((13, 12)));
        assert_eq!(append(&mut log, LONG, 5), None);
        assert_eq!(append(&mut log, LONG, 60_000_000), Some((60_000_000, 13)), "the time of the others is over");
        assert_eq!(log.read(5, LIMITS).follows(5, 60_000), Chain::Broken);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append {
            bytes: usize,
            lasts: bool,
        },
        Ack(usize),
        Break,
        /// A client reads what it has not, in pages.
        Catch {
            entries: usize,
            bytes: u64,
        },
        /// Time passes.
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..300_usize, any::<bool>()).prop_map(|(bytes, lasts)| Step::Append { bytes, lasts }),
            1 => (0..20_usize).prop_map(Step::Ack),
            1 => Just(Step::Break),
            2 => (1..5_usize, 0..600_u64).prop_map(|(entries, bytes)| Step::Catch { entries, bytes }),
            1 => Just(Step::Wait),
        ]
    }

    proptest! {
        /// What a client is given, by chains that are whole, is all that was logged, and its numbers grow; where
        /// something is missing it is told.
        #[test]
        fn nothing_is_missing_that_is_not_told(steps in proptest::collection::vec(step(), 0..60)) {
            let (mut log, mut now_us, mut all, mut had) = (Log::default(), 1, Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Append { bytes, lasts } => {
                        let ttl = if lasts { LONG } else { Duration::from_millis(1) };
                        let before = log.tail;
                        if let Some((seq, prev)) = log.append(Bytes::from(vec![b'x'; bytes]), ttl, now_us, SMALL) {
                            prop_assert!(seq > prev && prev == before);
                            all.push(seq);
                        }
                        prop_assert!(log.entries.len() <= 8 && log.bytes <= SMALL);
                    }
                    Step::Ack(back) => {
                        // A client acknowledges what it has, and sometimes it is wrong.
                        let seq = if back == 0 { log.tail + 1 } else { had };
                        let done = log.ack(seq) == Acked::Done;
                        prop_assert_eq!(done, seq <= log.tail);
                        prop_assert!(!done || log.entries.iter().all(|entry| entry.seq > seq));
                    }
                    Step::Break => {
                        log.break_off(now_us);
                        prop_assert_eq!(log.read(had, LIMITS).follows(had, now_us / 1000), Chain::Broken);
                    }
                    Step::Catch { entries, bytes } => loop {
                        let page = log.read(had, Limits { entries, bytes });
                        match page.follows(had, now_us / 1000) {
                            Chain::Whole => {
                                let new = page.entries.iter().map(|entry| entry.seq);
                                let missed = all.iter().copied().filter(|seq| *seq > had);
                                prop_assert!(new.eq(missed.take(page.entries.len())));
                                had = page.entries.last().map_or(had, |last| last.seq);
                                prop_assert!(page.more || had == log.tail);
                            }
                            Chain::Broken => had = log.tail,
                        }
                        if !page.more || had == log.tail {
                            break;
                        }
                    },
                    Step::Wait => now_us += 1001,
                }
                let bytes: u64 = log.entries.iter().map(|entry| counts(&entry.text)).sum();
                prop_assert_eq!(bytes, log.bytes);
            }
        }
    }
}
