//! Letters there and back, and whatever else may come.

use super::*;
use crate::{
    names::{StoreName, UserName},
    once::Hashed,
    short,
    verdict::Cause,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};

fn letter(body: &'static [u8]) -> Envelope {
    let to = To::Socket { id: SocketId::fresh(), session: Session::fresh() };
    holding(Message::Send { to, except: None, ack: true }, body)
}

fn holding(message: Message, body: &'static [u8]) -> Envelope {
    Envelope::new(7, Incarnation::fresh("web1:5000"), 12, message, Bytes::from_static(body))
}

#[test]
fn a_letter_reads_back_with_every_byte_of_its_body() {
    for body in [&b""[..], b"\n\n", b"\x81\x00\xff\n{}"] {
        let letter = letter(body);
        assert_eq!(Envelope::decode(&letter.encode().into()), Some(letter));
    }
}

/// The same at all times.
fn every_kind() -> Vec<Envelope> {
    let id = SocketId::parse("ws_01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
    let (session, room) = (Session::parse("0123456789-").unwrap(), RoomName::parse("r").unwrap());
    let ending = Ending { cause: Cause::Kicked, code: Some(4403), reason: "kicked".into() };
    let life = Incarnation::parse(&format!("web1.{}", "-".repeat(22))).unwrap();
    let call = CallId::parse(&format!("c_{0}.{0}", life.mark())).unwrap();
    let group = Group::Room(room.clone());
    let answers = [
        Answer::Sent { matched: 3, delivered: 2, full: 1 },
        Answer::Closed { count: 1 },
        Answer::Moved,
        Answer::TooManyRooms { max: 2 },
        Answer::Silent { sockets: vec![id] },
        Answer::Members,
        Answer::Followed(Told { since: 1, count: 2 }),
        Answer::Draining { sockets: 3, ms: 4 },
        Answer::Delivered { matched: 4, delivered: 3, full: 1, written: 2 },
    ];
    let refusals =
        [Refusal::NotMine, Refusal::Expired, Refusal::Closing, Refusal::Slow, Refusal::Draining].map(Answer::Refused);
    let ticket = Ticket { key: Hashed::of(&[b"k"]), token: "t".into() };
    let keep = Box::new(Keep { ticket, began: 3, fallback: true });
    let store = StoreName::parse("s").unwrap();
    let groups = vec![group.clone(), Group::Store(store.clone()), Group::User(UserName::parse("u").unwrap())];
    let messages = [
        Message::Send { to: To::AnyOf(groups), except: Some(id), ack: false },
        Message::Send { to: To::All, except: None, ack: true },
        Message::Send { to: To::Group(group.clone()), except: None, ack: true },
        Message::Close { to: To::Socket { id, session }, ending: ending.clone() },
        Message::Room { id, session, room, join: true },
        Message::Probe { sockets: vec![(id, session)] },
        Message::Came(GroupKey::parse(life.mark()).unwrap()),
        Message::Waits(GroupKey::parse(life.mark()).unwrap()),
        Message::Instead { call: call.clone(), word: Word::Progress(id) },
        Message::Deliver { to: None, except: Some(id), logged: vec![Logged { id, session, seq: 3, prev: 2 }] },
        Message::Who { group, after: Some(id), limit: 5 },
        Message::Call { call: call.clone(), to: To::All, except: Some(id), request: "r".into(), keep: None },
        Message::Call { call: call.clone(), to: To::All, except: None, request: "r".into(), keep: Some(keep) },
        Message::Cancel { call: call.clone() },
        Message::Follow { ms: 5 },
        Message::Happened(Told { since: 1, count: 2 }),
        Message::Drain { request: "r".into() },
    ];
    let endings = Cause::ALL.map(|cause| Message::Close { to: To::All, ending: Ending { cause, ..ending.clone() } });
    let lost = LostSocket { socket: id, store: Some(store), connected_at: 3, ending, written: true };
    let words = [
        Word::Accepted(id),
        Word::Progress(id),
        Word::Reply(id, 3),
        Word::Failed(id, 4),
        Word::Lost(Box::new(lost)),
        Word::Refused(Refusal::Slow),
    ];
    let words = words.map(|word| Message::OfCall { call: call.clone(), word });
    let answers = answers.into_iter().chain(refusals).map(|answer| Message::Answer { re: 9, answer });
    let all = messages.into_iter().chain(endings).chain(answers).chain(words);
    all.map(|message| Envelope::new(7, life.clone(), 12, message, Bytes::from_static(b"x"))).collect()
}

#[test]
fn every_kind_of_letter_reads_back() {
    for letter in every_kind() {
        assert_eq!(Envelope::decode(&letter.encode().into()), Some(letter.clone()), "{letter:?}");
    }
}

/// Whoever has to change this number has changed what letters look like, and counts [`VERSION`] up.
#[test]
fn what_a_version_writes_never_changes() {
    let written: Vec<u8> = every_kind().iter().flat_map(Envelope::encode).collect();
    assert_eq!((VERSION, u32::from_le_bytes(sum(&written))), (3, 651850958));
}

#[test]
fn a_letter_of_another_version_is_refused() {
    let mut bytes = letter(b"x").encode();
    for version in 0..=u8::MAX {
        bytes[0] = version;
        assert_eq!(Envelope::decode(&bytes.clone().into()).is_some(), version == VERSION, "{version}");
    }
    assert_eq!(Envelope::decode(&Bytes::from_static(b"{\"v\":1,\"id\":7}\n")), None, "a line of JSON");
}

/// A head of ours that ends so, with its sum; the body is empty.
fn forged(message: Message, end: &[u8], by: &[u8]) -> Bytes {
    let whole = holding(message, b"").encode();
    let head = [whole[1 + SUM_BYTES..].strip_suffix(end).unwrap(), by].concat();
    [&[VERSION], &sum(&head)[..], &head].concat().into()
}

#[test]
fn what_breaks_the_rules_of_names_is_no_letter() {
    let (id, session, room) = (SocketId::fresh(), Session::fresh(), RoomName::parse("r").unwrap());
    let joins = Message::Room { id, session, room, join: true };
    assert!(Envelope::decode(&forged(joins.clone(), b"r\x01", b"q\x01")).is_some());
    for by in [&b"\n\x01"[..], b" \x01", b"\xff\x01"] {
        assert_eq!(Envelope::decode(&forged(joins.clone(), b"r\x01", by)), None, "{by:?}");
    }
    let call = CallId::fresh(&Incarnation::fresh("web1"));
    assert_eq!(
        Envelope::decode(&forged(Message::Cancel { call: call.clone() }, &call.as_str().as_bytes()[46..], b"=")),
        None
    );
    let (answer, bytes) = (Answer::Silent { sockets: vec![id] }, short::read::<16>(&id.short()).unwrap());
    assert_eq!(Envelope::decode(&forged(Message::Answer { re: 9, answer }, &bytes, &[0; 16])), None, "no id of ours");
}

/// Nor is room made for it.
#[test]
fn a_length_of_what_is_not_there_is_no_letter() {
    let ending = Ending { cause: Cause::Kicked, code: None, reason: "".into() };
    let probe = Message::Probe { sockets: Vec::new() };
    for message in [Message::Close { to: To::All, ending }, probe] {
        assert!(Envelope::decode(&forged(message.clone(), b"\0", b"\0")).is_some());
        for length in [&b"\x01"[..], b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(Envelope::decode(&forged(message.clone(), b"\0", length)), None, "{length:?}");
        }
    }
}

#[test]
fn a_truncated_letter_is_no_letter() {
    let whole = letter(b"").encode();
    for end in 0..whole.len() {
        assert_eq!(Envelope::decode(&Bytes::copy_from_slice(&whole[..end])), None, "{end}");
    }
}

fn some_id() -> impl Strategy<Value = SocketId> {
    Just(()).prop_map(|()| SocketId::fresh())
}

fn some_connection() -> impl Strategy<Value = (SocketId, Session)> {
    some_id().prop_map(|id| (id, Session::fresh()))
}

fn some_room() -> impl Strategy<Value = RoomName> {
    "\\PC{1,12}".prop_filter_map("no name", |text| RoomName::parse(&text).ok())
}

fn some_group() -> impl Strategy<Value = Group> {
    (some_room(), 0..3).prop_filter_map("no name", |(room, nth)| match nth {
        0 => Some(Group::Room(room)),
        1 => StoreName::parse(room.as_str()).ok().map(Group::Store),
        _ => UserName::parse(room.as_str()).ok().map(Group::User),
    })
}

fn some_receiver() -> impl Strategy<Value = To> {
    prop_oneof![
        some_connection().prop_map(|(id, session)| To::Socket { id, session }),
        some_group().prop_map(To::Group),
        vec(some_group(), 0..4).prop_map(To::AnyOf),
        Just(To::All),
    ]
}

fn some_ending() -> impl Strategy<Value = Ending> {
    (select(&Cause::ALL[..]), any::<Option<u16>>(), any::<String>()).prop_map(|(cause, code, reason)| Ending {
        cause,
        code,
        reason: reason.into(),
    })
}

fn some_count() -> impl Strategy<Value = Told> {
    any::<[u64; 2]>().prop_map(|[since, count]| Told { since, count })
}

fn some_answer() -> impl Strategy<Value = Answer> {
    let refusals = [Refusal::NotMine, Refusal::Expired, Refusal::Closing];
    prop_oneof![
        any::<[usize; 3]>().prop_map(|[matched, delivered, full]| Answer::Sent { matched, delivered, full }),
        any::<usize>().prop_map(|count| Answer::Closed { count }),
        Just(Answer::Moved),
        any::<usize>().prop_map(|max| Answer::TooManyRooms { max }),
        vec(some_id(), 0..3).prop_map(|sockets| Answer::Silent { sockets }),
        Just(Answer::Members),
        some_count().prop_map(Answer::Followed),
        select(refusals.to_vec()).prop_map(Answer::Refused),
    ]
}

fn some_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (some_receiver(), option::of(some_id()), any::<bool>()).prop_map(|(to, except, ack)| Message::Send {
            to,
            except,
            ack
        }),
        (some_receiver(), some_ending()).prop_map(|(to, ending)| Message::Close { to, ending }),
        (some_connection(), some_room(), any::<bool>()).prop_map(|((id, session), room, join)| Message::Room {
            id,
            session,
            room,
            join
        }),
        vec(some_connection(), 0..3).prop_map(|sockets| Message::Probe { sockets }),
        (some_group(), option::of(some_id()), any::<usize>()).prop_map(|(group, after, limit)| Message::Who {
            group,
            after,
            limit
        }),
        (any::<u64>(), some_answer()).prop_map(|(re, answer)| Message::Answer { re, answer }),
        any::<u64>().prop_map(|ms| Message::Follow { ms }),
        some_count().prop_map(Message::Happened),
    ]
}

