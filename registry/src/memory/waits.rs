//! Calls that wait until somebody comes, and calls that are kept until then, where the instances share a process.

use super::{Memory, Tables};
use crate::{
    all::{Arrived, Post, epoch_ms},
    log::Durability,
    names::{CallId, GroupKey, Incarnation, SocketId},
    queue::{Cancelled, Handed, Parcel, Queued, Standing, Taken, Turn, WasGiven},
    waiting::WAITS,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::time::Instant;

/// Until when each instance waits for which group.
#[derive(Default)]
pub struct Waits {
    by: HashMap<GroupKey, BTreeMap<Incarnation, Instant>>,
    swept: Option<Instant>,
}

impl Waits {
    /// Each renews what it waits for, so whoever does not is gone. Not at every turn, since there may be many.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + WAITS) {
            return;
        }
        self.swept = Some(now);
        self.by.retain(|_, by| {
            by.retain(|_, until| *until > now);
            !by.is_empty()
        });
    }
}

impl Memory {
    pub(crate) fn wait(&self, group: GroupKey, own: &Incarnation) -> bool {
        let (mut tables, now) = (self.tables(), Instant::now());
        tables.waits.sweep(now);
        tables.waits.by.entry(group).or_default().insert(own.clone(), now + WAITS);
        tables.owners(group).next().is_some()
    }

    pub(crate) fn came(&self, group: GroupKey) -> Option<Arrived> {
        self.tables().arrived(group)
    }

    pub(crate) fn queue(&self, parcel: &Parcel) -> Queued {
        let mut tables = self.tables();
        match tables.queue.put(parcel.clone(), Instant::now(), epoch_ms()) {
            true => Queued::Waits(Durability::Memory, tables.holding(parcel.group)),
            false => Queued::Full,
        }
    }

    pub(crate) fn take(&self, group: GroupKey, own: &Incarnation, limit: usize) -> Turn {
        self.tables().queue.take(group, own, limit, Instant::now())
    }

    pub(crate) fn give(&self, call: &CallId, own: &Incarnation, to: SocketId) -> Option<Handed> {
        self.tables().queue.give(call, own, to, Instant::now())
    }

    pub(crate) fn back(&self, call: &CallId, attempt: u32, was_given: WasGiven) -> bool {
        self.tables().queue.back(call, attempt, was_given, Instant::now())
    }

    pub(crate) fn next(&self, group: GroupKey, of: &Incarnation, only: Option<&Taken>) -> Vec<Incarnation> {
        let mut tables = self.tables();
        tables.queue.next(group, of, only.map(|taken| &taken.call), Instant::now());
        tables.holding(group)
    }

    pub(crate) fn answer(&self, call: &CallId, attempt: Option<u32>, outcome: &Bytes) -> bool {
        self.tables().queue.answer(call, attempt, outcome.clone(), Instant::now())
    }

    pub(crate) fn standing(&self, call: &CallId) -> Standing {
        self.tables().queue.standing(call, Instant::now())
    }

    pub(crate) fn cancel(&self, call: &CallId) -> Cancelled {
        self.tables().queue.cancel(call)
    }
}

impl Tables {
    /// Somebody of the group is at this instance, which hears who waits for that. A word that finds no room is lost: they
    /// look by themselves as well.
    pub(super) fn came(&self, group: GroupKey, owner: &Incarnation) {
        let arrived = self.arrived(group);
        if let Some((arrived, member)) = arrived.zip(self.instances.get(owner)) {
            let _ = member.inbox.try_send(Post::Arrived(arrived));
        }
    }

    /// Who waits for somebody of it, if anybody does.
    fn arrived(&self, group: GroupKey) -> Option<Arrived> {
        let (by, queued) = (self.waits.by.get(&group), self.queue.has(group));
        (by.is_some() || queued).then_some(())?;
        let by = by.into_iter().flatten().filter(|(_, until)| **until > Instant::now());
        Some(Arrived { group, by: by.map(|(by, _)| by.clone()).collect(), queued })
    }

    /// The instances that hold members.
    fn holding(&self, group: GroupKey) -> Vec<Incarnation> {
        self.owners(group).collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }
}
