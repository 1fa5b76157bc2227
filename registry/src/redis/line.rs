//! A line to one server: one connection, shared by all, watched and rebuilt. While it is known to be down
//! nobody waits for it; a ping finds out when it is back.

use super::{
    scripts,
    topology::{self, Servers, unreachable},
    url::Node,
    wire::Wire,
};
use arc_swap::ArcSwapOption;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection, cmd,
    from_redis_value, pipe,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

/// What a command may take; afterwards nobody knows whether it ran.
const RESPONSE: Duration = Duration::from_secs(2);
/// Commands that wait for the writer at most; a caller beyond it waits for room.
const PIPELINE: usize = 1024;
/// Pings without an answer until the connection is given up.
const PINGS: u32 = 3;
/// How often a server is asked whether it is the master still, besides after every trouble.
const LOOKED_AFTER: Duration = Duration::from_secs(10);
/// Between two attempts to connect, growing.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How often an outage is told again while it lasts.
pub const TOLD_AGAIN: Duration = Duration::from_secs(30);
/// Nothing is known yet of what a server remembers.
const NEVER: u64 = u64::MAX;

/// What the lines tell those who wait for any of them.
#[derive(Default)]
pub struct Tidings {
    /// Counts the times that one of them came up.
    pub lives: AtomicU64,
    /// One of them is up again.
    pub came_back: Notify,
    /// One of them is in trouble: another server may serve its slots.
    pub trouble: Notify,
}

/// Why a command has no answer.
#[derive(Debug)]
pub enum Silence {
    /// The line is known to be down. Nothing was sent.
    Down,
    /// This came instead.
    Error(RedisError),
}

/// What a look at the server behind a line found.
pub struct Look {
    /// It was started anew, or took over for another: it may have lost what it was told a moment ago.
    pub is_another: bool,
    doubts: u64,
}

/// The line to one server.
pub struct Line {
    servers: Arc<Servers>,
    tidings: Arc<Tidings>,
    /// Which server; without it whoever is the master when we connect.
    at: Option<Node>,
    /// Whether it took the place of another line.
    came_later: bool,
    wire: ArcSwapOption<(Node, Wire)>,
    up: AtomicBool,
    trouble: Notify,
    /// Counts connections and commands without an answer: after either the server may be another.
    doubts: AtomicU64,
    /// Up to which doubt it is known what the server lost.
    settled: AtomicU64,
    looked_at: Mutex<Option<Instant>>,
    identity: Mutex<Option<String>>,
}

impl Line {
    pub fn new(servers: Arc<Servers>, tidings: Arc<Tidings>, at: Option<Node>, came_later: bool) -> Self {
        Self {
            servers,
            tidings,
            at,
            came_later,
            wire: ArcSwapOption::empty(),
            up: AtomicBool::new(false),
            trouble: Notify::new(),
            doubts: AtomicU64::new(0),
            settled: AtomicU64::new(NEVER),
            looked_at: Mutex::default(),
            identity: Mutex::default(),
        }
    }

    pub fn leads_to(&self, node: &Node) -> bool {
        self.at.as_ref() == Some(node)
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether what the server has not was never told to it, as far as we know.
    pub fn is_settled(&self) -> bool {
        self.is_up() && self.settled.load(Ordering::Relaxed) == self.doubts.load(Ordering::Relaxed)
    }

    /// One command. Fails at once while the line is down.
    pub async fn ask(&self, command: &Cmd) -> Result<Value, Silence> {
        let mut connection = self.connection()?;
        let said = connection.send_packed_command(command).await;
        said.and_then(Value::extract_error).map_err(|error| self.fault(error))
    }

    /// One command for a slot that is on its way here.
    pub async fn ask_ahead(&self, command: &Cmd) -> Result<Value, Silence> {
        let mut connection = self.connection()?;
        let said = pipe().cmd("ASKING").ignore().add_command(command.clone()).query_async(&mut connection).await;
        said.map(|[value]: [Value; 1]| value).map_err(|error| self.fault(error))
    }

    fn connection(&self) -> Result<MultiplexedConnection, Silence> {
        let wire = self.wire.load();
        wire.as_ref().filter(|_| self.is_up()).map(|wire| wire.1.connection()).ok_or(Silence::Down)
    }

    /// Whoever was not answered by a server, or by one that has nothing to say, finds it down.
    fn fault(&self, error: RedisError) -> Silence {
        let text = error.to_string();
        let lost = match error.kind() {
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading,
            ) => true,
            // In scripts the code of an inner error stands in the text alone.
            ErrorKind::Server(_) | ErrorKind::Extension => {
                let code = error.code().unwrap_or_default();
                ["READONLY", "MASTERDOWN"].iter().any(|word| code == *word || text.contains(word))
            }
            _ => true,
        };
        if lost {
            self.lost(&text);
        }
        Silence::Error(error)
    }

