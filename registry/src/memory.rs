//! The registry in memory: the same promises under one lock. For one instance, or for several
//! in one process that share it.

mod away;
mod events;

use crate::{
    admit::{self, Admission, Cap, CoolDowns},
    all::{Hearing, Holding, Inbox, Lookup, Post, Registered, Retention, Routed, Unknown, epoch_ms},
    book::{Book, Tickets},
    envelope::Envelope,
    event::Outgoing,
    lease::{ABOUT_TO_DRAIN, About, Lease, Serving},
    names::{Group, GroupKey, Incarnation, Session, SocketId},
    once::{Errand, Hashed, Once, Outcome, Records, Ticket},
    queue::Queue,
    record::SocketRecord,
    rules::{self, Claim, Held, State},
    token::Keyring,
    verdict::{Ending, Gone, Verdict},
};
use away::Away;
use events::Events;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use waits::Waits;

mod waits;

mod logs;

/// Letters that wait for an instance.
const INBOX_MAX: usize = 1024;

/// What the instances of this process share.
pub struct Memory {
    retention: Retention,
    pub(crate) keyring: Keyring,
    pub(crate) outgoing: Arc<Outgoing>,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    live: BTreeMap<SocketId, Arc<SocketRecord>>,
    /// Members by group; the owner stands in the record.
    members: BTreeMap<(GroupKey, SocketId), Incarnation>,
    ended: HashMap<SocketId, Tombstone>,
    /// The order in which tombstones were laid, to take the oldest away.
    graves: VecDeque<SocketId>,
    /// Ids made up to here may have been forgotten.
    whole_since: u64,
    cooling: CoolDowns,
    instances: BTreeMap<Incarnation, Member>,
    once: Records,
    away: Away,
    logs: logs::Logs,
    waits: Waits,
    queue: Queue,
    book: Book,
    tickets: Tickets,
    events: Events,
    outgoing: Arc<Outgoing>,
}

struct Member {
    lease: Lease,
    /// Until when it is believed that it is about to drain.
    leaving: Option<Instant>,
    inbox: mpsc::Sender<Post>,
}

/// One instance's part in it.
#[derive(Clone)]
pub struct Local {
    pub(crate) memory: Arc<Memory>,
    pub(crate) own: Incarnation,
}

impl Local {
    pub(crate) fn join(memory: &Arc<Memory>, about: About) -> (Self, Inbox) {
        let own = Incarnation::fresh(&about.instance);
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let (serving, configuration) = (Serving::Serving, String::new());
        let lease = Lease { incarnation: own.clone(), about, serving, sockets: 0, configuration };
        memory.tables().instances.insert(own.clone(), Member { lease, leaving: None, inbox: sender });
        (Self { memory: memory.clone(), own }, inbox)
    }

    pub(crate) fn announce(&self, serving: Serving, sockets: usize) {
        if let Some(member) = self.memory.tables().instances.get_mut(&self.own) {
            member.lease = Lease { serving, sockets, ..member.lease.clone() };
        }
    }

    pub(crate) fn configured(&self, hash: String) {
        if let Some(member) = self.memory.tables().instances.get_mut(&self.own) {
            member.lease.configuration = hash;
        }
    }

    pub(crate) fn retire(&self) {
        self.memory.tables().instances.remove(&self.own);
    }
}

struct Tombstone {
    at: Instant,
    gone: Gone,
}

impl Memory {
    pub fn new(retention: Retention) -> Arc<Self> {
        let tables = Tables { whole_since: epoch_ms().saturating_sub(1), ..Tables::default() };
        let outgoing = tables.outgoing.clone();
        // What it remembers ends with the process, and tokens with it.
        Arc::new(Self { retention, keyring: Keyring::new("", Vec::new()), outgoing, tables: Mutex::new(tables) })
    }

