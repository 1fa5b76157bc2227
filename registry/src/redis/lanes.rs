//! What waits for others that go the same way. What comes while something is on its way goes when Redis has answered,
//! the small ones together: a busy way is gone no more often than it must be.

use crate::map::Map;
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use std::{
    collections::{VecDeque, hash_map::Entry},
    hash::Hash,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Bytes that wait in one lane. Beyond it nothing is taken in, unless it is the only one.
const BYTES_MAX: usize = 64 << 20;

/// What waits, as far as it matters here.
pub trait Waits {
    fn bytes(&self) -> usize;
}

/// What goes together at most.
#[derive(Clone, Copy)]
pub struct Together {
    pub bytes: usize,
    pub count: usize,
}

/// Ways that are gone now, and what waits for them.
pub struct Lanes<To, W> {
    lanes: Mutex<Busy<To, W>>,
    /// Somebody is to be gone to.
    wake: Notify,
}

struct Busy<To, W> {
    lanes: Map<To, Lane<W>>,
    /// To whom nobody goes yet.
    new: Vec<To>,
}

struct Lane<W> {
    waiting: VecDeque<W>,
    bytes: usize,
}

impl<W> Default for Lane<W> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0 }
    }
}

impl<To, W> Default for Lanes<To, W> {
    fn default() -> Self {
        Self { lanes: Mutex::new(Busy { lanes: Map::default(), new: Vec::new() }), wake: Notify::new() }
    }
}

impl<To: Clone + Eq + Hash, W: Waits> Lanes<To, W> {
    /// Brings what waits, to all at once. Never returns.
    pub async fn keep<Brought: Future<Output = ()>>(&self, together: Together, bring: impl Fn(To, Vec<W>) -> Brought) {
        self.call_again();
        let mut ways = FuturesUnordered::new();
        loop {
            tokio::select! {
                called = self.called() => ways.extend(called.into_iter().map(|to| self.go(to, together, &bring))),
                Some(()) = ways.next() => {}
            }
        }
    }

    /// Until nothing waits.
    async fn go<Brought: Future<Output = ()>>(
        &self,
        to: To,
        together: Together,
        bring: &impl Fn(To, Vec<W>) -> Brought,
    ) {
        loop {
            let goes = self.next(&to, together);
            if goes.is_empty() {
                return;
            }
            join_all(goes.into_iter().map(|some| bring(to.clone(), some))).await;
        }
    }

    /// Takes one in. One for which there is no room is given back.
    pub fn join(&self, to: &To, one: W) -> Option<W> {
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
        if !lane.waiting.is_empty() && lane.bytes + one.bytes() > BYTES_MAX {
            return Some(one);
        }
        lane.bytes += one.bytes();
        lane.waiting.push_back(one);
        None
    }

    /// To whom somebody has to go from now on, until [`Self::next`] has nothing for them.
    async fn called(&self) -> Vec<To> {
        loop {
            let new = mem::take(&mut self.busy().new);
            if !new.is_empty() {
                return new;
            }
            self.wake.notified().await;
        }
    }

    /// Whoever went to them goes no more.
    fn call_again(&self) {
        let mut busy = self.busy();
        busy.new = busy.lanes.keys().cloned().collect();
    }

    /// All that waits, in order, as it goes: together as far as that is allowed, what is larger alone. Nothing, when
    /// nobody waits any more.
    fn next(&self, to: &To, together: Together) -> Vec<Vec<W>> {
        let mut busy = self.busy();
        let waiting = busy.lanes.get_mut(to).map(mem::take).unwrap_or_default().waiting;
        if waiting.is_empty() {
            busy.lanes.remove(to);
        }
        drop(busy);
        let (mut goes, mut room) = (Vec::<Vec<_>>::new(), 0);
        for one in waiting {
            let bytes = one.bytes();
            match goes.last_mut().filter(|last| bytes <= room && last.len() < together.count) {
                Some(last) => last.push(one),
                None => {
                    room = together.bytes;
                    goes.push(vec![one]);
                }
            }
            room = room.saturating_sub(bytes);
        }
        goes
    }

    /// A panic while the lock was held leaves queues that can be used: every step is whole.
    fn busy(&self) -> MutexGuard<'_, Busy<To, W>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const TOGETHER: Together = Together { bytes: 8, count: 3 };

    impl Waits for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    type Ways = Lanes<char, usize>;

    fn next(lanes: &Ways, to: char) -> Vec<Vec<usize>> {
        lanes.next(&to, TOGETHER)
    }

    /// Who has to be gone to now.
    fn called(lanes: &Ways) -> Option<Vec<char>> {
        lanes.called().now_or_never()
    }

    #[test]
    fn the_first_goes_at_once_and_the_others_together_behind_it() {
        let lanes = Ways::default();
        assert!(lanes.join(&'a', 1).is_none() && lanes.join(&'b', 1).is_none());
        assert_eq!(called(&lanes), Some(vec!['a', 'b']), "each has a lane of its own");
        assert_eq!(next(&lanes, 'a'), [[1]]);
        for bytes in [3, 4, 2, 9, 1, 1, 1, 1] {
            assert!(lanes.join(&'a', bytes).is_none());
        }
        assert_eq!(called(&lanes), None, "somebody goes there already");
        assert_eq!(next(&lanes, 'a'), [vec![3, 4], vec![2], vec![9], vec![1, 1, 1], vec![1]]);
        assert!(next(&lanes, 'a').is_empty());
        assert!(lanes.join(&'a', 1).is_none());
        assert_eq!(called(&lanes), Some(vec!['a']), "and then it is free again");
    }

    #[test]
    fn who_begins_anew_goes_to_all_who_wait() {
        let lanes = Ways::default();
        assert!(lanes.join(&'a', 1).is_none());
        assert_eq!(called(&lanes), Some(vec!['a']));
        lanes.call_again();
        assert_eq!(called(&lanes), Some(vec!['a']));
    }

    #[test]
    fn what_waits_is_bounded_and_one_always_fits() {
        let lanes = Ways::default();
        assert!(lanes.join(&'a', BYTES_MAX + 1).is_none());
        assert_eq!(lanes.join(&'a', 1), Some(1));
        assert_eq!(next(&lanes, 'a'), [[BYTES_MAX + 1]]);
        assert!(lanes.join(&'a', 1).is_none());
    }
}
