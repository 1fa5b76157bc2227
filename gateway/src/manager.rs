//! The process manager above us: told when we are ready, asked how long it lets us drain.

use std::{fs::File, io::Write, os::fd::FromRawFd, time::Duration};

/// What is left of a kill timeout for everything that is not the drain.
const MARGIN: Duration = Duration::from_secs(1);

/// What giving up the lease may take, after the drain.
const GIVING_UP: Duration = Duration::from_secs(5);

/// What the environment says of the manager.
#[derive(Debug, Clone, Default)]
pub struct Manager {
    /// Node's channel to pm2, when pm2 waits for a word.
    pm2_channel: Option<i32>,
    kill_timeout: Option<Duration>,
}

impl Manager {
    /// Reads what managers put into the environment.
    pub fn from_env(env: &crate::config::sources::Environment) -> Self {
        let number = |name: &str| env.get(name).and_then(|text| text.parse::<u32>().ok());
        let pm2_channel = number("NODE_CHANNEL_FD").and_then(|fd| i32::try_from(fd).ok()).filter(|fd| *fd > 2);
        let under_pm2 = env.contains_key("pm_id") || pm2_channel.is_some();
        let kill_timeout = number("kill_timeout").filter(|_| under_pm2).map(|ms| Duration::from_millis(ms.into()));
        Self { pm2_channel, kill_timeout }
    }

    /// The drain time that the manager leaves us.
    pub fn drain_timeout(&self, wanted: Duration) -> Duration {
        self.kill_timeout.map_or(wanted, |kill| wanted.min(kill.saturating_sub(MARGIN)))
    }

    /// Says ready to whoever waits for it. systemd's socket is found by `sd-notify` itself.
    pub fn ready(&self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        if let Some(fd) = self.pm2_channel {
            // pm2 reads one JSON value a line; without a listener there the word is lost, and so be it.
            let _ = adopt(fd).write_all(b"\"ready\"\n");
        }
    }

    /// Says that the end has begun, and how long it may take. systemd kills earlier only whoever does not say so.
    pub fn stopping(&self, within: Duration) {
        let within = u32::try_from((within + GIVING_UP).as_micros()).unwrap_or(u32::MAX);
        let _ =
            sd_notify::notify(&[sd_notify::NotifyState::Stopping, sd_notify::NotifyState::ExtendTimeoutUsec(within)]);
    }
}

/// Takes over a descriptor that a process manager opened for us.
#[allow(unsafe_code)]
fn adopt(fd: i32) -> File {
    // SAFETY: the number comes from NODE_CHANNEL_FD, by which the parent says that it passed this
    // descriptor for our use; nothing else in this process owns it, and it is adopted once.
    unsafe { File::from_raw_fd(fd) }
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
    }

    #[test]
    fn standard_streams_are_no_channel() {
        assert_eq!(manager([("NODE_CHANNEL_FD", "1")]).pm2_channel, None);
        assert_eq!(manager([("NODE_CHANNEL_FD", "x")]).pm2_channel, None);
    }
}
