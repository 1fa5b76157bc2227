//! Letters to other instances: those that are answered, and those that are not. What is inside is
//! the courier's business and the inbox's.

use crate::metrics::Metrics;
use bytes::Bytes;
use registry::{
    Envelope, Incarnation, Map, Registry, Routed,
    envelope::{Answer, Message, Refusal},
    epoch_ms,
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// How long a letter may be acted upon. Later nobody remembers why it was written.
pub const LIFE: Duration = Duration::from_secs(2);
/// How much longer its answer is waited for, since the way back takes time, too. All that comes after the deadline of
/// a request is done by then: the contract gives 250 ms, and the answer has to be written as well.
pub const LATE: Duration = Duration::from_millis(200);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// Definitely nothing was done, so it may be asked elsewhere.
    NotDelivered(Undelivered),
    /// It may have been done or not: nobody here can know.
    Silent,
}

/// How it is known that nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// The registry is away, and the letter was not sent.
    Unsent,
    /// The receiver holds no lease.
    Gone,
    /// The receiver does not hear its bell.
    Deaf,
    /// The receiver said so; or the time was over before the letter was sent.
    Refused(Refusal),
}

impl Undelivered {
    /// None where it was delivered, or may have been.
    pub fn of(routed: Routed) -> Option<Self> {
        match routed {
            Routed::Unsent => Some(Self::Unsent),
            Routed::Gone => Some(Self::Gone),
            Routed::Deaf => Some(Self::Deaf),
            Routed::Taken | Routed::Unknown => None,
        }
    }
}

/// The word for a letter in metrics.
pub fn kind(message: &Message) -> &'static str {
    match message {
        Message::Send { .. } => "send",
        Message::Close { .. } => "close",
        Message::Room { .. } => "room",
        Message::Probe { .. } => "probe",
        Message::Who { .. } => "who",
        Message::Answer { .. } => "answer",
        Message::Call { .. } => "call",
        Message::Cancel { .. } => "cancel",
        Message::OfCall { .. } => "of_call",
        Message::Follow { .. } => "follow",
        Message::Happened(_) => "happened",
        Message::Deliver { .. } => "deliver",
        Message::Instead { .. } => "instead",
        Message::Drain { .. } => "drain",
        Message::Came(_) => "came",
        Message::Waits(_) => "waits",
    }
}

type Waiting = oneshot::Sender<Result<(Answer, Bytes), Undelivered>>;

/// The desk where letters are written and answers come in.
pub struct Letters {
    registry: Registry,
    metrics: Arc<Metrics>,
    last: AtomicU64,
    /// Bounded by time: whoever waits takes its entry away when it is done waiting.
    pending: Mutex<Map<u64, Waiting>>,
}

impl Letters {
    pub fn new(registry: Registry, metrics: Arc<Metrics>) -> Self {
        // From the clock on, so that an answer to a life of this process that is over finds nothing here.
        Self { registry, metrics, last: AtomicU64::new(epoch_ms() << 20), pending: Mutex::default() }
    }

    /// Asks an instance, and waits for its answer until `by` and a little longer, or for as long as
    /// letters live if that is shorter.
    pub async fn ask(
        self: &Arc<Self>,
        to: &Incarnation,
        message: Message,
        body: Bytes,
        by: Instant,
    ) -> Result<(Answer, Bytes), Unheard> {
        let budget = by.saturating_duration_since(Instant::now()).min(LIFE);
        if budget.is_zero() {
            return Err(Unheard::NotDelivered(Undelivered::Refused(Refusal::Expired)));
        }
        let letter = self.compose(message, body, budget);
        let (id, (sender, answered)) = (letter.head.id, oneshot::channel());
        let _waiting = self.wait(id, sender);
        let letters = self.clone();
        self.registry.post(to, &letter, move |routed| {
            if let Some(why) = Undelivered::of(routed) {
                letters.settle(id, Err(why));
            }
        });
        match timeout(budget + LATE, answered).await {
            Ok(Ok(Ok((Answer::Refused(refusal), _)))) => Err(Unheard::NotDelivered(Undelivered::Refused(refusal))),
            Ok(Ok(answer)) => answer.map_err(Unheard::NotDelivered),
            Ok(Err(_)) | Err(_) => Err(Unheard::Silent),
        }
    }

    /// Tells an instance something that it need not answer.
    pub async fn tell(&self, to: &Incarnation, message: Message, body: Bytes) -> Routed {
        self.registry.route(to, &self.compose(message, body, LIFE)).await
    }

    /// Answers a letter. An answer that finds no way is an answer too late.
    pub fn answer(&self, to: &Incarnation, re: u64, answer: Answer, body: Bytes) {
        let letter = self.compose(Message::Answer { re, answer }, body, LIFE);
        self.registry.post(to, &letter, |_| ());
    }

    /// Takes an answer in. Nobody may be waiting for it any more.
    pub fn answered(&self, re: u64, answer: Answer, body: Bytes) {
        self.settle(re, Ok((answer, body)));
    }

    fn settle(&self, id: u64, what: Result<(Answer, Bytes), Undelivered>) {
        let waiting = self.pending().remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send(what);
        }
    }

    /// A letter that may be acted upon for so long.
    pub fn compose(&self, message: Message, body: Bytes, life: Duration) -> Envelope {
        self.metrics.letter_sent(kind(&message));
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1);
        let until = self.registry.now_ms().saturating_add(life);
        Envelope::new(id, self.registry.incarnation(), until, message, body)
    }

    fn wait(&self, id: u64, waiting: Waiting) -> Wait<'_> {
        self.pending().insert(id, waiting);
        Wait { letters: self, id }
    }

    /// A panic while the lock was held leaves a map that can be used: every step is whole.
    fn pending(&self) -> MutexGuard<'_, Map<u64, Waiting>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits for an answer, for as long as this lives.
struct Wait<'a> {
    letters: &'a Letters,
    id: u64,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.letters.pending().remove(&self.id);
    }
}
