//! Calls that are kept until somebody comes who can be asked: their words, and their table in memory; the one in Redis
//! is in `redis/queued.rs`. One socket has a call at a time, each time is an attempt, and the first outcome stands.

use crate::{
    log::Durability,
    names::{CallId, GroupKey, Incarnation, SocketId},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// How long an outcome is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Calls for one group, those in the hands of sockets among them.
pub const QUEUED_MAX: usize = 1000;
/// So long after its patience a call is taken from whoever has said nothing of it.
pub const GRACE: Duration = Duration::from_secs(5);
/// Calls in memory. When there are as many the oldest outcome goes, never a call that is not over.
const CALLS_MAX: usize = 10_000;
/// The bytes of what they ask and of their outcomes; beyond them the same.
const BYTES_MAX: usize = 64 << 20;
/// How often all groups are looked at when it is full.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A call that is to be kept.
#[derive(Debug, Clone)]
pub struct Parcel {
    pub call: CallId,
    /// Whoever of it comes first is asked.
    pub group: GroupKey,
    /// What is asked. Those who ask and those who take it read it, and nobody else.
    pub text: Bytes,
    /// How long it waits to be taken.
    pub ttl: Duration,
    /// How long whoever takes it may think.
    pub patience: Duration,
    /// What is waited for before it counts as kept.
    pub wants: Durability,
}

/// What became of keeping it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queued {
    /// It waits, as sure as this. These instances hold members of the group after all.
    Waits(Durability, Vec<Incarnation>),
    /// As many wait as may.
    Full,
}

/// Calls that an instance has taken, to give them to a socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    pub calls: Vec<Taken>,
    /// Those that it has taken before. It may not know of one, if the answer was lost.
    pub before: Vec<Taken>,
    /// Others who have calls of the group in their hands. It may be one of them itself, of a call that it is about to lose.
    pub others: Vec<Incarnation>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub call: CallId,
    pub group: GroupKey,
    pub patience: Duration,
}

/// A call that is about to be written to a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    pub text: Bytes,
    /// Which time it is.
    pub attempt: u32,
    /// By the registry's clock.
    pub queued_at: u64,
}

/// Whether whoever had it was given it, as far as that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WasGiven {
    #[default]
    No,
    Unknown,
    Yes,
}

impl WasGiven {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "false",
            Self::Unknown => "unknown",
            Self::Yes => "true",
        }
    }

    pub fn parse(text: &str) -> Self {
        match text {
            "true" => Self::Yes,
            "unknown" => Self::Unknown,
            _ => Self::No,
        }
    }

    /// Of whoever had it last nothing may have been heard: of an attempt that was not taken back it is not known.
    pub(crate) fn after(self, attempt: u32) -> Self {
        if self == Self::No && attempt > 0 { Self::Unknown } else { self }
    }
}

/// How a queued call stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There never was one of this name, or it was forgotten or taken back.
    Unknown,
    /// It waits to be taken, after so many attempts.
    Waits {
        attempt: u32,
    },
    Given {
        socket: SocketId,
        owner: Incarnation,
        attempt: u32,
    },
    /// Nobody took it in its time, or nobody after the last one who had it. Whoever finds this says so.
    Overdue(WasGiven),
    Done(Bytes),
}

/// What became of taking one back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// There is none of this name.
    Unknown,
    /// Nobody had it.
    Waited,
    /// This instance has it in its hands.
    Given(Incarnation),
    /// It is over.
    Done,
}

enum State {
    Waits,
    Given { owner: Incarnation, socket: Option<SocketId>, due: Instant },
    Done(Bytes),
}

struct Entry {
    parcel: Parcel,
    state: State,
    attempt: u32,
    was_given: WasGiven,
    queued_at: u64,
    /// Until when it waits; of one that is given, until when it may wait for the next.
    until: Instant,
}

/// The queued calls of the instances of one process.
#[derive(Default)]
pub struct Queue {
    calls: HashMap<CallId, Entry>,
    /// Those of a group that are not over, in the order in which they are to be taken.
    by_group: BTreeMap<GroupKey, VecDeque<CallId>>,
    /// Those that are, by when they are forgotten.
    done: VecDeque<(Instant, CallId)>,
    bytes: usize,
    /// When all groups were looked at for those that nobody took.
    swept: Option<Instant>,
}

