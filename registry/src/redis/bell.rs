//! The bell of this instance: a subscription of its own on a connection of its own, trusted only when it is
//! confirmed and only while our own beats are heard on it. What was missed is fetched from the mailbox.

use super::{Redis, post::BESIDE, scripts::text};
use crate::{
    all::Post,
    envelope::Envelope,
    names::Incarnation,
    rules::{Cursor, Heard},
};
use bytes::Bytes;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, Value, aio::MultiplexedConnection, cmd};
use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

/// Messages between the connection and us. What finds no room is fetched from the mailbox.
const WAITING_MAX: usize = 4096;
/// What the scripts can count up to, and no message is ever numbered.
const NUMBER_MAX: u64 = 1 << 53;
/// What connecting and subscribing may take each.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to subscribe.
const RETRY: Duration = Duration::from_millis(200);
/// Letters fetched at once.
const FETCHED_AT_ONCE: usize = 100;
/// Letters by whose id a repetition is known.
const READ_MAX: usize = 8192;

/// What the other parts know of the bell.
pub struct Bell {
    /// A fresh subscription is wanted.
    pub anew: Notify,
    /// Whether a subscription is confirmed.
    subscribed: watch::Sender<bool>,
    /// How often our own ring was heard.
    rings: AtomicU64,
    /// Up to which number everything was read.
    read: AtomicU64,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            anew: Notify::new(),
            subscribed: watch::Sender::new(false),
            rings: AtomicU64::new(0),
            read: AtomicU64::new(0),
        }
    }
}

impl Bell {
    pub fn is_subscribed(&self) -> bool {
        *self.subscribed.borrow()
    }

    /// Waits for a confirmed subscription.
    pub async fn subscribed(&self) {
        // The sender lives as long as we do.
        let _ = self.subscribed.subscribe().wait_for(|subscribed| *subscribed).await;
    }

    pub fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }

    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// Ids of letters that were read, the oldest forgotten first.
