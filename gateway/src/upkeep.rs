//! What is done for sockets that may come back beside all else, so that no client and no caller waits for it: that they
//! were heard, what they have acknowledged, what they have missed, and what waited for them. One task does it, so many
//! at once; it sleeps while there is nothing.

use crate::{
    courier::Courier,
    frame,
    outbox::Refused,
    sockets::{SLICE, Socket},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use registry::{
    Chain, Durability, Resumable, SocketId, SocketRecord,
    log::{Limits, counts},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Done at once.
const AT_ONCE: usize = 64;
/// Acknowledgements that come after each other are told as one.
const ACKS_TOGETHER: Duration = Duration::from_millis(250);
/// Before a client is written to again that had no room.
const ROOM_AFTER: Duration = Duration::from_millis(50);
/// Before a registry is asked again that did not answer.
const ANSWER_AFTER: Duration = Duration::from_secs(1);
/// Read from a log at once.
pub const PAGE: Limits = Limits { entries: 100, bytes: 64 << 10 };
/// How often it is looked whether letters were lost, and how long those may be on their way that were not.
const LETTERS_EVERY: Duration = Duration::from_secs(1);
const LETTERS_TAKE: Duration = Duration::from_secs(3);

/// Something to do for a socket.
#[derive(Clone)]
enum Chore {
    /// It came back and was heard: its token is used up.
    Heard,
    /// It has its seat: what waited for its groups is its own, and its log has what came before.
    Seated,
    /// It is of another store, or there is room for what waits for its groups.
    Moved,
    /// Its log has more than was written to it.
    Behind,
    Acked,
}

/// What is to be done, in the order of time. Not more than some for each socket.
#[derive(Default)]
pub struct Upkeep {
    chores: Mutex<Chores>,
    wake: Notify,
}

#[derive(Default)]
struct Chores {
    due: BTreeMap<(Instant, u64), (Chore, Arc<Socket>)>,
    count: u64,
}

impl Upkeep {
    /// A socket that came back was heard.
    pub fn heard(&self, socket: &Arc<Socket>) {
        self.put(Chore::Heard, socket.clone(), Duration::ZERO);
    }

    /// A socket has its seat.
    pub fn seated(&self, socket: &Arc<Socket>) {
        self.put(Chore::Seated, socket.clone(), Duration::ZERO);
    }

    /// A socket has selected a store.
    pub fn moved(&self, socket: &Arc<Socket>) {
        self.put(Chore::Moved, socket.clone(), Duration::ZERO);
    }

    /// A socket has fallen behind its log.
    pub fn behind(&self, socket: &Arc<Socket>) {
        self.put(Chore::Behind, socket.clone(), Duration::ZERO);
    }

    /// A client has acknowledged something, and more will follow.
    pub fn acked(&self, socket: &Arc<Socket>) {
        self.put(Chore::Acked, socket.clone(), ACKS_TOGETHER);
    }

    /// A client has acknowledged much.
    pub fn acked_much(&self, socket: &Arc<Socket>) {
        self.put(Chore::Acked, socket.clone(), Duration::ZERO);
    }

    fn put(&self, chore: Chore, socket: Arc<Socket>, after: Duration) {
        let mut chores = self.chores();
        chores.count += 1;
        let key = (Instant::now() + after, chores.count);
        chores.due.insert(key, (chore, socket));
        drop(chores);
        self.wake.notify_one();
    }

    fn next_due(&self) -> Option<Instant> {
        self.chores().due.first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&self) -> Option<(Chore, Arc<Socket>)> {
        let mut chores = self.chores();
        let first = chores.due.first_entry().filter(|first| first.key().0 <= Instant::now());
        first.map(|first| first.remove())
    }

    /// A panic while the lock was held leaves a list that can be used: every step is whole.
    fn chores(&self) -> MutexGuard<'_, Chores> {
        self.chores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does it, until the instance ends.
pub async fn run(courier: Courier, wants: Durability) {
    let mut doing = FuturesUnordered::<BoxFuture<'_, ()>>::new();
    doing.push(watch_letters(&courier).boxed());
    loop {
        while doing.len() <= AT_ONCE
            && let Some((chore, socket)) = courier.upkeep.take_due()
        {
            doing.push(do_one(&courier, chore, socket, wants).boxed());
        }
        let next = courier.upkeep.next_due().filter(|_| doing.len() <= AT_ONCE);
        tokio::select! {
            () = courier.upkeep.wake.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            Some(()) = doing.next() => {}
        }
    }
}

async fn do_one(courier: &Courier, chore: Chore, socket: Arc<Socket>, wants: Durability) {
    let again = match chore {
        Chore::Heard => confirm(courier, &socket).await,
        Chore::Seated => {
            // Until now nobody has looked at its log, and what its groups were left must not hold that up.
            courier.upkeep.behind(&socket);
            courier.upkeep.moved(&socket);
            courier.came(&socket).await;
            None
        }
        Chore::Moved => take_mail(courier, &socket, wants).await,
        Chore::Behind => catch_up(courier, &socket).await,
        Chore::Acked => tell_acked(courier, &socket).await,
    };
    if let Some(after) = again {
        courier.upkeep.put(chore, socket, after);
    }
}

async fn confirm(courier: &Courier, socket: &Arc<Socket>) -> Option<Duration> {
    let confirmed = |record: &SocketRecord| {
        let resumable = record.resumable.map(|resumable| Resumable { confirmed: record.attempt.n, ..resumable });
        Some(SocketRecord { resumable, ..record.clone() })
    };
    courier.change(socket, confirmed).await;
    None
}

/// What was left for its user or store while that had no socket goes into its log, which is looked at then.
async fn take_mail(courier: &Courier, socket: &Arc<Socket>, wants: Durability) -> Option<Duration> {
    let (mut is_told, mut waits) = (true, false);
    for group in socket.record().called_by() {
        match courier.registry.take_mail(group, socket.id, wants).await {
            Ok(mail) => waits |= mail.waits,
            Err(_) => is_told = false,
        }
    }
    if let Some(cursor) = &socket.cursor {
        cursor.set_mail_waits(waits);
    }
    courier.doubt(socket);
    Some(ANSWER_AFTER).filter(|_| !is_told && socket.line.is_open())
}

async fn tell_acked(courier: &Courier, socket: &Arc<Socket>) -> Option<Duration> {
    let cursor = socket.cursor.as_ref()?;
    if courier.registry.ack(socket.id, cursor.acked()?).await.is_err() {
        // One that is lost costs room in the log, and a full one refuses what would be acknowledged next.
        cursor.is_untold();
        return Some(ANSWER_AFTER).filter(|_| socket.line.is_open());
    }
    if cursor.take_mail_waits() {
        courier.upkeep.moved(socket);
    }
    None
}

/// Writes what the log has and the connection has not. Where something of it is missing its client is told to begin
/// anew.
async fn catch_up(courier: &Courier, socket: &Arc<Socket>) -> Option<Duration> {
    let (line, cursor) = (&socket.line, socket.cursor.as_ref()?);
    while line.is_open() {
        if line.is_half_full() {
            return Some(ROOM_AFTER);
        }
        let from = cursor.begin();
        let Ok(page) = courier.registry.read_log(socket.id, from, PAGE).await else { return Some(ANSWER_AFTER) };
        let now = courier.registry.now_ms();
        if page.follows(from, now) == Chain::Broken {
            if line.send(frame::reset()) == Err(Refused::Full) {
                return Some(ROOM_AFTER);
            }
            let first = page.entries.iter().find(|entry| entry.until > now).map(|first| first.prev);
            let end = page.entries.last().filter(|_| page.more).map_or(page.tail, |last| last.seq);
            cursor.skip_to(first.unwrap_or(end));
        }
        for entry in page.entries.iter().filter(|entry| entry.until > now) {
            match cursor.catch_up(entry.seq, counts(&entry.text), || line.send(frame::numbered(&entry.text, entry.seq)))
            {
                Ok(()) => {}
                Err(Refused::Full) => return Some(ROOM_AFTER),
                Err(Refused::Closing) => return None,
            }
        }
        if !page.more && cursor.has_caught_up() {
            return None;
        }
    }
    None
}

/// Deliveries are told by letter. Where letters may have been lost, every log is looked at.
async fn watch_letters(courier: &Courier) {
    let mut lost = courier.registry.letters_lost();
    loop {
        sleep_until(Instant::now() + LETTERS_EVERY).await;
        let now = courier.registry.letters_lost();
        if std::mem::replace(&mut lost, now) != now {
            sleep_until(Instant::now() + LETTERS_TAKE).await;
            let mut after = SocketId::FIRST;
            loop {
                let slice = courier.sockets.walk(after, SLICE);
                let Some(last) = slice.last() else { break };
                after = last.id;
                slice.iter().for_each(|socket| courier.doubt(socket));
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Courier {
    /// A socket may have missed something of its log.
    pub fn doubt(&self, socket: &Arc<Socket>) {
        if socket.cursor.as_ref().is_some_and(|cursor| cursor.doubt()) {
            self.upkeep.behind(socket);
        }
    }
}
