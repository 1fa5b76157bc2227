//! The store as plain maps, one operation per script. What a claim, an ending or a digest comes to is
//! asked of `registry::rules`, so that holding the real scripts against this model holds them against
//! the rules. Time is a parameter.

#![allow(dead_code, unused_imports, reason = "two test programs share the model, and neither uses all of it")]

mod flaw;
pub mod ids;
mod letters;
mod users;

pub use flaw::Flaw;
pub use letters::{Beaten, LEASE_MS, Lease, Sent};
pub use users::{Admitted, Answer, Newcomer};

use registry::{
    Attempt, Ending, GroupKey, Incarnation, Resumable, Session, SocketId, SocketRecord, Superseded,
    owner::{Parting, partition, says},
    rules::{Claim, Digest, Held, Left, NotBack, State, claim, crashed, ends, is_due, is_elsewhere, outlived, resume},
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
    Left(usize, Incarnation),
    Live(usize),
    Ended(usize),
    Events(usize),
    Lease(Incarnation),
    Tomb(Incarnation),
    Mail(Incarnation),
    User(GroupKey),
    Cooling(GroupKey),
}

#[derive(Debug, Clone)]
pub struct Row {
    pub record: Arc<SocketRecord>,
    pub owner: Incarnation,
    pub confirmed: Option<u32>,
    /// What stands in the row of the digest of what it says, if it may come back.
    pub says: Option<u32>,
    pub state: State,
    /// When it ended, and how. A claim by the same connection takes it back.
    pub ended: Option<(u64, Option<Ending>)>,
    /// By when it has to come back.
    pub due: Option<u64>,
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
    /// It was not used.
    Forgotten,
    /// Nobody knows any more how it ended, or whether it was used.
    Dropped(Ending),
}

impl To {
    pub fn of(parting: Option<&Parting>) -> Self {
        let Some(Parting { record, ending }) = parting else {
            let ending = Ending { cause: registry::Cause::ConnectionLost, code: None, reason: Default::default() };
            return Self::Dropped(ending);
        };
        match record.leaves(ending) {
            State::Away => Self::Away(ending.clone()),
            _ => Self::Closed(ending.clone()),
        }
    }

    pub fn left(&self) -> Left {
        match self {
            Self::Closed(_) => Left::Closed,
            Self::Away(_) => Left::Away,
            Self::Forgotten => Left::Forgotten,
            Self::Dropped(_) => Left::Dropped,
        }
    }

    pub fn ending(&self) -> Option<&Ending> {
        match self {
            Self::Closed(ending) | Self::Away(ending) | Self::Dropped(ending) => Some(ending),
            Self::Forgotten => None,
        }
    }
}

/// What became of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Nothing,
    Row,
    /// Another connection has it.
    Elsewhere,
}

/// Who asks for a socket.
#[derive(Debug, Clone)]
pub struct Asker {
    pub id: SocketId,
    pub session: Session,
    pub attempt: Attempt,
    pub owner: Incarnation,
    pub address: std::net::IpAddr,
}

/// What became of one that was to be ended.
#[derive(Debug, Clone)]
pub enum Over {
    Ended(Row),
    Waits,
    Gone,
}

/// When one that is away is to end.
#[derive(Debug, Clone)]
pub enum When {
    Due,
    Now(Ending),
    Told,
}

/// What the row was, as which attempt it is back, and which key was left alone.
pub type GivenBack = (Row, Attempt, Option<Place>);

/// An answer, or that the script failed on a key of a foreign type.
pub type Said<T> = Result<T, Place>;

