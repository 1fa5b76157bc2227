//! A part of what is shown: a process in the folder, with a log there, in a group of its own, which ends with it.

use super::cannot;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Of a log, what is shown when its part has ended.
const LAST_LINES: usize = 5;
/// Of a part that starts or ends, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Part {
    pub name: String,
    child: Child,
    log: PathBuf,
    /// How long the log was when it started.
    logged_before: u64,
    /// We ended it, so its end is no news.
    is_to_end: AtomicBool,
}

impl Part {
    /// Starts one, in an environment that holds nothing but this.
    pub fn start(
        folder: &Path,
        name: &str,
        program: &Path,
        args: &[&OsStr],
        env: &[(&str, String)],
    ) -> Result<Self, String> {
        let log = folder.join(format!("{name}.log"));
        let file = || OpenOptions::new().create(true).append(true).open(&log);
        let (out, err) = file().and_then(|out| Ok((out.try_clone()?, out))).map_err(cannot("no log can be written"))?;
        let logged_before = err.metadata().map_or(0, |about| about.len());
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            // A group of its own: Ctrl-C ends the demo, and that ends its parts.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::from(out))
            .stderr(Stdio::from(err))
            .spawn()
            .map_err(cannot(&format!("{} does not run", program.display())))?;
        Ok(Self { name: name.to_owned(), child, log, logged_before, is_to_end: AtomicBool::new(false) })
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it has ended. Its number stays taken, and with it that of its group.
    pub fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        self.pid().is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), look), Ok(None)))
    }

    pub fn is_to_end(&self) -> bool {
        self.is_to_end.load(Ordering::Relaxed)
    }

    /// Looks again and again until there is what it is to bring about.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match look(self) {
                Some(found) => return Ok(found),
                None if self.has_ended() => return Err(self.obituary()),
                None if Instant::now() > deadline => {
                    return Err(format!("{} does not {what} within {} s", self.name, PATIENCE.as_secs()));
                }
                None => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Sent to end it.
    pub fn end_by(&self, signal: Signal) {
        self.is_to_end.store(true, Ordering::Relaxed);
        if let Some(pid) = self.pid() {
            // Gone already is as good.
            let _ = kill_process(pid, signal);
        }
    }

    /// What it has said since it was started.
    pub fn said(&self) -> String {
        let from = usize::try_from(self.logged_before).unwrap_or_default();
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }

    /// That it has ended, and what it said last.
    pub fn obituary(&self) -> String {
        let said = self.said();
        let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
        format!("{} has ended, and nobody here told it to; its last words:\n  {last}", self.name)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
