use super::*;
use crate::{
    courier::tests::{client_of, deaf, enter, instance, memory, soon},
    frame::Greeting,
    session,
    socket::{Conversation, Line, Reaction, Said},
    sockets::Seat,
};
use registry::{Routed, epoch_ms};
use tokio::{io::AsyncReadExt, sync::mpsc, time::timeout};

/// The next letter that comes to an instance which does not read its letters by itself.
async fn next(inbox: &mut Inbox) -> Message {
    match timeout(Duration::from_secs(5), inbox.recv()).await {
        Ok(Some(Post::Letter(letter))) => letter.head.message,
        other => panic!("{other:?}"),
    }
}

fn send(seat: &Seat, ack: bool) -> Message {
    let to = To::Socket { id: seat.socket.id, session: seat.socket.record().session };
    Message::Send { to, except: None, ack }
}

#[tokio::test]
async fn a_letter_after_its_time_is_refused_and_not_written() {
    let memory = memory();
    let ((here, mut inbox), (there, _reading)) = (deaf(&memory, "web1"), instance(&memory, "web2"));
    let seat = enter(&there.courier, &["r"]).await;
    let own = here.courier.registry.incarnation();
    let to_room = Message::Send { to: To::All, except: None, ack: true };
    for (id, message) in [send(&seat, true), to_room].into_iter().enumerate() {
        let letter = Envelope::new(id as u64, own.clone(), epoch_ms() - 1, message, Bytes::from_static(b"x"));
        assert_eq!(here.courier.registry.route(&there.courier.registry.incarnation(), &letter).await, Routed::Taken);
        let expected = Message::Answer { re: id as u64, answer: Answer::Refused(Refusal::Expired) };
        assert_eq!(next(&mut inbox).await, expected);
    }
    assert_eq!(seat.socket.line.unsent(), 0);
}

#[tokio::test]
async fn a_letter_that_comes_twice_is_acted_upon_once_and_counted() {
    let memory = memory();
    let ((here, mut inbox), (there, _reading)) = (deaf(&memory, "web1"), instance(&memory, "web2"));
    let seat = enter(&there.courier, &[]).await;
    let (own, owner) = (here.courier.registry.incarnation(), there.courier.registry.incarnation());
    let letter =
        |id, ack| Envelope::new(id, own.clone(), epoch_ms() + 5000, send(&seat, ack), Bytes::from_static(b"frame"));
    for letter in [letter(1, false), letter(1, false), letter(2, true)] {
        here.courier.registry.route(&owner, &letter).await;
    }
    let sent = Answer::Sent { matched: 1, delivered: 1, full: 0 };
    assert_eq!(next(&mut inbox).await, Message::Answer { re: 2, answer: sent });
    assert_eq!((seat.socket.line.unsent(), there.metrics.duplicate_write.get()), (2 * b"frame".len(), 1));
}

#[tokio::test]
async fn what_reaches_a_socket_on_its_way_in_stands_behind_its_greeting() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    // A record of the other instance, whose own seat is given up again.
    let record = enter(&there.courier, &[]).await.socket.record();
    let line = Arc::new(Line::new(1 << 20));
    let expected = there.courier.sockets.expect(&record, line.clone());
    let sent = here.courier.to_socket(&record.id.to_string(), Bytes::from_static(b"early"), soon()).await;
    assert_eq!(sent.unwrap().delivered, 1);
    line.greet(&[Bytes::from_static(b"hi"), Bytes::from_static(b"reset")]).unwrap();
    let seat = expected.enter(Arc::new(Socket::new(record, line)));
    let (mut client, _serving) = client_of(&seat);
    let mut bytes = [0; 12];
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hiresetearly");
}

#[tokio::test]
async fn a_socket_on_its_way_in_can_be_told_to_go() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let record = enter(&there.courier, &[]).await.socket.record();
    let line = Arc::new(Line::new(1 << 20));
    let _expected = there.courier.sockets.expect(&record, line.clone());
    here.courier.close_anywhere(&record.id.to_string(), Close::Replaced, soon()).await.unwrap();
    assert!(!line.is_open());
}

#[tokio::test]
async fn a_connection_that_does_not_count_any_more_is_ended() {
    for (why, code) in [(Superseded::ByLater, 4409_u16), (Superseded::Ended, 1012)] {
        let (desk, _unread) = deaf(&memory(), "web1");
        let (ended, stays) = (enter(&desk.courier, &[]).await, enter(&desk.courier, &[]).await);
        let (mut client, _serving) = client_of(&ended);
        let (post, inbox) = mpsc::channel(10);
        let (id, session) = (ended.socket.id, ended.socket.record().session);
        post.send(Post::Superseded { id: stays.socket.id, session, why }).await.unwrap();
        post.send(Post::Superseded { id, session, why }).await.unwrap();
        drop(post);
        run(desk.clone(), inbox).await;
        let mut head = [0; 4];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head[2..], code.to_be_bytes());
        assert!(stays.socket.line.is_open());
    }
}

#[tokio::test]
async fn what_a_client_publishes_reaches_members_elsewhere_in_its_order() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let (publisher, member) = (enter(&here.courier, &["r"]).await, enter(&there.courier, &["r"]).await);
    let (mut client, _serving) = client_of(&member);
    let greeting = Greeting {
        socket: publisher.socket.id,
        instance: "web1".into(),
        ping_interval_seconds: 30.0,
        state: None,
        lasting: None,
    };
    let mut session = session::Session::new(here.clone(), publisher.socket.clone(), greeting);
    for number in 0..100 {
        let frame = format!(r#"{{"type":"publish","room":"r","data":{number}}}"#);
        let Reaction::Later(work) = session.hear(Said::Text(frame.into())) else { panic!("others were not told") };
        assert!(work.await.is_empty());
    }
    let expected: Vec<u8> = (0..100).flat_map(|number| heard(&publisher, number)).collect();
    let mut bytes = vec![0; expected.len()];
    timeout(Duration::from_secs(5), client.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(bytes, expected);
    assert_eq!((here.metrics.room_untold.get(), there.metrics.room_deliveries.get()), (0, 100));
}

fn heard(publisher: &Seat, number: usize) -> Bytes {
    let data = serde_json::value::RawValue::from_string(number.to_string()).unwrap();
    crate::frame::message(&RoomName::parse("r").unwrap(), publisher.socket.id, &data)
}
