//! The store as plain maps, one operation per script. What a claim, an ending or a digest comes to is
//! asked of `registry::rules`, so that holding the real scripts against this model holds them against
//! the rules. Time is a parameter.

#![allow(dead_code, unused_imports, reason = "two test programs share the model, and neither uses all of it")]

pub mod ids;
mod letters;
mod users;

pub use letters::{Beaten, LEASE_MS, Lease, Sent};
pub use users::{Admitted, Answer, Newcomer};

use registry::{
    Attempt, Ending, GroupKey, Incarnation, Session, SocketId, SocketRecord, Superseded,
    owner::{Parting, partition},
    rules::{Claim, Digest, Held, State, claim, ends, outlived},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Where something lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Row(SocketId),
    Owned(usize, Incarnation),
    Live(usize),
    Ended(usize),
    Lease(Incarnation),
    Tomb(Incarnation),
    Mail(Incarnation),
    User(GroupKey),
    Cooling(GroupKey),
}

/// A rule that is switched off, to see that its absence is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Of two connections the one that arrives last has the socket.
    ArrivalOrder,
    /// An ending meets whatever connection there is.
    EndsAnybody,
    /// A claim counts under whatever mark it was made, though its instance has gone on under another.
    PastClaims,
    /// Instances never compare what they hold with what Redis says.
    NoDigest,
    /// Whoever takes a socket over removes the entry of its predecessor when it hears that it had one.
    TakerTells,
    /// A question whether a user may come in counts whenever it arrives.
    LateAdmits,
    /// Who was declared dead and lives leaves its former numbers in the groups.
    PastStays,
    /// Who takes over from the dead does not think of the groups in which they were counted.
    NoHeirs,
    /// The list of instances is believed to be whole.
    ListIsAll,
    /// After an outage that lost nothing, what is not there is called unknown at once.
    SureAtOnce,
    /// Nobody looks whether a partition's memory has become younger.
    BornUnwatched,
    /// A letter of which nobody knows whether it was sent is sent again.
    RoutesTwice,
    /// An entry that is missing was lost, whoever has its socket by now.
    MissingIsLost,
    /// A count that is wrong by itself is left as it is.
    CountStays,
    /// A telling that nobody answered is not thought of any more when the next was answered.
    UnansweredIsOver,
    /// Of who is not heard it is believed that Redis knows all that it holds.
    SilenceIsAssent,
    /// A count is put right whatever has become of it since it was read.
    BlindCount,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub record: Arc<SocketRecord>,
    pub owner: Incarnation,
    pub confirmed: Option<u32>,
    pub state: State,
    /// When it ended, and how. A claim by the same connection takes it back.
    pub ended: Option<(u64, Option<Ending>)>,
}

impl Row {
    pub fn held(&self) -> Held {
        Held {
            session: self.record.session,
            attempt: self.record.attempt,
            confirmed: self.confirmed.unwrap_or(0),
            state: self.state,
        }
    }
}

/// The entries of one incarnation in one partition.
#[derive(Debug, Clone, Default)]
pub struct Owned {
    pub entries: BTreeMap<SocketId, (Session, u32)>,
    pub digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    Ok,
    Taken { owner: Incarnation, session: Session },
    Superseded(Superseded),
}

/// What an ending says of the row.
#[derive(Debug, Clone)]
pub enum To {
    Closed(Ending),
    Away(Ending),
    /// Nobody knows any more how it ended.
    Forgotten,
}

impl To {
    pub fn of(parting: Option<&Parting>) -> Self {
        use registry::Cause::{ConnectionLost, InstanceRestart, PingTimeout};
        match parting.map(|parting| &parting.ending) {
            None => Self::Forgotten,
            Some(ending) if matches!(ending.cause, ConnectionLost | PingTimeout | InstanceRestart) => {
                Self::Away(ending.clone())
            }
            Some(ending) => Self::Closed(ending.clone()),
        }
    }

    pub fn state(&self) -> State {
        if matches!(self, Self::Away(_)) { State::Away } else { State::Closed }
    }

    pub fn ending(&self) -> Option<&Ending> {
        match self {
            Self::Closed(ending) | Self::Away(ending) => Some(ending),
            Self::Forgotten => None,
        }
    }
}

/// An answer, or that the script failed on a key of a foreign type.
pub type Said<T> = Result<T, Place>;

