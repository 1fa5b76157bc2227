//! The calls in flight: those that callers here wait for, and those that sockets here were given. One task
//! does what cannot be done at once: it tells who waits that a socket has its call, tries letters again that
//! found no way, and notices when an owner is gone.

mod ears;
mod given;
mod owed;
mod posts;
mod queued;
mod rounds;
/// What a caller is told in the end.
pub mod told;
mod undelivered;
mod waits;

pub use ears::Ears;
pub use owed::Owed;
pub use posts::Post;
pub use queued::{Asked, Queue, outcome_of, run as run_queue};
pub use rounds::run;
pub use waits::{Waiter, Waits};

use crate::{
    courier::After,
    frame,
    letters::{self, Letters},
    metrics::Metrics,
    outbox::Refused,
    socket::Line,
};
use bytes::Bytes;
use given::{Given, Table};
use registry::{
    CallId, Cause, Ending, Incarnation, Map, Registry, Seen, Session, SocketId, SocketRecord,
    envelope::{LostSocket, Message, Refusal, Word},
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::{Instant, sleep},
};
use undelivered::Undelivered;

/// Words about one call that wait for its caller. Progress beyond it is dropped, an end never is.
const NEWS_MAX: usize = 64;
/// Of these, so many are kept for words that must not be dropped.
const NEWS_KEPT: usize = 16;
/// Between two rounds of the task at least.
const ROUND: Duration = Duration::from_millis(10);
/// Before a letter that found no way is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Answers of clients on their way to other instances; beyond it their sockets wait.
const BESIDE_MAX: usize = 1024;
/// For how long it is tried to tell what a client said to another instance than the one that gave it the call.
const INSTEAD: Duration = Duration::from_secs(5);
/// Calls of ours that are over and still known, to tell a word that comes late from one that was never wanted.
const OVER_MAX: usize = 8192;

/// Where a call was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Here,
    There(Incarnation),
}

/// What a caller hears of its call.
#[derive(Debug)]
pub enum News {
    Accepted(SocketId),
    Progress(SocketId, Bytes),
    /// The client answered, after so many milliseconds.
    Reply(SocketId, u32, Bytes),
    Failed(SocketId, u32, Bytes),
    Lost(Box<LostSocket>),
    Refused(Refusal),
    /// It did not get to where it was sent.
    Undelivered(letters::Undelivered),
    /// The instance that has it is gone.
    OwnerLost,
    /// Whatever becomes of it, nothing will be heard here any more.
    CutOff,
}

impl News {
    pub fn of(word: Word, body: Bytes) -> Self {
        match word {
            Word::Accepted(socket) => Self::Accepted(socket),
            Word::Progress(socket) => Self::Progress(socket, body),
            Word::Reply(socket, ms) => Self::Reply(socket, ms, body),
            Word::Failed(socket, ms) => Self::Failed(socket, ms, body),
            Word::Lost(lost) => Self::Lost(lost),
            Word::Refused(refusal) => Self::Refused(refusal),
        }
    }

    /// The socket that has the call, for certain.
    pub fn socket(&self) -> Option<SocketId> {
        match self {
            Self::Accepted(socket) | Self::Progress(socket, _) | Self::Reply(socket, ..) | Self::Failed(socket, ..) => {
                Some(*socket)
            }
            Self::Lost(lost) => lost.written.then_some(lost.socket),
            Self::Refused(_) | Self::Undelivered(_) | Self::OwnerLost | Self::CutOff => None,
        }
    }
}

/// What a client said about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Progress,
    Reply,
    Failed,
}

struct Caller {
    place: Option<Place>,
    /// The socket that has it, as far as that is known.
    socket: Option<SocketId>,
    since: Instant,
    news: mpsc::Sender<News>,
}

impl Caller {
    /// What a client says counts from wherever it is by now.
    fn believes(&self, from: &Place, news: &News) -> bool {
        let is_of_client = matches!(news, News::Progress(..) | News::Reply(..) | News::Failed(..));
        self.place.as_ref() == Some(from) || (is_of_client && self.socket.is_some() && self.socket == news.socket())
    }
}

/// Calls whose callers wait here.
struct Waiting {
    calls: Map<CallId, Caller>,
    over: Seen,
}

impl Waiting {
    fn remove(&mut self, call: &CallId) -> Option<Caller> {
        self.over.is_new(call);
        self.calls.remove(call)
    }
}

/// The calls in flight.
pub struct Calls {
    registry: Registry,
    letters: Arc<Letters>,
    metrics: Arc<Metrics>,
    asked: Mutex<Waiting>,
    given: Mutex<Table>,
    undelivered: Mutex<Undelivered>,
    /// A permit for each answer that is on its way beside all else.
    beside: Arc<Semaphore>,
    closed: AtomicBool,
    cut_off: AtomicBool,
    /// There is something to do for the task.
    wake: Notify,
}

