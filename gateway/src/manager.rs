//! The process manager above us: who it is, what it passed to us, told when we are ready, asked how long it lets us
//! drain, and fed as long as we answer (`watchdog.rs`). What pm2 hears of us goes over a channel (`channel.rs`).

pub mod channel;
pub mod watchdog;

use crate::config::sources::Environment;
use channel::Channel;
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::{
    fs::{self, File},
    net::TcpListener,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    process,
    time::Duration,
};

/// What is left of a kill timeout for everything that is not the drain.
const MARGIN: Duration = Duration::from_secs(1);

/// What giving up the lease may take, after the drain.
const GIVING_UP: Duration = Duration::from_secs(5);

/// When pm2 kills whoever did not say otherwise.
const KILL_TIMEOUT_OF_PM2: Duration = Duration::from_millis(1600);

/// The first descriptor that systemd passes.
const FIRST_PASSED: i32 = 3;

/// More are not looked at; one is wanted.
const PASSED_MAX: usize = 16;

/// Who starts us, and starts us again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pm2,
    Systemd,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pm2 => "pm2",
            Self::Systemd => "systemd",
        }
    }
}

/// What the environment says of the manager.
#[derive(Debug, Clone, Default)]
pub struct Manager {
    pub kind: Option<Kind>,
    /// How often it has started us again, where it says so.
    pub restarts: Option<u64>,
    /// Which of several that it runs from one entry, where it says so.
    pub number: Option<u32>,
    /// How many it runs from one entry.
    siblings: u32,
    /// Node's channel to pm2, when pm2 waits for a word.
    pm2_channel: Option<i32>,
    kill_timeout: Option<Duration>,
    /// Who is not fed within this time is killed.
    pub watchdog: Option<Duration>,
    /// Names of the sockets that were passed, in the order of their descriptors.
    passed: Vec<String>,
}

impl Manager {
    /// Reads what managers put into the environment. Some of it is inherited by whatever runs below, so what names a
    /// process counts only if it names this one.
    pub fn from_env(env: &Environment) -> Self {
        let number = |name: &str| env.get(name).and_then(|text| text.trim().parse::<u64>().ok());
        let is_us = |name: &str| number(name) == Some(process::id().into());
        let is_pm2 = env.contains_key("pm_id");
        let has_passed = is_us("LISTEN_PID") && number("LISTEN_FDS").is_some_and(|count| count > 0);
        let is_systemd = has_passed || is_us("SYSTEMD_EXEC_PID") || env.contains_key("NOTIFY_SOCKET");
        let watchdog = number("WATCHDOG_USEC").filter(|_| !env.contains_key("WATCHDOG_PID") || is_us("WATCHDOG_PID"));
        let names = env.get("LISTEN_FDNAMES").map_or("", String::as_str);
        let passed = (0..number("LISTEN_FDS").filter(|_| has_passed).unwrap_or_default())
            .zip(names.split(':').map(str::to_owned).chain(std::iter::repeat("unknown".to_owned())))
            .map(|(_, name)| name)
            .take(PASSED_MAX);
        let channel = number("NODE_CHANNEL_FD").and_then(|fd| i32::try_from(fd).ok()).filter(|fd| *fd > 2);
        let kill_timeout = || {
            // pm2 takes what is no number above 0 for nothing said.
            let said =
                ["kill_timeout", "PM2_KILL_TIMEOUT"].into_iter().find_map(|name| number(name).filter(|ms| *ms > 0));
            said.map_or(KILL_TIMEOUT_OF_PM2, Duration::from_millis)
        };
        Self {
            kind: match (is_pm2, is_systemd) {
                // Where pm2 itself is a service of systemd, we are none.
                (true, _) => Some(Kind::Pm2),
                (false, true) => Some(Kind::Systemd),
                (false, false) => None,
            },
            restarts: number("restart_time").filter(|_| is_pm2),
            number: number("NODE_APP_INSTANCE").filter(|_| is_pm2).and_then(|number| u32::try_from(number).ok()),
            siblings: number("instances").filter(|_| is_pm2).and_then(|number| number.try_into().ok()).unwrap_or(1),
            pm2_channel: channel,
            kill_timeout: is_pm2.then(kill_timeout),
            watchdog: watchdog.filter(|us| *us > 0).map(Duration::from_micros),
            passed: passed.collect(),
        }
    }

