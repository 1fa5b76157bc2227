//! The table of the sockets that are connected here: by id, and by store, user and room.
//! Joining returns a seat; dropping the seat leaves. Before that a socket is expected: it stands in
//! no list, but whoever knows its session already, from the registry, reaches its line.

use crate::{auth::grants::Grants, clock, close::Close, durable::Cursor, socket::Line};
use arc_swap::ArcSwap;
use registry::{GroupKey, RoomName, Session, SocketId, SocketRecord, StoreName};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// One socket of this instance, as everybody but its own task sees it.
pub struct Socket {
    pub id: SocketId,
    record: ArcSwap<SocketRecord>,
    pub line: Arc<Line>,
    /// Of one that may come back: how far its log was written.
    pub cursor: Option<Box<Cursor>>,
    /// What its credential grants; nothing bounds it where nobody has to show one.
    pub grants: Option<Arc<Grants>>,
}

impl Socket {
    pub fn new(record: Arc<SocketRecord>, line: Arc<Line>) -> Self {
        Self { id: record.id, record: ArcSwap::new(record), line, cursor: None, grants: None }
    }

    /// The same, if it may come back; its client has everything up to a number.
    pub fn lasting(record: Arc<SocketRecord>, line: Arc<Line>, written: u64, grants: Option<Arc<Grants>>) -> Self {
        let cursor = record.resumable.map(|_| Box::new(Cursor::after(written)));
        Self { cursor, grants, ..Self::new(record, line) }
    }

    pub fn may_select(&self, store: &StoreName) -> bool {
        self.grants.as_ref().is_none_or(|grants| grants.has_store(store))
    }

    pub fn may_enter(&self, room: &RoomName) -> bool {
        self.grants.as_ref().is_none_or(|grants| grants.has_room(room))
    }

    /// What it says of itself now.
    pub fn record(&self) -> Arc<SocketRecord> {
        self.record.load_full()
    }
}

/// Sockets visited before others may have the table.
pub const SLICE: usize = 512;

/// Members of a group that are looked at, to find out whether one of them can answer.
const LOOKED_AT_MAX: usize = 64;

/// The table.
#[derive(Default)]
pub struct Sockets {
    tables: RwLock<Tables>,
}

/// Trees, not hash maps: the sweeper walks them in slices, and one tree serves every group.
#[derive(Default)]
struct Tables {
    /// Of one socket there may be several, when a token is used twice at once.
    expected: BTreeMap<SocketId, Vec<(Session, Arc<Line>)>>,
    /// The most that sat here at once since somebody asked.
    most: usize,
    by_id: BTreeMap<SocketId, Arc<Socket>>,
    by_group: BTreeMap<(GroupKey, SocketId), Arc<Socket>>,
}

/// A socket that is being admitted, for as long as this lives.
pub struct Expected {
    sockets: Arc<Sockets>,
    id: SocketId,
    session: Session,
}

impl Expected {
    /// Takes the seat. From now on the socket can be found and written to; unless a later connection of it has the
    /// seat already. The earlier one of both is told to go, since nobody finds it any more who would.
    pub fn enter(self, socket: Arc<Socket>) -> Seat {
        let sockets = self.sockets.clone();
        let mut tables = sockets.write();
        let record = socket.record();
        let former = tables.by_id.get(&record.id).cloned();
        let is_earlier = former.as_ref().is_some_and(|former| former.record().attempt >= record.attempt);
        if is_earlier {
            socket.line.close(Close::Replaced);
        } else {
            if let Some(former) = former {
                former.line.close(Close::Replaced);
                tables.ungroup(&former.record());
            }
            tables.by_id.insert(record.id, socket.clone());
            tables.group(&record, &socket);
            tables.most = tables.most.max(tables.by_id.len());
        }
        drop(tables);
        Seat { sockets, socket }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut tables = self.sockets.write();
        if let Some(lines) = tables.expected.get_mut(&self.id) {
            lines.retain(|(session, _)| *session != self.session);
            if lines.is_empty() {
                tables.expected.remove(&self.id);
            }
        }
    }
}

/// A socket's place in the table, for as long as this lives.
pub struct Seat {
    sockets: Arc<Sockets>,
    pub socket: Arc<Socket>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut tables = self.sockets.write();
        if tables.seats(&self.socket) {
            let record = self.socket.record();
            tables.by_id.remove(&record.id);
            tables.ungroup(&record);
        }
    }
}

impl Sockets {
    /// Makes a socket known that is about to be admitted.
    pub fn expect(self: &Arc<Self>, record: &SocketRecord, line: Arc<Line>) -> Expected {
        self.write().expected.entry(record.id).or_default().push((record.session, line));
        Expected { sockets: self.clone(), id: record.id, session: record.session }
    }

    /// The line of one connection, whether it has a seat or is still expected. Another connection
    /// of the same socket has another session, and is not meant.
    pub fn line(&self, id: SocketId, session: Session) -> Option<Arc<Line>> {
        let tables = self.read();
        if let Some(socket) = tables.by_id.get(&id).filter(|socket| socket.record.load().session == session) {
            return Some(socket.line.clone());
        }
        let expected = tables.expected.get(&id)?.iter().find(|(expected, _)| *expected == session);
        expected.map(|(_, line)| line.clone())
    }

    /// The socket, unless it is on its way out.
    pub fn get(&self, id: SocketId) -> Option<Arc<Socket>> {
        self.read().by_id.get(&id).filter(|socket| socket.line.is_open()).cloned()
    }

    /// The members of a group here, in the order of connection.
    pub fn members(&self, group: GroupKey) -> Vec<Arc<Socket>> {
        let mut members = Vec::new();
        self.each_member(group, |socket| members.push(socket.clone()));
        members.retain(|socket| socket.line.is_open());
        members
    }

