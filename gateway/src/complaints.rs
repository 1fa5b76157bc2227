//! What is said once of a peer: whoever does it wrong does it with every request, and the log is for people.

use crate::admission::rate::neighbourhood;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// After this long it is said once more, if it still is so.
const SAID: Duration = Duration::from_secs(3600);
/// Peers that are remembered. When there are more, nothing new is said until some are forgotten; the figures go on counting.
const PEERS_MAX: usize = 10_000;

/// What is wrong about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// It comes where only trusted proxies may.
    NoProxy,
    /// It is a trusted proxy, and does not say whose its connection is.
    NoPreamble,
    /// It sends identity headers that do not count.
    Identity,
    /// It asks for others what nobody may ask without a token, and none is set.
    Protected,
}

/// Who was complained about, and when.
#[derive(Default)]
pub struct Complaints(Mutex<HashMap<(Topic, IpAddr), Instant>>);

impl Complaints {
    /// Whether this is to be said now.
    pub fn is_first(&self, topic: Topic, peer: IpAddr) -> bool {
        let mut said = self.said();
        let peer = (topic, neighbourhood(peer));
        if said.contains_key(&peer) || said.len() >= PEERS_MAX {
            return false;
        }
        said.insert(peer, Instant::now());
        true
    }

    pub fn forget_the_old(&self) {
        self.said().retain(|_, since| since.elapsed() < SAID);
    }

    /// A panic while the lock was held leaves a table that can be used: every step is whole.
    fn said(&self) -> MutexGuard<'_, HashMap<(Topic, IpAddr), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_complained_about_once_an_hour() {
        let complaints = Complaints::default();
        let first = |topic, address: &str| complaints.is_first(topic, address.parse().unwrap());
        assert!(first(Topic::NoProxy, "192.0.2.1"));
        assert!(!first(Topic::NoProxy, "::ffff:192.0.2.1"));
        assert!(first(Topic::NoPreamble, "192.0.2.1") && first(Topic::NoProxy, "192.0.2.2"));
        assert!(first(Topic::NoProxy, "2001:db8::1") && !first(Topic::NoProxy, "2001:db8::2"));
        tokio::time::advance(SAID - Duration::from_secs(1)).await;
        complaints.forget_the_old();
        assert!(!first(Topic::NoProxy, "192.0.2.1"));
        tokio::time::advance(Duration::from_secs(2)).await;
        complaints.forget_the_old();
        assert!(first(Topic::NoProxy, "192.0.2.1"));
    }

    #[test]
    fn many_peers_do_not_fill_the_memory() {
        let complaints = Complaints::default();
        let peers = (0..20_000_u32).map(|n| IpAddr::from(n.to_be_bytes()));
        assert_eq!(peers.filter(|peer| complaints.is_first(Topic::NoProxy, *peer)).count(), PEERS_MAX);
    }
}