/// A panic while a lock was held leaves tables that can be used: every step is whole.
fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    pub fn new(registry: Registry, letters: Arc<Letters>, metrics: Arc<Metrics>) -> Self {
        Self {
            registry,
            letters,
            metrics,
            asked: Mutex::new(Waiting { calls: Map::default(), over: Seen::new(OVER_MAX) }),
            given: Mutex::default(),
            undelivered: Mutex::default(),
            beside: Arc::new(Semaphore::new(BESIDE_MAX)),
            closed: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// From now on no socket here is given another call.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub fn are_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether nothing is asked from here any more, since the process ends.
    pub fn are_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Whether a socket here has a call in its hands that somebody still waits for.
    pub fn is_asked(&self, socket: SocketId) -> bool {
        lock(&self.given).is_asked(socket, Instant::now())
    }

    /// Waits until nobody here waits for an answer, or for somebody to come, and whoever asked elsewhere was told.
    pub async fn finish(&self) {
        while !lock(&self.asked).calls.is_empty() {
            sleep(ROUND).await;
        }
        self.all_is_told().await;
    }

    /// Waits until no word of a socket here is on its way or waits for another try. None is tried for longer than it is
    /// of use.
    async fn all_is_told(&self) {
        // Fails only if it was closed, which nobody does.
        let _ = self.beside.acquire_many(BESIDE_MAX as u32).await;
        while lock(&self.undelivered).is_any_untold() {
            sleep(ROUND).await;
        }
    }

    /// How many callers wait here, and how many calls sockets here have in their hands.
    pub fn count(&self) -> (usize, usize) {
        let asked = lock(&self.asked).calls.len();
        (asked, lock(&self.given).len())
    }

    /// Something about a call that was asked here; `from` is who says it.
    pub fn hear(&self, call: &CallId, from: &Place, news: News) {
        let mut asked = lock(&self.asked);
        let waiting = asked.calls.get_mut(call).filter(|asked| asked.believes(from, &news));
        let Some(waiting) = waiting else {
            // Only what a client said is worth a count.
            if matches!(news, News::Progress(..) | News::Reply(..) | News::Failed(..)) {
                self.metrics.word_dropped(asked.over.knows(call));
            }
            return;
        };
        match &news {
            News::Progress(..) if waiting.news.capacity() <= NEWS_KEPT => {
                self.metrics.progress_dropped.inc();
                return;
            }
            News::Accepted(socket) => waiting.socket = Some(*socket),
            News::Progress(..) => {}
            // It goes elsewhere.
            News::Refused(_) | News::Undelivered(_) => (waiting.place, waiting.socket) = (None, None),
            News::Reply(..) | News::Failed(..) | News::Lost(_) | News::OwnerLost | News::CutOff => {
                if let Some(asked) = asked.remove(call) {
                    let _ = asked.news.try_send(news);
                }
                return;
            }
        }
        let _ = waiting.news.try_send(news);
    }

    /// Writes a call to a socket here. The table is held meanwhile: the answer may come at once, and the end
    /// of the socket as well.
    pub fn give(
        &self,
        call: &CallId,
        asker: Option<&Incarnation>,
        (id, session, line): (SocketId, Session, &Arc<Line>),
        frame: Bytes,
        by: Instant,
        owed: Option<Arc<Owed>>,
    ) -> Result<(), Refusal> {
        if self.are_closed() {
            return Err(Refusal::Draining);
        }
        let mut table = lock(&self.given);
        if table.was_given(call) {
            // It has been written; whoever asked twice hears of the first.
            return Ok(());
        }
        if table.is_full() {
            return Err(Refusal::Slow);
        }
        let mark = line.hand(frame).map_err(|refused| match refused {
            Refused::Full => Refusal::Slow,
            Refused::Closing => Refusal::Closing,
        })?;
        let asker = asker.cloned();
        table.give(call, Given { asker, socket: id, session, line: line.clone(), at: Instant::now(), by, mark, owed });
        drop(table);
        self.wake.notify_one();
        Ok(())
    }

    /// Whether the client of a call here was surely given it.
    pub fn is_written(&self, call: &CallId) -> bool {
        lock(&self.given).get(call).is_some_and(Given::is_written)
    }

    /// Whether a socket has this call, so that what it says of it is wanted.
    pub fn has(&self, call: &CallId, socket: SocketId) -> bool {
        lock(&self.given).of(call, socket).is_some()
    }

    /// What a client says about its call. What is for another instance is returned, with the last moment at
    /// which it is of use.
    pub fn says(&self, call: &CallId, socket: SocketId, said: Said, data: Bytes) -> Option<Post> {
        let (given, had) = {
            let mut table = lock(&self.given);
            let given = match (table.of(call, socket).is_some(), said) {
                (false, _) => None,
                (true, Said::Progress) => table.of(call, socket).cloned(),
                (true, Said::Reply | Said::Failed) => table.take(call),
            };
            (given, table.had(call, socket))
        };
        let Some(given) = given else {
            self.metrics.word_dropped(had);
            return None;
        };
        let after_ms = u32::try_from(given.at.elapsed().as_millis()).unwrap_or(u32::MAX);
        let word = match said {
            Said::Progress => Word::Progress(socket),
            Said::Reply => Word::Reply(socket, after_ms),
            Said::Failed => Word::Failed(socket, after_ms),
        };
        self.tell(call, given, word, data)
    }

    /// The same of a call that the socket was given before it came back, by whoever had it then.
    pub fn says_instead(&self, call: &CallId, socket: SocketId, said: Said, data: Bytes, there: Incarnation) -> Post {
        let word = match said {
            Said::Progress => Word::Progress(socket),
            Said::Reply => Word::Reply(socket, 0),
            Said::Failed => Word::Failed(socket, 0),
        };
        let by = Instant::now() + INSTEAD;
        self.post(there, Message::Instead { call: call.clone(), word }, data, by, None)
    }

    /// What came here of a client that has moved on: it was given the call here, or before it was here.
    pub fn hear_instead(&self, call: &CallId, word: Word, data: Bytes) -> Option<Post> {
        let (socket, said) = match word {
            Word::Progress(socket) => (socket, Said::Progress),
            Word::Reply(socket, _) => (socket, Said::Reply),
            Word::Failed(socket, _) => (socket, Said::Failed),
            Word::Accepted(_) | Word::Lost(_) | Word::Refused(_) => return None,
        };
        let was_here = {
            let table = lock(&self.given);
            table.of(call, socket).is_some() || table.had(call, socket)
        };
        if was_here { self.says(call, socket, said, data) } else { self.tell_asker(call, word, data) }
    }

    /// Whoever asked knows which socket has the call, so it may be told by anybody.
    fn tell_asker(&self, call: &CallId, word: Word, data: Bytes) -> Option<Post> {
        if call.is_of(&self.registry.incarnation()) {
            self.hear(call, &Place::Here, News::of(word, data));
            return None;
        }
        let message = Message::OfCall { call: call.clone(), word };
        Some(self.post(call.asker()?, message, data, Instant::now() + INSTEAD, None))
    }

    /// A connection ended: whoever waits for it hears so at once. A socket that comes back, or has, may still answer
    /// what it was given; what was not written to it is somebody else's.
    pub fn ended(&self, record: &SocketRecord, ending: &Ending, after: After) {
        let broke = ending.cause == Cause::ConnectionLost;
        let held = lock(&self.given).take_all(record.id, record.session, broke, after != After::Ended);
        for (call, given, may_be_written) in held {
            let word = if !may_be_written {
                Word::Refused(Refusal::Closing)
            } else {
                let lost = LostSocket {
                    socket: record.id,
                    store: record.store.clone(),
                    connected_at: record.connected_at,
                    ending: ending.clone(),
                    written: given.is_written(),
                };
                Word::Lost(lost.into())
            };
            if let Some(post) = self.tell(&call, given, word, Bytes::new()) {
                self.later(post);
            }
        }
    }

    /// To a caller here at once; to another instance by the letter that is returned.
    fn tell(&self, call: &CallId, given: Given, word: Word, data: Bytes) -> Option<Post> {
        match given.asker {
            None => {
                self.hear(call, &Place::Here, News::of(word, data));
                None
            }
            Some(asker) => {
                let message = Message::OfCall { call: call.clone(), word };
                Some(self.post(asker, message, data, given.by, given.owed))
            }
        }
    }

    /// Its caller waits no longer: the client is told, if it has the call.
    pub fn cancelled(&self, call: &CallId, asker: Option<&Incarnation>) {
        let given = {
            let mut table = lock(&self.given);
            // What is queued has no asker, and whoever takes it back asks whom they like.
            let is_theirs = |given: &Given| call.is_queued() || given.asker.as_ref() == asker;
            table.get(call).is_some_and(is_theirs).then(|| table.take(call)).flatten()
        };
        if let Some(given) = given {
            // One that does not take it is stopped by its full queue, or gone.
            let _ = given.line.send(frame::cancel(call));
        }
        if call.is_queued() {
            self.hear(call, &Place::Here, News::CutOff);
        }
    }

    fn withdraw(&self, call: &CallId, place: Place) {
        match place {
            Place::Here => self.cancelled(call, None),
            Place::There(owner) => {
                let by = Instant::now() + AGAIN;
                self.later(self.post(owner, Message::Cancel { call: call.clone() }, Bytes::new(), by, None));
            }
        }
    }
}
