//! A line to one server: one connection, shared by all, watched and rebuilt. While it is known to be down
//! nobody waits for it; a ping finds out when it is back.

use super::{
    pipeline::Pipeline,
    scripts,
    topology::{self, Servers, unreachable},
    url::Node,
    wire::Wire,
};
use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd, from_redis_value};
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
    pipeline: ArcSwapOption<(Node, Pipeline)>,
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
            pipeline: ArcSwapOption::empty(),
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

    /// The server behind it now, if it is up.
    pub fn node(&self) -> Option<Node> {
        self.pipeline.load().as_deref().filter(|_| self.is_up()).map(|(node, _)| node.clone())
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
        self.ask_all(&[command]).await
    }

    /// One command for a slot that is on its way here.
    pub async fn ask_ahead(&self, command: &Cmd) -> Result<Value, Silence> {
        self.ask_all(&[&cmd("ASKING"), command]).await
    }

    async fn ask_all(&self, commands: &[&Cmd]) -> Result<Value, Silence> {
        let pipeline = self.pipeline.load_full().filter(|_| self.is_up()).ok_or(Silence::Down)?;
        pipeline.1.ask(commands).await.map_err(|error| self.fault(error))
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
        match (&self.at, self.pipeline.load().as_deref()) {
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
            self.pipeline.store(None);
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
        let pipeline = Pipeline::over(Wire::connect(&self.servers.url, &node).await?);
        if !is_master(&pipeline).await? {
            return Err(unreachable(format!("{node} is no master")));
        }
        // A server that does not permit it is told the scripts as they are needed.
        join_all(scripts::load().iter().map(async |load| pipeline.ask(&[load]).await)).await;
        self.pipeline.store(Some(Arc::new((node, pipeline))));
        self.back();
        Ok(())
    }

    /// Whether the server answers, and is the one to talk to still.
    async fn is_well(&self) -> bool {
        let pipeline = self.pipeline.load_full();
        let Some((node, pipeline)) = pipeline.as_deref() else { return false };
        for _ in 0..PINGS {
            match pipeline.ask(&[&cmd("PING")]).await {
                Ok(_) => {
                    let is_master = is_master(pipeline).await;
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

async fn is_master(pipeline: &Pipeline) -> Result<bool, RedisError> {
    match pipeline.ask(&[&cmd("ROLE")]).await {
        Ok(Value::Array(role)) => Ok(role.first() == Some(&Value::BulkString(b"master".to_vec()))),
        Ok(_) => Ok(false),
        // Who may not ask has to believe.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(true),
        Err(error) => Err(error),
    }
}
