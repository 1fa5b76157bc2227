//! Whether a user may have one more socket, and who has to go for it.

use crate::{
    names::{GroupKey, SocketId},
    record::SocketRecord,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long an evicted client cannot evict in turn; without it two tabs that reconnect
/// by themselves would throw each other out for ever.
pub const COOL_DOWN: Duration = Duration::from_secs(10);

/// What happens to the one socket too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    EvictOldest,
    Reject,
}

/// How many sockets a user may have.
#[derive(Debug, Clone, Copy)]
pub struct Cap {
    /// 0 means no cap.
    pub sockets_max: usize,
    pub policy: Policy,
}

/// The answer to a newcomer. The holders named here are still there: their owners take them out.
#[derive(Debug)]
pub enum Admission {
    /// Come in, once the same client's earlier connections and the oldest beyond the cap are told to go.
    Welcome { replaced: Vec<Arc<SocketRecord>>, evicted: Vec<Arc<SocketRecord>> },
    /// The cap is reached by these; unless one of them turns out to be dead, the newcomer is refused.
    Full { holders: Vec<Arc<SocketRecord>> },
    /// This client was evicted a moment ago.
    CoolingDown,
}

/// Cool-downs remembered at most; a flood of evictions beyond it forgets them all.
const COOL_DOWNS_MAX: usize = 10_000;

/// The clients that were evicted a moment ago, where no script remembers them.
#[derive(Debug, Default)]
pub(crate) struct CoolDowns {
    until: HashMap<ClientKey, Instant>,
}

impl CoolDowns {
    pub(crate) fn begin(&mut self, evicted: &[Arc<SocketRecord>], now: Instant) {
        for client in evicted.iter().filter_map(|record| ClientKey::of(record)) {
            if self.until.len() >= COOL_DOWNS_MAX {
                self.until.retain(|_, until| *until > now);
            }
            if self.until.len() >= COOL_DOWNS_MAX {
                self.until.clear();
            }
            self.until.insert(client, now + COOL_DOWN);
        }
    }

    pub(crate) fn holds(&self, newcomer: &SocketRecord, now: Instant) -> bool {
        ClientKey::of(newcomer).and_then(|client| self.until.get(&client)).is_some_and(|until| *until > now)
    }
}

/// By what a client is recognised: the name it gives itself, else its user and address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ClientKey(Arc<str>);

impl ClientKey {
    fn of(record: &SocketRecord) -> Option<Self> {
        let user = record.user.as_ref()?;
        let own = match &record.client {
            Some(client) => format!("{user}\0{client}"),
            None => format!("{user}\0\0{}", record.address),
        };
        Some(Self(own.into()))
    }
}

/// Nine characters for an index: whether the client named itself, and a hash of who it is.
pub(crate) fn client_tag(record: &SocketRecord) -> String {
    let (kind, own) = match &record.client {
        Some(client) => ('c', client.to_string()),
        None => ('a', record.address.to_string()),
    };
    format!("{kind}{}", &GroupKey::of("client", &own).short()[..8])
}

/// Decides over the sockets a user has, oldest first. Pure: the same answer wherever it is asked.
pub(crate) fn decide(newcomer: &SocketRecord, holders: Vec<Arc<SocketRecord>>, cap: Cap, cooling: bool) -> Admission {
    let same_client = |held: &SocketRecord| newcomer.client.is_some() && held.client == newcomer.client;
    let is_itself = |held: SocketId| held == newcomer.id;
    let (replaced, others): (Vec<_>, Vec<_>) =
        holders.into_iter().filter(|held| !is_itself(held.id)).partition(|held| same_client(held));
    let beyond = match cap.sockets_max {
        0 => 0,
        max => (others.len() + 1).saturating_sub(max),
    };
    if beyond == 0 {
        return Admission::Welcome { replaced, evicted: Vec::new() };
    }
    match cap.policy {
        Policy::Reject => Admission::Full { holders: others },
        Policy::EvictOldest if cooling => Admission::CoolingDown,
        Policy::EvictOldest => Admission::Welcome { replaced, evicted: others.into_iter().take(beyond).collect() },
    }
}
