//! What an instance tells of its sockets, and what it makes of the answers: as `claims.rs` of the registry
//! does it, one step at a time.

use super::{
    node::{Conn, Then, Why},
    wire::{Op, Said},
    world::{News, World},
};
use crate::model::{Flaw, Newcomer, Registered, To, ids};
use registry::{
    Attempt, Cause, Ending, Group, GroupKey, Incarnation, Session, SocketId, SocketRecord, Superseded,
    groups::Telling,
    owner::{Ticket, partition},
};
use std::{collections::BTreeSet, sync::Arc};

/// The member of a user's index, as the registry writes it; the client's tag is a short hash of its name.
pub fn member(record: &SocketRecord, by: &Incarnation) -> String {
    let name = record.client.as_deref().unwrap_or("");
    let hash = name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let kind = if record.client.is_some() { 'c' } else { 'a' };
    format!("{}{}{}{kind}{}", by.mark(), record.id.short(), record.session, &ids::short(hash)[3..])
}

/// The user whose sockets are counted.
pub fn counted(record: &SocketRecord) -> Option<GroupKey> {
    record.client.as_ref()?;
    record.user.clone().map(|user| Group::User(user).key())
}

impl World {
    /// A connection comes in, with the id of its token or without.
    pub fn accept(&mut self, n: usize, client: usize) {
        let now = self.now;
        if let Some((id, attempt)) = self.clients[client].token {
            return self.ask_back(n, client, id, Attempt { n: attempt, accepted_at: now });
        }
        let partition = super::world::PARTITIONS[self.rng.usize(..super::world::PARTITIONS.len())];
        let (id, attempt) = (ids::socket(now, partition, &mut self.rng), Attempt::first(now));
        let session = ids::session(&mut self.rng);
        let own = self.nodes[n].own.clone();
        let record = Arc::new(self.clients[client].record(id, session, own, attempt));
        self.attempts.entry(id).or_default().push((attempt, session));
        self.tell(|| format!("client {client} on {n}: {id} {session} attempt {}", attempt.n));
        self.clients[client].at = Some((n, id, session));
        self.nodes[n].conns.insert(id, Conn { session, client: Some(client), hi_at: None, attempt });
        let ticket = self.nodes[n].owner.enter(&record);
        self.admit(n, &record);
        self.claim(n, &record, Some(ticket), Why::Open);
        self.tell_groups(n, &record);
    }

    pub fn admit(&mut self, n: usize, record: &SocketRecord) {
        if let Some(user) = counted(record) {
            let newcomer = self.newcomer(n, record);
            self.send(n, Op::Admit { user, newcomer }, None, Then::Admitted { user });
        }
    }

    fn newcomer(&self, n: usize, record: &SocketRecord) -> Newcomer {
        Newcomer { member: member(record, &self.nodes[n].own), since: record.attempt.accepted_at }
    }

    pub fn claim(&mut self, n: usize, record: &Arc<SocketRecord>, ticket: Option<Ticket>, why: Why) {
        let node = &mut self.nodes[n];
        let ticket = ticket.unwrap_or_else(|| node.owner.start(partition(record.id)));
        let by = node.own.clone();
        let then = Then::Claim { record: record.clone(), by: by.clone(), why };
        self.send(n, Op::Register { record: record.clone(), by }, Some(ticket), then);
    }

    pub fn claimed(&mut self, n: usize, record: &Arc<SocketRecord>, by: &Incarnation, why: Why, said: Option<Said>) {
        let (id, session) = (record.id, record.session);
        let answered = said.is_some();
        match said {
            Some(Said::Registered(Registered::Superseded(superseded))) => {
                if self.nodes[n].owner.lose(id, session) {
                    self.tell_groups(n, record);
                    self.drop_member(n, record, by);
                    self.turn_away(n, id, session, why, superseded);
                }
            }
            Some(Said::Registered(Registered::Taken { owner, session: theirs })) => {
                self.greet(n, id, session);
                self.supersede(n, record, &owner, theirs);
                self.kick(n, &owner, id, theirs);
            }
            _ => self.greet(n, id, session),
        }
        if why == Why::Mend {
            self.mended(n, answered);
        }
    }

    /// The previous owner's entry goes, so that its digest finds what a lost kick did not tell.
    pub fn supersede(&mut self, n: usize, record: &Arc<SocketRecord>, owner: &Incarnation, session: Session) {
        let ticket = self.nodes[n].owner.start(partition(record.id));
        let remove = Op::Unregister { id: record.id, session, of: owner.clone(), to: To::Forgotten };
        self.send(n, remove, Some(ticket), Then::Nothing);
    }

    /// The client hears its id; with Redis away as well.
    pub fn greet(&mut self, n: usize, id: SocketId, session: Session) {
        let now = self.now;
        let Some(conn) = self.nodes[n].conns.get_mut(&id).filter(|conn| conn.session == session) else { return };
        if conn.hi_at.is_some() {
            return;
        }
        conn.hi_at = Some(now);
        let (attempt, client) = (conn.attempt.n, conn.client);
        let resumable = self.nodes[n].owner.get(id).is_some_and(|record| record.resumable.is_some());
        let Some(client) = client.filter(|_| resumable) else { return };
        // It may never come, and then the client shows the token again that it has.
        if !self.calm && self.chance(0.05) {
            return self.slip_away_soon(client);
        }
        self.clients[client].used = self.clients[client].token;
        self.clients[client].token = Some((id, attempt + 1));
        let wait = self.between(5, 3_000);
        self.news(wait, n, News::Heard { id, session });
    }