#[derive(Debug, Clone, Default)]
pub struct Store {
    pub rows: BTreeMap<SocketId, Row>,
    pub owned: BTreeMap<(usize, Incarnation), Owned>,
    /// In which groups those were counted that were taken over from somebody.
    pub left: BTreeMap<(usize, Incarnation), BTreeMap<SocketId, Arc<SocketRecord>>>,
    pub live: BTreeSet<SocketId>,
    pub ended: BTreeMap<SocketId, u64>,
    /// What the application is still to be told of each partition.
    pub events: BTreeMap<usize, Vec<String>>,
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
            Claim::Granted
                if self.flaw == Some(Flaw::EndsLater)
                    && held.is_some_and(|held| matches!(held.state, State::Closed | State::Lost)) =>
            {
                Claim::Refused(Superseded::Ended)
            }
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
        let (id, session) = (record.id, record.session);
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
        let confirmed = was.as_ref().and_then(|was| was.confirmed).max(record.resumable.map(|it| it.confirmed));
        let says = record.resumable.map(|_| says(record));
        let (record, owner) = (record.clone(), owner.clone());
        let row = Row { record, owner: owner.clone(), confirmed, says, state: State::Live, ended: None, due: None };
        self.rows.insert(id, row);
        if let Some(was) = was.as_ref().filter(|_| claimed == Claim::Taken) {
            self.take_from(was, &owner);
        }
        let bad = self.enter(id, session, &owner, h32);
        if was.as_ref().is_some_and(|was| was.state != State::Live) {
            self.ended.remove(&id);
        }
        Ok(match was.filter(|_| claimed == Claim::Taken) {
            Some(was) => (Registered::Taken { owner: was.owner, session: was.record.session }, bad),
            None => (Registered::Ok, bad),
        })
    }

    /// Its entry with its owner, and its place in the index. Says which key it had to leave alone.
    fn enter(&mut self, id: SocketId, session: Session, owner: &Incarnation, h32: u32) -> Option<Place> {
        let (k, mut bad) = (partition(id), None);
        if self.is_foreign(&Place::Owned(k, owner.clone())) {
            bad = Some(Place::Owned(k, owner.clone()));
        } else {
            let owned = self.owned.entry((k, owner.clone())).or_default();
            if let Some((_, h32)) = owned.entries.insert(id, (session, h32)) {
                owned.digest.leave(h32);
            }
            owned.digest.enter(h32);
        }
        if self.is_foreign(&Place::Live(k)) {
            bad = Some(Place::Live(k));
        } else {
            self.live.insert(id);
        }
        bad
    }

    /// The previous owner is not told by anybody whose answer may be lost, but by its digest. Should it be dead, it
    /// is noted in which groups the socket was counted.
    fn take_from(&mut self, was: &Row, by: &Incarnation) {
        let (id, k) = (was.record.id, partition(was.record.id));
        if was.owner == *by || self.flaw == Some(Flaw::TakerTells) {
            return;
        }
        let key = (k, was.owner.clone());
        let entry = self.owned.get(&key).and_then(|owned| owned.entries.get(&id));
        if entry.is_some_and(|entry| entry.0 == was.record.session) {
            self.take_entry(k, &was.owner, id);
            if self.flaw != Some(Flaw::LeftStays) && !self.is_foreign(&Place::Left(k, was.owner.clone())) {
                self.left.entry(key).or_default().insert(id, was.record.clone());
            }
        }
    }

    /// `resume.lua`. Says what the row said before, and which key it had to leave alone.
    pub fn resume(&mut self, asker: &Asker, now: u64) -> Said<Result<GivenBack, NotBack>> {
        let Asker { id, session, attempt, owner, address } = asker.clone();
        self.ours(Place::Row(id))?;
        let was = self.rows.get(&id).cloned();
        let may_return = was
            .as_ref()
            .is_some_and(|was| was.record.resumable.is_some() && was.due.is_none_or(|due| !is_due(due, now)));
        let held = was.as_ref().map(Row::held).map(|held| match self.flaw {
            Some(Flaw::TokenLives) => Held { confirmed: 0, ..held },
            Some(Flaw::EndsNobody) if held.state == State::Closed => Held { state: State::Away, ..held },
            _ => held,
        });
        let attempt = match resume(held.as_ref(), may_return, session, attempt) {
            Ok(attempt) => attempt,
            Err(why) => return Ok(Err(why)),
        };
        let was = was.expect("what comes back was there");
        let resumable = was.record.resumable.map(|it| Resumable { confirmed: was.confirmed.unwrap_or(0), ..it });
        let record =
            SocketRecord { session, attempt, owner: owner.clone(), address, resumable, ..(*was.record).clone() };
        let h32 = was.says.expect("who may come back says so") ^ session.fold();
        let row = Row {
            record: Arc::new(record),
            owner: owner.clone(),
            state: State::Live,
            ended: None,
            due: None,
            ..was.clone()
        };
        self.rows.insert(id, row);
        if was.state == State::Away {
            self.ended.remove(&id);
        }
        // As long as it is of this connection already, nobody else has an entry.
        self.take_from(&was, &owner);
        let bad = self.enter(id, session, &owner, h32);
        Ok(Ok((was, attempt, bad)))
    }

    /// `away.lua`.
    pub fn away(&mut self, id: SocketId, when: &When, now: u64) -> Said<Over> {
        self.ours(Place::Row(id))?;
        let is_listed = self.ended.contains_key(&id);
        let row = self.rows.get_mut(&id);
        let state = row.as_ref().map(|row| row.state);
        let row = match row {
            Some(row) if state == Some(State::Away) && !matches!(when, When::Told) => row,
            Some(row) if state == Some(State::Closed) && is_listed && !matches!(when, When::Told) => {
                return Ok(Over::Ended(row.clone()));
            }
            _ => {
                if state != Some(State::Away) {
                    self.ended.remove(&id);
                }
                return Ok(Over::Gone);
            }
        };
        if let When::Due = when
            && !row.due.is_some_and(|due| is_due(due, now))
        {
            return Ok(Over::Waits);
        }
        row.state = State::Closed;
        row.due = None;
        if let (When::Now(how), Some((_, ending))) = (when, &mut row.ended) {
            *ending = Some(how.clone());
        }
        Ok(Over::Ended(row.clone()))
    }

    /// `unregister.lua`.
    pub fn unregister(
        &mut self,
        id: SocketId,
        session: Session,
        owner: &Incarnation,
        to: &To,
        now: u64,
    ) -> Said<Ended> {
        let k = partition(id);
        self.ours(Place::Row(id))?;
        let window = self.rows.get(&id).and_then(|row| row.record.resumable).map(|it| it.window());
        let was = self.rows.get(&id).map(Row::held);
        let drops = self.flaw == Some(Flaw::DropsAway) && to.left() == Left::Dropped;
        let makes = to.left().makes(window.is_some() && !drops);
        // Without the rule, whoever is there is the one that is meant.
        let meant = |there: Session| if self.flaw == Some(Flaw::EndsAnybody) { there } else { session };
        let done = ends(was.as_ref(), was.map_or(session, |was| meant(was.session)), makes.unwrap_or(State::Closed));
        let entry = self.owned.get(&(k, owner.clone())).and_then(|owned| owned.entries.get(&id));
        let entry_is_meant = entry.is_some_and(|entry| entry.0 == meant(entry.0));
        if done {
            self.live.remove(&id);
            self.ended.remove(&id);
            if let Some(state) = makes {
                self.end_row(id, state, to.ending().cloned(), now);
            } else {
                self.rows.remove(&id);
            }
        }
        if entry_is_meant {
            self.take_entry(k, owner, id);
        }
        Ok(match done {
            true => Ended::Row,
            false if is_elsewhere(was.as_ref(), session) => Ended::Elsewhere,
            false => Ended::Nothing,
        })
    }

    /// `log.lua`, of one event: whether it was logged, and how many went for it.
    pub fn log_event(&mut self, k: usize, max: usize, event: String) -> (bool, usize) {
        if self.is_foreign(&Place::Events(k)) {
            return (false, 0);
        }
        let log = self.events.entry(k).or_default();
        log.push(event);
        let gone = log.len().saturating_sub(max);
        log.drain(..gone);
        (true, gone)
    }

    fn end_row(&mut self, id: SocketId, state: State, ending: Option<Ending>, now: u64) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        row.state = state;
        row.ended = Some((now, ending));
        row.due = None;
        if let (State::Away, Some(resumable)) = (state, row.record.resumable) {
            let due = now + resumable.window().as_millis() as u64;
            row.due = Some(due);
            if !self.is_foreign(&Place::Ended(partition(id))) {
                self.ended.insert(id, due);
            }
        }
        self.live.remove(&id);
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
            let Some(row) = self.rows.get(id).filter(|row| row.owner == *dead).cloned() else { continue };
            match row.state {
                State::Live => {
                    let ending =
                        Ending { cause: registry::Cause::InstanceCrash, code: None, reason: Default::default() };
                    self.end_row(*id, crashed(row.record.resumable.is_some()), Some(ending), now);
                }
                State::Lost | State::Away => {}
                State::Closed => continue,
            }
            found.push(row.record);
        }
        found
    }

    /// Those whose time is over, the first of them first.
    pub fn due(&self, k: usize, now: u64) -> Vec<SocketId> {
        let mut due: Vec<_> = self
            .ended
            .iter()
            .filter(|(id, due)| partition(**id) == k && **due <= now)
            .map(|(id, due)| (*due, *id))
            .collect();
        due.sort();
        due.into_iter().map(|(_, id)| id).collect()
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
