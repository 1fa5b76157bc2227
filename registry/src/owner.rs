//! What one instance owns, and how it is told to Redis. The truth stands here; Redis is a hint that is
//! compared with it again and again. Pure: the async parts in `redis/` and the simulator both drive it.

use crate::{
    groups::Groups,
    names::{Session, SocketId},
    record::SocketRecord,
    rules::Digest,
    verdict::Ending,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// Into how many parts the rows are spread, so that a cluster of any size shares them evenly.
pub const PARTITIONS: usize = 64;

/// Where an id's row lies.
pub fn partition(id: SocketId) -> usize {
    (id.spread() % PARTITIONS as u64) as usize
}

/// 32 bits over all that a row says and that can change. Whoever takes a socket over knows its session alone, and has
/// the rest from the row.
pub fn h32(record: &SocketRecord) -> u32 {
    says(record) ^ record.session.fold()
}

/// The same without the session.
pub fn says(record: &SocketRecord) -> u32 {
    let mut hasher = blake3::Hasher::new();
    let mut feed = |text: &str| {
        hasher.update(text.as_bytes()).update(&[0]);
    };
    feed(&record.id.short());
    feed(record.store.as_ref().map_or("", |store| store.as_str()));
    record.rooms.iter().for_each(|room| feed(room.as_str()));
    if let Some(resumable) = record.resumable {
        hasher.update(&resumable.confirmed.to_be_bytes());
    }
    let hash = hasher.finalize();
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Endings that Redis has not been told yet. Beyond it the oldest lose their verdict, not their end.
const UNTOLD_MAX: usize = 50_000;
/// Endings kept after they were told, should a failover lose them.
const TOLD_MAX: usize = 2_000;

/// A socket that ended here.
#[derive(Debug, Clone)]
pub struct Parting {
    pub record: Arc<SocketRecord>,
    pub ending: Ending,
}

/// What an instance owns.
pub struct Owner {
    parts: Vec<Part>,
    pub groups: Groups,
    partings: HashMap<SocketId, Parting>,
    untold: VecDeque<SocketId>,
    told: VecDeque<SocketId>,
    /// Where the search for a suspect goes on.
    turn: usize,
}

#[derive(Default)]
struct Part {
    held: BTreeMap<SocketId, (Arc<SocketRecord>, u32)>,
    /// Connections for which a socket is asked back: Redis may know of them before we do.
    awaited: HashSet<(SocketId, Session)>,
    digest: Digest,
    /// Scripts on their way: while there are any, a comparison says nothing.
    in_flight: u32,
    /// Counts every step of every script, so that a comparison knows whether it was overtaken.
    steps: u64,
    suspect: bool,
}

/// That a script is on its way for a partition. Has to be given back to [`Owner::settle`].
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    pub partition: usize,
}

/// A partition at rest, as it was when its comparison began.
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    digest: Digest,
    steps: u64,
}

/// How a comparison went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    Same,
    /// At least so many sockets differ.
    Differs(u32),
    /// Something moved meanwhile.
    Overtaken,
}

/// What came of a question to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered<T> {
    Yes(T),
    No,
    /// Nobody knows whether it was heard.
    Nobody,
}

/// What brings an entry in line with the truth.
#[derive(Debug, Clone)]
pub enum Mend {
    Register(Arc<SocketRecord>),
    /// An entry that is not ours any more, with its ending if that is still known.
    Remove {
        id: SocketId,
        session: Session,
        parting: Option<Parting>,
    },
}

impl Default for Owner {
    fn default() -> Self {
        Self {
            parts: (0..PARTITIONS).map(|_| Part::default()).collect(),
            groups: Groups::default(),
            partings: HashMap::new(),
            untold: VecDeque::new(),
            told: VecDeque::new(),
            turn: 0,
        }
    }
}

impl Owner {
    /// A socket is ours from now on, whatever Redis says; unless a later connection of it is.
    pub fn enter(&mut self, record: &Arc<SocketRecord>) -> Ticket {
        if self.get(record.id).is_none_or(|held| held.session == record.session || held.attempt < record.attempt) {
            self.put(record.clone());
        }
        self.start(partition(record.id))
    }

