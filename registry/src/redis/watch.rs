//! Watching the servers themselves: one that was started anew, or took over for another, may have lost what
//! it was told a moment ago, and nobody tells us but itself.

use super::{Redis, beat::ms};
use crate::rules::REBUILT_AFTER;
use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};
use tokio::time::sleep;
use tracing::warn;

/// How often the servers are asked who they are, besides at every new connection.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// How soon a new connection is noticed.
const LOOK: Duration = Duration::from_millis(250);

impl Redis {
    /// Never returns.
    pub(super) async fn keep_watching(&self) {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let mut life = 0;
        let mut quiet = Duration::ZERO;
        loop {
            sleep(LOOK).await;
            quiet += LOOK;
            if !self.link.is_up() || (life == self.link.lives() && quiet < ASKED_EVERY) {
                continue;
            }
            let Ok(servers) = self.link.servers.look().await else { continue };
            (life, quiet) = (self.link.lives(), Duration::ZERO);
            let now: BTreeMap<_, _> =
                servers.into_iter().map(|server| (server.node.to_string(), server.identity)).collect();
            let changed =
                !known.is_empty() && now.iter().any(|(_, identity)| !known.values().any(|old| old == identity));
            if changed {
                warn!("a Redis server was started anew or another took over; telling it again what is here");
                self.unsure_until.store(self.now_ms() + ms(REBUILT_AFTER), Ordering::Relaxed);
                self.everything_is_suspect();
            }
            known = now;
        }
    }

    /// Whether what Redis does not know may be called unknown.
    pub(super) fn is_sure(&self) -> bool {
        self.now_ms() >= self.unsure_until.load(Ordering::Relaxed)
    }
}
