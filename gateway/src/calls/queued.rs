//! Queued calls: those of groups that have members here are taken from the registry, given to the member that was active
//! last, and what comes of each is told to the registry. One task does it, and looks only while calls are queued for
//! somebody here.

use super::{
    News, Place, lock,
    told::{self, Answered, Delivered},
};
use crate::{courier::Courier, frame, kept::Kept, problem::Problem, session::Desk};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use registry::{
    CallId, GroupKey, Handed, Hearing, Incarnation, Map, SocketId, Standing, StoreName, Taken, WasGiven,
    envelope::Refusal, queue::GRACE,
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

/// How often a group is looked at while calls of it wait, or are in the hands of others, more or less.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Groups that are looked at. One beyond it waits until somebody comes or is told of it again.
const GROUPS_MAX: usize = 10_000;
/// Calls taken in one look.
const AT_ONCE: usize = 64;
/// Calls in the hands of sockets here at once. What goes beyond waits.
const HELD_MAX: usize = 10_000;
/// Whoever has room for so many bytes goes before whoever has not; it is not known yet how many a call has.
const ROOM: usize = 4096;
/// Who holds no lease for so long is gone, and what it had goes on. That is seen at the second look.
const GONE_AFTER: Duration = Duration::from_millis(1500);
/// So often a group is looked at where nobody can be asked: who was let in may not have its seat yet.
const ABSENT_LOOKS: u32 = 5;
/// How often, and how far apart, the registry is told what came of a call. After that it is somebody else's.
const TELLS: u32 = 30;
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// What is asked, as it lies in the registry.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    pub event: Box<str>,
    pub data: Box<RawValue>,
    pub store: Option<StoreName>,
    /// Whether another socket had been named.
    pub fallback: bool,
    pub request_id: Box<str>,
    pub traceparent: Option<Box<str>>,
}

impl Asked {
    pub fn encode(&self) -> Bytes {
        // What was read as JSON can be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// The groups to look at, and when.
#[derive(Default)]
pub struct Queue {
    due: Mutex<Map<GroupKey, Look>>,
    wake: Notify,
}

#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    /// So often it is looked at while nobody can be asked.
    absent: u32,
}

impl Queue {
    /// Calls wait for somebody of it, or may soon.
    pub fn look_at(&self, group: GroupKey) {
        self.put(group, Look { at: Instant::now(), absent: ABSENT_LOOKS });
    }

    /// The same in a moment: somebody of it comes, or it is not known whether calls wait.
    pub fn look_soon(&self, group: GroupKey) {
        self.put(group, Look { at: a_moment_later(), absent: ABSENT_LOOKS });
    }

    fn put(&self, group: GroupKey, look: Look) {
        let mut due = lock(&self.due);
        if due.len() < GROUPS_MAX || due.contains_key(&group) {
            let next = due.entry(group).or_insert(look);
            *next = Look { at: look.at.min(next.at), absent: look.absent.max(next.absent) };
            self.wake.notify_one();
        }
    }

    /// Those whose time has come. Whoever looks says whether it has to look again.
    fn due(&self, now: Instant) -> Vec<(GroupKey, Look)> {
        let mut due = lock(&self.due);
        let now: Vec<_> = due.iter().filter(|(_, look)| look.at <= now).map(|(group, look)| (*group, *look)).collect();
        for (group, _) in &now {
            due.remove(group);
        }
        now
    }

