//! A socket as lists show it, wherever it is held.

use crate::{clock, sockets::Socket};
use registry::{RoomName, SocketRecord, StoreName, UserName, epoch_ms};
use serde_json::{Value, json};

/// A socket that is held here, with what only its owner knows.
pub fn of_socket(socket: &Socket) -> Value {
    let mut value = of_record(&socket.record());
    value["lastActivity"] = last_activity(socket, clock::now_ms()).into();
    value["rttMs"] = socket.line.rtt_ms().into();
    value
}

/// A socket as its row says. What only its owner knows is null.
pub fn of_record(record: &SocketRecord) -> Value {
    json!({
        "socketId": record.id.to_string(),
        "instance": record.owner.instance(),
        "connectedAt": record.connected_at,
        "userId": record.user.as_ref().map(UserName::as_str),
        "storeId": record.store.as_ref().map(StoreName::as_str),
        "rooms": record.rooms.iter().map(RoomName::as_str).collect::<Vec<_>>(),
        "clientId": record.client.as_deref(),
        "readyState": 1,
        "lastActivity": null,
        "rttMs": null,
    })
}

/// When it was last heard, in epoch milliseconds.
pub fn last_activity(socket: &Socket, now: u32) -> u64 {
    epoch_ms().saturating_sub(u64::from(socket.line.silent_ms(now)))
}
