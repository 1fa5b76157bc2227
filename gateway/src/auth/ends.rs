//! Sockets whose credential ends while they are connected: at its time, or when it is revoked.

use super::{book::Version, grants::Grants};
use crate::{
    close::Close,
    gateway::Gateway,
    sockets::{SLICE, Socket},
};
use registry::{Session, SocketId, SocketRecord, epoch_ms};
use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};

/// Between two looks at a clock that somebody may set.
const LOOK: Duration = Duration::from_secs(60);
/// Before Redis is asked again that did not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// When connections here end, by this host's clock. A socket that comes back is another connection.
#[derive(Default)]
pub struct Ends {
    due: Mutex<BTreeSet<(u64, SocketId, Session)>>,
    wake: Notify,
}

impl Ends {
    /// A socket came in with a credential that ends, or its end was moved.
    pub fn watch(&self, record: &SocketRecord, until: Option<u64>) {
        if let Some(until) = until {
            self.due().insert((until, record.id, record.session));
            self.wake.notify_one();
        }
    }

    pub fn forget(&self, record: &SocketRecord, until: Option<u64>) {
        if let Some(until) = until {
            self.due().remove(&(until, record.id, record.session));
        }
    }

    fn take_due(&self, now: u64) -> Option<(SocketId, Session)> {
        let mut due = self.due();
        due.first().filter(|(until, ..)| *until <= now)?;
        due.pop_first().map(|(_, id, session)| (id, session))
    }

    fn next_due(&self) -> Option<u64> {
        self.due().first().map(|(until, ..)| *until)
    }

    /// A panic while the lock was held leaves a list that can be used: every step is whole.
    fn due(&self) -> MutexGuard<'_, BTreeSet<(u64, SocketId, Session)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a credential.
enum Judged {
    Good,
    Ended(&'static str),
    /// Nobody can say.
    Blind,
}

const REVOKED: &str = "API key revoked";

/// Whether it is good still, and says what it said when its socket came.
async fn judge(gateway: &Gateway, record: &SocketRecord, grants: &Grants) -> Judged {
    let is_over = |until: Option<u64>| until.is_some_and(|until| until <= epoch_ms());
    match (grants.key, &gateway.auth.book) {
        (Some(digest), Some(book)) => match book.still(digest).await {
            Ok(None) if book.has_lost(digest) => Judged::Good,
            Ok(None) => Judged::Ended(REVOKED),
            Ok(Some(key)) if is_over(key.expires_at) => Judged::Ended("API key expired"),
            Ok(Some(key)) if !grants.is_as(&key) => Judged::Ended("API key changed"),
            Ok(Some(key)) => {
                gateway.ends.watch(record, key.expires_at.filter(|at| Some(*at) != grants.until));
                Judged::Good
            }
            Err(_) if is_over(grants.until) => Judged::Ended("API key expired"),
            Err(_) => Judged::Blind,
        },
        _ if is_over(grants.until) => Judged::Ended("session token expired"),
        _ => Judged::Good,
    }
}

/// Ends a socket whose credential is good no more. Its own task writes the verdict.
pub async fn look(gateway: &Gateway, socket: &Socket) {
    if let Some(grants) = &socket.grants
        && let Judged::Ended(reason) = judge(gateway, &socket.record(), grants).await
    {
        socket.line.close(Close::CredentialEnded(reason));
    }
}

/// Ends them, to the millisecond.
pub async fn run(gateway: Arc<Gateway>) {
    let at_their_time = async {
        loop {
            while let Some((id, session)) = gateway.ends.take_due(epoch_ms()) {
                let socket = gateway.courier.sockets.get(id);
                if let Some(socket) = socket.filter(|socket| socket.record().session == session) {
                    look(&gateway, &socket).await;
                }
            }
            let next = gateway.ends.next_due().map_or(LOOK, |at| Duration::from_millis(at.saturating_sub(epoch_ms())));
            tokio::select! {
                () = sleep(next.min(LOOK)) => {}
                () = gateway.ends.wake.notified() => {}
            }
        }
    };
    let when_keys_change = async {
        let Some(book) = &gateway.auth.book else { return };
        let mut seen = Version::default();
        loop {
            book.changed(&mut seen).await;
            while !look_at_all(&gateway).await {
                sleep(AGAIN).await;
            }
        }
    };
    let published = async {
        if let Some(tokens) = &gateway.auth.tokens {
            tokens.keep(&gateway.metrics).await;
        }
    };
    tokio::join!(at_their_time, when_keys_change, published);
}

/// False if somebody's key could not be looked up. A key is looked up once, however many came with it.
async fn look_at_all(gateway: &Gateway) -> bool {
    let (mut after, mut revoked, mut all) = (SocketId::FIRST, HashSet::new(), true);
    loop {
        let slice = gateway.courier.sockets.walk(after, SLICE);
        let Some(last) = slice.last() else { return all };
        after = last.id;
        for socket in slice {
            let Some((grants, digest)) = socket.grants.as_ref().and_then(|held| Some((held, held.key?))) else {
                continue;
            };
            let judged = match revoked.contains(&digest) {
                true => Judged::Ended(REVOKED),
                false => judge(gateway, &socket.record(), grants).await,
            };
            match judged {
                Judged::Ended(reason) => {
                    if reason == REVOKED {
                        revoked.insert(digest);
                    }
                    socket.line.close(Close::CredentialEnded(reason));
                }
                Judged::Good => {}
                Judged::Blind => all = false,
            }
        }
        tokio::task::yield_now().await;
    }
}