    /// The drain time that the manager leaves us.
    pub fn drain_timeout(&self, wanted: Duration) -> Duration {
        self.kill_timeout.map_or(wanted, |kill| wanted.min(kill.saturating_sub(MARGIN)))
    }

    /// What it was told, or not told, that will do harm, each with its fix.
    pub fn warnings(&self, drain_timeout: Duration, instance: Option<&str>) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(kill) = self.kill_timeout.filter(|_| self.drain_timeout(drain_timeout) < drain_timeout) {
            let (kill, left) = (kill.as_millis(), self.drain_timeout(drain_timeout));
            let enough = (drain_timeout + GIVING_UP).as_millis();
            let span = humantime::format_duration;
            warnings.push(format!(
                "kill_timeout of pm2 is {kill} ms, which leaves {} of DRAIN_TIMEOUT={} to part with the sockets; set \
                 kill_timeout: {enough} in the ecosystem file, or a shorter DRAIN_TIMEOUT",
                span(left),
                span(drain_timeout),
            ));
        }
        if let Some(instance) = instance.filter(|_| self.siblings > 1) {
            warnings.push(format!(
                "INSTANCE={instance} is given to all {} instances that pm2 runs; leave it out, and each is named by host, \
                 number and port",
                self.siblings
            ));
        }
        warnings
    }

    /// What may be behind a port that is taken, where the manager has chosen it.
    pub fn about_taken_port(&self) -> &'static str {
        match self.siblings {
            0..2 => "",
            _ => {
                " (pm2 gives every instance the first PORT when it is handed its ecosystem file again; then pm2 delete the \
                 app, and pm2 start the file)"
            }
        }
    }

    /// The listening socket that was passed to us, if one was. It is taken once, before we open anything.
    pub fn take_listener(&self) -> Result<Option<TcpListener>, String> {
        let unfit = || {
            format!(
                "the socket that systemd passes ({}) is no listening TCP socket: write ListenStream=127.0.0.1:8081 and \
                 Accept=no in the socket unit",
                self.passed.join(", ")
            )
        };
        let socket = match self.passed.as_slice() {
            [] => return Ok(None),
            [_] => adopt(FIRST_PASSED).ok_or_else(unfit)?,
            several => {
                return Err(format!(
                    "systemd passes {} sockets ({}), and Holdfast serves one: keep one ListenStream= in the socket unit",
                    several.len(),
                    several.join(", ")
                ));
            }
        };
        match serves_tcp(&socket) {
            Ok(true) => Ok(Some(TcpListener::from(socket))),
            Ok(false) | Err(_) => Err(unfit()),
        }
    }

    /// The way to pm2. It is taken once, before we open anything: whoever hands on the environment and not the descriptor
    /// names one that we would be using ourselves by then.
    pub fn take_channel(&self) -> Channel {
        let is_passed = |fd: &i32| (FIRST_PASSED..).take(self.passed.len()).any(|passed| passed == *fd);
        let socket = self.pm2_channel.filter(|fd| !is_passed(fd)).and_then(adopt);
        let is_nodes =
            |socket: &OwnedFd| sockopt::socket_domain(socket).is_ok_and(|family| family == AddressFamily::UNIX);
        Channel::at(socket.filter(is_nodes).map(File::from))
    }

    /// Says ready to whoever waits for it. systemd's socket is found by `sd-notify` itself.
    pub fn ready(&self, channel: &Channel) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        channel.says(&"ready".into());
    }

    /// Says that the end has begun, and how long it may take. systemd kills earlier only whoever does not say so.
    pub fn stopping(&self, within: Duration) {
        let within = u32::try_from((within + GIVING_UP).as_micros()).unwrap_or(u32::MAX);
        let _ =
            sd_notify::notify(&[sd_notify::NotifyState::Stopping, sd_notify::NotifyState::ExtendTimeoutUsec(within)]);
    }
}

