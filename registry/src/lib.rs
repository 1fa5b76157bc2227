//! The registry: who holds which socket, and how the holder is reached.
//!
//! What it promises:
//!
//! 1. A socket that was registered is found by its id until it is unregistered.
//! 2. Of two connections that claim one socket, the later attempt keeps it, whatever order they arrive in.
//! 3. Only the connection that registered a socket can update it or take it out.
//! 4. A socket that ended leaves its verdict: when, with which close code, and the true cause.
//! 5. "Never seen" is said only of an id that this registry would remember.
//! 6. The cap of a user is decided in one step, over all instances.
//! 7. Whoever was evicted cannot evict in turn while it cools down.
//! 8. Groups (a store, a user, a room) say which instances hold members, and how many.
//! 9. Sockets are listed in the order in which they connected.
//! 10. Of those who take the same request on, one does, and the others learn what came of it.
//! 11. What is logged for a socket that may be resumed is read in its order until it is acknowledged or its time is
//!     over, and whoever reads on sees whether anything is missing.
//! 12. A ticket is redeemed once, and what is written into the book of keys is seen by all.
//! 13. What the application wants to hear of a socket, that it came and how it ended, is kept until it has heard it,
//!     and has one id however often it is told.
//! 14. Nothing here grows without bound: what ended is forgotten by age and by number.
//!
//! It knows neither HTTP nor WebSocket. In reading order:

/// Whether a user may have one more socket.
pub mod admit;
/// The registry and its verbs.
mod all;
/// The book of keys, and tickets.
mod book;
/// What travels between instances.
pub mod envelope;
/// What the application is told of sockets.
pub mod event;
/// How many members of each group an instance holds, and what Redis was told of it.
pub mod groups;
/// What an instance says of itself, and how long that holds.
pub mod lease;
/// Durable deliveries that wait in a socket's log.
pub mod log;
/// Maps of what instances make.
mod map;
/// The same promises under one lock: the single-instance mode.
mod memory;
/// Names: parsed once at the door, trusted afterwards.
pub mod names;
/// Requests that are acted upon once, however often they come.
pub mod once;
/// What one instance owns, and how it is told to Redis.
pub mod owner;
/// Calls that are kept until somebody comes.
pub mod queue;
/// What a socket says of itself.
pub mod record;
/// The same promises on Redis: the form of many instances.
mod redis;
/// Coming back to a socket.
pub mod resume;
/// The protocol as pure functions.
pub mod rules;
/// What was seen before.
mod seen;
/// Ids as short text.
mod short;
/// What a client shows to come back.
pub mod token;
/// How ids and names travel.
mod travel;
/// What became of a socket that is not there.
pub mod verdict;
/// Its verbs for calls that wait for somebody to come.
#[path = "all/waiting.rs"]
mod waiting;

pub use admit::{Admission, Cap, Policy};
pub use all::{
    Arrived, Figures, Health, Hearing, Holding, Inbox, Lookup, Post, Registered, Registry, Retention, Routed, Server,
    Superseded, Unknown, epoch_ms,
};
pub use book::{Book, TICKET_STANDS};
pub use envelope::Envelope;
pub use lease::{About, Lease, Serving};
pub use log::{Acked, Appended, Chain, Delivery, Durability, Left, Mail, Page};
pub use map::Map;
pub use memory::Memory;
pub use names::{CallId, Group, GroupKey, Incarnation, NameFault, RoomName, Session, SocketId, StoreName, UserName};
pub use once::{Errand, Hashed, Once, Outcome, Ticket};
pub use queue::{Cancelled, Handed, Parcel, Queued, Standing, Taken, Turn, WasGiven};
pub use record::{Attempt, Holder, Resumable, SocketRecord};
pub use redis::{RedisUrl, Settings, Unusable, script};
pub use resume::{Back, NotBack};
pub use seen::Seen;
pub use token::Secret;
pub use verdict::{Cause, Ending, Gone, Verdict};
