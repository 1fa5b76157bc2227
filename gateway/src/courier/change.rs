//! Replacing what a socket says of itself: its store, and the rooms it is in.

use super::{Absent, Courier, Found};
use crate::{letters::Unheard, sockets::Socket};
use bytes::Bytes;
use registry::{
    RoomName, SocketRecord,
    envelope::{Answer, Message},
};
use std::sync::Arc;
use tokio::time::Instant;

/// Into a room, or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    In,
    Out,
}

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The registry knows. Who was there already, or was not in, has moved as well.
    Done,
    /// It is in as many rooms as it may be.
    TooManyRooms { max: usize },
}

impl Courier {
    /// Replaces what a socket here says of itself, here and in the registry. Whole, even if whoever asked hangs up
    /// meanwhile: nothing waits between the two, and the registry sees to the rest.
    pub async fn change(&self, socket: &Arc<Socket>, change: impl FnOnce(&SocketRecord) -> Option<SocketRecord>) {
        // The life of this instance that registered it may be over, and another have taken it on.
        let owner = self.registry.incarnation();
        self.sockets.change(socket, |record| change(record).map(|record| SocketRecord { owner, ..record }));
        self.registry.update(|| socket.record()).await;
        self.came(socket).await;
    }

    /// Moves a socket here into a room that is one of `rooms_max` at most, or out of one.
    pub async fn move_here(&self, socket: &Arc<Socket>, room: &RoomName, way: Move, rooms_max: usize) -> Moved {
        let mut fits = true;
        let change = |record: &SocketRecord| {
            let rooms = match (way, record.is_in(room)) {
                (Move::In, true) | (Move::Out, false) => return None,
                (Move::In, false) => {
                    fits = record.rooms.len() < rooms_max;
                    record.rooms.iter().cloned().chain([room.clone()]).collect()
                }
                (Move::Out, true) => record.rooms.iter().filter(|joined| *joined != room).cloned().collect(),
            };
            fits.then(|| SocketRecord { rooms, ..record.clone() })
        };
        self.change(socket, change).await;
        if fits { Moved::Done } else { Moved::TooManyRooms { max: rooms_max } }
    }

    /// Moves a named socket, wherever it is. How many rooms it may be in is its owner's setting.
    pub async fn move_anywhere(
        &self,
        asked: &str,
        room: &RoomName,
        way: Move,
        rooms_max: usize,
        by: Instant,
    ) -> Result<Moved, Absent> {
        let mut search = self.search(asked, by);
        loop {
            let record = match search.next().await? {
                Found::Here(socket) => return Ok(self.move_here(&socket, room, way, rooms_max).await),
                Found::There(record) => record,
            };
            let (id, session, join) = (record.id, record.session, way == Move::In);
            let message = Message::Room { id, session, room: room.clone(), join };
            match self.letters.ask(&record.owner, message, Bytes::new(), by).await {
                Ok((Answer::Moved, _)) => return Ok(Moved::Done),
                Ok((Answer::TooManyRooms { max }, _)) => return Ok(Moved::TooManyRooms { max }),
                Err(Unheard::NotDelivered(why)) => search.missed(&record, why),
                Ok(_) | Err(Unheard::Silent) => return Err(Absent::Silent(record.owner.clone())),
            }
        }
    }
}