    fn lost(&self, why: &str) {
        if self.up.swap(false, Ordering::Relaxed) {
            warn!("Redis at {} does not answer: {why}; sockets here go on, the registry is degraded", self.shown());
        }
        self.doubt();
    }

    /// Something was said that leaves open what the server knows.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::Relaxed);
        self.trouble.notify_one();
        self.tidings.trouble.notify_one();
    }

    /// The server, for people.
    fn shown(&self) -> String {
        match (&self.at, self.wire.load().as_deref()) {
            (Some(node), _) => node.to_string(),
            (None, Some((node, _))) if self.servers.are_named_by_sentinels() => node.to_string(),
            (None, _) => self.servers.url.shown(),
        }
    }

    /// Keeps the line up. Never returns; whoever drops it and begins again goes on where it was.
    pub async fn keep(&self) {
        loop {
            if self.is_up() {
                let _ = timeout(LOOKED_AFTER, self.trouble.notified()).await;
            }
            if self.is_well().await {
                if !self.is_up() {
                    self.back();
                }
                continue;
            }
            self.up.store(false, Ordering::Relaxed);
            self.wire.store(None);
            self.tidings.trouble.notify_one();
            self.reconnect().await;
        }
    }

    async fn reconnect(&self) {
        let mut told: Option<Instant> = None;
        let mut pause = RETRY;
        loop {
            let Err(error) = self.connect().await else { break };
            if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
                told = Some(Instant::now());
                warn!("Redis at {} is still away: {}", self.shown(), self.servers.told(&error));
            }
            // Jitter: a fleet that lost its Redis must not come back in one moment.
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        info!("connected to Redis at {}", self.shown());
    }

    fn back(&self) {
        self.doubts.fetch_add(1, Ordering::Relaxed);
        self.tidings.lives.fetch_add(1, Ordering::Relaxed);
        self.up.store(true, Ordering::Relaxed);
        self.tidings.came_back.notify_waiters();
    }

    /// Connects to whoever is to be talked to now.
    pub async fn connect(&self) -> Result<(), RedisError> {
        let node = match &self.at {
            Some(node) => node.clone(),
            None => self.servers.master().await?,
        };
        let config =
            AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE)).set_pipeline_buffer_size(PIPELINE);
        let wire = Wire::connect(self.servers.url.server(&node)?, &config).await?;
        let mut connection = wire.connection();
        if !is_master(&mut connection).await? {
            return Err(unreachable(format!("{node} is no master")));
        }
        // A server that does not permit it is told the scripts as they are needed.
        let _ = scripts::load().exec_async(&mut connection).await;
        self.wire.store(Some(Arc::new((node, wire))));
        self.back();
        Ok(())
    }

    /// Whether the server answers, and is the one to talk to still.
    async fn is_well(&self) -> bool {
        let wire = self.wire.load_full();
        let Some((node, wire)) = wire.as_deref() else { return false };
        for _ in 0..PINGS {
            match wire.connection().send_packed_command(&cmd("PING")).await {
                Ok(_) => {
                    let is_master = is_master(&mut wire.connection()).await;
                    // One that was replaced may not know it yet; the sentinels do, and if they are away, it stays.
                    let is_named = !self.servers.are_named_by_sentinels()
                        || self.servers.master().await.map_or(true, |master| master == *node);
                    return is_master.unwrap_or(false) && is_named;
                }
                Err(error) if error.is_timeout() => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Looks who the server is, if there is a reason to, or the last look is `long_ago`.
    pub async fn look(&self, long_ago: Duration) -> Option<Look> {
        let looked_at = *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = looked_at.is_some_and(|at| at.elapsed() < long_ago);
        if !self.is_up() || (self.is_settled() && lately) {
            return None;
        }
        let doubts = self.doubts.load(Ordering::Relaxed);
        let now = topology::identity(&from_redis_value(self.ask(&cmd("INFO")).await.ok()?).ok()?);
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let before = self.identity.lock().unwrap_or_else(PoisonError::into_inner).replace(now.clone());
        Some(Look { is_another: before.map_or(self.came_later, |before| before != now), doubts })
    }

    /// What the look found is dealt with.
    pub fn settle(&self, look: &Look) {
        self.settled.store(look.doubts, Ordering::Relaxed);
    }
}

async fn is_master(connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
    match cmd("ROLE").query_async::<Vec<Value>>(connection).await {
        Ok(role) => Ok(role.first() == Some(&Value::BulkString(b"master".to_vec()))),
        // Who may not ask has to believe.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(true),
        Err(error) => Err(error),
    }
}