    /// A socket is asked back for a connection, and Redis has the rest of what it says. Until that is settled by
    /// [`Self::settle_back`], its entry is nobody's but is no reason to take it away.
    pub fn ask_back(&mut self, id: SocketId, session: Session) -> Ticket {
        let k = partition(id);
        self.parts[k].awaited.insert((id, session));
        self.start(k)
    }

    /// Redis gave the socket back, or did not, or nobody knows. In one step, so that no comparison sees a part of it.
    /// False if it was given back too late: a later connection has it here.
    pub fn settle_back(
        &mut self,
        ticket: &Ticket,
        asked: (SocketId, Session),
        back: Answered<&Arc<SocketRecord>>,
    ) -> bool {
        self.parts[ticket.partition].awaited.remove(&asked);
        let (record, answered) = match back {
            Answered::Yes(record) => (Some(record), true),
            Answered::No => (None, true),
            Answered::Nobody => (None, false),
        };
        let stays = record.is_none_or(|record| {
            let is_later = self.get(record.id).is_none_or(|held| held.attempt < record.attempt);
            if is_later {
                self.put(record.clone());
            }
            is_later
        });
        self.settle(ticket, answered && stays);
        stays
    }

    /// A socket says something else of itself. `None` if that connection is not ours.
    pub fn change(&mut self, record: &Arc<SocketRecord>) -> Option<Ticket> {
        self.holds(record.id, record.session).then(|| self.enter(record))
    }

    /// A socket has ended. `None` if that connection is not ours.
    pub fn leave(&mut self, id: SocketId, session: Session, ending: Ending) -> Option<(Parting, Ticket)> {
        let record = self.take(id, session)?;
        let parting = Parting { record, ending };
        if self.partings.insert(id, parting.clone()).is_some() {
            // It came back since, and its last end is the one that counts, however many are told meanwhile.
            self.told.retain(|told| *told != id);
            self.untold.retain(|untold| *untold != id);
        }
        self.untold.push_back(id);
        if self.untold.len() > UNTOLD_MAX
            && let Some(oldest) = self.untold.pop_front()
        {
            self.partings.remove(&oldest);
        }
        Some((parting, self.start(partition(id))))
    }

    /// Redis was told of an ending.
    pub fn told(&mut self, id: SocketId) {
        if let Some(at) = self.untold.iter().position(|untold| *untold == id) {
            self.untold.remove(at);
            self.told.push_back(id);
        }
        if self.told.len() > TOLD_MAX
            && let Some(oldest) = self.told.pop_front()
        {
            self.partings.remove(&oldest);
        }
    }

    /// Whether Redis has still to be told how this connection ended.
    pub fn is_untold(&self, id: SocketId, session: Session) -> bool {
        self.partings.get(&id).is_some_and(|parting| parting.record.session == session)
            && self.untold.iter().rev().any(|untold| *untold == id)
    }

    /// Endings that Redis has not been told, oldest first.
    pub fn untold(&self, limit: usize) -> Vec<Parting> {
        self.untold.iter().filter_map(|id| self.partings.get(id)).take(limit).cloned().collect()
    }

    /// A connection does not count any more: somebody else has the socket, or it was declared dead.
    pub fn lose(&mut self, id: SocketId, session: Session) -> bool {
        self.take(id, session).is_some()
    }

    pub fn holds(&self, id: SocketId, session: Session) -> bool {
        self.get(id).is_some_and(|record| record.session == session)
    }

    pub fn get(&self, id: SocketId) -> Option<&Arc<SocketRecord>> {
        self.parts[partition(id)].held.get(&id).map(|(record, _)| record)
    }

    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.held.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A script is on its way.
    pub fn start(&mut self, partition: usize) -> Ticket {
        self.parts[partition].in_flight += 1;
        self.parts[partition].steps += 1;
        Ticket { partition }
    }

    /// A script was answered, or nobody knows whether it ran: then its partition has to be looked at.
    pub fn settle(&mut self, ticket: &Ticket, answered: bool) {
        let part = &mut self.parts[ticket.partition];
        part.in_flight -= 1;
        part.steps += 1;
        part.suspect |= !answered;
    }

