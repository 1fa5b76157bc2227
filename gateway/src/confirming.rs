//! Those who came back and were heard: from then on the token that they came with opens nothing, on any instance.
//! Told beside all else, so that no client waits for it; only of sockets that may come back.

use crate::{session::Desk, sockets::Socket};
use futures_util::{StreamExt, stream::FuturesUnordered};
use registry::{Resumable, SocketRecord};
use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Told at once.
const AT_ONCE: usize = 64;

/// Who was heard, and is not told yet. Not more than there are sockets.
#[derive(Default)]
pub struct Confirming {
    heard: Mutex<Vec<Arc<Socket>>>,
    wake: Notify,
}

impl Confirming {
    /// A socket that came back was heard.
    pub fn note(&self, socket: &Arc<Socket>) {
        self.heard().push(socket.clone());
        self.wake.notify_one();
    }

    fn heard(&self) -> MutexGuard<'_, Vec<Arc<Socket>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the registry, until the instance ends.
pub async fn run(desk: Arc<Desk>) {
    let mut telling = FuturesUnordered::new();
    let mut due = Vec::new().into_iter();
    loop {
        if due.len() == 0 {
            due = mem::take(&mut *desk.confirming.heard()).into_iter();
        }
        while telling.len() < AT_ONCE
            && let Some(socket) = due.next()
        {
            telling.push(confirm(&desk, socket));
        }
        tokio::select! {
            () = desk.confirming.wake.notified(), if due.len() == 0 => {}
            Some(()) = telling.next() => {}
        }
    }
}

async fn confirm(desk: &Desk, socket: Arc<Socket>) {
    let confirmed = |record: &SocketRecord| {
        let resumable = record.resumable.map(|resumable| Resumable { confirmed: record.attempt.n, ..resumable });
        Some(SocketRecord { resumable, ..record.clone() })
    };
    desk.courier.change(&socket, confirmed).await;
}
