//! What a socket says of itself. A record is never changed, only replaced by a later one.

use crate::{
    names::{Group, GroupKey, Incarnation, RoomName, Session, SocketId, StoreName, UserName},
    rules::{self, State},
    verdict::Ending,
};
use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

/// Which connection of a socket is the later one: the client's count, not ours, so that two instances
/// agree on it. Ordered by count, then by when it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// 1 for a new socket, one more at each resume.
    pub n: u32,
    /// By the registry's clock, so that a client whose `hi` got lost wins over its own ghost.
    pub accepted_at: u64,
}

impl Attempt {
    /// The first connection of a socket.
    pub fn first(accepted_at: u64) -> Self {
        Self { n: 1, accepted_at }
    }
}

/// That a socket may come back after its connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumable {
    /// For how many seconds it may be away.
    pub window: NonZeroU32,
    /// The attempt whose connection was heard: what opens that one, or one before it, is used up.
    pub confirmed: u32,
}

impl Resumable {
    pub fn window(self) -> Duration {
        Duration::from_secs(self.window.get().into())
    }
}

/// One live socket, as its owner publishes it.
#[derive(Debug, Clone)]
pub struct SocketRecord {
    pub id: SocketId,
    pub session: Session,
    pub owner: Incarnation,
    pub attempt: Attempt,
    /// `None` is anonymous: not counted, not addressable.
    pub user: Option<UserName>,
    pub store: Option<StoreName>,
    pub rooms: Box<[RoomName]>,
    /// What the client calls this tab, across reconnections.
    pub client: Option<Arc<str>>,
    pub address: IpAddr,
    /// Epoch milliseconds.
    pub connected_at: u64,
    pub resumable: Option<Resumable>,
}

/// Who holds a socket: as much of its record as it takes to write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub id: SocketId,
    pub session: Session,
    pub owner: Incarnation,
    pub user: Option<UserName>,
    pub store: Option<StoreName>,
}

impl Holder {
    pub fn of(record: &SocketRecord) -> Self {
        let SocketRecord { id, session, owner, user, store, .. } = record;
        Self { id: *id, session: *session, owner: owner.clone(), user: user.clone(), store: store.clone() }
    }
}

impl SocketRecord {
    /// Every group that reaches this socket.
    pub fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        let user = self.user.iter().cloned().map(Group::User);
        let store = self.store.iter().cloned().map(Group::Store);
        user.chain(store).chain(self.rooms.iter().cloned().map(Group::Room))
    }

    /// The groups by which it may be asked, one of many.
    pub fn called_by(&self) -> impl Iterator<Item = GroupKey> + '_ {
        self.groups().filter(|group| !matches!(group, Group::Room(_))).map(|group| group.key())
    }

    /// What those wait for whom it would answer: a socket of its user or store, or itself.
    pub fn awaited_by(&self) -> impl Iterator<Item = GroupKey> + '_ {
        self.called_by().chain([GroupKey::of_socket(self.id)])
    }

    /// The same newcomer, when it is tried again to let it in: to the registry a later connection. What was asked for
    /// the first try and is still on its way, most of all that it be taken out again, does not mean this one.
    pub fn once_more(&self, owner: Incarnation, now_ms: u64) -> Self {
        let accepted_at = now_ms.max(self.attempt.accepted_at + 1);
        let attempt = Attempt { accepted_at, ..self.attempt };
        Self { session: Session::fresh(), owner, attempt, ..self.clone() }
    }

    /// What an ending of its connection makes of the socket.
    pub fn leaves(&self, ending: &Ending) -> State {
        rules::leaves(self.resumable.is_some(), ending.cause)
    }

    /// Whether the socket is in that room.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.rooms.contains(room)
    }
}
