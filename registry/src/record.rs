//! What a socket says of itself. A record is never changed, only replaced by a later one.

use crate::names::{Group, Incarnation, RoomName, Session, SocketId, StoreName, UserName};
use std::{net::IpAddr, sync::Arc};

/// One live socket, as its owner publishes it.
#[derive(Debug, Clone)]
pub struct SocketRecord {
    pub id: SocketId,
    pub session: Session,
    pub owner: Incarnation,
    /// 1 for a new socket, one more at each resume: the client's count, not ours, so that two
    /// instances agree on which connection is the later one.
    pub attempt: u32,
    /// `None` is anonymous: not counted, not addressable.
    pub user: Option<UserName>,
    pub store: Option<StoreName>,
    pub rooms: Box<[RoomName]>,
    /// What the client calls this tab, across reconnections.
    pub client: Option<Arc<str>>,
    pub address: IpAddr,
    /// Epoch milliseconds.
    pub connected_at: u64,
}

impl SocketRecord {
    /// Every group that reaches this socket.
    pub fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        let user = self.user.iter().cloned().map(Group::User);
        let store = self.store.iter().cloned().map(Group::Store);
        user.chain(store).chain(self.rooms.iter().cloned().map(Group::Room))
    }

    /// Whether the socket is in that room.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.rooms.contains(room)
    }
}
