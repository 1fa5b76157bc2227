//! The bell of this instance: a subscription of its own on a connection of its own, trusted only when it is
//! confirmed and only while our own beats are heard on it. What was missed is fetched from the mailbox.

use super::{
    Redis,
    link::Fault,
    post::{BESIDE, SEVERAL, apart},
    resp::Said,
    scripts::text,
    wire::Wire,
};
use crate::{
    all::Post,
    envelope::Envelope,
    names::Incarnation,
    rules::{Cursor, Heard},
    seen::Seen,
};
use bytes::Bytes;
use redis::{Cmd, RedisError, Value, cmd};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

/// How often it is looked whether a beat was answered.
const FENCE_LOOK: Duration = Duration::from_millis(2);
/// What the scripts can count up to, and no message is ever numbered.
const NUMBER_MAX: u64 = 1 << 53;
/// What connecting and subscribing may take each.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to subscribe.
const RETRY: Duration = Duration::from_millis(200);
/// Letters fetched at once.
const FETCHED_AT_ONCE: usize = 100;
/// Letters by whose sender and id a repetition is known.
const READ_MAX: usize = 8192;
/// How long what is missing is asked for while Redis does not answer: twice what one command may take. The mailbox
/// would hold it for longer, but all that came later waits behind it, and most letters are worth nothing so late.
const FILLED_WITHIN: Duration = Duration::from_secs(4);
/// Between two such questions.
const ASKED_AGAIN: Duration = Duration::from_millis(50);

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

/// Reads one bell, from one incarnation's begin to its end.
struct Reader<'a> {
    redis: &'a Redis,
    own: Incarnation,
    cursor: Option<Cursor>,
    read: Seen,
}

/// What lay on the bell or in the mailbox.
enum Opened {
    Letters(Vec<Envelope>),
    /// No letter of a version we know.
    Foreign,
    /// The name of a letter that lies beside, and cannot be had.
    Lost,
}