impl Queue {
    /// False: as many wait as may.
    pub fn put(&mut self, parcel: Parcel, now: Instant, now_ms: u64) -> bool {
        self.expire(parcel.group, now);
        self.make_room(1, parcel.text.len(), now);
        if self.is_full(1, parcel.text.len()) && self.expire_all(now) {
            self.make_room(1, parcel.text.len(), now);
        }
        let of_group = self.by_group.get(&parcel.group).map_or(0, VecDeque::len);
        if of_group >= QUEUED_MAX || self.is_full(1, parcel.text.len()) {
            return false;
        }
        self.bytes += parcel.text.len();
        self.by_group.entry(parcel.group).or_default().push_back(parcel.call.clone());
        let (call, until) = (parcel.call.clone(), now + parcel.ttl);
        let entry =
            Entry { parcel, state: State::Waits, attempt: 0, was_given: WasGiven::No, queued_at: now_ms, until };
        self.calls.insert(call, entry);
        true
    }

    /// Whether there is no room for so many more.
    fn is_full(&self, calls: usize, bytes: usize) -> bool {
        self.calls.len() + calls > CALLS_MAX || self.bytes + bytes > BYTES_MAX
    }

    /// For so many more the oldest outcomes go; what is not over stays.
    fn make_room(&mut self, calls: usize, bytes: usize, now: Instant) {
        while self.done.front().is_some_and(|(due, _)| *due <= now) || self.is_full(calls, bytes) {
            let Some((_, call)) = self.done.pop_front() else { return };
            self.remove(&call);
        }
    }

    fn remove(&mut self, call: &CallId) {
        let Some(entry) = self.calls.remove(call) else { return };
        self.bytes -= entry.bytes();
        self.leave(&entry.parcel);
    }

    /// It is in nobody's line any more.
    fn leave(&mut self, parcel: &Parcel) {
        if let Some(line) = self.by_group.get_mut(&parcel.group) {
            line.retain(|call| *call != parcel.call);
            if line.is_empty() {
                self.by_group.remove(&parcel.group);
            }
        }
    }

    /// Those that nobody took in their time wait no longer. What came of them is said by whoever asks, so long after.
    fn expire(&mut self, group: GroupKey, now: Instant) {
        let line = self.by_group.get(&group).into_iter().flatten();
        let over = |call: &&CallId| self.calls.get(*call).is_none_or(|entry| entry.until <= now);
        let over: Vec<_> = line.filter(over).cloned().collect();
        for call in over {
            if let Some(entry) = self.calls.get(&call) {
                let parcel = entry.parcel.clone();
                self.leave(&parcel);
                self.done.push_back((now + KEPT, call));
            }
        }
    }

    /// The same of all groups: one that nobody puts into or takes from any more would fill it for ever. Not at every
    /// call that finds it full, since there may be many. False: not now.
    fn expire_all(&mut self, now: Instant) -> bool {
        if self.swept.is_some_and(|swept| now < swept + SWEEP_EVERY) {
            return false;
        }
        self.swept = Some(now);
        let groups: Vec<_> = self.by_group.keys().copied().collect();
        groups.into_iter().for_each(|group| self.expire(group, now));
        true
    }

    /// Whether calls of the group are not over.
    pub fn has(&self, group: GroupKey) -> bool {
        self.by_group.contains_key(&group)
    }

    pub fn take(&mut self, group: GroupKey, own: &Incarnation, limit: usize, now: Instant) -> Turn {
        self.expire(group, now);
        let mut turn = Turn::default();
        for call in self.by_group.get(&group).into_iter().flatten() {
            let Some(entry) = self.calls.get_mut(call) else { continue };
            let held_by = match &entry.state {
                State::Given { owner, due, .. } if *due > now => Some(owner),
                _ => None,
            };
            let patience = entry.parcel.patience;
            let taken = Taken { call: call.clone(), group, patience };
            match held_by {
                Some(owner) if owner == own => turn.before.push(taken),
                Some(owner) if turn.others.contains(owner) => {}
                Some(owner) => turn.others.push(owner.clone()),
                None if turn.calls.len() < limit => {
                    entry.state = State::Given { owner: own.clone(), socket: None, due: now + patience + GRACE };
                    turn.calls.push(taken);
                }
                None => {}
            }
        }
        turn
    }

    pub fn give(&mut self, call: &CallId, own: &Incarnation, to: SocketId, now: Instant) -> Option<Handed> {
        let entry = self.calls.get_mut(call).filter(|entry| entry.until > now)?;
        let State::Given { owner, socket, .. } = &mut entry.state else { return None };
        (owner == own).then_some(())?;
        *socket = Some(to);
        entry.attempt += 1;
        entry.until = now + entry.parcel.patience + entry.parcel.ttl;
        Some(Handed { text: entry.parcel.text.clone(), attempt: entry.attempt, queued_at: entry.queued_at })
    }

