//! Letters that wait for others to the same instance. What is written while it is being rung at goes when Redis has
//! answered, the small ones together: a busy instance is rung at no more often than it must be.

use crate::{all::Routed, envelope::Envelope, map::Map, names::Incarnation};
use std::{
    collections::{VecDeque, hash_map::Entry},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

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
    lanes: Mutex<Busy>,
    /// Somebody is to be gone to.
    wake: Notify,
}

#[derive(Default)]
struct Busy {
    lanes: Map<Incarnation, Lane>,
    /// To whom nobody goes yet.
    new: Vec<Incarnation>,
}

#[derive(Default)]
struct Lane {
    letters: VecDeque<Waiting>,
    bytes: usize,
}

impl Lanes {
    /// Takes a letter in. One for which there is no room is given back.
    pub fn join(&self, to: &Incarnation, letter: Waiting) -> Option<Waiting> {
        let mut busy = self.busy();
        let Busy { lanes, new } = &mut *busy;
        let lane = match lanes.entry(to.clone()) {
            Entry::Vacant(free) => {
                new.push(to.clone());
                self.wake.notify_one();
                free.insert(Lane::default())
            }
            Entry::Occupied(lane) => lane.into_mut(),
        };
        if !lane.letters.is_empty() && lane.bytes + letter.bytes.len() > BYTES_MAX {
            return Some(letter);
        }
        lane.bytes += letter.bytes.len();
        lane.letters.push_back(letter);
        None
    }

    /// To whom somebody has to go from now on, until [`Self::next`] has nothing for them.
    pub async fn called(&self) -> Vec<Incarnation> {
        loop {
            let new = mem::take(&mut self.busy().new);
            if !new.is_empty() {
                return new;
            }
            self.wake.notified().await;
        }
    }

    /// Whoever went to them goes no more.
    pub fn call_again(&self) {
        let mut busy = self.busy();
        busy.new = busy.lanes.keys().cloned().collect();
    }

    /// All that waits, in order, as it goes: together up to `bytes_max`, a larger one alone. Nothing, when nobody waits
    /// any more.
    pub fn next(&self, to: &Incarnation, bytes_max: usize) -> Vec<Vec<Waiting>> {
        let mut busy = self.busy();
        let letters = busy.lanes.get_mut(to).map(mem::take).unwrap_or_default().letters;
        if letters.is_empty() {
            busy.lanes.remove(to);
        }
        drop(busy);
        let (mut rings, mut room) = (Vec::<Vec<_>>::new(), 0);
        for letter in letters {
            let length = letter.bytes.len();
            match rings.last_mut().filter(|_| length <= room) {
                Some(ring) => ring.push(letter),
                None => {
                    room = bytes_max;
                    rings.push(vec![letter]);
                }
            }
            room = room.saturating_sub(length);
        }
        rings
    }

    /// A panic while the lock was held leaves queues that can be used: every step is whole.
    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const TOGETHER: usize = 8;

    fn letter(length: usize) -> Waiting {
        Waiting { bytes: vec![b'x'; length], from: Incarnation::fresh("c"), id: 1, told: Box::new(|_| ()) }
    }

    fn next(lanes: &Lanes, to: &Incarnation) -> Vec<Vec<usize>> {
        let lengths = |ring: &Vec<Waiting>| ring.iter().map(|waiting| waiting.bytes.len()).collect();
        lanes.next(to, TOGETHER).iter().map(lengths).collect()
    }

    /// Who has to be gone to now.
    fn called(lanes: &Lanes) -> Option<Vec<Incarnation>> {
        lanes.called().now_or_never()
    }

    #[test]
    fn the_first_is_brought_at_once_and_the_others_together_behind_it() {
        let (lanes, here, there) = (Lanes::default(), Incarnation::fresh("a"), Incarnation::fresh("b"));
        assert!(lanes.join(&here, letter(1)).is_none() && lanes.join(&there, letter(1)).is_none());
        assert_eq!(called(&lanes), Some(vec![here.clone(), there]), "each has a lane of its own");
        assert_eq!(next(&lanes, &here), [[1]]);
        for length in [3, 4, 2, 9, 1] {
            assert!(lanes.join(&here, letter(length)).is_none());
        }
        assert_eq!(called(&lanes), None, "somebody goes there already");
        assert_eq!(next(&lanes, &here), [vec![3, 4], vec![2], vec![9], vec![1]]);
        assert!(next(&lanes, &here).is_empty());
        assert!(lanes.join(&here, letter(1)).is_none());
        assert_eq!(called(&lanes), Some(vec![here]), "and then it is free again");
    }

    #[test]
    fn who_begins_anew_goes_to_all_who_wait() {
        let (lanes, to) = (Lanes::default(), Incarnation::fresh("a"));
        assert!(lanes.join(&to, letter(1)).is_none());
        assert_eq!(called(&lanes), Some(vec![to.clone()]));
        lanes.call_again();
        assert_eq!(called(&lanes), Some(vec![to]));
    }

    #[test]
    fn what_waits_is_bounded_and_one_letter_always_fits() {
        let (lanes, to) = (Lanes::default(), Incarnation::fresh("a"));
        assert!(lanes.join(&to, letter(BYTES_MAX + 1)).is_none());
        assert!(lanes.join(&to, letter(1)).is_some());
        assert_eq!(next(&lanes, &to), [[BYTES_MAX + 1]]);
        assert!(lanes.join(&to, letter(1)).is_none());
    }
}