    /// A panic elsewhere while the lock was held cannot leave a half-done change that matters
    /// here: every verb leaves the tables usable at each step.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn instances(&self) -> Vec<Lease> {
        self.tables().instances.values().map(|member| member.lease.clone()).collect()
    }

    pub(crate) fn let_go(&self, who: &Incarnation, even_last: bool) -> bool {
        let mut tables = self.tables();
        let now = Instant::now();
        let stays = |member: &Member| {
            member.lease.serving == Serving::Serving && member.leaving.is_none_or(|until| until <= now)
        };
        let is_last = !tables.instances.iter().any(|(other, member)| other != who && stays(member));
        let may_go = even_last || !is_last;
        if let Some(member) = tables.instances.get_mut(who).filter(|_| may_go) {
            member.leaving = Some(now + ABOUT_TO_DRAIN);
        }
        may_go
    }

    pub(crate) fn stays(&self, who: &Incarnation) {
        if let Some(member) = self.tables().instances.get_mut(who) {
            member.leaving = None;
        }
    }

    /// By how many sockets the rows differ from what the instances say they hold.
    pub(crate) fn drift(&self) -> usize {
        let tables = self.tables();
        tables.live.len().abs_diff(tables.instances.values().map(|member| member.lease.sockets).sum())
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.tables().instances.len() > 1
    }

    pub(crate) fn take_on(&self, errand: &Errand) -> Result<Once, Unknown> {
        self.tables().once.take_on(errand, Instant::now()).ok_or(Unknown::Unavailable)
    }

    pub(crate) fn settle(&self, ticket: &Ticket, outcome: &Outcome) -> bool {
        self.tables().once.settle(ticket, outcome.clone())
    }

    pub(crate) fn book(&self) -> Book {
        self.tables().book.clone()
    }

    pub(crate) fn write_page(&self, name: &str, expected: Option<&str>, page: Option<&str>) -> bool {
        self.tables().book.write(name, expected, page)
    }

    pub(crate) fn ticket(&self, ticket: Hashed) -> Option<String> {
        self.tables().tickets.look(ticket)
    }

    pub(crate) fn put_ticket(&self, ticket: Hashed, held: &str) {
        self.tables().tickets.put(ticket, held);
    }

    pub(crate) fn redeem(&self, ticket: Hashed) -> Option<String> {
        self.tables().tickets.redeem(ticket)
    }

    pub(crate) fn route(&self, to: &Incarnation, letter: &Envelope) -> Routed {
        let tables = self.tables();
        let Some(member) = tables.instances.get(to) else { return Routed::Gone };
        let Ok(place) = member.inbox.try_reserve() else { return Routed::Deaf };
        place.send(Post::Letter(letter.clone()));
        Routed::Taken
    }

    pub(crate) fn admit(&self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Admission {
        self.tables().admit(newcomer, cap)
    }

    pub(crate) fn register(&self, record: Arc<SocketRecord>) -> Registered {
        let mut tables = self.tables();
        match rules::claim(tables.held(&record).as_ref(), record.session, record.attempt) {
            Claim::Refused(why) => Registered::Superseded(why),
            Claim::Granted => {
                tables.put(record);
                Registered::Fresh
            }
            Claim::Taken => {
                let held = tables.take(record.id);
                tables.put(record);
                held.map_or(Registered::Fresh, |held| Registered::TakenFrom {
                    owner: held.owner.clone(),
                    session: held.session,
                })
            }
        }
    }

    pub(crate) fn update(&self, says: impl FnOnce() -> Arc<SocketRecord>) -> bool {
        let mut tables = self.tables();
        let record = says();
        let ours = tables.live.get(&record.id).is_some_and(|held| held.session == record.session);
        if ours {
            tables.put(record);
        }
        ours
    }

    pub(crate) fn unregister(&self, id: SocketId, session: Session, ending: Ending) -> bool {
        let mut tables = self.tables();
        if tables.live.get(&id).is_none_or(|held| held.session != session) {
            return false;
        }
        if let Some(record) = tables.take(id)
            && !tables.goes_away(&record, &ending, self.retention)
        {
            tables.bury(&record, ending, self.retention);
        }
        true
    }

    pub(crate) fn lookup(&self, asked: &str) -> Lookup {
        let gone = |gone, since| Lookup::Gone(Verdict::new(asked, gone, since));
        let Some(id) = SocketId::parse(asked) else {
            return gone(Gone::NeverSeen, Duration::ZERO);
        };
        let mut tables = self.tables();
        if let Some(record) = tables.live.get(&id) {
            return Lookup::Live(record.clone());
        }
        tables.forget(self.retention);
        if let Some((how, since)) = tables.away.verdict(id) {
            return gone(how, since);
        }
        match tables.ended.get(&id) {
            Some(grave) => gone(grave.gone.clone(), grave.at.elapsed()),
            None if tables.may_have_forgotten(id, self.retention) => gone(Gone::Forgotten, Duration::ZERO),
            None => gone(Gone::NeverSeen, Duration::ZERO),
        }
    }

    pub(crate) fn holders(&self, group: GroupKey) -> Vec<Holding> {
        let mut counts: BTreeMap<Incarnation, usize> = BTreeMap::new();
        for owner in self.tables().owners(group) {
            match counts.get_mut(owner) {
                Some(members) => *members += 1,
                None => drop(counts.insert(owner.clone(), 1)),
            }
        }
        counts.into_iter().map(|(owner, members)| Holding { owner, members, active_at: 0 }).collect()
    }

    pub(crate) fn hearing(&self, of: &Incarnation) -> Hearing {
        let tables = self.tables();
        let closed = |member: &Member| member.inbox.is_closed();
        tables.instances.get(of).map_or(Hearing::Gone, |member| match closed(member) {
            true => Hearing::Gone,
            false => Hearing::Hears,
        })
    }

    pub(crate) fn page(&self, after: SocketId, limit: usize) -> Vec<Arc<SocketRecord>> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        self.tables().live.range(range).take(limit).map(|(_, record)| record.clone()).collect()
    }

    pub(crate) fn total(&self) -> usize {
        self.tables().live.len()
    }
}

impl Tables {
    fn range(&self, group: GroupKey) -> impl Iterator<Item = (&(GroupKey, SocketId), &Incarnation)> {
        self.members.range((group, SocketId::FIRST)..).take_while(move |((key, _), _)| *key == group)
    }

