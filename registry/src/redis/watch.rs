//! Watching the servers themselves: one that was started anew, or took over for another, may have lost what
//! it was told a moment ago, and nobody tells us but itself.

use super::{Redis, beat::ms};
use crate::rules::REBUILT_AFTER;
use futures_util::future::join_all;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::sleep;
use tracing::warn;

/// How often the servers are asked who they are, besides at every new connection.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// How soon a new connection is noticed.
const LOOK: Duration = Duration::from_millis(250);

impl Redis {
    /// Never returns.
    pub(super) async fn keep_watching(&self) {
        loop {
            sleep(LOOK).await;
            self.look_at_servers().await;
            self.look_for_losses().await;
        }
    }

    /// At the start, too, so that a change in the first moments is seen.
    pub(super) async fn look_at_servers(&self) {
        let lines = self.link.lines();
        join_all(lines.iter().map(async |line| {
            let Some(look) = line.look(ASKED_EVERY).await else { return };
            if look.is_another {
                warn!("a Redis server was started anew or another took over; telling it again what is here");
                self.is_unsure();
                self.everything_is_suspect();
                self.lately.doubt();
            }
            // Last: until it is known that nothing was lost, nobody says so.
            line.settle(&look);
        }))
        .await;
    }

    /// For as long as others may need to tell what they hold, what has no row is not called unknown.
    pub(super) fn is_unsure(&self) {
        self.unsure_until.store(self.now_ms() + ms(REBUILT_AFTER), Ordering::Relaxed);
    }

    /// Whether what Redis does not have at this key may be called unknown.
    pub(super) fn is_sure(&self, key: &str) -> bool {
        self.beats_well() && self.now_ms() >= self.unsure_until.load(Ordering::Relaxed) && self.link.is_settled(key)
    }
}