    /// Whether a socket has others of its group here in front of it, of whom none can answer. Of very many, some are
    /// looked at.
    pub fn is_first_to_answer(&self, group: GroupKey, id: SocketId) -> bool {
        let tables = self.read();
        let members = tables.by_group.range((group, SocketId::FIRST)..).take_while(|((key, _), _)| *key == group);
        let mut others = members.map(|(_, socket)| socket).filter(|socket| socket.id != id).take(LOOKED_AT_MAX);
        let answers = |other: &Arc<Socket>| other.line.is_open() && other.line.can_answer();
        others.next().is_some_and(|first| !answers(first) && !others.any(answers))
    }

    /// The member that spoke last, of those that can answer. One whose queue has no room for so many bytes comes after
    /// all that have: it hides nobody, and where all are full it is not as if nobody were there.
    pub fn most_active(&self, group: GroupKey, except: Option<SocketId>, bytes: usize) -> Option<Arc<Socket>> {
        let now = clock::now_ms();
        let mut best: Option<((bool, u32), Arc<Socket>)> = None;
        self.each_member(group, |socket| {
            let line = &socket.line;
            let rank = (!line.has_room(bytes), line.quiet_ms(now));
            let better = best.as_ref().is_none_or(|(least, _)| rank <= *least);
            if better && Some(socket.id) != except && line.is_open() && line.can_answer() {
                best = Some((rank, socket.clone()));
            }
        });
        best.map(|(_, socket)| socket)
    }

    /// Visits the members of a group, those who are on their way out among them, in the order of
    /// connection. In slices, so that no large group holds the table for long; who joins or leaves
    /// meanwhile may be missed, who is there throughout is visited once.
    pub fn each_member(&self, group: GroupKey, mut visit: impl FnMut(&Arc<Socket>)) {
        let mut after = Bound::Included((group, SocketId::FIRST));
        loop {
            let tables = self.read();
            let members = tables.by_group.range((after, Bound::Unbounded));
            let mut slice = members.take_while(|((key, _), _)| *key == group).take(SLICE);
            let Some(last) = slice.by_ref().inspect(|(_, socket)| visit(socket)).map(|(key, _)| *key).last() else {
                return;
            };
            after = Bound::Excluded(last);
        }
    }

    /// Up to `limit` sockets with ids after `after`, whatever their state.
    pub fn walk(&self, after: SocketId, limit: usize) -> Vec<Arc<Socket>> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        self.read().by_id.range(range).take(limit).map(|(_, socket)| socket.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.read().by_id.len()
    }

    /// The most sockets that were here at once since this was last asked.
    pub fn most(&self) -> usize {
        let mut tables = self.write();
        let now = tables.by_id.len();
        std::mem::replace(&mut tables.most, now)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces what a socket says of itself, in one step with the groups it is found by.
    /// `None` from `change` leaves it as it is.
    pub fn change(&self, socket: &Arc<Socket>, change: impl FnOnce(&SocketRecord) -> Option<SocketRecord>) {
        let mut tables = self.write();
        let before = socket.record();
        let Some(after) = change(&before) else { return };
        let seated = tables.seats(socket);
        if seated {
            tables.ungroup(&before);
        }
        socket.record.store(Arc::new(after));
        if seated {
            tables.group(&socket.record(), socket);
        }
    }

    // A panic while a lock was held leaves trees that can be used: every step is whole.
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// Whether the seat is this connection's.
    fn seats(&self, socket: &Arc<Socket>) -> bool {
        self.by_id.get(&socket.id).is_some_and(|seated| Arc::ptr_eq(seated, socket))
    }

    fn group(&mut self, record: &SocketRecord, socket: &Arc<Socket>) {
        for group in record.groups() {
            self.by_group.insert((group.key(), record.id), socket.clone());
        }
    }

    fn ungroup(&mut self, record: &SocketRecord) {
        for group in record.groups() {
            self.by_group.remove(&(group.key(), record.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::courier::tests::{courier, record};
    use registry::Attempt;

    /// Another connection of the same socket.
    fn connection(of: &SocketRecord, n: u32) -> (Arc<SocketRecord>, Arc<Line>) {
        let attempt = Attempt { n, ..of.attempt };
        (Arc::new(SocketRecord { session: Session::fresh(), attempt, ..of.clone() }), Arc::new(Line::new(1024)))
    }

    #[test]
    fn of_two_connections_the_later_has_the_seat_whichever_takes_it_first() {
        let one = record(&courier(), None, &["r"]);
        for order in [[1, 2], [2, 1]] {
            let sockets = Arc::new(Sockets::default());
            let both = order.map(|n| connection(&one, n));
            let expected = both.clone().map(|(record, line)| sockets.expect(&record, line));
            let mut seats: Vec<_> = expected
                .into_iter()
                .zip(both)
                .map(|(expected, (record, line))| expected.enter(Arc::new(Socket::new(record, line))))
                .collect();
            seats.sort_by_key(|seat| seat.socket.record().attempt);
            let (later, earlier) = (seats.pop().unwrap(), seats.pop().unwrap());
            assert!(later.socket.line.is_open() && !earlier.socket.line.is_open(), "{order:?}");
            let session = later.socket.record().session;
            drop(earlier);
            assert!(sockets.line(one.id, session).is_some(), "it took nothing with it");
            assert_eq!((sockets.len(), sockets.members(one.groups().next().unwrap().key()).len()), (1, 1));
            drop(later);
            assert!(sockets.is_empty() && sockets.line(one.id, session).is_none());
        }
    }
}
