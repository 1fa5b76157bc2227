//! The feed of what happens: who connects, selects a store and leaves, and what comes of calls; here, or on all
//! instances. It promises nothing but what happens from now on, to whoever keeps up: nothing is kept, and while nobody
//! looks nothing is written, and no letter is sent.

/// Hearing what happens on the other instances.
mod follow;
/// Telling others what happens here.
mod forward;

use crate::session::Desk;
use follow::Following;
use forward::Followers;
use registry::{Ending, SocketRecord, epoch_ms};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    join,
    sync::broadcast::{self, error::RecvError},
};
use tokio_util::sync::CancellationToken;

/// What one who looks may be behind. Beyond that it misses something, and is told how much.
const BEHIND_MAX: usize = 1024;

/// Something that happened, and its particulars as JSON.
#[derive(Debug, Clone)]
pub struct Happening {
    pub kind: Cow<'static, str>,
    pub data: Arc<str>,
}

/// The feed of an instance, and through it that of the fleet.
pub struct Feed {
    here: broadcast::Sender<Happening>,
    pub following: Following,
    pub followers: Followers,
}

impl Default for Feed {
    fn default() -> Self {
        let here = broadcast::Sender::new(BEHIND_MAX);
        Self { followers: Followers::of(&here), here, following: Following::default() }
    }
}

/// What somebody looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Local,
    Fleet,
}

/// Somebody who looks.
pub struct Look {
    happenings: broadcast::Receiver<Happening>,
    /// Who of the fleet is heard, for those who look at all of it.
    standing: Option<follow::Watch>,
}

/// Minds the others' feeds while somebody here looks, and tells ours to the others that do; until `stopping`, and then
/// until all is told.
pub async fn run(desk: Arc<Desk>, stopping: CancellationToken) {
    let following = async {
        tokio::select! {
            () = follow::run(&desk) => {}
            () = stopping.cancelled() => {}
        }
    };
    join!(following, forward::run(&desk, &stopping));
}

impl Feed {
    /// Whoever looks hears of all that happens from now on.
    pub fn look(&self, scope: Scope) -> Look {
        match scope {
            Scope::Local => Look { happenings: self.here.subscribe(), standing: None },
            Scope::Fleet => self.following.look(),
        }
    }

    /// Tells it, if somebody looks.
    pub fn tell(&self, kind: &'static str, particulars: impl FnOnce() -> Value) {
        let channels = [&self.here, &self.following.fleet];
        if channels.iter().any(|channel| channel.receiver_count() > 0) {
            let happening = Happening::new(kind, particulars());
            for channel in channels {
                // Who has closed the feed in this moment has not missed it.
                let _ = channel.send(happening.clone());
            }
        }
    }
}

impl Look {
    /// What happens next; what is missed and who is heard happens, too.
    pub async fn next(&mut self) -> Option<Happening> {
        let standing = async {
            match &mut self.standing {
                Some(standing) => standing.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            standing = standing => Some(standing),
            happening = self.happenings.recv() => or_missed(happening, None),
        }
    }
}

impl Happening {
    fn new(kind: &'static str, mut data: Value) -> Self {
        data["at"] = epoch_ms().into();
        Self { kind: kind.into(), data: data.to_string().into() }
    }

    /// So many are missing here. That of another instance names it; nobody may know how many.
    fn missed(of: Option<&str>, count: Option<u64>) -> Self {
        let mut data = json!({ "count": count });
        if let Some(instance) = of {
            data["instance"] = instance.into();
        }
        Self::new("missed", data)
    }
}

fn or_missed(happening: Result<Happening, RecvError>, of: Option<&str>) -> Option<Happening> {
    match happening {
        Ok(happening) => Some(happening),
        Err(RecvError::Lagged(count)) => Some(Happening::missed(of, Some(count))),
        Err(RecvError::Closed) => None,
    }
}

/// A panic while it was held leaves what can be used: every step is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A socket whose connection has ended.
pub fn ended(record: &SocketRecord, ending: &Ending) -> Value {
    let mut socket = socket(record);
    socket["cause"] = ending.cause.as_str().into();
    socket["closeCode"] = ending.code.into();
    socket["reason"] = ending.reason.as_ref().into();
    socket
}

#[cfg(test)]
mod tests;