#[derive(Debug, Clone, Default)]
pub struct Store {
    pub rows: BTreeMap<SocketId, Row>,
    pub owned: BTreeMap<(usize, Incarnation), Owned>,
    pub live: BTreeSet<SocketId>,
    pub ended: BTreeMap<SocketId, u64>,
    pub born: BTreeMap<usize, u64>,
    pub leases: BTreeMap<Incarnation, Lease>,
    pub tombs: BTreeSet<Incarnation>,
    pub mail: BTreeMap<Incarnation, Vec<(u64, Arc<str>)>>,
    pub users: BTreeMap<GroupKey, BTreeSet<(u64, String)>>,
    pub cooling: BTreeMap<(GroupKey, String), u64>,
    pub groups: BTreeMap<GroupKey, BTreeMap<Incarnation, u32>>,
    pub instances: BTreeMap<Incarnation, u64>,
    /// Keys of ours that somebody else has put something into.
    pub foreign: BTreeSet<Place>,
    pub flaw: Option<Flaw>,
}

impl Store {
    pub(crate) fn is_foreign(&self, place: &Place) -> bool {
        !self.foreign.is_empty() && self.foreign.contains(place)
    }

    pub(crate) fn ours(&self, place: Place) -> Said<()> {
        if self.is_foreign(&place) { Err(place) } else { Ok(()) }
    }

    fn claim(&self, held: Option<&Row>, session: Session, attempt: Attempt) -> Claim {
        let held = held.map(Row::held);
        match claim(held.as_ref(), session, attempt) {
            Claim::Refused(Superseded::ByLater) if self.flaw == Some(Flaw::ArrivalOrder) => Claim::Taken,
            other => other,
        }
    }

    /// `register.lua`. Says as well which key it had to leave alone.
    pub fn register(
        &mut self,
        record: &Arc<SocketRecord>,
        owner: &Incarnation,
        h32: u32,
    ) -> Said<(Registered, Option<Place>)> {
        let (id, k) = (record.id, partition(record.id));
        self.ours(Place::Row(id))?;
        let was = self.rows.get(&id).cloned();
        let claimed = self.claim(was.as_ref(), record.session, record.attempt);
        if let Claim::Refused(why) = claimed {
            return Ok((Registered::Superseded(why), None));
        }
        let past = was.as_ref().is_some_and(|was| outlived((was.record.session, &was.owner), (record.session, owner)));
        if past && self.flaw != Some(Flaw::PastClaims) {
            return Ok((Registered::Ok, None));
        }
        let confirmed = was.as_ref().and_then(|was| was.confirmed);
        let row = Row { record: record.clone(), owner: owner.clone(), confirmed, state: State::Live, ended: None };
        self.rows.insert(id, row);
        // The previous owner is not told by anybody whose answer may be lost, but by its digest.
        let taken = claimed == Claim::Taken && self.flaw != Some(Flaw::TakerTells);
        if let Some(was) = was.as_ref().filter(|was| taken && was.owner != *owner) {
            let key = (k, was.owner.clone());
            let entry = self.owned.get(&key).and_then(|owned| owned.entries.get(&id));
            if entry.is_some_and(|entry| entry.0 == was.record.session) {
                self.take_entry(k, &was.owner, id);
            }
        }
        let mut bad = None;
        if self.is_foreign(&Place::Owned(k, owner.clone())) {
            bad = Some(Place::Owned(k, owner.clone()));
        } else {
            let owned = self.owned.entry((k, owner.clone())).or_default();
            if let Some((_, h32)) = owned.entries.insert(id, (record.session, h32)) {
                owned.digest.leave(h32);
            }
            owned.digest.enter(h32);
        }
        if self.is_foreign(&Place::Live(k)) {
            bad = Some(Place::Live(k));
        } else {
            self.live.insert(id);
        }
        if was.as_ref().is_some_and(|was| was.state == State::Away) {
            self.ended.remove(&id);
        }
        Ok(match was.filter(|_| claimed == Claim::Taken) {
            Some(was) => (Registered::Taken { owner: was.owner, session: was.record.session }, bad),
            None => (Registered::Ok, bad),
        })
    }

