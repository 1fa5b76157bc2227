//! What has come about so far, told as it comes and summed up at the end.

use std::{
    fmt,
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After a kill, whoever was asked on the instance may be lost, and nobody can know more than that for so long.
const KILL_IS_FELT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Tally {
    began: Instant,
    counts: Mutex<Counts>,
    /// Whoever read along has left.
    is_unread: CancellationToken,
}

/// How often.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub calls: u64,
    pub answered: u64,
    /// Among those answered, those whose instance was killed under them or refused them, and that were made anew.
    pub again: u64,
    pub failed: u64,
    pub slowest: Duration,
    pub restarts: u64,
    pub kills: u64,
    pub last_kill: Option<Instant>,
    /// Sockets that came again, and those of them that are still the same to everybody.
    pub returns: u64,
    pub resumed: u64,
    /// Of which nobody says what became of them.
    pub unexplained: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { began: Instant::now(), counts: Mutex::default(), is_unread: CancellationToken::new() }
    }
}

impl Tally {
    pub fn count<T>(&self, look: impl FnOnce(&mut Counts) -> T) -> T {
        look(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A line with its time since the start.
    pub fn tell(&self, words: fmt::Arguments<'_>) {
        let mut out = io::stdout().lock();
        let told = writeln!(out, "{:6.1} s  {words}", self.began.elapsed().as_secs_f64());
        if told.and_then(|()| out.flush()).is_err() {
            self.is_unread.cancel();
        }
    }

    /// Comes when a line could not be told.
    pub async fn unread(&self) {
        self.is_unread.cancelled().await;
    }

    pub fn a_kill_is_felt(&self) -> bool {
        self.count(|counts| counts.last_kill).is_some_and(|at| at.elapsed() < KILL_IS_FELT)
    }

    /// What it was all together; an error if a call failed.
    pub fn sum_up(&self) -> Result<(), String> {
        let Counts { calls, answered, again, failed, slowest, restarts, kills, returns, resumed, unexplained, .. } =
            self.count(|counts| counts.clone());
        if calls == 0 {
            return Ok(());
        }
        // Those that were on their way when everybody was sent home.
        let open = calls - answered - failed;
        let open = if open > 0 { format!(", {open} unfinished") } else { String::new() };
        say!(
            "{:.0} s: {}, {answered} answered ({again} of them asked again), {failed} failed{open}, the slowest after {} ms",
            self.began.elapsed().as_secs_f64(),
            counted(calls, "call"),
            slowest.as_millis()
        );
        say!(
            "      {}, {}; {} came back, {resumed} of them resumed",
            counted(restarts, "restart"),
            counted(kills, "kill"),
            counted(returns, "socket")
        );
        match (failed, unexplained) {
            (0, 0) => Ok(()),
            (0, _) => Err(format!(
                "of {} nobody knows what became; this is a bug of Holdfast",
                counted(unexplained, "socket")
            )),
            _ => Err(format!(
                "{} failed that must not; this is a bug of Holdfast, or a very busy machine",
                counted(failed, "call")
            )),
        }
    }
}

/// So many of them, as one says it.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
