//! How far the log of a socket was written to its connection. What is logged is told to the owner one by one; what
//! comes out of turn, or finds no room, is read from the log, so that live and late deliveries have one order.

use crate::outbox::Refused;
use registry::log::LIMITS;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A socket's place in its log.
#[derive(Debug)]
pub struct Cursor {
    place: Mutex<Place>,
}

#[derive(Debug)]
struct Place {
    /// The last number that was written here, or that its client had before.
    written: u64,
    /// Somebody reads the log for it, and nobody else writes.
    behind: bool,
    /// Something was logged since that was last begun.
    missed: bool,
    /// Up to where its client has everything, and when that is to be told.
    acked: u64,
    tell: Tell,
    /// What was written since that was last told, as it counts.
    untold: u64,
    /// Something waits for its groups for which its log had no room.
    mail_waits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tell {
    No,
    Soon,
    Now,
}

/// A client that is told so much must not wait long until what it has makes room.
const MUCH: u64 = LIMITS.bytes / 8;

/// What became of a delivery that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    Written,
    /// It was written before.
    Old,
    /// It is read from the log, for which nobody was sent yet.
    FallsBehind,
    /// Somebody reads already.
    Behind,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// To be told, with those that follow soon.
    First,
    /// To be told now: the log fills.
    Much,
    /// Somebody is about to tell it, or it was told before.
    Noted,
    /// Nothing so late was delivered; this was the last.
    Beyond(u64),
}

impl Place {
    fn after(written: u64) -> Self {
        Self { written, behind: true, missed: false, acked: 0, tell: Tell::No, untold: 0, mail_waits: false }
    }

    fn wrote(&mut self, seq: u64, counts: u64) {
        self.written = seq;
        self.untold += counts;
    }
}

impl Cursor {
    /// Of a connection whose client has everything up to a number. It is behind until somebody has looked.
    pub fn after(written: u64) -> Self {
        Self { place: Mutex::new(Place::after(written)) }
    }

    /// Something was logged behind `prev`, and counts for so much.
    pub fn offer(&self, seq: u64, prev: u64, counts: u64, write: impl FnOnce() -> Result<(), Refused>) -> Offered {
        let mut place = self.place();
        if place.behind {
            place.missed = true;
            return Offered::Behind;
        }
        if seq <= place.written {
            return Offered::Old;
        }
        if prev == place.written && write().is_ok() {
            place.wrote(seq, counts);
            return Offered::Written;
        }
        place.behind = true;
        Offered::FallsBehind
    }

    /// It may be behind: whether somebody has to be sent.
    pub fn doubt(&self) -> bool {
        let mut place = self.place();
        place.missed |= place.behind;
        !std::mem::replace(&mut place.behind, true)
    }

    /// Whoever reads begins, from here.
    pub fn begin(&self) -> u64 {
        let mut place = self.place();
        place.missed = false;
        place.written
    }

    /// Whoever reads writes the next, and so on in order.
    pub fn catch_up(&self, seq: u64, counts: u64, write: impl FnOnce() -> Result<(), Refused>) -> Result<(), Refused> {
        let mut place = self.place();
        if seq > place.written {
            write()?;
            place.wrote(seq, counts);
        }
        Ok(())
    }

    /// What was missing is not to be had: its client begins anew behind this number.
    pub fn skip_to(&self, seq: u64) {
        self.place().written = seq;
    }

    /// Whoever reads has come to the end; false if more was logged meanwhile.
    pub fn has_caught_up(&self) -> bool {
        let mut place = self.place();
        place.behind = place.missed;
        !place.behind
    }

    /// Its client has everything up to a number.
    pub fn ack(&self, seq: u64) -> Acked {
        let mut place = self.place();
        if seq > place.written {
            return Acked::Beyond(place.written);
        }
        let is_new = seq > place.acked;
        place.acked = place.acked.max(seq);
        let tell = if place.untold >= MUCH { Tell::Now } else { Tell::Soon };
        if !is_new || tell <= place.tell {
            return Acked::Noted;
        }
        place.tell = tell;
        if tell == Tell::Now { Acked::Much } else { Acked::First }
    }

    /// What is to be told now, if it was not told meanwhile.
    pub fn acked(&self) -> Option<u64> {
        let mut place = self.place();
        let tell = std::mem::replace(&mut place.tell, Tell::No);
        place.untold = 0;
        (tell != Tell::No).then_some(place.acked)
    }

    /// It could not be told: somebody tries again.
    pub fn is_untold(&self) {
        self.place().tell = Tell::Now;
    }

    /// Whether something waits for which the log had no room.
    pub fn set_mail_waits(&self, waits: bool) {
        self.place().mail_waits = waits;
    }