impl Redis {
    /// Keeps a subscription. Never returns.
    pub(super) async fn keep_bell(&self) {
        let mut reader = Reader::of(self);
        loop {
            self.link.is_back().await;
            if reader.own != self.own() {
                reader = Reader::of(self);
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

impl<'a> Reader<'a> {
    /// One who has read nothing yet. Letters to an earlier life of ours never come here.
    fn of(redis: &'a Redis) -> Self {
        Self { redis, own: redis.own(), cursor: None, read: Seen::new(READ_MAX) }
    }

    /// Subscribes on a fresh connection to whoever is the master now, and reads until that ends.
    async fn listen(&mut self) -> Result<&'static str, RedisError> {
        let redis = self.redis;
        let channel = redis.keys.bell(self.own.mark());
        let node = redis.link.servers.master_of(super::keys::slot(&channel)).await?;
        let mut wire = Wire::connect(redis.link.url(), &node).await?;
        self.subscribe(&mut wire, &channel).await?;
        redis.bell.subscribed.send_replace(true);
        info!("listening to the bell on {node}");
        loop {
            tokio::select! {
                biased;
                () = redis.bell.anew.notified() => return Ok("a fresh one is wanted"),
                said = wire.hear() => {
                    let Said::Push(push) = said? else { continue };
                    match text(push.first()) {
                        "message" | "smessage" => self.rung(push).await,
                        // The slot has moved, or the master is none any more.
                        "unsubscribe" | "sunsubscribe" => return Ok("Redis took the subscription away"),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Trusted when Redis has confirmed it.
    async fn subscribe(&mut self, wire: &mut Wire, channel: &str) -> Result<(), RedisError> {
        let verb = if self.redis.link.is_cluster() { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        wire.say(cmd(verb).arg(channel)).await?;
        let confirmed = async {
            loop {
                match wire.hear().await? {
                    Said::Answer(value) => _ = value.extract_error()?,
                    Said::Push(push) if matches!(text(push.first()), "subscribe" | "ssubscribe") => return Ok(()),
                    Said::Push(_) => {}
                }
            }
        };
        let unconfirmed = |_| Err(std::io::Error::other("the subscription was not confirmed").into());
        timeout(PATIENCE, confirmed).await.unwrap_or_else(unconfirmed)
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
            Some(_) => self.letters(n, payload).await,
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

    async fn letters(&mut self, n: u64, payload: Bytes) {
        let letters = match self.open(payload, Instant::now() + FILLED_WITHIN).await {
            Opened::Letters(letters) => letters,
            Opened::Foreign => return self.foreign(),
            // The number stays where it is: if this is a letter of ours, the next one or the next ring shows the gap.
            Opened::Lost => return,
        };
        let letters = self.told_apart(letters);
        let repeated = letters.iter().all(|(fresh, _)| !fresh);
        let heard = self.cursor.get_or_insert(Cursor(n.saturating_sub(1))).letter(n, repeated);
        if let Heard::Gap { from, to } = heard {
            self.fetch(from, to).await;
        }
        if heard == Heard::Rewound {
            debug!("the numbers on the bell went back to {n}");
        }
        self.deliver(letters).await;
        self.redis.bell.read.store(n, Ordering::Relaxed);
    }

    /// Fetches what was missed from the mailbox, in order. What comes on the bell meanwhile waits.
    async fn fetch(&mut self, from: u64, to: u64) {
        self.redis.counters.gaps.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + FILLED_WITHIN;
        let (mut next, mut found) = (from, 0);
        while next <= to {
            let mut command = cmd("XRANGE");
            command.arg(self.redis.keys.mail(self.own.mark())).arg(format!("{next}-0")).arg(format!("{to}-0"));
            command.arg("COUNT").arg(FETCHED_AT_ONCE);
            let Ok(Value::Array(entries)) = self.ask(&command, until).await else { break };
            let before = next;
            for (n, payload) in entries.into_iter().filter_map(read_entry) {
                next = n + 1;
                match self.open(payload, until).await {
                    Opened::Letters(letters) => {
                        let letters = self.told_apart(letters);
                        self.deliver(letters).await;
                    }
                    Opened::Foreign => self.foreign(),
                    Opened::Lost => continue,
                }
                found += 1;
            }
            if next == before {
                break;
            }
        }
        let unfilled = (to + 1 - from).saturating_sub(found);
        if unfilled > 0 {
            self.redis.counters.gaps_unfilled.fetch_add(unfilled, Ordering::Relaxed);
            warn!("{unfilled} letters to this instance were lost with Redis; their senders hear nothing");
        }
    }

    /// Asks until there is an answer: a link that breaks is back before the mailbox forgets.
    async fn ask(&self, command: &Cmd, until: Instant) -> Result<Value, Fault> {
        loop {
            match self.redis.link.ask(command).await {
                Err(Fault::Down | Fault::Away) if Instant::now() < until => sleep(ASKED_AGAIN).await,
                said => return said,
            }
        }
    }

    async fn open(&self, payload: Bytes, until: Instant) -> Opened {
        let bytes = match payload.split_first() {
            Some((&BESIDE, name)) => {
                let Ok(name) = std::str::from_utf8(name) else { return Opened::Foreign };
                match self.ask(cmd("GET").arg(self.redis.keys.body(self.own.mark(), name)), until).await {
                    Ok(Value::BulkString(bytes)) => Bytes::from(bytes),
                    _ => return Opened::Lost,
                }
            }
            _ => payload,
        };
        let letters = match bytes.first() {
            Some(&SEVERAL) => apart(bytes.slice(1..)).unwrap_or_default(),
            _ => vec![bytes],
        };
        let known: Vec<_> = letters.iter().filter_map(Envelope::decode).collect();
        if known.is_empty() {
            return Opened::Foreign;
        }
        (known.len()..letters.len()).for_each(|_| self.foreign());
        Opened::Letters(known)
    }

    /// Which of them were not read before.
    fn told_apart(&mut self, letters: Vec<Envelope>) -> Vec<(bool, Envelope)> {
        let mut is_new = |letter: &Envelope| self.read.is_new((letter.head.from.mark(), letter.head.id));
        letters.into_iter().map(|letter| (is_new(&letter), letter)).collect()
    }

    async fn deliver(&self, letters: Vec<(bool, Envelope)>) {
        for (fresh, letter) in letters {
            if !fresh {
                self.redis.counters.repeated.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            // By now the others may have taken us for dead, and told its sender so. The next beat says, and a letter
            // may overtake its answer.
            while self.redis.is_fenced() && self.own == self.redis.own() {
                sleep(FENCE_LOOK).await;
            }
            if self.own == self.redis.own() {
                self.redis.hand_over(Post::Letter(letter)).await;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RedisUrl;
    use servers::Server;

    /// Messages that wait for a reader that is slow.
    const WAITING: u64 = 10_000;

    #[tokio::test]
    async fn a_cut_connection_ends_after_all_that_came_before() {
        let server = Server::start();
        let url = RedisUrl::parse(&server.url()).unwrap();
        let mut wire = Wire::connect(&url, &url.nodes[0]).await.unwrap();
        wire.say(cmd("SUBSCRIBE").arg("bell")).await.unwrap();
        assert!(matches!(wire.hear().await, Ok(Said::Push(_))));
        server.ask(&["EVAL", &format!("for n = 1, {WAITING} do redis.call('PUBLISH', 'bell', n) end"), "0"]);
        server.cut_subscribers();
        let mut heard = 0;
        while timeout(Duration::from_secs(30), wire.hear()).await.expect("an end").is_ok() {
            heard += 1;
        }
        assert!(heard <= WAITING, "{heard}");
    }
}