    pub fn back(&mut self, call: &CallId, attempt: u32, was_given: WasGiven, now: Instant) -> bool {
        let Some(entry) = self.calls.get_mut(call) else { return false };
        if !matches!(entry.state, State::Given { socket: Some(_), .. }) || entry.attempt != attempt {
            return false;
        }
        match was_given {
            WasGiven::No => entry.attempt -= 1,
            WasGiven::Unknown | WasGiven::Yes if entry.was_given == WasGiven::Yes => {}
            WasGiven::Unknown | WasGiven::Yes => entry.was_given = was_given,
        }
        entry.state = State::Waits;
        entry.until = now + entry.parcel.ttl;
        true
    }

    /// Puts calls back that an instance has taken: one, or all of the group.
    pub fn next(&mut self, group: GroupKey, of: &Incarnation, only: Option<&CallId>, now: Instant) {
        for call in self.by_group.get(&group).into_iter().flatten() {
            let Some(entry) = self.calls.get_mut(call).filter(|_| only.is_none_or(|only| only == call)) else {
                continue;
            };
            if matches!(&entry.state, State::Given { owner, .. } if owner == of) {
                entry.state = State::Waits;
                entry.until = now + entry.parcel.ttl;
            }
        }
    }

    /// Says what came of it; without an attempt, that its time is over.
    pub fn answer(&mut self, call: &CallId, attempt: Option<u32>, outcome: Bytes, now: Instant) -> bool {
        let Some(entry) = self.calls.get_mut(call) else { return false };
        let fits = match (&entry.state, attempt) {
            (State::Done(_), _) => false,
            (State::Given { socket: Some(_), .. }, Some(attempt)) => entry.attempt == attempt,
            (State::Waits | State::Given { .. }, Some(_)) => false,
            (_, None) => entry.until <= now,
        };
        if !fits {
            return false;
        }
        self.bytes -= entry.bytes();
        entry.parcel.text = Bytes::new();
        entry.state = State::Done(outcome);
        self.bytes += entry.bytes();
        let parcel = entry.parcel.clone();
        self.leave(&parcel);
        self.done.push_back((now + KEPT, parcel.call));
        self.make_room(0, 0, now);
        true
    }

    pub fn standing(&mut self, call: &CallId, now: Instant) -> Standing {
        self.make_room(0, 0, now);
        let Some(entry) = self.calls.get(call) else { return Standing::Unknown };
        let attempt = entry.attempt;
        match &entry.state {
            State::Done(outcome) => Standing::Done(outcome.clone()),
            _ if entry.until <= now => Standing::Overdue(entry.was_given.after(attempt)),
            State::Given { owner, socket: Some(socket), .. } => {
                Standing::Given { socket: *socket, owner: owner.clone(), attempt }
            }
            State::Waits | State::Given { .. } => Standing::Waits { attempt },
        }
    }

    pub fn cancel(&mut self, call: &CallId) -> Cancelled {
        let cancelled = match self.calls.get(call).map(|entry| &entry.state) {
            None => return Cancelled::Unknown,
            Some(State::Done(_)) => return Cancelled::Done,
            Some(State::Given { owner, socket: Some(_), .. }) => Cancelled::Given(owner.clone()),
            Some(State::Waits | State::Given { .. }) => Cancelled::Waited,
        };
        self.remove(call);
        cancelled
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        match &self.state {
            State::Done(outcome) => self.parcel.text.len() + outcome.len(),
            State::Waits | State::Given { .. } => self.parcel.text.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(ttl: Duration) -> Parcel {
        let (group, patience) = (GroupKey::of_socket(SocketId::fresh()), Duration::from_secs(1));
        Parcel { call: CallId::queued(), group, text: Bytes::new(), ttl, patience, wants: Durability::Memory }
    }

    #[tokio::test]
    async fn calls_that_nobody_took_in_time_make_room_for_others_of_whatever_group() {
        let (mut queue, start, ttl) = (Queue::default(), Instant::now(), Duration::from_secs(10));
        let first = parcel(ttl);
        assert!(queue.put(first.clone(), start, 0));
        assert!((1..CALLS_MAX).all(|_| queue.put(parcel(ttl), start, 0)));
        assert!(!queue.put(parcel(ttl), start, 0), "none of them is over");
        let later = start + ttl;
        assert!(queue.answer(&first.call, None, Bytes::new(), later));
        assert_eq!(queue.standing(&first.call, later), Standing::Done(Bytes::new()), "nobody needs its room");
        let second = parcel(ttl);
        assert!(queue.put(second.clone(), later, 0) && queue.put(parcel(ttl), later + SWEEP_EVERY, 0));
        assert_eq!(queue.standing(&first.call, later), Standing::Unknown);
        assert_eq!(queue.standing(&second.call, later), Standing::Waits { attempt: 0 });
        assert!(queue.calls.len() <= CALLS_MAX && queue.by_group.len() == 2);
    }
}
