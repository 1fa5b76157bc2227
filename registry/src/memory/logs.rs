//! Durable deliveries in memory: the logs of sockets that may be resumed, and what waits for groups without sockets.
//! They live and die with the process.

use super::{Memory, Tables};
use crate::{
    all::Lookup,
    log::{Acked, Appended, Delivery, Durability, LIMITS, Left, Limits, Log, Mail, Page, counts},
    names::{GroupKey, SocketId},
    record::SocketRecord,
};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Logs with something in them, mail among them, and bytes of all together. Beyond it what is to be logged is refused.
const LOGS_MAX: usize = 10_000;
const BYTES_MAX: u64 = 64 << 20;

/// Whose a log is: a socket's, or a group's that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Socket(SocketId),
    Group(GroupKey),
}

#[derive(Default)]
pub(super) struct Logs {
    /// By group.
    kept: BTreeSet<(GroupKey, SocketId)>,
    logs: HashMap<Whose, Log>,
    bytes: u64,
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Logs {
    fn append(&mut self, whose: Whose, text: Bytes, ttl: Duration) -> Option<(u64, u64)> {
        let more = counts(&text);
        if !self.has_room(whose, more) {
            self.sweep();
        }
        if !self.has_room(whose, more) {
            return None;
        }
        let log = self.logs.entry(whose).or_default();
        let before = log.bytes();
        let numbers = log.append(text, ttl, now_us(), LIMITS.bytes);
        self.bytes = self.bytes - before + log.bytes();
        numbers
    }

    fn has_room(&self, whose: Whose, more: u64) -> bool {
        let is_one_more = !self.logs.contains_key(&whose) && self.logs.len() >= LOGS_MAX;
        // One that is empty only remembers where it ends, and goes with its socket.
        let has_place = !is_one_more || self.logs.values().filter(|log| log.bytes() > 0).count() < LOGS_MAX;
        has_place && self.bytes + more <= BYTES_MAX
    }

    fn ack(&mut self, whose: Whose, seq: u64) -> Acked {
        let Some(log) = self.logs.get_mut(&whose) else {
            return if seq == 0 { Acked::Done } else { Acked::Beyond { tail: 0 } };
        };
        let before = log.bytes();
        let acked = log.ack(seq);
        self.bytes = self.bytes - before + log.bytes();
        acked
    }

    fn remove(&mut self, whose: Whose) {
        self.bytes -= self.logs.remove(&whose).map_or(0, |log| log.bytes());
    }

    /// What is over makes room.
    fn sweep(&mut self) {
        let now = now_us() / 1000;
        for log in self.logs.values_mut() {
            self.bytes -= log.expire(now);
        }
        let is_over = |(whose, log): (&Whose, &Log)| matches!(whose, Whose::Group(_)) && log.is_over(now);
        let over: Vec<_> = self.logs.iter().filter(|log| is_over(*log)).map(|(whose, _)| *whose).collect();
        over.into_iter().for_each(|whose| self.remove(whose));
    }

    fn of_group(&self, group: GroupKey) -> impl Iterator<Item = SocketId> {
        self.kept.range((group, SocketId::FIRST)..).take_while(move |(key, _)| *key == group).map(|(_, id)| *id)
    }
}

impl Tables {
    /// Its groups know of a socket that may come back, and those it has left do not.
    pub(super) fn last(&mut self, before: Option<&SocketRecord>, record: &SocketRecord) {
        if record.resumable.is_some() {
            for group in before.into_iter().flat_map(SocketRecord::called_by) {
                self.logs.kept.remove(&(group, record.id));
            }
            self.logs.kept.extend(record.called_by().map(|group| (group, record.id)));
        }
    }

    /// The socket has ended for good: nothing is logged for it any more.
    pub(super) fn close_log(&mut self, record: &SocketRecord) {
        if record.resumable.is_some() {
            self.logs.remove(Whose::Socket(record.id));
            for group in record.called_by() {
                self.logs.kept.remove(&(group, record.id));
            }
        }
    }

    /// A socket that may be resumed, and whether it is away.
    fn lasting(&self, id: SocketId) -> Option<(Arc<SocketRecord>, bool)> {
        let live = self.live.get(&id).filter(|record| record.resumable.is_some()).map(|record| (record.clone(), false));
        live.or_else(|| Some((self.away.waiting(id)?.clone(), true)))
    }
}

impl Memory {
    pub(crate) fn append(&self, id: SocketId, delivery: &Delivery) -> Appended {
        let mut tables = self.tables();
        let Some((record, away)) = tables.lasting(id) else {
            drop(tables);
            return match self.lookup(&id.to_string()) {
                Lookup::Live(record) => Appended::Plain { owner: record.owner.clone(), session: record.session },
                Lookup::Gone(verdict) => Appended::Gone(verdict),
                Lookup::Unknown(unknown) => Appended::Unknown(unknown),
            };
        };
        let (owner, session) = (record.owner.clone(), record.session);
        match tables.logs.append(Whose::Socket(id), delivery.text.clone(), delivery.ttl) {
            Some((seq, prev)) => Appended::Logged { seq, prev, owner, session, away, durability: Durability::Memory },
            None => Appended::Full,
        }
    }

    pub(crate) fn ack(&self, id: SocketId, seq: u64) -> Acked {
        self.tables().logs.ack(Whose::Socket(id), seq)
    }

    pub(crate) fn read_log(&self, id: SocketId, after: u64, most: Limits) -> Page {
        let tables = self.tables();
        let log = tables.logs.logs.get(&Whose::Socket(id));
        log.map_or(Page { tail: 0, entries: Vec::new(), more: false }, |log| log.read(after, most))
    }

    pub(crate) fn keep_for(&self, groups: &[GroupKey], id: SocketId) {
        self.tables().logs.kept.extend(groups.iter().map(|group| (*group, id)));
    }

    pub(crate) fn unkeep(&self, groups: &[GroupKey], id: SocketId) {
        let mut tables = self.tables();
        for group in groups {
            tables.logs.kept.remove(&(*group, id));
        }
    }

    pub(crate) fn kept(&self, group: GroupKey, limit: usize) -> Vec<SocketId> {
        self.tables().logs.of_group(group).take(limit).collect()
    }

    pub(crate) fn leave(&self, group: GroupKey, delivery: &Delivery) -> Left {
        let mut tables = self.tables();
        if tables.ids(group).next().is_some() || tables.logs.of_group(group).next().is_some() {
            return Left::Somebody;
        }
        match tables.logs.append(Whose::Group(group), delivery.text.clone(), delivery.ttl) {
            Some(_) => Left::Left(Durability::Memory),
            None => Left::Full,
        }
    }

    pub(crate) fn take_mail(&self, group: GroupKey, id: SocketId) -> Mail {
        let mut tables = self.tables();
        let is_lasting = tables.lasting(id).is_some();
        let logs = &mut tables.logs;
        let (now, mail, own) = (now_us() / 1000, Whose::Group(group), Whose::Socket(id));
        let Some(waits) = logs.logs.get(&mail).filter(|_| is_lasting) else {
            return Mail { taken: 0, waits: false };
        };
        let (mut taken, waits) = (0, waits.read(0, LIMITS).entries);
        for entry in waits {
            if entry.until > now {
                let ttl = Duration::from_millis(entry.until - now);
                if logs.append(own, entry.text, ttl).is_none() {
                    return Mail { taken, waits: true };
                }
                taken += 1;
            }
            logs.ack(mail, entry.seq);
        }
        logs.remove(mail);
        Mail { taken, waits: false }
    }
}
