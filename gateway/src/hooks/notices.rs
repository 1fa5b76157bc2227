//! `EVENTS_URL` hears of the fleet, too: that fewer are connected than `MIN_SOCKETS`, and that there are enough again. Each
//! instance tells what it sees. That is nothing that anybody has to know for good, so no registry keeps it: an application
//! that does not take it for some minutes has it in the log and in the metrics.

use super::{Hook, untold};
use crate::metrics::Metrics;
use registry::names::mark;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Those that wait while the application is away. Beyond it the oldest go: what is true now says more.
const WAITING_MAX: usize = 16;
/// For so long it is tried to tell one, with pauses that grow up to the longest.
const TOLD_WITHIN: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Something about the fleet.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Below,
    Back,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Below => "sockets.below_threshold",
            Self::Back => "sockets.back",
        }
    }
}

#[derive(Debug)]
struct Notice {
    kind: Kind,
    id: String,
    text: String,
}

/// Those that wait to be told.
#[derive(Debug, Default)]
pub struct Notices {
    waiting: Mutex<VecDeque<Notice>>,
    came: Notify,
}

impl Notices {
    pub fn add(&self, kind: Kind, data: &Value) {
        let timestamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let id = ["n_", &mark()].concat();
        let text = json!({ "type": kind.as_str(), "id": id, "timestamp": timestamp, "data": data }).to_string();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(Notice { kind, id, text });
        drop(waiting);
        self.came.notify_one();
    }

    fn next(&self) -> Option<Notice> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Tells them, one after the other, until `stopping`.
    pub async fn keep(&self, hook: &Hook, metrics: &Metrics, stopping: &CancellationToken) {
        let tells = async {
            loop {
                match self.next() {
                    Some(notice) => tell(hook, metrics, &notice).await,
                    None => self.came.notified().await,
                }
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tells => {}
        }
    }
}

async fn tell(hook: &Hook, metrics: &Metrics, Notice { kind, id, text }: &Notice) {
    let (began, mut pause) = (Instant::now(), PAUSE);
    loop {
        let answer = hook.tell(id, text.clone().into()).await;
        let Err(untold) = untold::of(hook, metrics, kind.as_str(), answer) else { return };
        let wait = untold.wait(pause);
        if began.elapsed() + wait > TOLD_WITHIN {
            return warn!("EVENTS_URL was not told {}: {untold}", kind.as_str());
        }
        sleep(wait).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