    fn next(&self) -> Option<Instant> {
        lock(&self.due).values().map(|look| look.at).min()
    }
}

fn a_moment_later() -> Instant {
    Instant::now() + LOOK_EVERY.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// What comes of looking at a group. It is done in steps of their own: whoever is asked for may be slow, and what is
/// taken is ours alone for a moment only.
enum Todo {
    /// To be given to a socket until then, by the registry's clock.
    Give(Taken, u64),
    /// To be looked after: it has calls of the group in its hands.
    Mind(GroupKey, Incarnation),
}

type Step<'a> = BoxFuture<'a, Vec<Todo>>;
/// Holders that held no lease lately, and since when.
type Missing = Mutex<HashMap<(GroupKey, Incarnation), Instant>>;

/// Gives queued calls to sockets here, until the instance ends. `ttl`: how long one waits for the next socket.
pub async fn run(desk: Arc<Desk>, ttl: Duration) {
    let courier = &desk.courier;
    let clerk = Clerk { desk: &desk, courier, ttl, missing: Missing::default(), held: Mutex::default() };
    let mut steps = FuturesUnordered::<Step<'_>>::new();
    loop {
        let wake = courier.queue.wake.notified();
        let next = courier.queue.next();
        let woken = async {
            tokio::select! {
                () = wake => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        };
        let done = async {
            match steps.next().await {
                Some(todo) => todo,
                None => pending().await,
            }
        };
        let todo = tokio::select! {
            () = woken => Vec::new(),
            todo = done => todo,
        };
        steps.extend(todo.into_iter().map(|todo| clerk.does(todo).boxed()));
        let mut due = courier.queue.due(Instant::now());
        let looks = HELD_MAX.saturating_sub(steps.len()) / AT_ONCE;
        let beyond = due.split_off(looks.min(due.len()));
        beyond.into_iter().for_each(|(group, _)| clerk.look_later(group));
        steps.extend(due.into_iter().map(|(group, look)| clerk.look(group, look).boxed()));
    }
}

struct Clerk<'a> {
    desk: &'a Desk,
    courier: &'a Courier,
    ttl: Duration,
    missing: Missing,
    /// Those in hand here, from when they are taken until they are over or in the line again.
    held: Mutex<HashSet<CallId>>,
}

/// One of them, for as long as this lives.
struct Hold<'a> {
    held: &'a Mutex<HashSet<CallId>>,
    call: CallId,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        lock(self.held).remove(&self.call);
    }
}

