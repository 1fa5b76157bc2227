//! One server, and what can be asked of it. It listens at 127.0.0.1, keeps nothing on disk but its
//! log, and works in a folder that goes with it.

use crate::{
    line::Line,
    patience::{until, within},
    port,
    process::Process,
};
use redis::{FromRedisValue, RedisResult, Value};
use std::{fmt::Debug, fs, path::Path, time::Duration};
use tempfile::TempDir;

/// Two busy cores may start a dozen at once.
const START: Duration = Duration::from_secs(20);
/// How often a start may find its port taken in the moment since it was chosen.
const TRIES: usize = 10;

/// Directives of `redis.conf`. A value stands as it is, so it may be several words; an empty one is `""`.
pub(crate) type Settings = Vec<(&'static str, String)>;

pub struct Server {
    // The process stands before the folder, since it ends first.
    process: Process,
    line: Line,
    port: u16,
    url: String,
    folder: TempDir,
}

impl Server {
    /// An empty server.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// An empty server with directives of its own: `Server::with(&[("maxmemory-policy", "allkeys-lru")])`.
    /// With `requirepass` its `url` has the password.
    pub fn with(directives: &[(&'static str, &str)]) -> Self {
        let password = directives.iter().find(|(name, _)| *name == "requirepass").map(|(_, value)| *value);
        let user = password.map(|password| format!(":{password}@")).unwrap_or_default();
        let settings = |_: &Path, _| directives.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut server = Self::launch(&["redis.conf"], password, settings);
        server.url = format!("redis://{user}127.0.0.1:{}", server.port);
        server
    }

    /// Starts what the settings say for a folder and a port, again with another port where that is taken.
    pub(crate) fn launch(
        arguments: &'static [&'static str],
        password: Option<&str>,
        settings: impl Fn(&Path, u16) -> Settings,
    ) -> Self {
        for _ in 0..TRIES {
            let folder = tempfile::Builder::new().prefix("holdfast-redis-").tempdir().expect("a folder");
            let (path, port) = (folder.path(), port::free());
            let socket = path.join("redis.sock");
            fs::write(path.join("redis.conf"), conf(path, &socket, port, &settings(path, port))).expect("a file");
            let process = Process::start(path, arguments);
            let url = format!("redis://127.0.0.1:{port}");
            let server = Self { process, line: Line::new(&socket, password), port, url, folder };
            if server.comes_up() {
                return server;
            }
        }
        panic!("{TRIES} ports in a row were taken");
    }

    /// Whether it answers; if not, its port was taken.
    fn comes_up(&self) -> bool {
        let up = within(START, || match self.process.runs() {
            true => self.line.answers().then_some(true),
            false => Some(false),
        });
        match up {
            Some(true) => true,
            Some(false) if self.log().lines().rev().take(3).any(|line| line.contains("Failed listening")) => false,
            _ => panic!("redis-server does not come up:\n{}", self.log()),
        }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn set_url(&mut self, url: String) {
        self.url = url;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged since it was first started.
    pub fn log(&self) -> String {
        fs::read(self.folder().join("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Comes back at the same port, empty; killed first where it still runs. Returns when it answers.
    pub fn restart(&self) {
        until("the port of a server that comes back is free", START, || {
            self.process.restart();
            self.comes_up().then_some(())
        });
    }

    /// SIGSTOP: its connections stay open, and nothing is answered.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// SIGCONT: it goes on, and answers what was asked meanwhile.
    pub fn cont(&self) {
        self.process.cont();
    }

    /// Whether it runs, and PING is answered within a second.
    pub fn answers(&self) -> bool {
        self.process.runs() && self.line.answers()
    }

    /// Asks on a kept connection. It is counted among the clients and the calls of the server.
    pub fn ask<W: AsRef<[u8]> + Debug>(&self, words: &[W]) -> Value {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", self.log()))
    }

    /// As `ask`, where a refusal is among what is expected.
    pub fn try_ask<W: AsRef<[u8]>>(&self, words: &[W]) -> RedisResult<Value> {
        self.line.ask(words)
    }

    /// As `ask`, for an answer that is one string or number.
    pub fn text(&self, words: &[&str]) -> String {
        read(self.ask(words))
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        loop {
            let found: Vec<Vec<u8>>;
            (cursor, found) = read(self.ask(&["SCAN", &cursor, "COUNT", "1000"]));
            keys.extend(found.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
            if cursor == "0" {
                break;
            }
        }
        keys.sort();
        // SCAN may name a key twice while the table grows.
        keys.dedup();
        keys
    }

    /// Cuts the connections of all subscribers; says how many there were.
    pub fn cut_subscribers(&self) -> u64 {
        read(self.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]))
    }

    /// Answers nobody for so long, us included; connections stay open.
    pub fn pause(&self, time: Duration) {
        self.ask(&["CLIENT", "PAUSE", &time.as_millis().to_string(), "ALL"]);
    }
}

/// An answer as what it must be.
pub(crate) fn read<T: FromRedisValue>(answer: Value) -> T {
    redis::from_redis_value(answer).unwrap_or_else(|error| panic!("another answer was expected: {error}"))
}

fn conf(folder: &Path, socket: &Path, port: u16, settings: &Settings) -> String {
    let mut conf = format!(
        "bind 127.0.0.1\nport {port}\nunixsocket {}\ndir {}\nlogfile log\nsave \"\"\nappendonly no\n\
         enable-debug-command local\n",
        socket.display(),
        folder.display()
    );
    for (name, value) in settings {
        let value = if value.is_empty() { "\"\"" } else { value };
        conf.push_str(&format!("{name} {value}\n"));
    }
    conf
}
