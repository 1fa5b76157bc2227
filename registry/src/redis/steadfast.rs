//! What has to survive its server. Waiting for replicas or for a disk holds a connection up, so it has one of its own
//! to each master; all that comes while it waits goes together behind it, and is waited for once.

use super::{
    line::{Silence, TOLD_AGAIN},
    resp::Said,
    url::{Node, RedisUrl},
    wire::Wire,
};
use crate::log::Durability;
use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Cmd, RedisError, Value, cmd};
use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tracing::warn;

/// How long it is waited for a replica or a disk. Afterwards what was said is in memory, and is said to be.
const WAITED: Duration = Duration::from_millis(500);
/// What a batch may take without that; afterwards nobody knows whether it ran.
const RESPONSE: Duration = Duration::from_secs(2);
/// From asking to an answer: two batches, the one on its way and the own.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection that nobody needs is given up.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes that wait for one server. Beyond it nothing is taken in.
const BYTES_MAX: usize = 64 << 20;
/// What goes together.
const BATCH_MAX: usize = 1000;

type Answer = Result<(Value, Durability), Silence>;

struct Waiting {
    command: Vec<u8>,
    wants: Durability,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Lanes {
    of: BTreeMap<Node, Lane>,
    /// To whom nobody goes yet.
    new: Vec<Node>,
}

/// The ways to all masters.
pub struct Steadfast {
    url: RedisUrl,
    lanes: Mutex<Lanes>,
    wake: Notify,
    told: Mutex<Option<Instant>>,
}

impl Steadfast {
    pub fn new(url: RedisUrl) -> Self {
        Self { url, lanes: Mutex::default(), wake: Notify::new(), told: Mutex::default() }
    }

