//! What breaks, and what a fleet of three makes of it. Every client is known to an oracle: where it is
//! connected, by which id, with which names, and what it has heard. What breaks is real: processes are
//! killed and stopped, servers emptied, connections cut and frozen.
//!
//! | file | what it is |
//! |---|---|
//! | `guest.rs`, `crowd.rs` | clients, and the oracle that knows them all |
//! | `truth.rs` | the registry compared with the oracle: over HTTP, and key by key |
//! | `witness.rs` | asks for living sockets without a pause, and notes every answer |
//! | `chatter.rs` | sends numbered messages without a pause, and holds every answer against what was heard |
//!
//! All others are files of facts.

use crate::{fleet, patience::note};

mod chatter;
mod crowd;
mod guest;
mod truth;
mod witness;

mod away;
mod crash;
mod cuts;
mod emptied;
mod frozen;
mod hopping;
mod resharded;
mod sentinels;
mod sleep;