    /// Begins a comparison, unless something is on its way, or it is known to differ.
    pub fn quiet(&self, partition: usize) -> Option<Quiet> {
        let part = &self.parts[partition];
        (part.in_flight == 0 && !part.suspect).then_some(Quiet { digest: part.digest, steps: part.steps })
    }

    /// Grows with every step of every script of a partition.
    pub fn steps(&self, partition: usize) -> u64 {
        self.parts[partition].steps
    }

    /// Ends it, with what Redis said. A partition that differs is suspect from then on.
    pub fn compare(&mut self, partition: usize, then: Quiet, theirs: Digest) -> Compared {
        let part = &mut self.parts[partition];
        if part.steps != then.steps {
            return Compared::Overtaken;
        }
        match then.digest.differs(theirs) {
            0 => Compared::Same,
            by => {
                part.suspect = true;
                Compared::Differs(by)
            }
        }
    }

    /// What has to be written over entries that are right, if what stands there is wrong by itself.
    pub fn righted(&self, partition: usize, then: Quiet, theirs: Digest) -> Option<Digest> {
        (then.digest != theirs && self.steps(partition) == then.steps).then_some(then.digest)
    }

    /// Redis may have lost anything, or we are another incarnation: everything has to be told again.
    pub fn suspect_all(&mut self) {
        self.parts.iter_mut().for_each(|part| part.suspect = true);
        self.groups.forget_told();
    }

    /// Whether nothing is left here that Redis was not told.
    pub fn is_told(&self) -> bool {
        self.is_empty() && self.untold.is_empty() && self.parts.iter().all(|part| !part.suspect && part.in_flight == 0)
    }

    /// An ending that could not be told stands back, so that the others can be.
    pub fn postpone(&mut self, id: SocketId) {
        if let Some(at) = self.untold.iter().position(|untold| *untold == id) {
            self.untold.remove(at);
            self.untold.push_back(id);
        }
    }

    pub fn untold_count(&self) -> usize {
        self.untold.len()
    }

    /// What is held in a partition.
    pub fn records(&self, partition: usize) -> Vec<Arc<SocketRecord>> {
        self.parts[partition].held.values().map(|(record, _)| record.clone()).collect()
    }

    pub fn suspect(&mut self, partition: usize) {
        self.parts[partition].suspect = true;
    }

    /// The partitions that have to be looked at. Taking one makes it innocent until it is accused again.
    pub fn take_suspect(&mut self) -> Option<usize> {
        // In turn, or one that cannot be mended would keep the rest from being.
        let found = (0..PARTITIONS).map(|nth| (self.turn + nth) % PARTITIONS).find(|k| self.parts[*k].suspect)?;
        self.turn = found + 1;
        self.parts[found].suspect = false;
        Some(found)
    }

    /// What is held in a partition and has no entry among these.
    pub fn missing(&self, partition: usize, theirs: &BTreeMap<SocketId, (Session, u32)>) -> Vec<Arc<SocketRecord>> {
        let ours = self.parts[partition].held.iter();
        ours.filter(|(id, _)| !theirs.contains_key(id)).map(|(_, (record, _))| record.clone()).collect()
    }

    /// What has to be done about the entries that Redis has of ours in a partition.
    pub fn verify(&self, partition: usize, theirs: &BTreeMap<SocketId, (Session, u32)>) -> Vec<Mend> {
        let ours = &self.parts[partition].held;
        let missing = ours.iter().filter(|(id, (record, h32))| theirs.get(id) != Some(&(record.session, *h32)));
        let missing = missing.map(|(_, (record, _))| Mend::Register(record.clone()));
        let awaited = &self.parts[partition].awaited;
        let is_foreign = |id: &SocketId, session: Session| !ours.contains_key(id) && !awaited.contains(&(*id, session));
        let foreign = theirs.iter().filter(|(id, (session, _))| is_foreign(id, *session));
        let foreign = foreign.map(|(id, (session, _))| {
            let parting = self.partings.get(id).filter(|parting| parting.record.session == *session);
            Mend::Remove { id: *id, session: *session, parting: parting.cloned() }
        });
        foreign.chain(missing).collect()
    }

