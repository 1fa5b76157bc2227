//! The channel of Node's over which pm2 hears that we are ready, and what `pm2 monit` shows of us: one JSON value a line. What
//! pm2 would say there is not read; it stops us by a signal.

use super::{Kind, Manager};
use crate::gateway::Gateway;
use serde_json::{Value, json};
use std::{cell::RefCell, fs::File, io::Write, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// `pm2 monit` looks about as often.
const PACE: Duration = Duration::from_secs(2);

/// Nothing where nobody opened one, or once the other end is gone.
#[derive(Debug, Default)]
pub struct Channel(RefCell<Option<File>>);

impl Channel {
    /// A manager that stands still must not keep us waiting.
    pub fn at(file: Option<File>) -> Self {
        Self(RefCell::new(file.filter(|file| rustix::io::ioctl_fionbio(file, true).is_ok())))
    }

    /// Without a listener there the word is lost, and so be it. After a line that went out in part no other would be understood.
    pub fn says(&self, word: &Value) {
        let mut file = self.0.borrow_mut();
        let line = format!("{word}\n");
        let gone =
            file.as_mut().is_some_and(|file| !file.write(line.as_bytes()).is_ok_and(|wrote| wrote == line.len()));
        if gone {
            *file = None;
        }
    }

    /// Tells pm2 again and again what there is to see. Never returns.
    pub async fn shows(&self, manager: &Manager, gateway: &Gateway) {
        gateway.ready.cancelled().await;
        // Not at once: that we are ready is the first word.
        let mut turns = interval_at(Instant::now() + PACE, PACE);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Any other parent of Node's would not know what to make of it.
        while manager.kind == Some(Kind::Pm2) && self.0.borrow().is_some() {
            turns.tick().await;
            let (asked, given) = gateway.courier.calls.count();
            self.says(&json!({ "type": "axm:monitor", "data": {
                "Sockets": { "value": gateway.courier.sockets.len() },
                "Callers waiting": { "value": asked },
                "Calls with clients": { "value": given },
                "Unsent": { "value": gateway.metrics.queued_bytes.get(), "unit": "bytes" },
            }}));
        }
        std::future::pending::<()>().await;
    }
}
