//! The connection that everything quick goes over: one, shared by all, watched and rebuilt. While it is
//! known to be down nobody waits for it; a ping finds out when it is back.

use super::{
    beat::ms,
    topology::{Server, Servers},
    url::{RedisUrl, Topology, tcp},
};
use crate::all::Health;
use arc_swap::ArcSwapOption;
use redis::{
    Arg, AsyncConnectionConfig, Client, Cmd, ErrorKind, ProtocolVersion, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
    cmd,
};
use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
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
/// What connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Commands that wait for the writer at most; a caller beyond it waits for room.
const PIPELINE: usize = 1024;
/// Pings without an answer until the connection is given up.
const PINGS: u32 = 3;
/// How often a command follows a slot, or waits for a new master.
const RETRIES: u32 = 4;
/// Between two attempts to connect, growing.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How often an outage is told again while it lasts.
const TOLD_AGAIN: Duration = Duration::from_secs(30);
/// And another refusal so soon after the last.
const TOLD_ANOTHER: Duration = Duration::from_secs(1);
/// For how long a denial counts as an outage.
const DENIED_FOR: Duration = Duration::from_secs(10);
/// What a server says that works and will not.
const DENIALS: [&str; 5] = ["NOPERM", "OOM", "MISCONF", "NOREPLICAS", "No permissions"];
/// The oldest Redis whose scripts can do what ours do.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The link is known to be down. Nothing was sent.
    Down,
    /// Redis does not answer, or not now. The command may have run.
    Away,
    /// Redis will not: a right, memory, disk, or a key of a foreign type. Nothing was changed by it.
    Refused(String),
    /// It does not know the script.
    NoScript,
}

/// Why serving on this Redis has no sense; waiting does not mend it.
#[derive(Debug)]
pub struct Unusable(pub String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone)]
enum Wire {
    Single(MultiplexedConnection),
    Cluster {
        /// Follows slots and asks again by itself.
        patient: ClusterConnection,
        /// Asks once: for what must not be done twice.
        once: ClusterConnection,
    },
}

/// The link to Redis.
pub struct Link {
    pub url: RedisUrl,
    pub servers: Servers,
    wire: ArcSwapOption<Wire>,
    up: AtomicBool,
    /// Counts the times that it came back.
    lives: AtomicU64,
    /// Counts the commands that were not answered.
    troubles: AtomicU64,
    trouble: Notify,
    came_back: Notify,
    refused: Mutex<Option<(String, Instant)>>,
    began: Instant,
    /// When Redis last said that it may not, or has no room; 0 is never.
    denied_at: AtomicU64,
}

impl Link {
    pub fn new(url: RedisUrl) -> Self {
        Self {
            servers: Servers::new(url.clone()),
            url,
            wire: ArcSwapOption::empty(),
            up: AtomicBool::new(false),
            lives: AtomicU64::new(0),
            troubles: AtomicU64::new(0),
            trouble: Notify::new(),
            came_back: Notify::new(),
            refused: Mutex::default(),
            began: Instant::now(),
            denied_at: AtomicU64::new(0),
        }
    }

    pub fn is_cluster(&self) -> bool {
        self.url.topology == Topology::Cluster
    }

    pub fn health(&self) -> Health {
        let denied_at = self.denied_at.load(Ordering::Relaxed);
        let denied = denied_at > 0 && self.elapsed_ms() < denied_at + ms(DENIED_FOR);
        if self.is_up() && !denied { Health::Up } else { Health::Down }
    }

    fn elapsed_ms(&self) -> u64 {
        ms(self.began.elapsed())
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Grows with every connection: whoever sees another number than before has missed something.
    pub fn lives(&self) -> u64 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Grows with every command that was not answered: a server may be another by now.
    pub fn troubles(&self) -> u64 {
        self.troubles.load(Ordering::Relaxed)
    }

    /// Waits until the link is up again.
    pub async fn is_back(&self) {
        loop {
            let back = self.came_back.notified();
            if self.up.load(Ordering::Relaxed) {
                return;
            }
            back.await;
        }
    }

    /// One command that must not run twice: whoever gets no answer must not be answered by the second try.
    pub async fn ask_once(&self, command: &Cmd) -> Result<Value, Fault> {
        let wire = self.wire.load_full().filter(|_| self.is_up());
        let Some(Wire::Cluster { once, .. }) = wire.as_deref() else { return self.ask(command).await };
        match timeout(RESPONSE, once.clone().req_packed_command(command)).await {
            Err(_) => self.lost("a command was not answered in time"),
            Ok(said) => match said.and_then(Value::extract_error) {
                Ok(value) => Ok(value),
                // It did not run there, so it may be tried where it belongs.
                Err(error) if error.is_cluster_error() => self.ask(command).await,
                Err(error) => self.fault(command, &error),
            },
        }
    }

    /// One command. Fails at once while the link is down.
    pub async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        if !self.up.load(Ordering::Relaxed) {
            return Err(Fault::Down);
        }
        let Some(wire) = self.wire.load_full() else { return Err(Fault::Down) };
        let said = match wire.as_ref() {
            Wire::Single(connection) => connection.clone().req_packed_command(command).await,
            Wire::Cluster { patient, .. } => {
                match timeout(RESPONSE, patient.clone().req_packed_command(command)).await {
                    Ok(said) => said,
                    Err(_) => return self.lost("a command was not answered in time"),
                }
            }
        };
        match said.and_then(Value::extract_error) {
            Ok(value) => Ok(value),
            Err(error) => self.fault(command, &error),
        }
    }