    /// `unregister.lua`. Says whether the row was ended.
    pub fn unregister(
        &mut self,
        id: SocketId,
        session: Session,
        owner: &Incarnation,
        to: &To,
        keep_ms: u64,
        now: u64,
    ) -> Said<bool> {
        let k = partition(id);
        self.ours(Place::Row(id))?;
        let was = self.rows.get(&id).map(Row::held);
        // Without the rule, whoever is there is the one that is meant.
        let meant = |there: Session| if self.flaw == Some(Flaw::EndsAnybody) { there } else { session };
        let done = ends(was.as_ref(), was.map_or(session, |was| meant(was.session)), to.state());
        let entry = self.owned.get(&(k, owner.clone())).and_then(|owned| owned.entries.get(&id));
        let entry_is_meant = entry.is_some_and(|entry| entry.0 == meant(entry.0));
        if done {
            if let To::Forgotten = to {
                self.rows.remove(&id);
            } else if let Some(row) = self.rows.get_mut(&id) {
                row.state = to.state();
                row.ended = Some((now, to.ending().cloned()));
            }
            self.live.remove(&id);
            if to.state() == State::Away {
                if !self.is_foreign(&Place::Ended(k)) {
                    self.ended.insert(id, now + keep_ms);
                }
            } else {
                self.ended.remove(&id);
            }
        }
        if entry_is_meant {
            self.take_entry(k, owner, id);
        }
        Ok(done)
    }

    fn take_entry(&mut self, k: usize, owner: &Incarnation, id: SocketId) {
        let key = (k, owner.clone());
        if let Some(owned) = self.owned.get_mut(&key)
            && let Some((_, h32)) = owned.entries.remove(&id)
        {
            owned.digest.leave(h32);
            if owned.digest.count == 0 {
                self.owned.remove(&key);
            }
        }
    }

    /// `reap.lua`, on rows of one partition. Says which were the dead one's.
    pub fn reap(&mut self, dead: &Incarnation, ids: &[SocketId], now: u64) -> Vec<Arc<SocketRecord>> {
        let mut found = Vec::new();
        for id in ids {
            if self.is_foreign(&Place::Row(*id)) {
                continue;
            }
            let Some(row) = self.rows.get_mut(id).filter(|row| row.owner == *dead) else { continue };
            match row.state {
                State::Live => {
                    let ending =
                        Ending { cause: registry::Cause::InstanceCrash, code: None, reason: Default::default() };
                    row.state = State::Lost;
                    row.ended = Some((now, Some(ending)));
                    self.live.remove(id);
                }
                State::Lost => {}
                State::Away | State::Closed => continue,
            }
            found.push(row.record.clone());
        }
        found
    }

    /// The reaper is done with these entries. Exactly these: another may have come meanwhile.
    pub fn forget(&mut self, k: usize, dead: &Incarnation, ids: &[SocketId]) {
        let key = (k, dead.clone());
        if let Some(owned) = self.owned.get_mut(&key) {
            owned.entries.retain(|id, _| !ids.contains(id));
            if owned.entries.is_empty() {
                self.owned.remove(&key);
            }
        }
    }

    pub fn entries(&self, k: usize, owner: &Incarnation) -> BTreeMap<SocketId, (Session, u32)> {
        self.owned.get(&(k, owner.clone())).map(|owned| owned.entries.clone()).unwrap_or_default()
    }

    pub fn digest(&self, k: usize, owner: &Incarnation) -> Digest {
        self.owned.get(&(k, owner.clone())).map(|owned| owned.digest).unwrap_or_default()
    }

    /// `recount.lua`. Over no entries nothing is written.
    pub fn recount(&mut self, k: usize, owner: &Incarnation, was: Digest, right: Digest) -> bool {
        if self.digest(k, owner) != was && self.flaw != Some(Flaw::BlindCount) {
            return false;
        }
        let owned = self.owned.entry((k, owner.clone())).or_default();
        owned.digest = right;
        if right.count == 0 && owned.entries.is_empty() {
            self.owned.remove(&(k, owner.clone()));
        }
        true
    }

    /// One instance's field in a group.
    pub fn group(&mut self, key: GroupKey, of: &Incarnation, count: Option<u32>) {
        let fields = self.groups.entry(key).or_default();
        match count {
            Some(count) => drop(fields.insert(of.clone(), count)),
            None => drop(fields.remove(of)),
        }
        if fields.is_empty() {
            self.groups.remove(&key);
        }
    }

    /// Since when a partition's memory is whole. With `nx` only if nothing is said of it.
    pub fn set_born(&mut self, k: usize, at: u64, nx: bool) {
        if !nx || !self.born.contains_key(&k) {
            self.born.insert(k, at);
        }
    }
}
