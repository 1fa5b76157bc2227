//! How many members of each store, user and room an instance holds, and what Redis was told of it.
//! Absolute numbers, so that telling one twice, or late, does no harm.

use crate::{
    map::{Map, Set},
    names::{Group, GroupKey, SocketId},
    record::SocketRecord,
};
use std::collections::VecDeque;

#[derive(Default)]
pub struct Groups {
    by_key: Map<GroupKey, Members>,
    /// Those of which Redis was told something else, or nothing.
    stale: Set<GroupKey>,
    /// Of which Redis was told last that nobody is here, should a failover lose that.
    emptied: VecDeque<GroupKey>,
    /// Of which a telling was not answered: it may still lie in a connection that was given up, and come late.
    unanswered: Set<GroupKey>,
}

/// Empty groups that are remembered.
const EMPTIED_MAX: usize = 2_000;

#[derive(Default)]
struct Members {
    count: u32,
    /// When one of them was last heard, as far as anybody said, by the registry's clock.
    active_at: u64,
    /// One of them was heard since that was told.
    stirred: bool,
    told: Told,
    /// Somebody is telling it at this moment.
    telling: bool,
    /// What is being told may be lost already, or goes to another incarnation's field.
    distrusted: bool,
    /// Who they are, of users alone: without Redis the cap is kept by it.
    ids: Vec<SocketId>,
}

/// What Redis has of it. No number is nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    This(Option<u32>),
    Unknown,
}

impl Default for Told {
    /// Of a group that is met for the first time.
    fn default() -> Self {
        Self::This(None)
    }
}

/// What has to be told of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Redis knows all that matters.
    Nothing,
    /// Somebody else is at it.
    Busy,
    /// That so many are here, and when one of them was last heard; none means that nobody is.
    Tell { count: Option<u32>, active_at: u64 },
}

impl Groups {
    pub(crate) fn enter(&mut self, record: &SocketRecord) {
        for group in record.groups() {
            let key = group.key();
            let members = self.by_key.entry(key).or_default();
            members.count += 1;
            members.active_at = members.active_at.max(record.attempt.accepted_at);
            if matches!(group, Group::User(_)) {
                members.ids.push(record.id);
            }
            self.stale.insert(key);
        }
    }

    pub(crate) fn leave(&mut self, record: &SocketRecord) {
        for group in record.groups() {
            let key = group.key();
            if let Some(members) = self.by_key.get_mut(&key) {
                members.count = members.count.saturating_sub(1);
                if let Some(at) = members.ids.iter().position(|id| *id == record.id) {
                    members.ids.swap_remove(at);
                }
                self.stale.insert(key);
            }
        }
    }

    /// The sockets of a user here.
    pub fn ids(&self, key: GroupKey) -> &[SocketId] {
        self.by_key.get(&key).map_or(&[], |members| &members.ids)
    }

    /// Members of it were heard.
    pub fn active(&mut self, key: GroupKey, at: u64) {
        if let Some(members) = self.by_key.get_mut(&key) {
            (members.active_at, members.stirred) = (members.active_at.max(at), true);
            self.stale.insert(key);
        }
    }

    /// Begins to tell a group. With `exact`, numbers count as well; without, only whether there is anybody.
    pub fn tell(&mut self, key: GroupKey, exact: bool) -> Telling {
        let Some(members) = self.by_key.get_mut(&key) else { return Telling::Nothing };
        let count = Some(members.count).filter(|count| *count > 0);
        if members.telling {
            return Telling::Busy;
        }
        match members.told {
            Told::This(told)
                if (told == count && !(exact && members.stirred && count.is_some()))
                    || (!exact && told.is_some() == count.is_some()) =>
            {
                Telling::Nothing
            }
            _ => {
                (members.telling, members.stirred) = (true, false);
                Telling::Tell { count, active_at: members.active_at }
            }
        }
    }

    /// Ends it. If Redis did not answer, nobody knows what it holds.
    pub fn told(&mut self, key: GroupKey, count: Option<u32>, answered: bool) {
        let Some(members) = self.by_key.get_mut(&key) else { return };
        members.telling = false;
        if !answered {
            self.unanswered.insert(key);
        }
        let trusted = !std::mem::take(&mut members.distrusted);
        members.told = if answered && trusted { Told::This(count) } else { Told::Unknown };
        let now = Some(members.count).filter(|count| *count > 0);
        if members.told == Told::This(now) && !members.stirred {
            self.stale.remove(&key);
            if now.is_none() {
                self.by_key.remove(&key);
                self.emptied.push_back(key);
                if self.emptied.len() > EMPTIED_MAX {
                    self.emptied.pop_front();
                }
            }
        }
    }

    /// By now every telling that nobody answered has come, or never will: what it said may stand in Redis instead
    /// of what was told after it.
    pub fn doubt_unanswered(&mut self) {
        for key in std::mem::take(&mut self.unanswered) {
            self.by_key.entry(key).or_default();
            self.doubt(key);
        }
    }

    /// Redis may not have heard of a member of it.
    pub fn doubt(&mut self, key: GroupKey) {
        if let Some(members) = self.by_key.get_mut(&key) {
            members.told = Told::Unknown;
            members.distrusted = members.telling;
            self.stale.insert(key);
        }
    }

    /// Groups of which Redis has an old number, or nobody knows what it has.
    pub fn stale(&self, limit: usize) -> Vec<GroupKey> {
        self.stale.iter().take(limit).copied().collect()
    }

    /// Redis may have lost what it was told.
    pub fn forget_told(&mut self) {
        for key in std::mem::take(&mut self.emptied) {
            self.by_key.entry(key).or_default();
        }
        let all: Vec<_> = self.by_key.keys().copied().collect();
        all.into_iter().for_each(|key| self.doubt(key));
    }
}