/// Whether TCP connections can be accepted from it.
fn serves_tcp(socket: impl AsFd) -> rustix::io::Result<bool> {
    let family = sockopt::socket_domain(&socket)?;
    let is_tcp = [AddressFamily::INET, AddressFamily::INET6].contains(&family)
        && sockopt::socket_type(&socket)? == SocketType::STREAM;
    Ok(is_tcp && sockopt::socket_acceptconn(&socket)?)
}

/// Takes over a socket that a process manager opened for us; nothing where there is none.
#[allow(unsafe_code)]
fn adopt(fd: i32) -> Option<OwnedFd> {
    fs::read_link(format!("/proc/self/fd/{fd}")).ok().filter(|kind| kind.to_string_lossy().starts_with("socket:"))?;
    // SAFETY: the number comes from NODE_CHANNEL_FD, or from LISTEN_FDS beside our own process number, by which the
    // parent says that it passed this descriptor for our use. It is open, and nothing else in this process owns it: each
    // is adopted once, before the one who serves opens any socket.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager<const N: usize>(pairs: [(&str, &str); N]) -> Manager {
        Manager::from_env(&pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn the_drain_fits_into_the_kill_timeout() {
        let wanted = Duration::from_secs(10);
        assert_eq!(manager([]).drain_timeout(wanted), wanted);
        assert_eq!(manager([("pm_id", "0"), ("kill_timeout", "5000")]).drain_timeout(wanted), Duration::from_secs(4));
        assert_eq!(manager([("kill_timeout", "5000")]).drain_timeout(wanted), wanted);
        // Whoever says nothing to pm2 is killed after 1.6 s.
        assert_eq!(manager([("pm_id", "0")]).drain_timeout(wanted), Duration::from_millis(600));
    }

    #[test]
    fn a_kill_timeout_that_is_too_short_is_named_with_its_fix() {
        let said = |kill: &str| {
            manager([("pm_id", "0"), ("kill_timeout", kill)]).warnings(Duration::from_secs(10), None).join("\n")
        };
        for part in ["kill_timeout", "5000 ms", "4s", "DRAIN_TIMEOUT=10s", "kill_timeout: 15000"] {
            assert!(said("5000").contains(part), "{part} in {}", said("5000"));
        }
        assert_eq!((said("11000"), manager([]).warnings(Duration::from_secs(10), None)), (String::new(), Vec::new()));
    }

    #[test]
    fn one_name_for_several_is_warned_about() {
        let several = manager([("pm_id", "0"), ("instances", "3"), ("kill_timeout", "20000")]);
        let said = several.warnings(Duration::from_secs(10), Some("web1"));
        assert!(said.len() == 1 && said[0].contains("INSTANCE=web1"), "{said:?}");
        assert!(several.warnings(Duration::from_secs(10), None).is_empty());
    }

    #[test]
    fn standard_streams_are_no_channel() {
        assert_eq!(manager([("NODE_CHANNEL_FD", "1")]).pm2_channel, None);
        assert_eq!(manager([("NODE_CHANNEL_FD", "x")]).pm2_channel, None);
    }

    #[test]
    fn the_manager_is_known_by_what_it_says() {
        let kind = |pairs: &[(&str, String)]| {
            let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            Manager::from_env(&env).kind
        };
        let (own, other) = (process::id().to_string(), "1".to_owned());
        assert_eq!(kind(&[("SYSTEMD_EXEC_PID", own)]), Some(Kind::Systemd));
        assert_eq!(kind(&[("pm_id", other.clone()), ("SYSTEMD_EXEC_PID", other.clone())]), Some(Kind::Pm2));
        // In a shell of a service, or below any other program of Node's.
        assert_eq!(kind(&[("SYSTEMD_EXEC_PID", other.clone()), ("NODE_CHANNEL_FD", "3".to_owned())]), None);
        assert_eq!(kind(&[("LISTEN_PID", other), ("LISTEN_FDS", "1".to_owned())]), None);
    }

    #[test]
    fn sockets_that_were_passed_to_somebody_else_are_left_alone() {
        let own = process::id().to_string();
        let passed =
            |pid: &str| manager([("LISTEN_PID", pid), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "http")]).take_listener();
        assert!(passed("1").is_ok_and(|listener| listener.is_none()));
        let refused = passed(&own).err().unwrap_or_default();
        assert!(refused.contains("2 sockets (http, unknown)"), "{refused}");
    }
}
