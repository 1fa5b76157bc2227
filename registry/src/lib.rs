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
//! 10. Nothing here grows without bound: what ended is forgotten by age and by number.
//!
//! It knows neither HTTP nor WebSocket. In reading order:

/// Whether a user may have one more socket.
pub mod admit;
/// The registry and its verbs.
mod all;
/// What an instance says of itself, and how long that holds.
pub mod lease;
/// The same promises under one lock: the single-instance mode.
mod memory;
/// Names: parsed once at the door, trusted afterwards.
pub mod names;
/// What a socket says of itself.
pub mod record;
/// What became of a socket that is not there.
pub mod verdict;

pub use admit::{Admission, Cap, Policy};
pub use all::{Holding, Lookup, Registered, Registry, Retention, epoch_ms};
pub use lease::{Lease, Serving};
pub use names::{Group, GroupKey, Incarnation, NameFault, RoomName, Session, SocketId, StoreName, UserName};
pub use record::SocketRecord;
pub use verdict::{Cause, Ending, Gone, Verdict};
