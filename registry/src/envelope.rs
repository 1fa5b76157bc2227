//! What travels between instances: a head that is parsed, and a body that is not. The head is one line
//! of JSON with a version in front, so that an instance of another version is understood or refused, and
//! a person who looks into Redis can read it. The body follows untouched, whatever bytes it holds.

use crate::{
    names::{CallId, Group, Incarnation, RoomName, Session, SocketId, StoreName},
    once::Ticket,
    verdict::Ending,
};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

/// What this version writes. A reader refuses what is later.
const VERSION: u32 = 1;

/// One letter from one instance to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub head: Head,
    /// A frame that is ready to be written, or an answer; empty for most.
    pub body: Bytes,
}

/// What the receiver has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    v: u32,
    /// No two letters of one incarnation have the same; what comes twice is taken once.
    pub id: u64,
    pub from: Incarnation,
    /// By the registry's clock; afterwards nothing may be written because of it.
    pub until: u64,
    pub message: Message,
}

/// Whom a frame is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// One connection: a socket that was resumed elsewhere meanwhile is another.
    Socket {
        id: SocketId,
        session: Session,
    },
    Group(Group),
    /// The members of any of these; who is in several gets it once.
    AnyOf(Vec<Group>),
    All,
}

/// What is wanted of the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Write the body, which is a frame. With `ack` the sender waits for [`Answer::Sent`].
    Send {
        to: To,
        #[serde(deserialize_with = "stated")]
        except: Option<SocketId>,
        ack: bool,
    },
    /// Part with these, for this reason.
    Close { to: To, ending: Ending },
    /// Put a socket into a room, or take it out.
    Room { id: SocketId, session: Session, room: RoomName, join: bool },
    /// Which of these have shown a sign of life since the letter came? The others are parted with.
    Probe { sockets: Vec<(SocketId, Session)> },
    /// Who of this group is here? At most `limit` of them, with ids after `after`, in order.
    Who {
        group: Group,
        #[serde(deserialize_with = "stated")]
        after: Option<SocketId>,
        limit: usize,
    },
    /// The answer to the receiver's letter `re`.
    Answer { re: u64, answer: Answer },
    /// Write the body, which is a call's frame, to this socket, or to the one of the group that was active
    /// last; `request` is for the log. What becomes of it is told by [`Message::OfCall`].
    Call {
        call: CallId,
        to: To,
        #[serde(deserialize_with = "stated")]
        except: Option<SocketId>,
        request: Box<str>,
        /// What came of it is kept for whoever asks again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<Box<Keep>>,
    },
    /// Its caller waits no longer.
    Cancel { call: CallId },
    /// Something about a call of the receiver's. What the client said is the body.
    OfCall { call: CallId, word: Word },
    /// Tell me what happens there, for so many milliseconds from now on. The answer is [`Answer::Followed`].
    Follow { ms: u64 },
    /// This happened, after all that the receiver was told before. The body has a line of JSON for each.
    Happened(Told),
}

/// How much one instance was told of what happens on another. What it is told is counted, so that it knows of letters
/// that were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Since when it is told without a pause, by the clock of whoever tells; the count began there.
    pub since: u64,
    pub count: u64,
}

/// What the owner has to know to say what came of a call, if its asker dies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    pub ticket: Ticket,
    /// When the request came, by the registry's clock.
    pub began: u64,
    /// Whether it goes to another socket than the one that was named.
    pub fallback: bool,
}

/// What became of a call, so far or for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// This socket has it, and has not answered yet.
    Accepted(SocketId),
    /// The client works on it.
    Progress(SocketId),
    /// The client answered, so many milliseconds after it was given the call.
    Reply(SocketId, u32),
    /// The client could not do it.
    Failed(SocketId, u32),
    /// The socket that had it ended.
    Lost(Box<LostSocket>),
    /// Nothing was written.
    Refused(Refusal),
}

/// A socket that ended with a call in its hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostSocket {
    pub socket: SocketId,
    pub store: Option<StoreName>,
    pub connected_at: u64,
    pub ending: Ending,
    /// Whether all of the call had been written to it, and not only queued.
    pub written: bool,
}