struct Read {
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Read {
    fn new() -> Self {
        Self { hasher: RandomState::new(), known: HashSet::new(), order: VecDeque::new() }
    }

    /// True the first time.
    fn enter(&mut self, letter: &Envelope) -> bool {
        let key = self.hasher.hash_one((letter.head.from.mark(), letter.head.id));
        if !self.known.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > READ_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Reads one bell, from one incarnation's begin to its end.
struct Reader<'a> {
    redis: &'a Redis,
    own: Incarnation,
    cursor: Option<Cursor>,
    read: Read,
}

impl Redis {
    /// Keeps a subscription. Never returns.
    pub(super) async fn keep_bell(&self) {
        let mut reader = Reader { redis: self, own: self.own(), cursor: None, read: Read::new() };
        loop {
            self.link.is_back().await;
            if reader.own != self.own() {
                reader = Reader { redis: self, own: self.own(), cursor: None, read: Read::new() };
            }
            let why = match reader.listen().await {
                Ok(why) => why.to_owned(),
                Err(error) => error.to_string(),
            };
            self.bell.subscribed.send_replace(false);
            debug!("the subscription ended: {why}");
            sleep(RETRY.mul_f64(0.5 + fastrand::f64())).await;
        }
    }
}

impl Reader<'_> {
    /// Subscribes on a fresh connection to whoever is the master now, and reads until that ends.
    async fn listen(&mut self) -> Result<&'static str, RedisError> {
        let redis = self.redis;
        let channel = redis.keys.bell(self.own.mark());
        let node = redis.link.servers.master_of(super::keys::slot(&channel)).await?;
        let (sender, mut pushes) = mpsc::channel::<PushInfo>(WAITING_MAX);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            // Called by the connection's driver, which must never wait: a hole in the numbers tells the rest.
            .set_push_sender(move |push: PushInfo| match sender.try_send(push) {
                Err(mpsc::error::TrySendError::Closed(_)) => Err(redis::aio::SendError),
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            });
        let client = Client::open(redis.link.url().server(&node)?)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        self.subscribe(&mut connection, &channel, &mut pushes).await?;
        redis.bell.subscribed.send_replace(true);
        info!("listening to the bell on {node}");
        loop {
            tokio::select! {
                biased;
                () = redis.bell.anew.notified() => return Ok("a fresh one is wanted"),
                push = pushes.recv() => match push {
                    None => return Ok("the connection ended"),
                    Some(PushInfo { kind: PushKind::Message | PushKind::SMessage, data }) => self.rung(data).await,
                    Some(PushInfo { kind: PushKind::Disconnection, .. }) => return Ok("the connection broke"),
                    // The slot has moved, or the master is none any more.
                    Some(PushInfo { kind: PushKind::Unsubscribe | PushKind::SUnsubscribe, .. }) => {
                        return Ok("Redis took the subscription away");
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// Trusted when Redis has confirmed it.
    async fn subscribe(
        &mut self,
        connection: &mut MultiplexedConnection,
        channel: &str,
        pushes: &mut mpsc::Receiver<PushInfo>,
    ) -> Result<(), RedisError> {
        let verb = if self.redis.link.is_cluster() { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        cmd(verb).arg(channel).exec_async(connection).await?;
        let confirmed = async {
            while let Some(push) = pushes.recv().await {
                if matches!(push.kind, PushKind::Subscribe | PushKind::SSubscribe) {
                    return true;
                }
            }
            false
        };
        match timeout(PATIENCE, confirmed).await {
            Ok(true) => Ok(()),
            _ => Err(std::io::Error::other("the subscription was not confirmed").into()),
        }
    }

    /// A message: a number, a line end, and a letter, the name of one, or nothing: that is our own ring.
    async fn rung(&mut self, mut data: Vec<Value>) {
        let Some(Value::BulkString(bytes)) = data.pop() else { return self.foreign() };
        let bytes = Bytes::from(bytes);
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return self.foreign() };
        let Some(n) = std::str::from_utf8(&bytes[..end])
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|n| *n < NUMBER_MAX)
        else {
            return self.foreign();
        };
        let payload = bytes.slice(end + 1..);
        match payload.first() {
            None => self.ring(n).await,
            // The count begins anew with this lease.
            Some(b'!') => {
                self.cursor = Some(Cursor(n));
                self.heard_ring(n);
            }
            Some(_) => self.letter(n, payload).await,
        }
    }

    async fn ring(&mut self, n: u64) {
        let heard = match &mut self.cursor {
            Some(cursor) => cursor.ring(n),
            None => {
                self.cursor = Some(Cursor(n));
                Heard::Due
            }
        };
        if let Heard::Gap { from, to } = heard {
            self.fetch(from, to).await;
        }
        self.heard_ring(n);
    }

    fn heard_ring(&self, n: u64) {
        self.redis.bell.read.store(n, Ordering::Relaxed);
        self.redis.bell.rings.fetch_add(1, Ordering::Relaxed);
    }

    async fn letter(&mut self, n: u64, payload: Bytes) {
        let Some(letter) = self.open(payload).await else { return };
        let fresh = self.read.enter(&letter);
        let heard = self.cursor.get_or_insert(Cursor(n.saturating_sub(1))).letter(n, !fresh);
        if let Heard::Gap { from, to } = heard {
            self.fetch(from, to).await;
        }
        if heard == Heard::Rewound {
            debug!("the numbers on the bell went back to {n}");
        }
        self.deliver(fresh, letter).await;
        self.redis.bell.read.store(n, Ordering::Relaxed);
    }

    /// Fetches what was missed from the mailbox, in order.
    async fn fetch(&mut self, from: u64, to: u64) {
        self.redis.counters.gaps.fetch_add(1, Ordering::Relaxed);
        let (mut next, mut found) = (from, 0);
        while next <= to {
            let mut command = cmd("XRANGE");
            command.arg(self.redis.keys.mail(self.own.mark())).arg(format!("{next}-0")).arg(format!("{to}-0"));
            command.arg("COUNT").arg(FETCHED_AT_ONCE);
            let Ok(Value::Array(entries)) = self.redis.link.ask(&command).await else { break };
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let Some((n, payload)) = read_entry(entry) else { continue };
                next = n + 1;
                found += 1;
                if let Some(letter) = self.open(payload).await {
                    let fresh = self.read.enter(&letter);
                    self.deliver(fresh, letter).await;
                }
            }
        }
        let unfilled = (to + 1 - from).saturating_sub(found);
        if unfilled > 0 {
            self.redis.counters.gaps_unfilled.fetch_add(unfilled, Ordering::Relaxed);
            warn!("{unfilled} letters to this instance were lost with Redis; their senders hear nothing");
        }
    }

    async fn open(&self, payload: Bytes) -> Option<Envelope> {
        let bytes = match payload.split_first() {
            Some((&BESIDE, name)) => {
                let name = std::str::from_utf8(name).ok()?;
                match self.redis.link.ask(cmd("GET").arg(self.redis.keys.body(self.own.mark(), name))).await {
                    Ok(Value::BulkString(bytes)) => Bytes::from(bytes),
                    _ => Bytes::new(),
                }
            }
            _ => payload,
        };
        let letter = Envelope::decode(&bytes);
        if letter.is_none() {
            self.foreign();
        }
        letter
    }

    async fn deliver(&self, fresh: bool, letter: Envelope) {
        match fresh {
            // By now the others may have taken us for dead, and told its sender so.
            true if self.redis.is_fenced() => {}
            true => self.redis.hand_over(Post::Letter(letter)).await,
            false => drop(self.redis.counters.repeated.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn foreign(&self) {
        self.redis.counters.foreign.fetch_add(1, Ordering::Relaxed);
    }
}

/// An entry of the mailbox: its number, and what was on the bell.
fn read_entry(entry: Value) -> Option<(u64, Bytes)> {
    let Value::Array(mut parts) = entry else { return None };
    let fields = parts.pop()?;
    let n = text(parts.first()).split('-').next()?.parse().ok()?;
    let Value::Array(mut fields) = fields else { return None };
    match fields.pop()? {
        Value::BulkString(bytes) => Some((n, bytes.into())),
        _ => None,
    }
}
