//! What is sent to the store, and what it says. One form for each script and each plain command.

use crate::model::{Admitted, Asker, Beaten, Ended, Newcomer, Over, Registered, Row, Sent, Store, To, When};
use registry::{
    Attempt, Cap, GroupKey, Incarnation, Policy, Serving, Session, SocketId, SocketRecord,
    owner::{h32, partition},
    rules::{Digest, NotBack, State},
};
use std::{collections::BTreeMap, sync::Arc};

/// Nobody is evicted here.
const NO_CAP: Cap = Cap { sockets_max: 0, policy: Policy::EvictOldest };

#[derive(Debug, Clone)]
pub enum Op {
    Register { record: Arc<SocketRecord>, by: Incarnation },
    Unregister { id: SocketId, session: Session, of: Incarnation, to: To },
    Resume { asker: Asker },
    Away { id: SocketId, when: When },
    Due { k: usize },
    Left { k: usize, of: Incarnation },
    DropLeft { k: usize, of: Incarnation },
    Beat { of: Incarnation, serving: Serving },
    Route { to: Incarnation, text: Arc<str> },
    Heard { of: Incarnation },
    Tomb { of: Incarnation },
    Entries { k: usize, of: Incarnation },
    Digest { k: usize, of: Incarnation },
    Recount { k: usize, of: Incarnation, was: Digest, right: Digest },
    Reap { k: usize, of: Incarnation, ids: Vec<SocketId> },
    Forget { k: usize, of: Incarnation, ids: Vec<SocketId> },
    Group { key: GroupKey, of: Incarnation, count: Option<u32> },
    SetBorn { k: usize, at: u64, nx: bool },
    Born { k: usize },
    Row { id: SocketId },
    Enlist { of: Incarnation },
    Delist { of: Incarnation },
    Known,
    Admit { user: GroupKey, newcomer: Newcomer },
    AddMember { user: GroupKey, newcomer: Newcomer },
    DropMember { user: GroupKey, member: String },
    Mail { of: Incarnation, from: u64, to: u64 },
}

#[derive(Debug, Clone)]
pub enum Said {
    Done,
    Registered(Registered),
    Ended(Ended),
    Back(Box<Result<(Row, Attempt), NotBack>>),
    Over(Over),
    Ids(Vec<SocketId>),
    Beaten(Beaten),
    Sent(Sent),
    Heard { leased: bool, beat: Option<u64>, listeners: usize, dead: bool },
    Tombed(bool),
    Entries(BTreeMap<SocketId, (Session, u32)>),
    Digest(Digest),
    Reaped(Vec<Arc<SocketRecord>>),
    Born(Option<u64>),
    Row(Option<Row>),
    Known(BTreeMap<Incarnation, u64>),
    Admitted(Admitted),
    Mail(Vec<(u64, Arc<str>)>),
}

/// How keys are spread over masters.
#[derive(Debug, Clone, Copy)]
pub struct Spread(pub usize);

impl Spread {
    fn of_text(self, text: &str) -> usize {
        text.bytes().map(usize::from).sum::<usize>() % self.0
    }

    pub fn partition(self, k: usize) -> usize {
        k % self.0
    }

    pub fn instance(self, of: &Incarnation) -> usize {
        self.of_text(of.mark())
    }

    pub fn group(self, key: GroupKey) -> usize {
        self.of_text(&key.short())
    }

    pub fn user(self, key: GroupKey) -> usize {
        (self.group(key) + 1) % self.0
    }

    pub fn of(self, op: &Op) -> usize {
        match op {
            Op::Register { record, .. } => self.partition(partition(record.id)),
            Op::Resume { asker: Asker { id, .. } }
            | Op::Unregister { id, .. }
            | Op::Away { id, .. }
            | Op::Row { id } => self.partition(partition(*id)),
            Op::Entries { k, .. }
            | Op::Digest { k, .. }
            | Op::Recount { k, .. }
            | Op::Reap { k, .. }
            | Op::Forget { k, .. }
            | Op::SetBorn { k, .. }
            | Op::Due { k }
            | Op::Left { k, .. }
            | Op::DropLeft { k, .. }
            | Op::Born { k } => self.partition(*k),
            Op::Beat { of, .. } | Op::Heard { of } | Op::Tomb { of } | Op::Mail { of, .. } => self.instance(of),
            Op::Route { to, .. } => self.instance(to),
            Op::Group { key, .. } => self.group(*key),
            Op::Enlist { .. } | Op::Delist { .. } | Op::Known => 0,
            Op::Admit { user, .. } | Op::AddMember { user, .. } | Op::DropMember { user, .. } => self.user(*user),
        }
    }
}