    fn fault(&self, command: &Cmd, error: &RedisError) -> Result<Value, Fault> {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => Err(Fault::NoScript),
            // Not the master any more, or not yet: whoever is has to be found.
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain,
            ) => self.lost(&error.to_string()),
            ErrorKind::Server(_) | ErrorKind::Extension => {
                // Redis' own word for it, which the library puts into others.
                let why = format!("{} {error}", error.code().unwrap_or_default());
                // In scripts the code of an inner error stands in the text alone.
                if why.contains("READONLY") || why.contains("MASTERDOWN") {
                    return self.lost(&why);
                }
                if DENIALS.iter().any(|denial| why.contains(denial)) {
                    self.denied_at.store(self.elapsed_ms(), Ordering::Relaxed);
                }
                self.refused(&format!("{}: {why}", named(command)));
                Err(Fault::Refused(why))
            }
            _ => self.lost(&error.to_string()),
        }
    }

    /// A server that refuses is told about at once, and again while it does.
    fn refused(&self, why: &str) {
        let mut last = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let again = |told: &str| if told == why { TOLD_AGAIN } else { TOLD_ANOTHER };
        if last.as_ref().is_none_or(|(told, at)| at.elapsed() >= again(told)) {
            warn!("Redis refused what the registry needs: {why}");
            *last = Some((why.to_owned(), Instant::now()));
        }
    }

    fn lost(&self, why: &str) -> Result<Value, Fault> {
        self.troubles.fetch_add(1, Ordering::Relaxed);
        // One node of a cluster may be away while the others serve; a ping tells whether any does.
        if !self.is_cluster() && self.up.swap(false, Ordering::Relaxed) {
            warn!("Redis at {} does not answer: {why}; sockets here go on, the registry is degraded", self.url.shown());
        }
        self.trouble.notify_one();
        Err(Fault::Away)
    }

    /// The first connection. Not being reached is no reason to give up; being turned away is.
    pub async fn open(&self) -> Result<(), Unusable> {
        match self.connect().await {
            Ok(wire) => {
                match self.servers.look().await {
                    Ok(servers) => servers.iter().try_for_each(fit)?,
                    Err(error) if is_refusal(&error) => return Err(Unusable(self.turned_away(&error))),
                    // One of several is away, and the others serve.
                    Err(error) => warn!("not every Redis server could be asked what it is: {error}"),
                }
                self.join(wire);
                Ok(())
            }
            Err(error) if is_refusal(&error) => Err(Unusable(self.turned_away(&error))),
            Err(error) => {
                warn!("Redis at {} cannot be reached: {error}; serving without it, and trying on", self.url.shown());
                Ok(())
            }
        }
    }

    fn turned_away(&self, error: &RedisError) -> String {
        let shown = self.url.shown();
        let text = error.to_string();
        match error.kind() {
            ErrorKind::AuthenticationFailed => {
                format!("Redis at {shown} refused our login: {text}; mend user and password in REDIS_URL")
            }
            _ if text.contains("WRONGPASS") || text.contains("NOAUTH") => {
                format!("Redis at {shown} refused our login: {text}; mend user and password in REDIS_URL")
            }
            _ if text.contains("NOPERM") => {
                format!(
                    "Redis at {shown} does not permit what is needed: {text}; deploy/redis/holdfast.acl has what suffices"
                )
            }
            ErrorKind::RESP3NotSupported | ErrorKind::Parse => {
                format!("what answers at {shown} is no Redis of 6.2 or later: {text}")
            }
            _ => format!("Redis at {shown} cannot be used: {text}"),
        }
    }

    /// Keeps the link up. Never returns.
    pub async fn keep(&self) {
        let mut told: Option<Instant> = None;
        loop {
            if self.up.load(Ordering::Relaxed) {
                told = None;
                self.trouble.notified().await;
            }
            if self.pings().await {
                if !self.is_up() {
                    self.back();
                }
                continue;
            }
            self.up.store(false, Ordering::Relaxed);
            self.wire.store(None);
            let mut pause = RETRY;
            loop {
                match self.connect().await {
                    Ok(wire) => {
                        self.join(wire);
                        info!("Redis at {} answers again", self.url.shown());
                        break;
                    }
                    Err(error) => {
                        if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
                            told = Some(Instant::now());
                            let text = if is_refusal(&error) { self.turned_away(&error) } else { error.to_string() };
                            warn!("Redis at {} is still away: {text}", self.url.shown());
                        }
                        // Jitter: a fleet that lost its Redis must not come back in one moment.
                        sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                        pause = (pause * 2).min(RETRY_MAX);
                    }
                }
            }
        }
    }

    async fn pings(&self) -> bool {
        let Some(wire) = self.wire.load_full() else { return false };
        for _ in 0..PINGS {
            let ping = cmd("PING");
            let said = match wire.as_ref() {
                Wire::Single(connection) => connection.clone().req_packed_command(&ping).await,
                Wire::Cluster { patient, .. } => {
                    let anybody = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                    let mut connection = patient.clone();
                    match timeout(RESPONSE, connection.route_command(ping, anybody)).await {
                        Ok(said) => said,
                        Err(_) => continue,
                    }
                }
            };
            match said {
                // A server that answers but is no master is of no use.
                Ok(_) => return self.is_master(wire.as_ref()).await,
                Err(error) if error.is_timeout() => {}
                Err(_) => return false,
            }
        }
        false
    }

    async fn is_master(&self, wire: &Wire) -> bool {
        let Wire::Single(connection) = wire else { return true };
        match cmd("ROLE").query_async::<Vec<Value>>(&mut connection.clone()).await {
            Ok(role) => role.first() == Some(&Value::BulkString(b"master".to_vec())),
            // Who may not ask has to believe.
            Err(error) => error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm),
        }
    }

    fn join(&self, wire: Wire) {
        self.wire.store(Some(wire.into()));
        self.back();
    }

    fn back(&self) {
        self.lives.fetch_add(1, Ordering::Relaxed);
        self.up.store(true, Ordering::Relaxed);
        self.came_back.notify_waiters();
    }

    async fn connect(&self) -> Result<Wire, RedisError> {
        if self.is_cluster() {
            let nodes = self.url.nodes.iter().map(|node| self.url.server(node)).collect::<Result<Vec<_>, _>>()?;
            let connect = async |retries| {
                let client = ClusterClientBuilder::new(nodes.clone())
                    .use_protocol(ProtocolVersion::RESP3)
                    .tcp_settings(tcp())
                    .connection_timeout(CONNECT)
                    .response_timeout(RESPONSE)
                    .retries(retries)
                    .min_retry_wait(20)
                    .max_retry_wait(300)
                    .build()?;
                timeout(CONNECT * 2, client.get_async_connection()).await.map_err(|_| timed_out())?
            };
            return Ok(Wire::Cluster { patient: connect(RETRIES).await?, once: connect(0).await? });
        }
        let node = self.servers.masters().await?.pop().ok_or_else(timed_out)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(RESPONSE))
            .set_pipeline_buffer_size(PIPELINE);
        let client = Client::open(self.url.server(&node)?)?;
        let wire = Wire::Single(client.get_multiplexed_async_connection_with_config(&config).await?);
        match self.is_master(&wire).await {
            true => Ok(wire),
            false => Err(std::io::Error::other(format!("{node} is no master")).into()),
        }
    }
}

/// A command and its first key, for people.
fn named(command: &Cmd) -> String {
    let word = |nth: usize| match command.args_iter().nth(nth) {
        Some(Arg::Simple(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    match word(0).as_str() {
        "EVALSHA" | "EVAL" => format!("a script on {}", word(3)),
        name => format!("{name} {}", word(1)),
    }
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Whether the server was reached and would not have us.
fn is_refusal(error: &RedisError) -> bool {
    let text = error.to_string();
    matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::RESP3NotSupported | ErrorKind::Parse)
        || ["WRONGPASS", "NOAUTH", "NOPERM", "unknown command"].iter().any(|word| text.contains(word))
}

fn fit(server: &Server) -> Result<(), Unusable> {
    let mut numbers = server.version.split('.').map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < VERSION_MIN {
        let (major, minor) = VERSION_MIN;
        return Err(Unusable(format!(
            "Redis at {} is version {}; {major}.{minor} or later is wanted",
            server.node, server.version
        )));
    }
    if !matches!(server.eviction.as_str(), "" | "noeviction") {
        warn!(
            "Redis at {} evicts keys ({}): sockets will be called never seen that are there; set maxmemory-policy noeviction",
            server.node, server.eviction
        );
    }
    Ok(())
}
