//! The link to Redis: a line to each master, a command over the line of its key's slot. One master that
//! hangs keeps nobody from the others.

use super::{
    beat::ms,
    keys::{SLOTS, slot},
    line::{Line, Silence, TOLD_AGAIN, Tidings},
    steadfast::Steadfast,
    topology::{Server, Servers, is_refusal},
    url::{Node, RedisUrl, Topology},
};
use crate::{all::Health, log::Durability};
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{Arg, Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

/// How often a command follows a slot, or waits for a master.
const FOLLOWED_MAX: u32 = 5;
/// How long it waits the first time; twice as long each time after.
const WAIT: Duration = Duration::from_millis(20);
/// How often the cluster is asked who serves what, while all is well and while something is not.
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED_SOON: Duration = Duration::from_millis(500);
/// Between two questions at least.
const ASKED_AGAIN: Duration = Duration::from_millis(50);
/// Another refusal so soon after the last is not told.
const TOLD_ANOTHER: Duration = Duration::from_secs(1);
/// Of a right that is missing in a script Redis 7.0 does not say which it is. Whoever is told that wants to hear of one
/// that has a name, and not of this again and again in between.
const NAMELESS: &str = "executing the script";
/// For how long a denial counts as an outage.
const DENIED_FOR: Duration = Duration::from_secs(10);
/// What a server says that works and will not.
const DENIALS: [&str; 5] = ["NOPERM", "OOM", "MISCONF", "NOREPLICAS", "No permissions"];
/// The oldest Redis whose scripts can do what ours do.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Its server is known to be down. Nothing was sent.
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

/// Which line leads to a slot's master.
struct Routes {
    lines: Vec<Arc<Line>>,
    /// From, to, and the place of the line above; in order.
    ranges: Vec<(u16, u16, usize)>,
}

impl Routes {
    fn line_to(&self, slot: u16) -> Option<&Arc<Line>> {
        let after = self.ranges.partition_point(|(from, ..)| *from <= slot);
        let (_, to, line) = self.ranges.get(after.checked_sub(1)?)?;
        self.lines.get(*line).filter(|_| slot <= *to)
    }
}

/// The link to Redis.
pub struct Link {
    pub servers: Arc<Servers>,
    tidings: Arc<Tidings>,
    steadfast: Steadfast,
    routes: ArcSwap<Routes>,
    rerouted: Notify,
    refused: Mutex<Option<(String, Instant)>>,
    began: Instant,
    /// When Redis last said that it may not, or has no room; 0 is never.
    denied_at: AtomicU64,
}

impl Link {
    pub fn new(url: RedisUrl) -> Self {
        let servers = Arc::new(Servers::new(url));
        let tidings = Arc::new(Tidings::default());
        let routes = match servers.url.topology {
            Topology::Cluster => Routes { lines: Vec::new(), ranges: Vec::new() },
            Topology::Standalone | Topology::Sentinel { .. } => Routes {
                lines: vec![Arc::new(Line::new(servers.clone(), tidings.clone(), None, false))],
                ranges: vec![(0, SLOTS - 1, 0)],
            },
        };
        Self {
            steadfast: Steadfast::new(servers.url.clone()),
            servers,
            tidings,
            routes: ArcSwap::from_pointee(routes),
            rerouted: Notify::new(),
            refused: Mutex::default(),
            began: Instant::now(),
            denied_at: AtomicU64::new(0),
        }
    }

    pub fn url(&self) -> &RedisUrl {
        &self.servers.url
    }

    pub fn is_cluster(&self) -> bool {
        self.url().topology == Topology::Cluster
    }

    pub fn lines(&self) -> Vec<Arc<Line>> {
        self.routes.load().lines.clone()
    }

    pub fn health(&self) -> Health {
        let denied_at = self.denied_at.load(Ordering::Relaxed);
        let denied = denied_at > 0 && self.elapsed_ms() < denied_at + ms(DENIED_FOR);
        if self.is_whole() && !denied { Health::Up } else { Health::Down }
    }

    fn elapsed_ms(&self) -> u64 {
        ms(self.began.elapsed())
    }

    /// Whether any server answers.
    pub fn is_up(&self) -> bool {
        self.routes.load().lines.iter().any(|line| line.is_up())
    }

    /// Whether every server does.
    fn is_whole(&self) -> bool {
        let routes = self.routes.load();
        !routes.lines.is_empty() && routes.lines.iter().all(|line| line.is_up())
    }

    /// Whether what is not at this key was never told, as far as we know.
    pub fn is_settled(&self, key: &str) -> bool {
        self.routes.load().line_to(slot(key)).is_some_and(|line| line.is_settled())
    }

    /// Grows whenever a server answers again: whoever sees another number than before has missed something.
    pub fn lives(&self) -> u64 {
        self.tidings.lives.load(Ordering::Relaxed)
    }

    /// Waits until any server answers.
    pub async fn is_back(&self) {
        loop {
            let back = self.tidings.came_back.notified();
            if self.is_up() {
                return;
            }
            back.await;
        }
    }

    /// One command, sent where its key is; again only where it surely did not run. Fails at once while the
    /// server is down.
    pub async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        let slot = key_of(command).filter(|_| self.is_cluster()).map(slot);
        let (mut line, mut ahead) = (self.line_to(slot).ok_or(Fault::Down)?, false);
        for nth in 0.. {
            let said = if ahead { line.ask_ahead(command).await } else { line.ask(command).await };
            let error = match said {
                Ok(value) => return Ok(value),
                Err(Silence::Down) => return Err(Fault::Down),
                Err(Silence::Error(error)) => error,
            };
            if !self.is_cluster() || !is_elsewhere(&error) || nth == FOLLOWED_MAX {
                return Err(self.fault(command, &line, &error));
            }
            self.tidings.trouble.notify_one();
            let named = error.redirect_node().and_then(|(node, _)| self.line_at(node));
            ahead = named.is_some() && error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
            line = match named {
                Some(line) => line,
                None => {
                    sleep((WAIT * 2_u32.pow(nth)).mul_f64(0.5 + fastrand::f64())).await;
                    self.line_to(slot).ok_or(Fault::Down)?
                }
            };
        }
        Err(Fault::Away)
    }

    /// One command that has to survive its server, and how sure that is. Who is sent elsewhere with it goes there the
    /// quick way, on which nobody waits for anything.
    pub async fn ask_durably(&self, command: &Cmd, wants: Durability) -> Result<(Value, Durability), Fault> {
        let slot = key_of(command).filter(|_| self.is_cluster()).map(slot);
        let line = self.line_to(slot).ok_or(Fault::Down)?;
        let error = match (wants, line.node()) {
            (Durability::Memory, _) => return self.ask(command).await.map(|value| (value, Durability::Memory)),
            (_, None) => return Err(Fault::Down),
            (_, Some(node)) => match self.steadfast.ask(&node, command, wants).await {
                Ok(said) => return Ok(said),
                Err(Silence::Down) => return Err(Fault::Down),
                Err(Silence::Error(error)) => error,
            },
        };
        if is_elsewhere(&error) {
            return self.ask(command).await.map(|value| (value, Durability::Memory));
        }
        Err(self.fault(command, &line, &error))
    }

    /// What has no key may be asked of anybody who answers.
    fn line_to(&self, slot: Option<u16>) -> Option<Arc<Line>> {
        let routes = self.routes.load();
        match slot {
            Some(slot) => routes.line_to(slot).cloned(),
            None => routes.lines.iter().find(|line| line.is_up()).cloned(),
        }
    }

    fn line_at(&self, named: &str) -> Option<Arc<Line>> {
        let (host, port) = named.rsplit_once(':')?;
        let node = Node { host: host.to_owned(), port: port.parse().ok()? };
        self.routes.load().lines.iter().find(|line| line.leads_to(&node)).cloned()
    }

    fn fault(&self, command: &Cmd, line: &Line, error: &RedisError) -> Fault {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => Fault::NoScript,
            ErrorKind::Server(_) | ErrorKind::Extension if line.is_up() && !is_elsewhere(error) => {
                // Redis' own word for it, which the library puts into others.
                let why = format!("{} {error}", error.code().unwrap_or_default());
                self.was_refused(&named(command), &why);
                Fault::Refused(why)
            }
            kind => {
                // It answers, and will not: nothing else would tell.
                if kind == ErrorKind::Server(ServerErrorKind::ClusterDown) {
                    self.denied_at.store(self.elapsed_ms(), Ordering::Relaxed);
                    self.refused(&error.to_string());
                }
                line.doubt();
                Fault::Away
            }
        }
    }

    /// A server works and will not.
    pub fn was_refused(&self, what: &str, why: &str) {
        if DENIALS.iter().any(|denial| why.contains(denial)) {
            self.denied_at.store(self.elapsed_ms(), Ordering::Relaxed);
        }
        self.refused(&format!("{what}: {why}"));
    }

    /// A server that refuses is told about at once, and again while it does.
    fn refused(&self, why: &str) {
        let mut last = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let again = |told: &str| match (told.contains(NAMELESS), why.contains(NAMELESS)) {
            (true, false) => Duration::ZERO,
            (_, true) => TOLD_AGAIN,
            _ if told == why => TOLD_AGAIN,
            _ => TOLD_ANOTHER,
        };
        if last.as_ref().is_none_or(|(told, at)| at.elapsed() >= again(told)) {
            warn!("Redis refused what the registry needs: {why}");
            *last = Some((why.to_owned(), Instant::now()));
        }
    }

    /// The first connection. Not being reached is no reason to give up; being turned away is.
    pub async fn open(&self) -> Result<(), Unusable> {
        let turned_away = |error: &RedisError| Unusable(self.servers.told(error));
        let reached = match self.is_cluster() {
            true => self.reroute().await,
            false => Ok(()),
        };
        let mut failed = reached.err();
        for connected in join_all(self.lines().iter().map(|line| line.connect())).await {
            failed = connected.err().or(failed);
        }
        if let Some(error) = failed.as_ref().filter(|error| is_refusal(error)) {
            return Err(turned_away(error));
        }
        if !self.is_up() {
            let why = failed.map(|error| error.to_string()).unwrap_or_default();
            warn!("Redis at {} cannot be reached: {why}; serving without it, and trying on", self.url().shown());
            return Ok(());
        }
        // However many they are, it is the first time.
        self.tidings.lives.store(1, Ordering::Relaxed);
        for looked in self.servers.look().await {
            match looked {
                Ok(server) => self.fits(&server)?,
                Err(error) if is_refusal(&error) => return Err(turned_away(&error)),
                // One of several is away, and the others serve.
                Err(error) => warn!("not every Redis server could be asked what it is: {error}"),
            }
        }
        Ok(())
    }

    /// Keeps the link up. Never returns.
    pub async fn keep(&self) {
        tokio::join!(self.keep_lines(), self.keep_routes());
    }

    /// Brings what has to survive its server there. Never returns.
    pub async fn keep_steadfast(&self) {
        self.steadfast.keep().await;
    }

    async fn keep_lines(&self) {
        loop {
            let rerouted = self.rerouted.notified();
            let lines = self.lines();
            tokio::select! {
                () = rerouted => {}
                _ = join_all(lines.iter().map(|line| line.keep())), if !lines.is_empty() => {}
            }
        }
    }

    async fn keep_routes(&self) {
        if !self.is_cluster() {
            return;
        }
        let mut told: Option<Instant> = None;
        loop {
            let pause = if self.is_whole() { ASKED_EVERY } else { ASKED_SOON.mul_f64(0.5 + fastrand::f64()) };
            let _ = timeout(pause, self.tidings.trouble.notified()).await;
            match self.reroute().await {
                Ok(()) => told = None,
                Err(error) if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) => {
                    told = Some(Instant::now());
                    warn!("no node of {} says who serves what: {}", self.url().shown(), self.servers.told(&error));
                }
                Err(_) => {}
            }
            sleep(ASKED_AGAIN).await;
        }
    }

    /// Asks the cluster who serves what. Lines that stay keep what they know.
    async fn reroute(&self) -> Result<(), RedisError> {
        let slots = self.servers.slots().await?;
        let old = self.routes.load_full();
        let mut routes = Routes { lines: Vec::new(), ranges: Vec::new() };
        for ((from, to), node) in slots {
            let known = routes.lines.iter().position(|line| line.leads_to(&node));
            let nth = known.unwrap_or_else(|| {
                let line = old.lines.iter().find(|line| line.leads_to(&node)).cloned().unwrap_or_else(|| {
                    let came_later = !old.lines.is_empty();
                    Arc::new(Line::new(self.servers.clone(), self.tidings.clone(), Some(node), came_later))
                });
                routes.lines.push(line);
                routes.lines.len() - 1
            });
            routes.ranges.push((from, to, nth));
        }
        let same_lines = routes.lines.len() == old.lines.len()
            && routes.lines.iter().all(|line| old.lines.iter().any(|other| Arc::ptr_eq(line, other)));
        self.routes.store(routes.into());
        if !same_lines {
            if !old.lines.is_empty() {
                info!("other servers are masters of {} now", self.url().shown());
            }
            self.rerouted.notify_waiters();
        }
        Ok(())
    }

    fn fits(&self, server: &Server) -> Result<(), Unusable> {
        let Server { node, version, eviction, .. } = server;
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let found: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if found < VERSION_MIN {
            let (major, minor) = VERSION_MIN;
            return Err(Unusable(format!("Redis at {node} is version {version}; {major}.{minor} or later is wanted")));
        }
        if server.is_of_cluster && !self.is_cluster() {
            return Err(Unusable(format!(
                "Redis at {node} is one node of a cluster; write redis+cluster:// in REDIS_URL"
            )));
        }
        if !matches!(eviction.as_str(), "" | "noeviction") {
            warn!(
                "Redis at {node} evicts keys ({eviction}): sockets will be called never seen that are there; set maxmemory-policy noeviction"
            );
        }
        Ok(())
    }
}