/// Nobody is said so. What is not said at all was lost on the way, and is no letter.
fn stated<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketId>, D::Error> {
    Option::deserialize(from)
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// So many were meant, wrote it to their queue, had no room in it.
    Sent { matched: usize, delivered: usize, full: usize },
    /// So many were told to go.
    Closed { count: usize },
    /// The change is made and known to the registry.
    Moved,
    /// The socket is in as many rooms as it may be.
    TooManyRooms { max: usize },
    /// These did not speak and are gone.
    Silent { sockets: Vec<SocketId> },
    /// The members, as JSON, stand in the body.
    Members,
    /// What happens is told from now on. So much was told before.
    Followed(Told),
    /// Nothing was done, and this is why.
    Refused(Refusal),
}

/// Why a letter was not acted on. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The socket is not here, or it is another connection by now.
    NotMine,
    /// It came after its time.
    Expired,
    /// The socket is about to close.
    Closing,
    /// Its queue has no room.
    Slow,
    /// The instance is about to end.
    Draining,
}

impl Envelope {
    pub fn new(id: u64, from: Incarnation, until: u64, message: Message, body: Bytes) -> Self {
        Self { head: Head { v: VERSION, id, from, until, message }, body }
    }

    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(&self.head).unwrap_or_default();
        bytes.reserve_exact(1 + self.body.len());
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads what another instance wrote; `None` for whatever is no letter of a version we know.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        (head.v == VERSION).then(|| Self { head, body: bytes.slice(end + 1..) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        names::{StoreName, UserName},
        once::Hashed,
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
        let message = Message::Send { to, except: None, ack: true };
        Envelope::new(7, Incarnation::fresh("web1:5000"), 12, message, Bytes::from_static(body))
    }

    #[test]
    fn a_letter_reads_back_with_every_byte_of_its_body() {
        for body in [&b""[..], b"\n\n", b"\x81\x00\xff\n{}"] {
            let letter = letter(body);
            assert_eq!(Envelope::decode(&letter.encode().into()), Some(letter));
        }
    }

    #[test]
    fn every_kind_of_letter_reads_back() {
        let (id, session, room) = (SocketId::fresh(), Session::fresh(), RoomName::parse("r").unwrap());
        let ending = Ending { cause: Cause::Kicked, code: Some(4403), reason: "kicked".into() };
        let (kicked, call) = (ending.clone(), CallId::fresh(&Incarnation::fresh("web1")));
        let group = Group::Room(room.clone());
        let answers = [
            Answer::Sent { matched: 3, delivered: 2, full: 1 },
            Answer::Closed { count: 1 },
            Answer::Moved,
            Answer::TooManyRooms { max: 2 },
            Answer::Silent { sockets: vec![id] },
            Answer::Members,
            Answer::Followed(Told { since: 1, count: 2 }),
            Answer::Refused(Refusal::NotMine),
        ];
        let ticket = Ticket { key: Hashed::of(&[b"k"]), token: "t".into() };
        let keep = Box::new(Keep { ticket, began: 3, fallback: true });
        let messages = [
            Message::Send { to: To::AnyOf(vec![group.clone()]), except: Some(id), ack: false },
            Message::Send { to: To::All, except: None, ack: true },
            Message::Close { to: To::Socket { id, session }, ending },
            Message::Room { id, session, room, join: true },
            Message::Probe { sockets: vec![(id, session)] },
            Message::Who { group, after: Some(id), limit: 5 },
            Message::Call { call: call.clone(), to: To::All, except: Some(id), request: "r".into(), keep: None },
            Message::Call { call: call.clone(), to: To::All, except: None, request: "r".into(), keep: Some(keep) },
            Message::Cancel { call: call.clone() },
            Message::Follow { ms: 5 },
            Message::Happened(Told { since: 1, count: 2 }),
        ];
        let lost = LostSocket { socket: id, store: None, connected_at: 3, ending: kicked, written: true };
        let words = [
            Word::Accepted(id),
            Word::Progress(id),
            Word::Reply(id, 3),
            Word::Failed(id, 4),
            Word::Lost(Box::new(lost)),
            Word::Refused(Refusal::Slow),
        ];
        let words = words.map(|word| Message::OfCall { call: call.clone(), word });
        let answers = answers.map(|answer| Message::Answer { re: 9, answer });
        for message in messages.into_iter().chain(answers).chain(words) {
            let letter = Envelope::new(7, Incarnation::fresh("web1"), 12, message, Bytes::from_static(b"x"));
            assert_eq!(Envelope::decode(&letter.encode().into()), Some(letter.clone()), "{letter:?}");
        }
    }

    #[test]
    fn a_letter_of_a_later_version_is_refused_and_a_later_member_is_not() {
        let text = String::from_utf8(letter(b"").encode()).unwrap();
        assert!(Envelope::decode(&text.replacen("\"v\":1", "\"v\":1,\"later\":true", 1).into()).is_some());
        assert!(Envelope::decode(&text.replacen("\"v\":1", "\"v\":2", 1).into()).is_none());
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

    type Object = serde_json::Map<String, serde_json::Value>;

    /// The members of a head, and those of its message with the message's kind.
    fn members(head: &Head) -> (Object, String, Object) {
        let mut head = serde_json::to_value(head).unwrap().as_object().unwrap().clone();
        let message = head.remove("message").unwrap();
        let (kind, inside) = message.as_object().unwrap().iter().next().unwrap();
        (head, kind.clone(), inside.as_object().unwrap().clone())
    }

    /// How many members of the head differ, those of the message counted by their names.
    fn differing(one: &Head, other: &Head) -> usize {
        let [(one, _, inside_one), (other, _, inside_other)] = [one, other].map(members);
        let differ = |one: &Object, other: &Object| one.iter().filter(|(k, v)| other.get(*k) != Some(v)).count();
        differ(&one, &other) + differ(&inside_one, &inside_other)
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

        /// One byte that is another, is missing, or is one too many.
        #[test]
        fn a_damaged_head_is_never_a_letter_of_another_kind(
            letter in some_letter(), at in any::<Index>(), byte in any::<u8>(), how in 0..3,
        ) {
            let mut bytes = letter.encode();
            let at = at.index(bytes.len() - letter.body.len() - 1);
            match how {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
            if let Some(read) = Envelope::decode(&bytes.into()) {
                let kinds = [&read, &letter].map(|letter| std::mem::discriminant(&letter.head.message));
                prop_assert_eq!(kinds[0], kinds[1]);
                prop_assert!(differing(&read.head, &letter.head) <= 1, "{:?}", read);
                prop_assert_eq!(Envelope::decode(&read.encode().into()), Some(read));
            }
        }

        /// Also those that may be null.
        #[test]
        fn a_head_without_one_of_its_members_or_with_one_twice_is_no_letter(letter in some_letter(), at in any::<Index>()) {
            let (head, kind, inside) = members(&letter.head);
            let chosen = at.index(head.len() + 1 + inside.len());
            let write = |times: usize| {
                let times = |nth: usize| if nth == chosen { times } else { 1 };
                let pairs = |object: &Object, from: usize| {
                    let pairs = object.iter().enumerate();
                    pairs.flat_map(|(nth, (name, value))| vec![format!("{name:?}:{value}"); times(from + nth)]).collect::<Vec<_>>()
                };
                let message = format!("\"message\":{{\"{kind}\":{{{}}}}}", pairs(&inside, head.len() + 1).join(","));
                let all = [pairs(&head, 0), vec![message; times(head.len())]].concat();
                Bytes::from(format!("{{{}}}\n", all.join(",")))
            };
            prop_assert!(Envelope::decode(&write(1)).is_some());
            for times in [0, 2] {
                prop_assert_eq!(Envelope::decode(&write(times)), None, "{} {} times", chosen, times);
            }
        }
    }
}