    /// There is room: whether something waited for it.
    pub fn take_mail_waits(&self) -> bool {
        std::mem::take(&mut self.place().mail_waits)
    }

    /// A panic while the lock was held leaves a place that can be used: every step is whole.
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(written: u64) -> Cursor {
        let cursor = Cursor::after(written);
        cursor.begin();
        assert!(cursor.has_caught_up());
        cursor
    }

    const TAKEN: fn() -> Result<(), Refused> = || Ok(());
    const FULL: fn() -> Result<(), Refused> = || Err(Refused::Full);
    const NEVER: fn() -> Result<(), Refused> = || panic!("it was written");

    #[test]
    fn what_comes_in_turn_is_written_and_nothing_twice() {
        let cursor = ready(3);
        assert_eq!(cursor.offer(7, 3, 1, TAKEN), Offered::Written);
        assert_eq!(cursor.offer(7, 3, 1, NEVER), Offered::Old);
        assert_eq!(cursor.offer(9, 7, 1, TAKEN), Offered::Written);
        assert_eq!(cursor.offer(4, 3, 1, NEVER), Offered::Old);
    }

    #[test]
    fn what_comes_out_of_turn_is_read_from_the_log() {
        let cursor = ready(3);
        assert_eq!(cursor.offer(9, 7, 1, NEVER), Offered::FallsBehind);
        assert_eq!(cursor.offer(7, 3, 1, NEVER), Offered::Behind, "whoever reads writes it");
        assert_eq!(cursor.begin(), 3);
        assert_eq!((cursor.catch_up(7, 1, TAKEN), cursor.catch_up(9, 1, TAKEN)), (Ok(()), Ok(())));
        assert_eq!(cursor.offer(11, 9, 1, NEVER), Offered::Behind);
        assert!(!cursor.has_caught_up(), "there is one more by now");
        assert_eq!(cursor.begin(), 9);
        assert_eq!((cursor.catch_up(9, 1, NEVER), cursor.catch_up(11, 1, TAKEN)), (Ok(()), Ok(())));
        assert!(cursor.has_caught_up());
        assert_eq!(cursor.offer(12, 11, 1, TAKEN), Offered::Written);
    }

    #[test]
    fn what_finds_no_room_comes_later_and_in_order() {
        let cursor = ready(0);
        assert_eq!(cursor.offer(1, 0, 1, FULL), Offered::FallsBehind);
        assert_eq!(cursor.offer(2, 1, 1, NEVER), Offered::Behind);
        assert_eq!((cursor.begin(), cursor.catch_up(1, 1, FULL)), (0, Err(Refused::Full)));
        assert_eq!((cursor.begin(), cursor.catch_up(1, 1, TAKEN), cursor.catch_up(2, 1, TAKEN)), (0, Ok(()), Ok(())));
        assert!(cursor.has_caught_up() && cursor.doubt() && !cursor.doubt());
        assert!(!cursor.has_caught_up(), "it was doubted again meanwhile");
    }

    #[test]
    fn an_acknowledgement_is_told_once_and_never_beyond_what_was_written() {
        let cursor = ready(5);
        assert_eq!(cursor.ack(6), Acked::Beyond(5));
        assert_eq!((cursor.ack(3), cursor.ack(5), cursor.ack(4)), (Acked::First, Acked::Noted, Acked::Noted));
        assert_eq!((cursor.acked(), cursor.acked()), (Some(5), None));
        assert_eq!(cursor.ack(5), Acked::Noted, "it was told");
        cursor.skip_to(9);
        assert_eq!((cursor.ack(9), cursor.acked()), (Acked::First, Some(9)));
        cursor.is_untold();
        assert_eq!((cursor.ack(9), cursor.acked()), (Acked::Noted, Some(9)));
    }

    #[test]
    fn much_that_was_written_is_told_at_once() {
        let cursor = ready(0);
        assert_eq!(cursor.offer(1, 0, MUCH - 1, TAKEN), Offered::Written);
        assert_eq!(cursor.ack(1), Acked::First);
        assert_eq!(cursor.offer(2, 1, 1, TAKEN), Offered::Written);
        assert_eq!(cursor.offer(3, 2, 1, TAKEN), Offered::Written);
        assert_eq!((cursor.ack(2), cursor.ack(3)), (Acked::Much, Acked::Noted));
        assert_eq!(
            (cursor.acked(), cursor.acked()),
            (Some(3), None),
            "whoever was to tell it soon has nothing to tell"
        );
        assert_eq!(cursor.offer(4, 3, 1, TAKEN), Offered::Written);
        assert_eq!(cursor.ack(4), Acked::First);
    }
}
