//! The feed of what happens on this instance: who connects, selects a store and leaves, and what comes of calls.
//! It promises nothing but what happens from now on, to whoever keeps up: nothing is kept, and while nobody looks
//! nothing is written.

use registry::{SocketRecord, epoch_ms};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::broadcast;

/// What one who looks may be behind. Beyond that it misses something, and is told how much.
const BEHIND_MAX: usize = 1024;

/// Something that happened, and its particulars as JSON.
#[derive(Debug, Clone)]
pub struct Happening {
    pub kind: &'static str,
    pub data: Arc<str>,
}

/// The feed of an instance.
pub struct Feed(broadcast::Sender<Happening>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }
}

impl Feed {
    /// Whoever looks hears of all that happens from now on.
    pub fn open(&self) -> broadcast::Receiver<Happening> {
        self.0.subscribe()
    }

    /// Tells it, if somebody looks.
    pub fn tell(&self, kind: &'static str, particulars: impl FnOnce() -> Value) {
        if self.0.receiver_count() > 0 {
            let mut data = particulars();
            data["at"] = epoch_ms().into();
            // Who has closed the feed in this moment has not missed it.
            let _ = self.0.send(Happening { kind, data: data.to_string().into() });
        }
    }
}

/// A socket, as the feed shows it.
pub fn socket(record: &SocketRecord) -> Value {
    json!({
        "instance": record.owner.instance(),
        "socketId": record.id.to_string(),
        "userId": record.user.as_ref().map(|user| user.as_str()),
        "storeId": record.store.as_ref().map(|store| store.as_str()),
    })
}
