//! Several instances in one process, over one registry in memory.

use super::*;
use crate::{
    close::Close,
    frame,
    hooks::Hooks,
    inbox,
    letters::LIFE,
    probe,
    session::Desk,
    socket::{Connection, Conversation, Line, Reaction, Said},
    sockets::{Seat, Socket},
};
use registry::{
    About, Admission, Attempt, Cap, Cause, Gone, Group, Inbox, Incarnation, Lookup, Memory, Policy, Retention,
    RoomName, Session, SocketId, SocketRecord, UserName,
};
use serde_json::value::RawValue;
use std::{net::IpAddr, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_util::task::AbortOnDropHandle;

pub(crate) fn memory() -> Arc<Memory> {
    Memory::new(Retention { why_ttl: Duration::from_secs(60), verdicts_max: 10_000 })
}

/// An instance that does not read its letters.
pub(crate) fn deaf(memory: &Arc<Memory>, name: &str) -> (Arc<Desk>, Inbox) {
    let about = About { instance: name.into(), version: "0".into(), pid: 1, started_at: 0, ..About::default() };
    let (registry, inbox) = Registry::in_memory(memory, about);
    let metrics = Arc::new(Metrics::default());
    let courier = Courier::new(registry, &metrics);
    (
        Arc::new(Desk {
            courier,
            metrics,
            feed: Default::default(),
            hooks: Hooks::default(),
            rate: None,
            rooms_max: 2,
            stop: Default::default(),
        }),
        inbox,
    )
}

/// One that does, for as long as the handle lives.
pub(crate) fn instance(memory: &Arc<Memory>, name: &str) -> (Arc<Desk>, AbortOnDropHandle<()>) {
    let (desk, inbox) = deaf(memory, name);
    let reading = AbortOnDropHandle::new(tokio::spawn(inbox::run(desk.clone(), inbox)));
    (desk, reading)
}

/// A courier alone in its fleet.
pub(crate) fn courier() -> Courier {
    deaf(&memory(), "web1").0.courier.clone()
}

pub(crate) fn record(courier: &Courier, user: Option<&str>, rooms: &[&str]) -> Arc<SocketRecord> {
    Arc::new(SocketRecord {
        id: SocketId::fresh(),
        session: Session::fresh(),
        owner: courier.registry.incarnation(),
        attempt: Attempt::first(1),
        user: user.map(|user| UserName::parse(user).unwrap()),
        store: None,
        rooms: rooms.iter().map(|room| RoomName::parse(room).unwrap()).collect(),
        client: None,
        address: IpAddr::from([127, 0, 0, 1]),
        connected_at: 0,
        resumable: None,
    })
}

fn sit(courier: &Courier, record: &Arc<SocketRecord>) -> Seat {
    let line = Arc::new(Line::new(1 << 20));
    courier.sockets.expect(record, line.clone()).enter(Arc::new(Socket::new(record.clone(), line)))
}

/// A registered socket in its seat, with nobody behind it.
pub(crate) async fn enter(courier: &Courier, rooms: &[&str]) -> Seat {
    let record = record(courier, None, rooms);
    courier.registry.register(record.clone()).await;
    sit(courier, &record)
}

struct Mute;

impl Conversation for Mute {
    fn hear(&mut self, _: Said) -> Reaction {
        Reaction::Silence
    }

    fn panicked(&mut self) -> String {
        String::new()
    }
}

/// Puts a client behind a seat; what is written to the socket can be read from it.
pub(crate) fn client_of(seat: &Seat) -> (DuplexStream, AbortOnDropHandle<()>) {
    let (near, far) = duplex(1 << 20);
    let mut connection = Connection::new(far, Bytes::new(), seat.socket.line.clone(), None, Mute);
    let served = tokio::spawn(async move {
        let end = connection.serve().await;
        connection.farewell(&end).await;
    });
    (near, AbortOnDropHandle::new(served))
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn text(number: usize) -> Bytes {
    let data = RawValue::from_string(number.to_string()).unwrap();
    frame::sent("message", &data, None)
}

fn room(name: &str) -> Group {
    Group::Room(RoomName::parse(name).unwrap())
}

async fn reads(client: &mut DuplexStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    tokio::time::timeout(Duration::from_secs(5), client.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(bytes, expected);
}

fn one() -> Receipt {
    Receipt { matched: 1, delivered: 1, instances: 1, ..Receipt::default() }
}

#[tokio::test]
async fn a_thousand_sends_reach_a_socket_elsewhere_in_their_order() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let seat = enter(&there.courier, &[]).await;
    let (mut client, _serving) = client_of(&seat);
    let id = seat.socket.id.to_string();
    let sends = (0..1000).map(|number| here.courier.to_socket(&id, text(number), soon()));
    for receipt in futures_util::future::join_all(sends).await {
        assert_eq!(receipt.unwrap(), one());
    }
    let expected: Vec<u8> = (0..1000).flat_map(text).collect();
    reads(&mut client, &expected).await;
    assert_eq!((there.metrics.wrong_owner_delivery.get(), there.metrics.duplicate_write.get()), (0, 0));
}

#[tokio::test]
async fn a_room_message_reaches_every_member_once_wherever_it_is() {
    let memory = memory();
    let ((here, _a), (there, _b), (_other, _c)) =
        (instance(&memory, "web1"), instance(&memory, "web2"), instance(&memory, "web3"));
    let publisher = enter(&here.courier, &["r", "q"]).await;
    let near = enter(&here.courier, &["r"]).await;
    let (far, both) = (enter(&there.courier, &["r"]).await, enter(&there.courier, &["r", "q"]).await);
    let except = Some(publisher.socket.id);
    let length = text(1).len();
    let unsent = || [&publisher, &near, &far, &both].map(|seat| seat.socket.line.unsent() / length);

    let receipt = here.courier.to_many(&Target::Group(room("r")), except, &text(1), soon()).await;
    assert_eq!(receipt, Receipt { matched: 3, delivered: 3, instances: 2, ..Receipt::default() });
    assert_eq!(unsent(), [0, 1, 1, 1]);

    here.courier.to_many(&Target::AnyOf(vec![room("r"), room("q")]), except, &text(2), soon()).await;
    assert_eq!(unsent(), [0, 2, 2, 2], "who is in several gets it once");

    let receipt = there.courier.to_many(&Target::All, None, &text(3), soon()).await;
    assert_eq!((receipt.delivered, receipt.instances), (4, 2));
    assert_eq!(unsent(), [1, 3, 3, 3]);
}

#[tokio::test]
async fn a_kick_reaches_a_socket_elsewhere_and_its_verdict_stands() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let seat = enter(&there.courier, &[]).await;
    let (mut client, _serving) = client_of(&seat);
    let id = seat.socket.id.to_string();
    let close = Close::Kicked { code: 4000, reason: "spam".into() };
    here.courier.close_anywhere(&id, close, soon()).await.unwrap();
    let Lookup::Gone(verdict) = here.courier.registry.lookup(&id).await else { panic!() };
    let Gone::Closed { ending, instance, .. } = verdict.gone else { panic!() };
    assert_eq!((ending.cause, ending.code, &*ending.reason, &*instance), (Cause::Kicked, Some(4000), "spam", "web2"));
    reads(&mut client, b"\x88\x06\x0f\xa0spam").await;
    let again = here.courier.close_anywhere(&id, Close::Replaced, soon()).await;
    assert!(matches!(again, Err(Absent::Gone(_))), "{again:?}");
}

#[tokio::test]
async fn a_user_is_kicked_wherever_it_is() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let mut seats = Vec::new();
    for courier in [&here.courier, &there.courier, &there.courier] {
        let record = record(courier, Some("u"), &[]);
        courier.registry.register(record.clone()).await;
        seats.push(sit(courier, &record));
    }
    let target = Target::Group(Group::User(UserName::parse("u").unwrap()));
    let parted = here.courier.close_many(&target, Close::Replaced, soon()).await;
    assert_eq!((parted.closed, parted.missing.len()), (3, 0));
    assert!(seats.iter().all(|seat| !seat.socket.line.is_open()));
    assert_eq!(here.courier.registry.total().await, Ok(0));
}

