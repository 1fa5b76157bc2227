//! The secret by which tokens are sealed, which every instance has from Redis, so that each takes those of the others.

use super::{Redis, scripts::text};
use crate::token::Secret;
use redis::cmd;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks whether it is there: Redis may lose it, and somebody new make another.
const LOOK: Duration = Duration::from_secs(20);
/// The same, while Redis has not been asked since it came back.
const SOON: Duration = Duration::from_millis(500);

impl Redis {
    /// Sees to it that all have the same. Never returns.
    pub(super) async fn keep_secret(&self) {
        if self.has_own_secret {
            return std::future::pending().await;
        }
        let mut shared_in = None;
        loop {
            let life = self.link.lives();
            if self.link.is_up() && self.share_secret().await.is_some() {
                shared_in = Some(life);
            }
            sleep(if shared_in == Some(self.link.lives()) { LOOK } else { SOON }).await;
        }
    }

    /// The first that was written stands, until Redis forgets it.
    pub(super) async fn share_secret(&self) -> Option<()> {
        let key = self.keys.secret();
        let (mut get, mut set) = (cmd("GET"), cmd("SET"));
        get.arg(&key);
        let mut theirs = self.link.ask(&get).await.ok()?;
        if text(Some(&theirs)).is_empty() {
            set.arg(&key).arg(self.keyring.first()?.to_text()).arg("NX");
            self.link.ask(&set).await.ok()?;
            theirs = self.link.ask(&get).await.ok()?;
        }
        // What is none was written by somebody else; then everybody keeps the one they have.
        if let Some(secret) = Secret::from_text(text(Some(&theirs))) {
            self.keyring.put_first(secret);
        }
        Some(())
    }
}