    fn put(&mut self, record: Arc<SocketRecord>) {
        let part = &mut self.parts[partition(record.id)];
        let h32 = h32(&record);
        self.groups.enter(&record);
        part.digest.enter(h32);
        if let Some((before, h32)) = part.held.insert(record.id, (record, h32)) {
            part.digest.leave(h32);
            self.groups.leave(&before);
        }
    }

    fn take(&mut self, id: SocketId, session: Session) -> Option<Arc<SocketRecord>> {
        let part = &mut self.parts[partition(id)];
        part.held.get(&id).filter(|(record, _)| record.session == session)?;
        let (record, h32) = part.held.remove(&id)?;
        part.digest.leave(h32);
        self.groups.leave(&record);
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::Incarnation, record::Attempt};
    use std::net::IpAddr;

    fn record(attempt: u32) -> Arc<SocketRecord> {
        let id = SocketId::fresh();
        Arc::new(SocketRecord {
            id,
            session: Session::fresh(),
            owner: Incarnation::fresh("web1"),
            attempt: Attempt { n: attempt, accepted_at: 1 },
            user: None,
            store: None,
            rooms: Box::default(),
            client: None,
            address: IpAddr::from([127, 0, 0, 1]),
            connected_at: 0,
            resumable: None,
        })
    }

    #[test]
    fn an_entry_is_foreign_only_when_its_socket_is_not_being_asked_back() {
        for (back, is_quiet) in [(Answered::No, true), (Answered::Nobody, false)] {
            let (mut owner, record) = (Owner::default(), record(2));
            let (k, asked) = (partition(record.id), (record.id, record.session));
            let theirs = BTreeMap::from([(record.id, (record.session, h32(&record)))]);
            let ticket = owner.ask_back(record.id, record.session);
            assert!(owner.verify(k, &theirs).is_empty() && owner.quiet(k).is_none());
            assert!(owner.settle_back(&ticket, asked, back));
            assert_eq!(owner.verify(k, &theirs).len(), 1);
            assert_eq!(owner.quiet(k).is_some(), is_quiet);
        }
    }

    #[test]
    fn a_second_end_of_a_socket_is_kept_until_it_is_told() {
        let ending = || Ending { cause: crate::Cause::Kicked, code: None, reason: "".into() };
        let mut owner = Owner::default();
        let end = |owner: &mut Owner, record: &Arc<SocketRecord>, told: bool| {
            let ticket = owner.enter(record);
            owner.settle(&ticket, true);
            let (_, ticket) = owner.leave(record.id, record.session, ending()).unwrap();
            owner.settle(&ticket, told);
            if told {
                owner.told(record.id);
            }
        };
        let first = record(1);
        let second = Arc::new(SocketRecord { session: Session::fresh(), ..(*first).clone() });
        end(&mut owner, &first, true);
        end(&mut owner, &second, false);
        (0..=TOLD_MAX).for_each(|_| end(&mut owner, &record(1), true));
        let untold: Vec<_> = owner.untold(9).into_iter().map(|parting| parting.record.session).collect();
        assert_eq!((untold, owner.untold_count()), (vec![second.session], 1));
    }

    #[test]
    fn what_comes_back_too_late_does_not_replace_a_later_connection() {
        let (mut owner, later) = (Owner::default(), record(3));
        let (k, ticket) = (partition(later.id), owner.enter(&later));
        owner.settle(&ticket, true);
        let earlier = Arc::new(SocketRecord {
            attempt: Attempt { n: 2, accepted_at: 9 },
            session: Session::fresh(),
            ..(*later).clone()
        });
        let ticket = owner.ask_back(earlier.id, earlier.session);
        assert!(!owner.settle_back(&ticket, (earlier.id, earlier.session), Answered::Yes(&earlier)));
        assert!(owner.holds(later.id, later.session));
        // Redis says that the earlier one has it, and has to be told otherwise.
        assert_eq!((owner.quiet(k).is_none(), owner.take_suspect()), (true, Some(k)));
    }
}