/// Whether a server said that it did not run the command, and somebody else or somewhat later will.
fn is_elsewhere(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
        )
    )
}

fn word(command: &Cmd, nth: usize) -> Option<&str> {
    match command.args_iter().nth(nth) {
        Some(Arg::Simple(bytes)) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// The key that tells a command's slot: of a script the first, else what follows the name.
fn key_of(command: &Cmd) -> Option<&str> {
    word(command, if matches!(word(command, 0), Some("EVALSHA" | "EVAL")) { 3 } else { 1 })
}

/// A command and its first key, for people.
fn named(command: &Cmd) -> String {
    let name = match word(command, 0) {
        Some("EVALSHA" | "EVAL") => "a script on",
        name => name.unwrap_or_default(),
    };
    format!("{name} {}", key_of(command).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::cmd;

    fn link(url: &str) -> Link {
        Link::new(RedisUrl::parse(url).expect("a url"))
    }

    fn server(version: &str, is_of_cluster: bool) -> Server {
        let node = Node { host: "r".to_owned(), port: 1 };
        Server { node, version: version.to_owned(), eviction: "noeviction".to_owned(), is_of_cluster }
    }

    #[test]
    fn a_server_that_is_too_old_is_named() {
        let link = link("redis://r:1");
        for version in ["6.0.16", "5", "", "x.y"] {
            let why = link.fits(&server(version, false)).expect_err(version).to_string();
            assert!(why.contains("r:1") && why.contains("6.2 or later"), "{why}");
        }
        for version in ["6.2.0", "7.0.15", "10.1"] {
            link.fits(&server(version, false)).expect(version);
        }
    }

    #[test]
    fn a_node_of_a_cluster_wants_to_be_addressed_as_one() {
        assert!(link("redis+cluster://r:1").fits(&server("7.0.0", true)).is_ok());
        let why = link("redis://r:1").fits(&server("7.0.0", true)).expect_err("one of several").to_string();
        assert!(why.contains("redis+cluster://"), "{why}");
    }

    #[test]
    fn a_command_goes_where_its_key_is() {
        let mut script = cmd("EVALSHA");
        script.arg("hash").arg(1).arg("{a}:row").arg("more");
        assert_eq!(key_of(&script), Some("{a}:row"));
        assert_eq!(key_of(cmd("HGETALL").arg("{b}:row")), Some("{b}:row"));
        assert_eq!(key_of(&cmd("PING")), None);

        let link = link("redis+cluster://r:1");
        let line = || Arc::new(Line::new(link.servers.clone(), link.tidings.clone(), None, false));
        let routes = Routes { lines: vec![line(), line()], ranges: vec![(0, 99, 1), (200, SLOTS - 1, 0)] };
        let leads = |slot| routes.line_to(slot).map(|line| Arc::ptr_eq(line, &routes.lines[0]));
        assert_eq!(
            [0, 99, 100, 199, 200, SLOTS - 1].map(leads),
            [Some(false), Some(false), None, None, Some(true), Some(true)]
        );
    }
}