fn some_letter() -> impl Strategy<Value = Envelope> {
    let instance = "\\PC{1,8}";
    (any::<u64>(), instance, any::<u64>(), some_message(), vec(any::<u8>(), 0..40)).prop_map(
        |(id, instance, until, message, body)| {
            Envelope::new(id, Incarnation::fresh(&instance), until, message, body.into())
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Envelope::decode(&bytes.into());
    }

    #[test]
    fn what_was_written_is_read(letter in some_letter()) {
        prop_assert_eq!(Envelope::decode(&letter.encode().into()), Some(letter));
    }

    #[test]
    fn whatever_is_cut_off_the_head_leaves_no_letter(letter in some_letter(), at in any::<Index>()) {
        let whole = letter.encode();
        let end = at.index(whole.len() - letter.body.len());
        prop_assert_eq!(Envelope::decode(&Bytes::copy_from_slice(&whole[..end])), None);
    }

    /// A byte that is another, a part that is missing, and one that is there twice. Where the head ends the body may
    /// stand in for what is missing.
    #[test]
    fn a_damaged_head_is_no_other_head(
        letter in some_letter(), at in any::<[Index; 2]>(), byte in any::<u8>(), how in 0..3,
    ) {
        let whole = letter.encode();
        let [from, to] = at.map(|at| at.index(whole.len() - letter.body.len()));
        let (from, to) = (from.min(to), from.max(to));
        let damaged = match how {
            0 => [&whole[..from], &[byte], &whole[from + 1..]].concat(),
            1 => [&whole[..from], &whole[to..]].concat(),
            _ => [&whole[..to], &whole[from..]].concat(),
        };
        if let Some(read) = Envelope::decode(&damaged.into()) {
            prop_assert_eq!(read.head, letter.head);
        }
    }
}
