//! Watching the servers themselves: one that was started anew, or took over for another, may have lost what
//! it was told a moment ago, and nobody tells us but itself.

use super::{Redis, beat::ms, topology};
use crate::rules::REBUILT_AFTER;
use redis::{cmd, from_redis_value};
use std::{
    collections::BTreeSet,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time::sleep;
use tracing::warn;

/// How often the servers are asked who they are, besides at every new connection.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// How soon a new connection is noticed.
const LOOK: Duration = Duration::from_millis(250);

impl Redis {
    /// Never returns.
    pub(super) async fn keep_watching(&self) {
        let mut known = self.first_servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut life, mut troubles) = (0, 0);
        let mut quiet = Duration::ZERO;
        loop {
            sleep(LOOK).await;
            quiet += LOOK;
            let nothing_new = life == self.link.lives() && troubles == self.link.troubles();
            if !self.link.is_up() || (nothing_new && quiet < ASKED_EVERY) {
                continue;
            }
            let asked_in = (self.link.lives(), self.link.troubles());
            let Some(now) = self.identities().await else { continue };
            ((life, troubles), quiet) = (asked_in, Duration::ZERO);
            let changed = !known.is_empty() && !now.is_subset(&known);
            if changed {
                warn!("a Redis server was started anew or another took over; telling it again what is here");
                self.is_unsure();
                self.everything_is_suspect();
            }
            known = now;
            // Last: until it is known that nothing was lost, nobody says so.
            self.troubles_seen.store(troubles, Ordering::Relaxed);
        }
    }

    /// Who the servers are at the start, so that a change in the first moments is seen as well.
    pub(super) async fn meet_servers(&self) {
        if let Some(servers) = self.identities().await {
            *self.first_servers.lock().unwrap_or_else(PoisonError::into_inner) = servers;
        }
    }

    /// Where there is one server, that of the link: sentinels name the next master seconds before the link
    /// leaves the old one, and what is told in between is lost.
    async fn identities(&self) -> Option<BTreeSet<String>> {
        if self.link.is_cluster() {
            return Some(self.link.servers.look().await.ok()?.into_iter().map(|server| server.identity).collect());
        }
        let said = self.link.ask(&cmd("INFO")).await.ok()?;
        Some(BTreeSet::from([topology::identity(&from_redis_value(said).ok()?)]))
    }

    /// For as long as others may need to tell what they hold, what has no row is not called unknown.
    pub(super) fn is_unsure(&self) {
        self.unsure_until.store(self.now_ms() + ms(REBUILT_AFTER), Ordering::Relaxed);
    }

    /// Whether what Redis does not know may be called unknown.
    pub(super) fn is_sure(&self) -> bool {
        self.beats_well()
            && self.now_ms() >= self.unsure_until.load(Ordering::Relaxed)
            && self.troubles_seen.load(Ordering::Relaxed) == self.link.troubles()
    }
}
