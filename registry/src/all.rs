//! The registry and its verbs. An enum, not a trait: every form there is stands here, and a reader
//! finds each verb's code by one step.

use crate::{
    admit::{Admission, Cap},
    lease::Lease,
    memory::Memory,
    names::{GroupKey, Incarnation, Session, SocketId},
    record::SocketRecord,
    verdict::{Ending, Verdict},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Epoch milliseconds of this host. Shown to people, never compared with another host's.
pub fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How much of the past is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long a verdict is kept after the end.
    pub why_ttl: Duration,
    /// How many verdicts are kept at most, so that a storm of reconnections cannot fill the memory.
    /// What is dropped early is afterwards `forgotten`, never `never_seen`.
    pub verdicts_max: usize,
}

/// What became of a registration.
#[derive(Debug)]
pub enum Registered {
    /// Nobody had it.
    Fresh,
    /// An earlier attempt had it; its owner still has to be told.
    TakenFrom(Arc<SocketRecord>),
    /// A later attempt has it. The caller must not serve this connection.
    Superseded,
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Lookup {
    Live(Arc<SocketRecord>),
    Gone(Verdict),
}

/// That an instance holds members of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub owner: Incarnation,
    pub members: usize,
}

/// Who holds which socket. Cheap to clone; every clone is the same registry.
#[derive(Clone)]
pub enum Registry {
    Memory(Arc<Memory>),
}

impl Registry {
    /// A registry that lives and dies with this process.
    pub fn in_memory(retention: Retention) -> Self {
        Self::Memory(Arc::new(Memory::new(retention)))
    }

    /// Puts an instance on the list, or renews what it says of itself.
    pub async fn announce(&self, lease: Lease) {
        match self {
            Self::Memory(memory) => memory.announce(lease),
        }
    }

    /// Gives a lease up: the instance is not on the list any more.
    pub async fn retire(&self, incarnation: &Incarnation) {
        match self {
            Self::Memory(memory) => memory.retire(incarnation),
        }
    }

    /// The instances that hold a lease, by name.
    pub async fn instances(&self) -> Vec<Lease> {
        match self {
            Self::Memory(memory) => memory.instances(),
        }
    }

    /// Asks whether a newcomer may come in. One that is welcome counts from this moment, so that two
    /// who ask at once cannot both be the last.
    pub async fn admit(&self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Admission {
        match self {
            Self::Memory(memory) => memory.admit(newcomer, cap),
        }
    }

    /// Claims a socket for the record's owner.
    pub async fn register(&self, record: Arc<SocketRecord>) -> Registered {
        match self {
            Self::Memory(memory) => memory.register(record),
        }
    }

    /// Replaces what the socket says of itself; false if another connection has it by now.
    pub async fn update(&self, record: Arc<SocketRecord>) -> bool {
        match self {
            Self::Memory(memory) => memory.update(record),
        }
    }

    /// Takes the socket out and keeps its verdict; false if another connection has it by now.
    pub async fn unregister(&self, id: SocketId, session: Session, ending: Ending) -> bool {
        match self {
            Self::Memory(memory) => memory.unregister(id, session, ending),
        }
    }

    /// Finds a socket by whatever text the caller holds for its id.
    pub async fn lookup(&self, asked: &str) -> Lookup {
        match self {
            Self::Memory(memory) => memory.lookup(asked),
        }
    }

    /// The instances that hold members of a group.
    pub async fn holders(&self, group: GroupKey) -> Vec<Holding> {
        match self {
            Self::Memory(memory) => memory.holders(group),
        }
    }

    /// Up to `limit` live sockets with ids after `after`, in order of connection.
    pub async fn page(&self, after: SocketId, limit: usize) -> Vec<Arc<SocketRecord>> {
        match self {
            Self::Memory(memory) => memory.page(after, limit),
        }
    }

    /// How many sockets are live in the whole fleet.
    pub async fn total(&self) -> usize {
        match self {
            Self::Memory(memory) => memory.total(),
        }
    }
}