/// Runs it.
pub fn run(store: &mut Store, op: &Op, listeners: usize, now: u64) -> Said {
    let ours = "nobody else writes into a simulated store";
    match op {
        Op::Register { record, by } => Said::Registered(store.register(record, by, h32(record)).expect(ours).0),
        Op::Unregister { id, session, of, to } => {
            Said::Ended(store.unregister(*id, *session, of, to, now).expect(ours))
        }
        Op::Resume { asker } => {
            let back = store.resume(asker, now).expect(ours).map(|(was, attempt, _)| (was, attempt));
            Said::Back(Box::new(back))
        }
        Op::Away { id, when } => Said::Over(store.away(*id, when, now).expect(ours)),
        Op::Due { k } => Said::Ids(store.due(*k, now)),
        Op::Left { k, of } => {
            let left = store.left.get(&(*k, of.clone())).into_iter().flatten();
            Said::Reaped(left.map(|(_, record)| record.clone()).collect())
        }
        Op::DropLeft { k, of } => {
            store.left.remove(&(*k, of.clone()));
            Said::Done
        }
        Op::Beat { of, serving } => Said::Beaten(store.beat(of, *serving, 0, listeners, now).expect(ours)),
        Op::Route { to, text } => Said::Sent(store.route(to, text, listeners, now).expect(ours)),
        Op::Heard { of } => {
            let (lease, dead) = store.heard(of, now).expect(ours);
            Said::Heard { leased: lease.is_some(), beat: lease.map(|lease| lease.beat), listeners, dead }
        }
        Op::Tomb { of } => Said::Tombed(store.tomb(of, now)),
        Op::Entries { k, of } => Said::Entries(store.entries(*k, of)),
        Op::Digest { k, of } => Said::Digest(store.digest(*k, of)),
        Op::Recount { k, of, was, right } => {
            store.recount(*k, of, *was, *right);
            Said::Done
        }
        Op::Reap { of, ids, .. } => Said::Reaped(store.reap(of, ids, now)),
        Op::Forget { k, of, ids } => {
            store.forget(*k, of, ids);
            Said::Done
        }
        Op::Group { key, of, count } => {
            store.group(*key, of, *count);
            Said::Done
        }
        Op::SetBorn { k, at, nx } => {
            store.set_born(*k, *at, *nx);
            Said::Done
        }
        Op::Born { k } => Said::Born(store.born.get(k).copied()),
        Op::Row { id } => Said::Row(store.rows.get(id).cloned()),
        Op::Enlist { of } => {
            store.instances.insert(of.clone(), now);
            Said::Done
        }
        Op::Delist { of } => {
            store.instances.remove(of);
            Said::Done
        }
        Op::Known => Said::Known(store.instances.clone()),
        Op::Admit { user, newcomer } => Said::Admitted(store.admit(*user, newcomer, NO_CAP, 0, &[], now).expect(ours)),
        Op::AddMember { user, newcomer } => {
            let members = store.users.entry(*user).or_default();
            members.retain(|(_, held)| *held != newcomer.member);
            members.insert((newcomer.since, newcomer.member.clone()));
            Said::Done
        }
        Op::DropMember { user, member } => {
            if let Some(members) = store.users.get_mut(user) {
                members.retain(|(_, held)| held != member);
                if members.is_empty() {
                    store.users.remove(user);
                }
            }
            Said::Done
        }
        Op::Mail { of, from, to } => {
            let all = store.mail.get(of).into_iter().flatten();
            Said::Mail(all.filter(|(n, _)| (*from..=*to).contains(n)).cloned().collect())
        }
    }
}

/// A master that takes over, or was started anew, has what `past` had of its share.
pub fn fall_back(store: &mut Store, past: &Store, spread: Spread, shard: usize) {
    macro_rules! share {
        ($($field:ident: $key:ty, |$name:ident| $of:expr;)*) => {$(
            let is_of_shard = |$name: &$key| $of == shard;
            store.$field.retain(|key, _| !is_of_shard(key));
            let theirs = past.$field.iter().filter(|(key, _)| is_of_shard(key));
            store.$field.extend(theirs.map(|(key, value)| (key.clone(), value.clone())));
        )*};
    }
    share! {
        rows: SocketId, |id| spread.partition(partition(*id));
        owned: (usize, Incarnation), |key| spread.partition(key.0);
        left: (usize, Incarnation), |key| spread.partition(key.0);
        ended: SocketId, |id| spread.partition(partition(*id));
        born: usize, |k| spread.partition(*k);
        leases: Incarnation, |of| spread.instance(of);
        mail: Incarnation, |of| spread.instance(of);
        groups: GroupKey, |key| spread.group(*key);
        users: GroupKey, |key| spread.user(*key);
    }
    store.live = store.rows.iter().filter(|(_, row)| row.state == State::Live).map(|(id, _)| *id).collect();
    store.tombs.retain(|of| spread.instance(of) != shard);
    store.tombs.extend(past.tombs.iter().filter(|of| spread.instance(of) == shard).cloned());
    if shard == 0 {
        store.instances.clone_from(&past.instances);
    }
}
