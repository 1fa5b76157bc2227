//! What travels between instances: a head that is parsed, and a body that is not. Two letters are written and read for
//! every call, so the head is a few bytes without names: a version, a sum, and what was derived for [`Head`], member
//! after member. The body follows untouched, whatever bytes it holds.
//!
//! Nothing in it says what it means, so whoever changes the order or the types in here counts [`VERSION`] up. While
//! instances of two versions run side by side, a reader refuses what it does not know and counts it as foreign; its
//! sender learns of it as of a letter that was lost.

use crate::{
    names::{CallId, Group, GroupKey, Incarnation, RoomName, Session, SocketId, StoreName},
    once::Ticket,
    verdict::Ending,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The first byte of what this version writes. A reader refuses every other.
pub const VERSION: u8 = 3;
/// Where a letter stands, these begin something else: the first ring of a lease, the name of a letter that lies beside,
/// several letters,
/// and a letter of the first version, which was a line of JSON.
const _: () = assert!(VERSION != b'!' && VERSION != b'@' && VERSION != b'+' && VERSION != b'{');

/// Behind the version: the sum of the head.
const SUM_BYTES: usize = 4;
/// Most heads are smaller; a larger one makes its buffer grow.
const HEAD_BYTES: usize = 192;

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
    /// No two letters of one incarnation have the same; what comes twice is taken once.
    pub id: u64,
    pub from: Incarnation,
    /// By the registry's clock; afterwards nothing may be written because of it.
    pub until: u64,
    pub message: Message,
}

/// Whom a frame is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub enum Message {
    /// Write the body, which is a frame. With `ack` the sender waits for [`Answer::Sent`].
    Send { to: To, except: Option<SocketId>, ack: bool },
    /// Part with these, for this reason.
    Close { to: To, ending: Ending },
    /// Put a socket into a room, or take it out.
    Room { id: SocketId, session: Session, room: RoomName, join: bool },
    /// Which of these have shown a sign of life since the letter came? The others are parted with.
    Probe { sockets: Vec<(SocketId, Session)> },
    /// Who of this group is here? At most `limit` of them, with ids after `after`, in order.
    Who { group: Group, after: Option<SocketId>, limit: usize },
    /// The answer to the receiver's letter `re`.
    Answer { re: u64, answer: Answer },
    /// Write the body, which is a call's frame, to this socket, or to the one of the group that was active
    /// last; `request` is for the log. What becomes of it is told by [`Message::OfCall`].
    Call {
        call: CallId,
        to: To,
        except: Option<SocketId>,
        request: Box<str>,
        /// What came of it is kept for whoever asks again.
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
    /// A client said this about a call that it was given there, before it came back here.
    Instead { call: CallId, word: Word },
    /// Write the body, which is a frame's text without its last brace: with their numbers to those for whom it was
    /// logged, and as it is to those meant for whom nothing is logged. The answer is [`Answer::Delivered`].
    Deliver { to: Option<To>, except: Option<SocketId>, logged: Vec<Logged> },
    /// Drain, as if you were told to stop. It is decided already; `request` is for the log.
    Drain { request: Box<str> },
    /// Somebody came whom calls of the receiver's may wait for.
    Came(GroupKey),
    /// Queued calls wait for somebody of a group that the receiver has members of.
    Waits(GroupKey),
}

/// A delivery's place in the log of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    pub id: SocketId,
    pub session: Session,
    pub seq: u64,
    /// The one before it.
    pub prev: u64,
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

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// It drains so many sockets, and is gone after so many milliseconds at most.
    Draining { sockets: usize, ms: u64 },
    /// The same as [`Answer::Sent`] of those for whom nothing was logged; of the others so many have it.
    Delivered { matched: usize, delivered: usize, full: usize, written: usize },
}

/// Why a letter was not acted on. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
        Self { head: Head { id, from, until, message }, body }
    }

    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + SUM_BYTES + HEAD_BYTES + self.body.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&[0; SUM_BYTES]);
        // Our own heads can always be written; an empty one would be refused.
        let mut bytes = postcard::to_extend(&self.head, bytes).unwrap_or_default();
        if let Some((front, head)) = bytes.split_at_mut_checked(1 + SUM_BYTES) {
            front[1..].copy_from_slice(&sum(head));
        }
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads what another instance wrote; `None` for whatever is no letter of this version.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let (stated, rest) = bytes.strip_prefix(&[VERSION])?.split_first_chunk::<SUM_BYTES>()?;
        let (head, body) = postcard::take_from_bytes(rest).ok()?;
        let is_whole = sum(&rest[..rest.len() - body.len()]) == *stated;
        is_whole.then(|| Self { head, body: bytes.slice(bytes.len() - body.len()..) })
    }
}

/// Tells a damaged head, and whatever else lies on a bell, from a head of ours. Eight bytes at a time, since a letter is
/// to be cheap; it is no secret.
fn sum(head: &[u8]) -> [u8; SUM_BYTES] {
    let (words, rest) = head.as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let sum = words.iter().chain([&last]).fold(head.len() as u64, |sum, word| {
        // Odd, so that no step forgets what it was given.
        let mixed = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    });
    (sum as u32).to_le_bytes()
}

#[cfg(test)]
mod tests;
