//! Letters that wait for others to the same instance. One ring is under way to each at a time, and what is written
//! meanwhile goes with the next, all of it in one: a busy instance is rung at no more often than Redis answers.

use crate::{all::Routed, envelope::Envelope, map::Map, names::Incarnation};
use std::{
    collections::{VecDeque, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// A letter as it travels.
pub struct Written {
    pub bytes: Vec<u8>,
    /// Of the letter, where it lies beside the bell.
    pub name: String,
}

impl Written {
    pub fn of(letter: &Envelope) -> Self {
        Self { bytes: letter.encode(), name: format!("{}.{}", letter.head.from.mark(), letter.head.id) }
    }
}

/// One that waits, and who wants to know what became of it.
pub struct Waiting {
    pub letter: Written,
    pub told: oneshot::Sender<Routed>,
}

/// Instances that are rung at now, and what waits for them.
#[derive(Default)]
pub struct Lanes {
    busy: Mutex<Map<Incarnation, VecDeque<Waiting>>>,
}

/// Whose turn it is.
pub enum Turn {
    /// Yours. Whoever has it gives it up with [`Lanes::next`].
    Now(Written),
    /// Somebody else's, who takes the letter along.
    Later(oneshot::Receiver<Routed>),
}

impl Lanes {
    pub fn turn(&self, to: &Incarnation, letter: Written) -> Turn {
        match self.busy().entry(to.clone()) {
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Turn::Now(letter)
            }
            Entry::Occupied(mut busy) => {
                let (told, hears) = oneshot::channel();
                busy.get_mut().push_back(Waiting { letter, told });
                Turn::Later(hears)
            }
        }
    }

    /// What goes next, together: as many as are small, up to `bytes_max`. Nothing, when nobody waits any more.
    pub fn next(&self, to: &Incarnation, small: usize, bytes_max: usize) -> Vec<Waiting> {
        let mut busy = self.busy();
        let Some(waiting) = busy.get_mut(to) else { return Vec::new() };
        let Some(first) = waiting.pop_front() else {
            busy.remove(to);
            return Vec::new();
        };
        let mut bytes = first.letter.bytes.len();
        let mut together = vec![first];
        if bytes > small {
            return together;
        }
        while let Some(next) = waiting.front() {
            bytes += next.letter.bytes.len();
            if next.letter.bytes.len() > small || bytes > bytes_max {
                break;
            }
            together.extend(waiting.pop_front());
        }
        together
    }

    /// A panic while the lock was held leaves queues that can be used: every step is whole.
    fn busy(&self) -> MutexGuard<'_, Map<Incarnation, VecDeque<Waiting>>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: usize = 4;
    const ALL: usize = 8;

    fn letter(length: usize) -> Written {
        Written { bytes: vec![b'x'; length], name: String::new() }
    }

    fn next(lanes: &Lanes, to: &Incarnation) -> Vec<usize> {
        lanes.next(to, SMALL, ALL).iter().map(|waiting| waiting.letter.bytes.len()).collect()
    }

    #[test]
    fn the_first_goes_at_once_and_the_others_together_behind_it() {
        let (lanes, here, there) = (Lanes::default(), Incarnation::fresh("a"), Incarnation::fresh("b"));
        assert!(matches!(lanes.turn(&here, letter(1)), Turn::Now(_)));
        assert!(matches!(lanes.turn(&there, letter(1)), Turn::Now(_)), "another instance has its own turn");
        for length in [3, 4, 2, 9, 1] {
            assert!(matches!(lanes.turn(&here, letter(length)), Turn::Later(_)));
        }
        let (small, rest, large, last) =
            (next(&lanes, &here), next(&lanes, &here), next(&lanes, &here), next(&lanes, &here));
        assert_eq!((small, rest, large, last), (vec![3, 4], vec![2], vec![9], vec![1]));
        assert!(next(&lanes, &here).is_empty());
        assert!(matches!(lanes.turn(&here, letter(1)), Turn::Now(_)), "and then it is free again");
    }
}
