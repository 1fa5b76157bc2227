//! The lease: what an instance says of itself, and the order of times that keeps two instances
//! from both believing that they own a socket.

use crate::names::Incarnation;
use std::time::Duration;

/// How often an instance renews its lease.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long a lease holds without being renewed.
pub const LEASE: Duration = Duration::from_secs(15);
/// After how long a silent instance is declared dead and its sockets are reaped.
pub const REAPED_AFTER: Duration = Duration::from_secs(20);
/// By when nothing of a dead instance is left.
pub const CLEAN_AFTER: Duration = Duration::from_secs(60);

/// How long others go by the word that an instance is about to drain. By then its lease says so itself, or the word
/// never reached it.
pub const ABOUT_TO_DRAIN: Duration = Duration::from_secs(30);

// Else it would count as one that stays, between the word and the lease.
const _: () = assert!(BEAT.as_millis() * 10 <= ABOUT_TO_DRAIN.as_millis());
// Several beats may be lost before a lease lapses; else one slow second would orphan an instance.
const _: () = assert!(BEAT.as_millis() * 5 <= LEASE.as_millis());
// An owner lets go before others reap; else a socket could be written to by its old owner and a new one.
const _: () = assert!(LEASE.as_millis() < REAPED_AFTER.as_millis());
const _: () = assert!(REAPED_AFTER.as_millis() < CLEAN_AFTER.as_millis());

/// What others must do about an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Send it sockets and calls.
    Serving,
    /// Send it no new sockets; what it holds is still reached through it.
    Draining,
    /// Send it nothing: it does not hear its bell.
    Deaf,
}

impl Serving {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Deaf => "deaf",
        }
    }

    /// Reads what [`Serving::as_str`] writes.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Serving, Self::Draining, Self::Deaf].into_iter().find(|serving| serving.as_str() == word)
    }
}

/// What an instance is, for as long as its process lives.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The name that people see.
    pub instance: String,
    pub version: String,
    pub pid: u32,
    /// Epoch milliseconds.
    pub started_at: u64,
    /// A mark by which its figures can be told from the rest.
    pub canary: bool,
    /// Where it listens; empty where that is not known.
    pub address: String,
    /// What started it and starts it again, by name.
    pub manager: Option<String>,
    /// How often that has started it again, where it says so.
    pub restarts: Option<u64>,
}

/// An instance, as the others see it.
#[derive(Debug, Clone)]
pub struct Lease {
    pub incarnation: Incarnation,
    pub about: About,
    pub serving: Serving,
    pub sockets: usize,
    /// A short hash of the settings in force, by which instances that should be alike can be compared; empty where
    /// it does not say one.
    pub configuration: String,
}