#[tokio::test]
async fn a_socket_elsewhere_moves_between_rooms_and_is_listed_there() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let seat = enter(&there.courier, &["a"]).await;
    let id = seat.socket.id.to_string();
    let shift = async |name: &str, way| {
        let room = RoomName::parse(name).unwrap();
        here.courier.move_anywhere(&id, &room, way, 100, soon()).await.unwrap()
    };
    assert_eq!(shift("b", Move::In).await, Moved::Done);
    assert_eq!(shift("c", Move::In).await, Moved::TooManyRooms { max: 2 }, "its owner's setting counts");
    let roll = here.courier.who(&room("b"), SocketId::FIRST, 10, soon()).await;
    let list: Vec<serde_json::Value> = serde_json::from_slice(&roll.said[0]).unwrap();
    assert_eq!((&list[0]["socketId"], &list[0]["instance"]), (&id.as_str().into(), &"web2".into()));
    assert_eq!(shift("a", Move::Out).await, Moved::Done);
    assert!(here.courier.registry.holders(room("a").key()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_owner_leaves_it_unknown() {
    let memory = memory();
    let ((here, _a), (there, _unread)) = (instance(&memory, "web1"), deaf(&memory, "web2"));
    let seat = enter(&there.courier, &["r"]).await;
    let id = seat.socket.id.to_string();
    let began = Instant::now();
    let sent = here.courier.to_socket(&id, text(1), began + Duration::from_millis(300)).await;
    assert!(matches!(sent, Err(Absent::Silent(_))), "{sent:?}");
    assert!(began.elapsed() <= Duration::from_millis(551), "{:?}", began.elapsed());
    let receipt = here.courier.to_many(&Target::Group(room("r")), None, &text(1), soon()).await;
    assert_eq!(receipt, Receipt { matched: 1, unknown: 1, instances: 1, ..Receipt::default() });
    let roll = here.courier.who(&room("r"), SocketId::FIRST, 10, soon()).await;
    assert_eq!(roll.missing, [there.courier.registry.incarnation()]);
    assert_eq!(seat.socket.line.unsent(), 0);
}

#[tokio::test]
async fn an_owner_that_left_is_unreachable_and_its_members_are_not_reached() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let (_third, _c) = instance(&memory, "web3");
    let seat = enter(&there.courier, &["r"]).await;
    there.courier.registry.retire().await;
    let sent = here.courier.to_socket(&seat.socket.id.to_string(), text(1), soon()).await;
    assert!(matches!(sent, Err(Absent::Unknown(Unknown::OwnerUnreachable(_)))), "{sent:?}");
    let receipt = here.courier.to_many(&Target::Group(room("r")), None, &text(1), soon()).await;
    assert_eq!(receipt, Receipt { matched: 1, instances: 1, ..Receipt::default() });
}

#[tokio::test]
async fn what_is_out_of_time_is_not_sent() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let seat = enter(&there.courier, &[]).await;
    let sent = here.courier.to_socket(&seat.socket.id.to_string(), text(1), Instant::now()).await;
    assert!(matches!(sent, Err(Absent::OutOfTime)), "{sent:?}");
    assert_eq!(seat.socket.line.unsent(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_holder_elsewhere_is_pinged_by_its_owner_and_replaced_if_it_is_silent() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let (alive, dead) = (enter(&there.courier, &[]).await, enter(&there.courier, &[]).await);
    let (mut client, _serving) = client_of(&alive);
    let answers = tokio::spawn(async move {
        reads(&mut client, b"\x89\x00").await;
        client.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
        client
    });
    let holders = [alive.socket.record(), dead.socket.record()];
    let began = Instant::now();
    probe::fleet(&here.courier, &holders).await;
    assert!(began.elapsed() <= probe::PROBE + Duration::from_millis(250), "{:?}", began.elapsed());
    assert!(alive.socket.line.is_open() && !dead.socket.line.is_open());
    let _client = answers.await.unwrap();
}

#[tokio::test]
async fn the_oldest_beyond_the_cap_goes_wherever_it_is() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let oldest = record(&there.courier, Some("u"), &[]);
    there.courier.registry.register(oldest.clone()).await;
    let seat = sit(&there.courier, &oldest);
    let (mut client, _serving) = client_of(&seat);
    let newcomer = record(&here.courier, Some("u"), &[]);
    let cap = Cap { sockets_max: 1, policy: Policy::EvictOldest };
    let Admission::Welcome { evicted, .. } = here.courier.registry.admit(&newcomer, cap).await else { panic!() };
    for record in evicted {
        here.courier.send_away(&record, Close::TooManyConnections).await;
    }
    let reason = Close::TooManyConnections.reason();
    let mut expected = vec![0x88, 2 + reason.len() as u8, 0x11, 0x3a];
    expected.extend_from_slice(reason.as_bytes());
    reads(&mut client, &expected).await;
}

#[tokio::test]
async fn a_wrong_session_is_another_connection_and_gets_nothing() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let seat = enter(&there.courier, &[]).await;
    let owner: Incarnation = there.courier.registry.incarnation();
    let to = To::Socket { id: seat.socket.id, session: Session::fresh() };
    let send = Message::Send { to: to.clone(), except: None, ack: true };
    let close = Message::Close { to, ending: Close::Replaced.ending() };
    for message in [send, close] {
        let answer = here.courier.letters.ask(&owner, message, text(1), Instant::now() + LIFE).await;
        let refused = crate::letters::Undelivered::Refused(registry::envelope::Refusal::NotMine);
        assert_eq!(answer, Err(Unheard::NotDelivered(refused)));
    }
    assert!(seat.socket.line.is_open() && seat.socket.line.unsent() == 0);
}

#[tokio::test]
async fn a_socket_that_closes_here_is_not_looked_for_without_end() {
    let courier = courier();
    let seat = enter(&courier, &[]).await;
    assert!(seat.socket.line.close(Close::Replaced));
    let sent = courier.to_socket(&seat.socket.id.to_string(), text(1), soon()).await;
    assert!(matches!(sent, Err(Absent::Unsettled)), "{sent:?}");
}
