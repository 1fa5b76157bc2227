//! Letters that wait for others to the same instance. One ring is under way to each at a time, and what is written
//! meanwhile goes with the next, all of it in one: a busy instance is rung at no more often than Redis answers.

use crate::{all::Routed, envelope::Envelope, map::Map, names::Incarnation};
use std::{
    collections::{VecDeque, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Bytes that wait for one instance. Beyond it a letter is refused, unless it is the only one.
const BYTES_MAX: usize = 64 << 20;

/// A letter as it travels, and who wants to know what became of it.
pub struct Waiting {
    pub bytes: Vec<u8>,
    pub from: Incarnation,
    pub id: u64,
    pub told: Box<dyn FnOnce(Routed) + Send>,
}

impl Waiting {
    pub fn new(letter: &Envelope, told: impl FnOnce(Routed) + Send + 'static) -> Self {
        let head = &letter.head;
        Self { bytes: letter.encode(), from: head.from.clone(), id: head.id, told: Box::new(told) }
    }
}

/// Instances that are rung at now, and what waits for them.
#[derive(Default)]
pub struct Lanes {
    busy: Mutex<Map<Incarnation, Lane>>,
}

#[derive(Default)]
struct Lane {
    letters: VecDeque<Waiting>,
    bytes: usize,
}

/// What is to be done for a letter that joined a lane.
pub enum Joined {
    /// Nobody goes there: somebody has to, again and again until [`Lanes::next`] has nothing.
    Alone,
    /// Whoever goes there takes it along.
    Behind,
    /// Too much waits.
    Full(Waiting),
}

impl Lanes {
    pub fn join(&self, to: &Incarnation, letter: Waiting) -> Joined {
        let mut busy = self.busy();
        let (lane, joined) = match busy.entry(to.clone()) {
            Entry::Vacant(free) => (free.insert(Lane::default()), Joined::Alone),
            Entry::Occupied(lane) => (lane.into_mut(), Joined::Behind),
        };
        if !lane.letters.is_empty() && lane.bytes + letter.bytes.len() > BYTES_MAX {
            return Joined::Full(letter);
        }
        lane.bytes += letter.bytes.len();
        lane.letters.push_back(letter);
        joined
    }

    /// What goes next, together: as many as are small, up to `bytes_max`. Nothing, when nobody waits any more.
    pub fn next(&self, to: &Incarnation, small: usize, bytes_max: usize) -> Vec<Waiting> {
        let mut busy = self.busy();
        let Some(lane) = busy.get_mut(to) else { return Vec::new() };
        let (mut together, mut bytes) = (Vec::new(), 0);
        while let Some(letter) = lane.letters.front() {
            let length = letter.bytes.len();
            let goes_along = length <= small && bytes + length <= bytes_max;
            if !together.is_empty() && !goes_along {
                break;
            }
            bytes += length;
            together.extend(lane.letters.pop_front());
            if length > small {
                break;
            }
        }
        lane.bytes -= bytes;
        if together.is_empty() {
            busy.remove(to);
        }
        together
    }

    /// A panic while the lock was held leaves queues that can be used: every step is whole.
    fn busy(&self) -> MutexGuard<'_, Map<Incarnation, Lane>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: usize = 4;
    const ALL: usize = 8;

    fn letter(length: usize) -> Waiting {
        Waiting { bytes: vec![b'x'; length], from: Incarnation::fresh("c"), id: 1, told: Box::new(|_| ()) }
    }

    fn next(lanes: &Lanes, to: &Incarnation) -> Vec<usize> {
        lanes.next(to, SMALL, ALL).iter().map(|waiting| waiting.bytes.len()).collect()
    }

    #[test]
    fn the_first_is_brought_at_once_and_the_others_together_behind_it() {
        let (lanes, here, there) = (Lanes::default(), Incarnation::fresh("a"), Incarnation::fresh("b"));
        assert!(matches!(lanes.join(&here, letter(1)), Joined::Alone));
        assert!(matches!(lanes.join(&there, letter(1)), Joined::Alone), "another instance has a lane of its own");
        assert_eq!(next(&lanes, &here), [1]);
        for length in [3, 4, 2, 9, 1] {
            assert!(matches!(lanes.join(&here, letter(length)), Joined::Behind));
        }
        let went: Vec<_> = (0..4).map(|_| next(&lanes, &here)).collect();
        assert_eq!(went, [vec![3, 4], vec![2], vec![9], vec![1]]);
        assert!(next(&lanes, &here).is_empty());
        assert!(matches!(lanes.join(&here, letter(1)), Joined::Alone), "and then it is free again");
    }

    #[test]
    fn what_waits_is_bounded_and_one_letter_always_fits() {
        let (lanes, to) = (Lanes::default(), Incarnation::fresh("a"));
        assert!(matches!(lanes.join(&to, letter(BYTES_MAX + 1)), Joined::Alone));
        assert!(matches!(lanes.join(&to, letter(1)), Joined::Full(_)));
        assert_eq!(next(&lanes, &to), [BYTES_MAX + 1]);
        assert!(matches!(lanes.join(&to, letter(1)), Joined::Behind));
    }
}
