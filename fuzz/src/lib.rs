//! What the targets share.

use gateway::{courier::Courier, socket::Line, sockets::Seat, sockets::Socket};
use registry::{
    About, Attempt, Memory, Registry, Retention, RoomName, Session, SocketId, SocketRecord, StoreName, UserName,
    epoch_ms,
};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

/// What a queue of these sockets takes.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;

/// The only instance of a fleet.
pub fn registry() -> Registry {
    let retention = Retention { why_ttl: Duration::from_secs(60), verdicts_max: 10 };
    let about = About { instance: "fuzz".into(), version: "0".into(), pid: 0, started_at: 0, canary: false };
    Registry::in_memory(&Memory::new(retention), about).0
}

/// A socket of user `u` and store `s` in these rooms, seated like a real one, but with nobody behind it.
pub async fn enter(courier: &Courier, rooms: &[&str]) -> Seat {
    let record = Arc::new(SocketRecord {
        id: SocketId::fresh(),
        session: Session::fresh(),
        owner: courier.registry.incarnation(),
        attempt: Attempt::first(1),
        user: UserName::parse("u").ok(),
        store: StoreName::parse("s").ok(),
        rooms: rooms.iter().filter_map(|room| RoomName::parse(room).ok()).collect(),
        client: None,
        address: Ipv4Addr::LOCALHOST.into(),
        connected_at: epoch_ms(),
        resumable: None,
    });
    let line = Arc::new(Line::new(QUEUE_BYTES_MAX));
    let expected = courier.sockets.expect(&record, line.clone());
    courier.registry.register(record.clone()).await;
    expected.enter(Arc::new(Socket::new(record, line)))
}

/// The first line of an input, and what is behind it.
pub fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}
