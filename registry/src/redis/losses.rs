//! What was logged lately, for when a server is another than before: a replica that took over, or an empty one, may not
//! have all of it, and nothing in Redis would show. Such a log is broken off.

use super::{
    Redis,
    appends::END_STAYS,
    beat::ms,
    scripts::{LOST, number},
};
use crate::names::SocketId;
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tracing::warn;

/// For how long, and how much of it. What is older has reached the replicas, or there are none.
const REMEMBERED: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: usize = 20_000;
/// Logs looked at at once.
const LOOKED_AT_ONCE: usize = 32;
/// It is looked a second time: an answer of the former server may have been on its way still.
const AGAIN: Duration = Duration::from_secs(6);

/// One entry that we logged.
#[derive(Clone, Copy)]
struct Logged {
    at: Instant,
    id: SocketId,
    seq: u64,
    until: u64,
}

/// When it is to be looked.
#[derive(Default)]
struct Due {
    at: Option<Instant>,
    again: Option<Instant>,
}

#[derive(Default)]
pub struct Lately {
    logged: Mutex<VecDeque<Logged>>,
    due: Mutex<Due>,
}

impl Lately {
    pub fn note(&self, id: SocketId, seq: u64, until: u64) {
        let now = Instant::now();
        let mut logged = self.logged();
        let is_old = |logged: &Logged| now.duration_since(logged.at) >= REMEMBERED;
        while logged.len() >= REMEMBERED_MAX || logged.front().is_some_and(is_old) {
            logged.pop_front();
        }
        logged.push_back(Logged { at: now, id, seq, until });
    }

    /// A server may have lost some of it.
    pub fn doubt(&self) {
        let now = Instant::now();
        *self.due() = Due { at: Some(now), again: Some(now + AGAIN) };
    }

    /// Whether it is to be looked now.
    fn take_due(&self) -> bool {
        let (now, mut due) = (Instant::now(), self.due());
        let has_come = |at: &mut Instant| *at <= now;
        let at_once = due.at.take_if(has_come).is_some();
        due.again.take_if(has_come).is_some() || at_once
    }

    /// By socket: numbers, and until when somebody would miss them.
    fn of_each(&self) -> BTreeMap<SocketId, Vec<[u64; 2]>> {
        let mut each: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for logged in self.logged().iter() {
            each.entry(logged.id).or_default().push([logged.seq, logged.until]);
        }
        each
    }

    /// A panic while the lock was held leaves a list that can be used: every step is whole.
    fn logged(&self) -> MutexGuard<'_, VecDeque<Logged>> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Redis {
    /// Looks whether what we logged is there still, if there is a reason to.
    pub(super) async fn look_for_losses(&self) {
        if !self.lately.take_due() {
            return;
        }
        let each: Vec<_> = self.lately.of_each().into_iter().collect();
        let mut found = Vec::with_capacity(each.len());
        for some in each.chunks(LOOKED_AT_ONCE) {
            found.extend(join_all(some.iter().map(|(id, logged)| self.break_if_lost(*id, logged))).await);
        }
        let broken = found.iter().filter(|found| **found == Some(true)).count();
        if broken > 0 {
            warn!("Redis lost durable deliveries of {broken} sockets that it had accepted; their clients are told");
        }
        if found.contains(&None) {
            self.lately.due().at.get_or_insert(Instant::now());
        }
    }

    /// `None` if Redis did not say.
    async fn break_if_lost(&self, id: SocketId, logged: &[[u64; 2]]) -> Option<bool> {
        let keys = &self.keys;
        let call = LOST.on([keys.row(id), keys.log(id), keys.logged(id)]).arg(ms(END_STAYS)).arg(self.now_ms());
        let said = call.arg(logged.as_flattened()).run(&self.link).await.ok()?;
        Some(number(said.first()) == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_in_time_and_number() {
        let lately = Lately::default();
        let id = SocketId::fresh();
        lately.note(id, 1, 0);
        tokio::time::advance(REMEMBERED).await;
        lately.note(id, 2, 9);
        assert_eq!(lately.of_each()[&id], [[2, 9]]);
        (0..2 * REMEMBERED_MAX as u64).for_each(|seq| lately.note(id, seq, 0));
        assert_eq!(lately.logged().len(), REMEMBERED_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_looked_at_once_and_once_more() {
        let lately = Lately::default();
        assert!(!lately.take_due());
        lately.doubt();
        assert_eq!([lately.take_due(), lately.take_due()], [true, false]);
        tokio::time::advance(AGAIN).await;
        assert_eq!([lately.take_due(), lately.take_due()], [true, false]);
    }
}