impl Clerk<'_> {
    fn look_later(&self, group: GroupKey) {
        self.courier.queue.look_soon(group);
    }

    async fn does(&self, todo: Todo) -> Vec<Todo> {
        match todo {
            Todo::Give(taken, by) => self.hold(taken, by).await,
            Todo::Mind(group, other) => self.mind(group, &other).await,
        }
        Vec::new()
    }

    /// Takes what waits, if there is somebody to ask. While others have calls of the group it is looked at again, since
    /// these may die.
    async fn look(&self, group: GroupKey, look: Look) -> Vec<Todo> {
        let Courier { sockets, calls, registry, queue, .. } = self.courier;
        if calls.are_closed() {
            return Vec::new();
        }
        let Some(socket) = sockets.most_active(group, None, ROOM) else {
            // Whoever comes later is told again.
            if let Some(absent) = look.absent.checked_sub(1) {
                queue.put(group, Look { at: a_moment_later(), absent });
            }
            return Vec::new();
        };
        let by = registry.now_ms() + u64::try_from(GRACE.as_millis() / 2).unwrap_or_default();
        let Ok(turn) = registry.take(group, AT_ONCE).await else {
            self.look_later(group);
            return Vec::new();
        };
        match turn.calls.len() == AT_ONCE {
            true if socket.line.has_room(ROOM) => queue.look_at(group),
            // All are full, and would be found so again.
            true => self.look_later(group),
            false if turn.others.is_empty() => {}
            false => self.look_later(group),
        }
        // One of which nobody here knows was taken when the answer was lost.
        let unknown = turn.before.into_iter().filter(|taken| !lock(&self.held).contains(&taken.call));
        let taken = turn.calls.into_iter().chain(unknown).map(|taken| Todo::Give(taken, by));
        let own = registry.incarnation();
        let others = turn.others.into_iter().filter(|other| *other != own);
        taken.chain(others.map(|other| Todo::Mind(group, other))).collect()
    }

    /// What somebody has who is gone goes on to the next.
    async fn mind(&self, group: GroupKey, other: &Incarnation) {
        let key = (group, other.clone());
        let is_gone = match self.courier.registry.hearing(other).await {
            Ok(Hearing::Gone) => {
                let mut missing = lock(&self.missing);
                if missing.len() >= GROUPS_MAX {
                    // Groups that nobody looks at any more are among them; the others are counted anew.
                    missing.clear();
                }
                let since = missing.entry(key.clone()).or_insert_with(Instant::now);
                let is_gone = since.elapsed() >= GONE_AFTER;
                if is_gone {
                    missing.remove(&key);
                }
                is_gone
            }
            Ok(Hearing::Hears | Hearing::Deaf { .. }) => {
                lock(&self.missing).remove(&key);
                false
            }
            Err(_) => false,
        };
        if is_gone {
            info!("queued calls that {} had go on to others; it is gone", other.instance());
            self.put_back(group, other, None, None).await;
        }
    }

    /// For the next who comes, or is there. Who had it here lets it go before anybody is rung.
    async fn put_back(&self, group: GroupKey, of: &Incarnation, only: Option<&Taken>, hold: Option<Hold<'_>>) {
        let holders = self.courier.registry.next(group, of, only, self.ttl).await;
        drop(hold);
        match holders {
            Ok(holders) => self.courier.ring_holders(group, holders).await,
            // It may be ours still.
            Err(_) => self.look_later(group),
        }
    }

    /// Gives one to a socket, and tells the registry what comes of it.
    async fn hold(&self, taken: Taken, by: u64) {
        let own = self.courier.registry.incarnation();
        let Some(hold) = self.begin(&taken.call) else {
            // It is on its way back into the line.
            self.look_later(taken.group);
            return;
        };
        let is_over = match self.ask(&taken, by).await {
            Held::Over => true,
            Held::Answered { attempt, outcome } => {
                self.tell(&taken.call, attempt, &outcome).await || self.is_over(&taken.call).await
            }
            Held::Unasked if self.courier.calls.are_closed() => {
                self.put_back(taken.group, &own, Some(&taken), Some(hold)).await;
                return;
            }
            Held::Unasked => {
                let _ = self.courier.registry.next(taken.group, &own, Some(&taken), self.ttl).await;
                // At once it would find the same.
                self.look_later(taken.group);
                return;
            }
            Held::Lost { attempt, was_given } => {
                // Told or not: whoever takes it finds how it stands.
                if self.courier.registry.back(&taken.call, attempt, was_given).await != Ok(false) {
                    self.put_back(taken.group, &own, Some(&taken), Some(hold)).await;
                    return;
                }
                self.is_over(&taken.call).await
            }
        };
        if !is_over || self.courier.registry.over(&taken).await.is_err() {
            // Whoever takes it finds how it stands. It may be somebody else's by now, or ours once more.
            self.look_later(taken.group);
        }
    }

    /// From now on it is in hand here. `None`: it is already.
    fn begin(&self, call: &CallId) -> Option<Hold<'_>> {
        let is_new = lock(&self.held).insert(call.clone());
        is_new.then(|| Hold { held: &self.held, call: call.clone() })
    }

    async fn ask(&self, taken: &Taken, give_by: u64) -> Held {
        let Courier { sockets, calls, registry, .. } = self.courier;
        let mut ears = calls.listen(taken.call.clone());
        let Some(socket) = sockets.most_active(taken.group, None, ROOM) else { return Held::Unasked };
        let handed = match registry.give(&taken.call, socket.id, give_by).await {
            Ok(Some(handed)) => handed,
            Ok(None) => return Held::Over,
            Err(_) => return Held::Unasked,
        };
        let Ok(asked) = serde_json::from_slice::<Asked>(&handed.text) else {
            warn!("queued call {} is of a later version and cannot be read here", taken.call);
            let _ = registry.back(&taken.call, handed.attempt, WasGiven::No).await;
            return Held::Unasked;
        };
        let (record, by) = (socket.record(), Instant::now() + taken.patience);
        let patience_ms = u64::try_from(taken.patience.as_millis()).unwrap_or(u64::MAX);
        let frame = frame::call(&frame::Call {
            event: &asked.event,
            id: &taken.call,
            store: asked.store.as_ref().or(record.store.as_ref()),
            data: &asked.data,
            deadline: registry.now_ms() + patience_ms,
            request_id: &asked.request_id,
            traceparent: asked.traceparent.as_deref(),
            attempt: Some(handed.attempt),
        });
        ears.point_to(Place::Here, Some(record.id));
        let attempt = handed.attempt;
        let given = calls.give(&taken.call, None, (record.id, record.session, &socket.line), frame, by, None);
        if given.is_err() {
            ears.point_nowhere();
            // It stays taken: it goes back to the line behind this.
            let _ = registry.back(&taken.call, attempt, WasGiven::No).await;
            return Held::Unasked;
        }
        info!(
            request_id = &*asked.request_id,
            "queued call {} goes to socket {}, attempt {attempt}", taken.call, record.id
        );
        loop {
            let news = ears.next(by).await;
            let problem = match news {
                Some(News::Accepted(_) | News::Progress(..)) => continue,
                Some(News::Lost(lost)) => {
                    let was_given = if lost.written { WasGiven::Yes } else { WasGiven::Unknown };
                    return Held::Lost { attempt, was_given };
                }
                Some(News::Refused(Refusal::Closing)) => return Held::Lost { attempt, was_given: WasGiven::No },
                // It was taken back, or everything here ends.
                Some(News::CutOff | News::OwnerLost | News::Refused(_) | News::Undelivered(_)) => {
                    return Held::Lost { attempt, was_given: WasGiven::Unknown };
                }
                Some(News::Reply(socket, ms, data)) => {
                    let elapsed = Duration::from_millis(registry.now_ms().saturating_sub(handed.queued_at));
                    let answered = self.answered(socket, ms, data, asked.fallback);
                    let body = told::replied(&taken.call, &answered, elapsed);
                    self.end(taken, &asked, &handed, "replied");
                    let outcome = Kept::new(200, format!("{body}\n").as_bytes()).bytes();
                    return Held::Answered { attempt, outcome };
                }
                Some(News::Failed(socket, ms, data)) => {
                    self.end(taken, &asked, &handed, "failed");
                    told::failed(&taken.call, &self.answered(socket, ms, data, asked.fallback))
                }
                None => {
                    self.end(taken, &asked, &handed, "no_reply");
                    let written = calls.is_written(&taken.call);
                    told::no_reply(&taken.call, if written { Delivered::Yes } else { Delivered::Unknown })
                }
            };
            return Held::Answered { attempt, outcome: Kept::problem(problem, &asked.request_id).bytes() };
        }
    }

    /// For metrics, and for whoever looks at what happens.
    fn end(&self, taken: &Taken, asked: &Asked, handed: &Handed, outcome: &'static str) {
        self.desk.metrics.called(outcome);
        let registry = &self.courier.registry;
        self.desk.feed.tell("call", || {
            json!({
                "instance": registry.incarnation().instance(),
                "callId": taken.call.as_str(),
                "event": asked.event,
                "outcome": outcome,
                "ms": registry.now_ms().saturating_sub(handed.queued_at),
                "requestId": asked.request_id,
                "attempt": handed.attempt,
            })
        });
    }

    fn answered(&self, socket: SocketId, ms: u32, data: Bytes, is_fallback: bool) -> Answered {
        Answered {
            socket,
            instance: self.courier.registry.incarnation().instance().to_owned(),
            is_remote: false,
            is_fallback,
            data,
            lookup: Duration::ZERO,
            client: Duration::from_millis(ms.into()),
        }
    }

    /// Whether nobody is to have it any more, as far as the registry says so.
    async fn is_over(&self, call: &CallId) -> bool {
        matches!(self.courier.registry.standing(call).await, Ok(Standing::Done(_) | Standing::Unknown))
    }

    /// A registry that is away is told when it is back, if that is soon. False: this is not what came of it.
    async fn tell(&self, call: &CallId, attempt: u32, outcome: &Bytes) -> bool {
        for _ in 0..TELLS {
            match self.courier.registry.answer(call, Some(attempt), outcome).await {
                Ok(is_first) => return is_first,
                Err(_) => sleep(TELL_AGAIN).await,
            }
        }
        warn!("what came of queued call {call} could not be told to the registry");
        false
    }
}

/// What came of asking.
enum Held {
    /// It is over already.
    Over,
    Answered {
        attempt: u32,
        outcome: Bytes,
    },
    /// Nobody was asked.
    Unasked,
    /// The socket that had it has it no more.
    Lost {
        attempt: u32,
        was_given: WasGiven,
    },
}

/// What is kept of one that nobody took in its time, or nobody after the last.
pub fn outcome_of(call: &CallId, was_given: WasGiven, request_id: &str) -> Bytes {
    let (delivered, detail): (serde_json::Value, _) = match was_given {
        WasGiven::No => (false.into(), "nobody came in time who could be asked"),
        WasGiven::Unknown => {
            ("unknown".into(), "whoever may have been given it has left, and nobody else came in time")
        }
        WasGiven::Yes => (true.into(), "whoever was given it has left, and nobody else came in time"),
    };
    let problem = Problem::no_reply(delivered, detail).member("callId", call.as_str());
    Kept::problem(problem, request_id).bytes()
}