    /// Somebody else has the socket, or it has ended.
    fn turn_away(&mut self, n: usize, id: SocketId, session: Session, why: Why, superseded: Superseded) {
        let conn = self.nodes[n].conns.get(&id).filter(|conn| conn.session == session).cloned();
        let Some(conn) = conn else { return };
        if why == Why::Open
            && conn.hi_at.is_none()
            && let Some(client) = conn.client
        {
            // Nobody was promised that id: the client gets another.
            self.nodes[n].conns.remove(&id);
            self.clients[client].token = None;
            return self.accept(n, client);
        }
        self.hang_up(n, id, session, Some(superseded));
    }

    /// The instance closes a connection.
    pub fn hang_up(&mut self, n: usize, id: SocketId, session: Session, why: Option<Superseded>) {
        let conn = self.nodes[n].conns.get(&id).filter(|conn| conn.session == session).cloned();
        let Some(conn) = conn else { return };
        self.nodes[n].conns.remove(&id);
        self.judge_close(n, id, &conn, why);
        self.tell(|| format!("{n} closes {id} {session}: {why:?}"));
        if let Some(client) = conn.client
            && self.clients[client].at == Some((n, id, session))
        {
            self.clients[client].at = None;
            self.clients[client].token = None;
            let wait = self.between(50, 2_000);
            self.after(wait, super::world::Event::Client(client));
        }
    }

    /// The other side is gone, or does not answer any more.
    pub fn gone(&mut self, n: usize, id: SocketId, session: Session, cause: Cause) {
        if self.nodes[n].conns.get(&id).is_none_or(|conn| conn.session != session) {
            return;
        }
        self.tell(|| format!("{n}: {id} {session} has gone, {cause}"));
        self.nodes[n].conns.remove(&id);
        self.end(n, id, session, cause);
    }

    pub fn end(&mut self, n: usize, id: SocketId, session: Session, cause: Cause) {
        let ending = Ending { cause, code: None, reason: Default::default() };
        let Some((parting, ticket)) = self.nodes[n].owner.leave(id, session, ending) else { return };
        let record = parting.record.clone();
        let by = self.nodes[n].own.clone();
        self.drop_member(n, &record, &by);
        let to = To::of(Some(&parting));
        let op = Op::Unregister { id, session, of: by, to };
        self.send(n, op, Some(ticket), Then::Part { parting, again: false });
        self.tell_groups(n, &record);
    }

    pub fn change(&mut self, n: usize, id: SocketId, session: Session, record: SocketRecord) {
        let before = self.nodes[n].owner.get(id).cloned();
        let record = Arc::new(record);
        let Some(ticket) = self.nodes[n].owner.change(&record) else { return };
        self.tell(|| format!("{n}: {id} {session} says something else"));
        self.claim(n, &record, Some(ticket), Why::Change);
        before.iter().for_each(|before| self.tell_groups(n, before));
        self.tell_groups(n, &record);
    }

    pub fn tell_groups(&mut self, n: usize, record: &SocketRecord) {
        let keys: BTreeSet<_> = record.groups().map(|group| group.key()).collect();
        keys.into_iter().for_each(|key| self.tell_one(n, key, false));
    }

    pub fn tell_one(&mut self, n: usize, key: GroupKey, exact: bool) {
        let Telling::Tell { count, .. } = self.nodes[n].owner.groups.tell(key, exact) else { return };
        let by = self.nodes[n].own.clone();
        self.send(n, Op::Group { key, of: by, count }, None, Then::Told { key, count, exact });
        // A user's members are told with it, or a lost one would never be counted again.
        let owner = &self.nodes[n].owner;
        let members: Vec<_> = owner.groups.ids(key).iter().filter_map(|id| owner.get(*id)).cloned().collect();
        members.iter().for_each(|record| self.add_member(n, record));
    }

    pub fn told_group(&mut self, n: usize, key: GroupKey, count: Option<u32>, exact: bool, answered: bool) {
        self.nodes[n].owner.groups.told(key, count, answered);
        if answered {
            self.tell_one(n, key, exact);
        }
    }

    pub fn add_member(&mut self, n: usize, record: &SocketRecord) {
        if let Some(user) = counted(record) {
            let newcomer = self.newcomer(n, record);
            self.send(n, Op::AddMember { user, newcomer }, None, Then::Member { user });
        }
    }

    pub fn drop_member(&mut self, n: usize, record: &SocketRecord, by: &Incarnation) {
        if let Some(user) = counted(record) {
            self.send(n, Op::DropMember { user, member: member(record, by) }, None, Then::Nothing);
        }
    }

    /// What we were told to be before is dead, and nobody reaps what we hold on to.
    pub fn clear_own_past(&mut self, n: usize, past: &Incarnation) {
        if self.flaw == Some(Flaw::PastStays) {
            return;
        }
        self.moved_on.insert(past.clone());
        let mut stale = self.nodes[n].owner.groups.stale(usize::MAX);
        stale.sort();
        for key in stale {
            self.send(n, Op::Group { key, of: past.clone(), count: None }, None, Then::Nothing);
        }
    }
}