    fn ids(&self, group: GroupKey) -> impl Iterator<Item = SocketId> {
        self.range(group).map(|((_, id), _)| *id)
    }

    fn owners(&self, group: GroupKey) -> impl Iterator<Item = &Incarnation> {
        self.range(group).map(|(_, owner)| owner)
    }

    /// What stands against a claim on this socket.
    fn held(&self, record: &SocketRecord) -> Option<Held> {
        let held = |record: &SocketRecord, state| Held {
            session: record.session,
            attempt: record.attempt,
            confirmed: record.resumable.map_or(0, |resumable| resumable.confirmed),
            state,
        };
        let live = self.live.get(&record.id).map(|live| held(live, State::Live));
        let away = || self.away.held(record.id).map(|away| held(away, State::Away));
        live.or_else(away).or_else(|| self.ended.contains_key(&record.id).then(|| held(record, State::Closed)))
    }

    fn admit(&mut self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Admission {
        let user = newcomer.user.clone().filter(|_| cap.sockets_max > 0 || newcomer.client.is_some());
        let Some(user) = user else {
            self.put(newcomer.clone());
            return Admission::Welcome { replaced: Vec::new(), evicted: Vec::new() };
        };
        let group = Group::User(user).key();
        let holders: Vec<_> = self.ids(group).filter_map(|id| self.live.get(&id).cloned()).collect();
        let now = Instant::now();
        let admission = admit::decide(newcomer, holders, cap, self.cooling.holds(newcomer, now));
        if let Admission::Welcome { evicted, .. } = &admission {
            self.cooling.begin(evicted, now);
            self.put(newcomer.clone());
        }
        admission
    }

    fn put(&mut self, record: Arc<SocketRecord>) {
        let before = self.take(record.id);
        self.away.take(record.id);
        self.last(before.as_deref(), &record);
        for group in record.groups() {
            self.members.insert((group.key(), record.id), record.owner.clone());
            self.came(group.key(), &record.owner);
        }
        self.live.insert(record.id, record);
    }

    fn take(&mut self, id: SocketId) -> Option<Arc<SocketRecord>> {
        let record = self.live.remove(&id)?;
        for group in record.groups() {
            self.members.remove(&(group.key(), id));
        }
        Some(record)
    }

    fn bury(&mut self, record: &SocketRecord, ending: Ending, retention: Retention) {
        self.close_log(record);
        let closed_at = epoch_ms();
        self.log_end(record, &ending, closed_at);
        let gone = Gone::Closed {
            instance: record.owner.instance().into(),
            connected_at: record.connected_at,
            closed_at,
            store: record.store.clone(),
            user: record.user.clone(),
            ending,
            back_within: None,
        };
        self.ended.insert(record.id, Tombstone { at: Instant::now(), gone });
        self.graves.push_back(record.id);
        self.forget(retention);
    }

    /// Takes away what is older than its time, and the oldest of too many.
    fn forget(&mut self, retention: Retention) {
        while let Some(oldest) = self.graves.front().copied() {
            let too_many = self.graves.len() > retention.verdicts_max;
            let too_old = self.ended.get(&oldest).is_none_or(|grave| grave.at.elapsed() > retention.why_ttl);
            if !too_many && !too_old {
                break;
            }
            self.graves.pop_front();
            self.ended.remove(&oldest);
            self.whole_since = self.whole_since.max(oldest.made_at());
        }
    }

    fn may_have_forgotten(&self, id: SocketId, retention: Retention) -> bool {
        let ttl_ms = u64::try_from(retention.why_ttl.as_millis()).unwrap_or(u64::MAX);
        id.made_at() <= self.whole_since.max(epoch_ms().saturating_sub(ttl_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        names::Session,
        record::Attempt,
        verdict::{Cause, Ending},
    };
    use std::net::IpAddr;

    #[test]
    fn a_storm_of_endings_forgets_the_oldest_and_says_so() {
        let memory = Memory::new(Retention { why_ttl: Duration::from_secs(600), verdicts_max: 100 });
        let owner = Incarnation::fresh("web1");
        let ids: Vec<_> = (0..150).map(|_| SocketId::fresh()).collect();
        for id in &ids {
            let record = SocketRecord {
                id: *id,
                session: Session::fresh(),
                owner: owner.clone(),
                attempt: Attempt::first(0),
                user: None,
                store: None,
                rooms: Box::default(),
                client: None,
                address: IpAddr::from([127, 0, 0, 1]),
                connected_at: 0,
                resumable: None,
            };
            let session = record.session;
            memory.register(Arc::new(record));
            memory.unregister(*id, session, Ending { cause: Cause::ClientClosed, code: None, reason: "".into() });
        }
        let state = |id: SocketId| match memory.lookup(&id.to_string()) {
            Lookup::Gone(verdict) => verdict.state(),
            other => panic!("{other:?}"),
        };
        assert_eq!((state(ids[0]), state(ids[149])), ("forgotten", "closed"));
    }
}