    /// Runs a command, and says how sure it is by now: as sure as is wanted, or in memory alone.
    pub async fn ask(&self, node: &Node, command: &Cmd, wants: Durability) -> Answer {
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting { command: command.get_packed_command(), wants, answer: sender };
        if !self.join(node, waiting) {
            return Err(Silence::Down);
        }
        let late = || Err(Silence::Error(io::Error::from(io::ErrorKind::TimedOut).into()));
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| late()),
            Err(_) => late(),
        }
    }

    /// False if there is no room.
    fn join(&self, node: &Node, waiting: Waiting) -> bool {
        let mut lanes = self.lanes();
        let Lanes { of, new } = &mut *lanes;
        let lane = match of.entry(node.clone()) {
            Entry::Vacant(free) => {
                new.push(node.clone());
                self.wake.notify_one();
                free.insert(Lane::default())
            }
            Entry::Occupied(lane) => lane.into_mut(),
        };
        let has_room = lane.waiting.is_empty() || lane.bytes + waiting.command.len() <= BYTES_MAX;
        if has_room {
            lane.bytes += waiting.command.len();
            lane.waiting.push_back(waiting);
            lane.wake.notify_one();
        }
        has_room
    }

    /// Goes to whoever is called, to all of them at once. Never returns.
    pub async fn keep(&self) {
        // Whoever went before goes no more.
        {
            let mut lanes = self.lanes();
            lanes.new = lanes.of.keys().cloned().collect();
        }
        let mut ways = FuturesUnordered::new();
        loop {
            let called = std::mem::take(&mut self.lanes().new);
            ways.extend(called.into_iter().map(|node| self.go(node)));
            tokio::select! {
                () = self.wake.notified() => {}
                Some(()) = ways.next() => {}
            }
        }
    }

    /// Until nobody has needed it for a while.
    async fn go(&self, node: Node) {
        let mut wire = None;
        let mut used = Instant::now();
        loop {
            let Some(wake) = self.lanes().of.get(&node).map(|lane| lane.wake.clone()) else { return };
            let batch = self.next(&node);
            if !batch.is_empty() {
                self.run(&node, &mut wire, batch).await;
                used = Instant::now();
            } else if timeout_at(used + IDLE, wake.notified()).await.is_err() {
                let mut lanes = self.lanes();
                if lanes.of.get(&node).is_none_or(|lane| lane.waiting.is_empty()) {
                    lanes.of.remove(&node);
                    return;
                }
            }
        }
    }

    /// What goes next: in order, and as far as the same is wanted. Whoever waits no more asks again if need be.
    fn next(&self, node: &Node) -> Vec<Waiting> {
        let mut lanes = self.lanes();
        let Some(lane) = lanes.of.get_mut(node) else { return Vec::new() };
        let mut batch: Vec<Waiting> = Vec::new();
        while batch.len() < BATCH_MAX
            && let Some(waiting) =
                lane.waiting.pop_front_if(|next| batch.first().is_none_or(|one| one.wants == next.wants))
        {
            lane.bytes -= waiting.command.len();
            if !waiting.answer.is_closed() {
                batch.push(waiting);
            }
        }
        batch
    }

    async fn run(&self, node: &Node, wire: &mut Option<Wire>, batch: Vec<Waiting>) {
        let mut said = Vec::with_capacity(batch.len());
        let done = match timeout(RESPONSE + WAITED, self.say(node, wire, &batch, &mut said)).await {
            Ok(done) => done,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        };
        let durability = match &done {
            Ok(durability) => *durability,
            Err(_) => {
                *wire = None;
                Durability::Memory
            }
        };
        let mut said = said.into_iter();
        for waiting in batch {
            let answer = match said.next() {
                Some(value) => value.extract_error().map(|value| (value, durability)).map_err(Silence::Error),
                // It may have run.
                None => Err(Silence::Error(io::Error::from(io::ErrorKind::ConnectionAborted).into())),
            };
            let _ = waiting.answer.send(answer);
        }
        if let Err(error) = done {
            self.tell(&format!("the connection to Redis at {node} for durable deliveries failed: {error}"));
        }
    }

    /// Says all of it, and waits.
    async fn say(
        &self,
        node: &Node,
        wire: &mut Option<Wire>,
        batch: &[Waiting],
        said: &mut Vec<Value>,
    ) -> Result<Durability, RedisError> {
        let wire = match wire {
            Some(wire) => wire,
            None => wire.insert(Wire::connect(&self.url, node).await?),
        };
        let Some(wants) = batch.first().map(|first| first.wants) else { return Ok(Durability::Memory) };
        for waiting in batch {
            wire.unsaid().extend_from_slice(&waiting.command);
        }
        let ms = u64::try_from(WAITED.as_millis()).unwrap_or(u64::MAX);
        match wants {
            Durability::Memory => wire.say(&cmd("PING")).await?,
            Durability::Replica => wire.say(cmd("WAIT").arg(1).arg(ms)).await?,
            Durability::Fsync => wire.say(cmd("WAITAOF").arg(1).arg(0).arg(ms)).await?,
        }
        while said.len() < batch.len() {
            if let Said::Answer(value) = wire.hear().await? {
                said.push(value);
            }
        }
        loop {
            if let Said::Answer(value) = wire.hear().await? {
                return Ok(self.read(node, wants, value));
            }
        }
    }

    /// What the wait came to.
    fn read(&self, node: &Node, wants: Durability, value: Value) -> Durability {
        let count = match value.extract_error() {
            Ok(Value::Int(count)) => count,
            // WAITAOF: this server, and its replicas.
            Ok(Value::Array(counts)) => match counts.first() {
                Some(Value::Int(count)) => *count,
                _ => 0,
            },
            Ok(_) => 0,
            Err(error) => {
                self.tell(&format!(
                    "Redis at {node} cannot wait, so durable deliveries are in its memory alone: {error}; fsync wants Redis 7.2 with appendonly yes"
                ));
                return Durability::Memory;
            }
        };
        let missing = match wants {
            _ if count > 0 => return wants,
            Durability::Memory => return wants,
            Durability::Replica => "no replica",
            Durability::Fsync => "no disk",
        };
        self.tell(&format!(
            "{missing} has acknowledged in time, so durable deliveries are in the memory of Redis at {node} alone"
        ));
        Durability::Memory
    }

    /// That it is less sure than wanted is told at once, and again while it lasts.
    fn tell(&self, what: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TOLD_AGAIN) {
            *told = Some(Instant::now());
            warn!("{what}");
        }
    }

    /// A panic while the lock was held leaves queues that can be used: every step is whole.
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
