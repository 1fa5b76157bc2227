//! A server as a child process: the gateway or the floor, started fresh for every sample.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::usage::{self, Cpu, Memory};
use crate::{Result, floor, relay};

/// The hidden subcommand that runs the rest of its command line; see [`leash`].
pub const LEASH: &str = "leash";

/// A gateway that is not ready by then says why on stderr, or hangs.
const START_MAX: Duration = Duration::from_secs(20);

/// What the gateway is measured with: nothing that refuses or slows the load.
const SETTINGS: [(&str, &str); 5] = [
    ("HOST", "127.0.0.1"),
    ("PORT", "0"),
    ("LOG_LEVEL", "warn"),
    ("RATE_MESSAGES", "off"),
    ("MAX_SOCKETS_PER_USER", "0"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Holdfast,
    Floor,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Holdfast => "holdfast",
            Self::Floor => "floor",
        })
    }
}

/// The binary under test and what it is told besides [`SETTINGS`].
pub struct Gateway {
    pub path: PathBuf,
    pub settings: Vec<(String, String)>,
}

impl Gateway {
    pub fn is_floor(&self) -> bool {
        self.path == Path::new(floor::COMMAND)
    }

    pub fn check(&self) -> Result<()> {
        if self.is_floor() || self.path.is_file() {
            return Ok(());
        }
        Err(format!(
            "no gateway at {}: build it with `cargo build --release -p holdfast`, or name it with --gateway",
            self.path.display()
        )
        .into())
    }
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Frames that a new socket is sent before it has asked for anything.
    pub greeting: usize,
}

impl Server {
    /// `more` are settings of one measure; those of the command line win over them.
    pub fn start(kind: Kind, gateway: &Gateway, more: &[(&str, &str)]) -> Result<Self> {
        let this = std::env::current_exe()?;
        let mut command = Command::new(&this);
        command.arg(LEASH);
        let bare = kind == Kind::Floor || gateway.is_floor();
        if bare {
            command.arg(this).arg(floor::COMMAND);
        } else {
            command.arg(&gateway.path);
        }
        // The environment of whoever runs the benchmark must not configure the gateway by accident.
        command
            .env_clear()
            .envs(SETTINGS)
            .envs(more.iter().copied())
            .envs(gateway.settings.iter().map(|(name, value)| (name, value)));
        // `hi` and `reset`.
        Self::launch(command, if bare { 0 } else { 2 })
    }

    /// One half of the floor of a call, on a Redis at this port.
    pub fn relay(redis: u16, own: &str, other: &str) -> Result<Self> {
        let this = std::env::current_exe()?;
        let mut command = Command::new(&this);
        command.arg(LEASH).arg(this).args([relay::COMMAND, &redis.to_string(), own, other]).env_clear();
        Self::launch(command, 0)
    }

    fn launch(mut command: Command, greeting: usize) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = read_lines(&mut child);
        match wait_until_ready(&lines) {
            Ok(address) => Ok(Self { child, address, greeting }),
            Err(error) => {
                let state = child.try_wait()?.map_or_else(String::new, |status| format!(" ({status})"));
                end(&mut child);
                Err(format!("did not start: {error}{state}").into())
            }
        }
    }

    pub fn cpu(&self) -> Result<Cpu> {
        Cpu::of(self.child.id())
    }

    pub fn memory(&self) -> Result<Memory> {
        Memory::of(self.child.id())
    }

    pub fn files(&self) -> Result<usize> {
        usage::files(self.child.id())
    }
}

impl Drop for Server {
    /// Without a drain: what a sample needed has been read by now.
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        eprintln!("holdfast-bench: cannot end process {}: {error}", child.id());
    }
}

/// A thread reads on until the child ends, lest a full pipe should stop the child in its log.
fn read_lines(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                // Nobody listens once the server is ready; the pipe must be emptied all the same.
                sender.send(line).ok();
            }
        });
    }
    lines
}

fn wait_until_ready(lines: &Receiver<String>) -> Result<SocketAddr> {
    let deadline = Instant::now() + START_MAX;
    let mut address = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.trim() == "ready" => {
                return address.ok_or_else(|| "it was ready without having said where".into());
            }
            Ok(line) => address = address.or_else(|| address_in(&line)),
            Err(RecvTimeoutError::Timeout) => return Err("not ready after 20 s".into()),
            Err(RecvTimeoutError::Disconnected) => return Err("it ended".into()),
        }
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Becomes the command it is given, having asked the kernel to end it with its parent: a benchmark
/// that is killed leaves no server behind.
pub fn leash(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or("nothing to run")?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let error = Command::new(program).args(arguments).exec();
    Err(format!("cannot run {program}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_wherever_the_line_has_it() {
        let expected = "127.0.0.1:4711".parse().ok();
        for line in
            ["http://127.0.0.1:4711", "listening on http://127.0.0.1:4711/ (HTTP)", "a http://127.0.0.1:4711, b"]
        {
            assert_eq!(address_in(line), expected);
        }
        assert_eq!(address_in("registry: memory"), None);
    }
}
