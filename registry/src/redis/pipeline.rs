//! Many who ask over one wire. What is asked while an answer is awaited goes along with the rest when that has
//! come, in one piece: that is most of what a command costs, here and at the server. One who asks alone waits for
//! nobody.

use super::{resp::Said, wire::Wire};
use futures_util::task::AtomicWaker;
use redis::{Cmd, RedisError, Value};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout_at},
};

/// What a command may take; afterwards nobody knows whether it ran.
const RESPONSE: Duration = Duration::from_secs(2);
/// Commands without an answer; whoever asks beyond it waits for room.
const UNANSWERED_MAX: usize = 16 * 1024;
/// How long a command waits for the answer of those before it, until it goes all the same.
const HELD: Duration = Duration::from_millis(1);
/// So much is not held back.
const HELD_MAX: usize = 64 * 1024;

type Answer = Result<Value, RedisError>;

/// Ends its connection when nobody holds it.
pub struct Pipeline {
    shared: Arc<Shared>,
    _driver: JoinSet<()>,
}

struct Shared {
    asked: Mutex<Asked>,
    /// There is something to say.
    wake: AtomicWaker,
    /// Somebody was answered who may have kept others from asking.
    room: Notify,
}

#[derive(Default)]
struct Asked {
    /// Not taken by the driver yet.
    commands: Vec<u8>,
    /// In the order of the commands, those that were said first.
    waiting: VecDeque<Waiting>,
    /// How many of them wait for what is not said yet.
    unsaid: usize,
    ended: bool,
}

struct Waiting {
    /// None when it has waited for too long; the answer may still come.
    answer: Option<oneshot::Sender<Answer>>,
    until: Instant,
}

impl Shared {
    /// A panic while the lock was held leaves a queue that can be used: every step is whole.
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn broken() -> RedisError {
    io::Error::from(io::ErrorKind::ConnectionAborted).into()
}

impl Pipeline {
    pub fn over(wire: Wire) -> Self {
        let shared = Arc::new(Shared { asked: Mutex::default(), wake: AtomicWaker::new(), room: Notify::new() });
        let mut driver = JoinSet::new();
        driver.spawn(Driver {
            shared: shared.clone(),
            wire,
            has_yielded: false,
            hold: Alarm::off(),
            patience: Alarm::off(),
        });
        Self { shared, _driver: driver }
    }

    /// Asks, and waits for the answer of the last; those before it go right before it, and theirs are nobody's.
    pub async fn ask(&self, commands: &[&Cmd]) -> Answer {
        let until = Instant::now() + RESPONSE;
        match self.put(commands, until) {
            Some(answer) => answer.await.unwrap_or_else(|_| Err(broken())),
            None => {
                let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
                timeout_at(until, self.ask_later(commands, until)).await.unwrap_or_else(late)
            }
        }
    }

    /// Asks when there is room.
    async fn ask_later(&self, commands: &[&Cmd], until: Instant) -> Answer {
        loop {
            // Before the look, so that room which is made after it is not missed.
            let room = self.shared.room.notified();
            if let Some(answer) = self.put(commands, until) {
                return answer.await.unwrap_or_else(|_| Err(broken()));
            }
            room.await;
        }
    }

    /// None if there is no room.
    fn put(&self, commands: &[&Cmd], until: Instant) -> Option<oneshot::Receiver<Answer>> {
        let (sender, answer) = oneshot::channel();
        let mut asked = self.shared.asked();
        if asked.ended {
            // Its sender is dropped, which says so.
            return Some(answer);
        }
        if asked.waiting.len() >= UNANSWERED_MAX {
            return None;
        }
        let mut sender = Some(sender);
        for (nth, command) in commands.iter().enumerate() {
            command.write_packed_command(&mut asked.commands);
            let is_last = nth + 1 == commands.len();
            asked.waiting.push_back(Waiting { answer: sender.take_if(|_| is_last), until });
            asked.unsaid += 1;
        }
        drop(asked);
        self.shared.wake.wake();
        Some(answer)
    }
}

/// Says what is asked, and hands the answers out.
struct Driver {
    shared: Arc<Shared>,
    wire: Wire,
    /// Whether the others who are ready to run were let go first, so that what they ask goes along.
    has_yielded: bool,
    /// Until when something is held back.
    hold: Alarm,
    /// Until when an answer is awaited.
    patience: Alarm,
}

/// A moment that is set once until it has passed, or is of no interest any more.
struct Alarm {
    is_set: bool,
    at: Pin<Box<Sleep>>,
}

impl Alarm {
    fn off() -> Self {
        Self { is_set: false, at: Box::pin(sleep(Duration::ZERO)) }
    }

    /// Whether the moment has passed: `at`, if none was set before.
    fn has_passed(&mut self, at: Instant, context: &mut Context<'_>) -> bool {
        if !self.is_set {
            self.at.as_mut().reset(at);
        }
        self.is_set = self.at.as_mut().poll(context).is_pending();
        !self.is_set
    }
}

impl Driver {
    /// Hands out what has come.
    fn hear(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        let mut was_full = false;
        while let Poll::Ready(said) = self.wire.poll_hear(context) {
            let Said::Answer(value) = said? else { continue };
            let mut asked = self.shared.asked();
            was_full |= asked.waiting.len() >= UNANSWERED_MAX;
            let answered = asked.waiting.pop_front();
            drop(asked);
            if let Some(answer) = answered.and_then(|waiting| waiting.answer) {
                let _ = answer.send(value.extract_error());
            }
        }
        if was_full {
            self.shared.room.notify_waiters();
        }
        Ok(())
    }

    /// Says what is not held back.
    fn say(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        let Self { shared, wire, has_yielded, hold, .. } = self;
        // What was begun comes first.
        while wire.poll_say(context)?.is_ready() {
            let mut asked = shared.asked();
            let awaits_answers = asked.waiting.len() > asked.unsaid;
            if asked.commands.is_empty() {
                break;
            }
            let is_held = awaits_answers && !*has_yielded && asked.commands.len() < HELD_MAX;
            if is_held && !hold.has_passed(Instant::now() + HELD, context) {
                return Ok(());
            }
            if !std::mem::replace(has_yielded, true) {
                context.waker().wake_by_ref();
                return Ok(());
            }
            std::mem::swap(&mut asked.commands, wire.unsaid());
            asked.unsaid = 0;
            hold.is_set = false;
            *has_yielded = false;
        }
        Ok(())
    }

    /// Tells those who have waited for too long.
    fn mind(&mut self, context: &mut Context<'_>) {
        let waits = |waiting: &&Waiting| waiting.answer.is_some();
        loop {
            let first = self.shared.asked().waiting.iter().find(waits).map(|first| first.until);
            let Some(until) = first else { break };
            if !self.patience.has_passed(until, context) {
                break;
            }
            let now = Instant::now();
            let mut asked = self.shared.asked();
            for waiting in asked.waiting.iter_mut().filter(|waiting| waiting.until <= now) {
                if let Some(answer) = waiting.answer.take() {
                    let _ = answer.send(Err(io::Error::from(io::ErrorKind::TimedOut).into()));
                }
            }
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        driver.shared.wake.register(context.waker());
        if driver.hear(context).is_err() || driver.say(context).is_err() {
            return Poll::Ready(());
        }
        driver.mind(context);
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Whoever waits hears that nothing will come.
    fn drop(&mut self) {
        let mut asked = self.shared.asked();
        asked.ended = true;
        let waiting = std::mem::take(&mut asked.waiting);
        drop(asked);
        drop(waiting);
        self.shared.room.notify_waiters();
    }
}
