//! Calls that wait until somebody comes, where the instances share a process.

use super::{Memory, Tables};
use crate::{
    all::{Awaited, Post},
    names::{GroupKey, Incarnation},
    waiting::WAITS,
};
use std::collections::{BTreeMap, HashMap};
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

    pub(crate) fn came(&self, group: GroupKey, own: &Incarnation) {
        self.tables().came(group, own);
    }
}

impl Tables {
    /// Somebody of the group is at this instance, which hears who waits for that. A word that finds no room is lost: they
    /// look by themselves as well.
    pub(super) fn came(&self, group: GroupKey, owner: &Incarnation) {
        let Some(by) = self.waits.by.get(&group) else { return };
        let by = by.iter().filter(|(_, until)| **until > Instant::now()).map(|(by, _)| by.clone()).collect();
        if let Some(member) = self.instances.get(owner) {
            let _ = member.inbox.try_send(Post::Awaited(Awaited { group, by }));
        }
    }
}
