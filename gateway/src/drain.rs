//! The end, which begins with a word to [`Stop`]. First every socket is parted with: told to come back, and closed, one after the other, so that the clients
//! do not return all at once. Then the callers: what they asked is answered, and nobody is let in any more.

use crate::{
    close::Close,
    frame,
    gateway::Gateway,
    sockets::{SLICE, Socket},
};
use registry::SocketId;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

/// Between two sockets at most. Many share the drain time evenly, since whoever takes them in should notice nothing;
/// few need not wait for each other that long, since ten clients a second are a crowd to nobody. No second has more
/// than three times the mean of the time that they take.
const PACE_MAX: Duration = Duration::from_millis(100);
/// A timer may be late by so much; what it missed is made up for.
const LATE_MAX: Duration = Duration::from_millis(50);
/// Before sockets that were asked something are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Clients are told to wait up to this long, each another time.
const RETRY_MS: u64 = 1000;
/// What the farewells of the last sockets may take, if the drain time is long enough for it.
const LAST_FAREWELLS: Duration = Duration::from_millis(2500);
/// And what is left of it for the answers to whoever still waits then.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long callers that wait for no client may take, once the sockets are gone.
const LAST_CALLERS: Duration = Duration::from_secs(2);

/// What makes this instance drain, whoever says so: a signal, a request, or another instance.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    pub asked: CancellationToken,
    /// It is gone after so long at most.
    pub within: Duration,
    /// Those who tell another instance that it drains. They are waited for.
    pub telling: TaskTracker,
}

impl Stop {
    /// Begins, and says how many sockets have to go and how many milliseconds that may take.
    pub fn begin(&self, sockets: usize) -> (usize, u64) {
        self.asked.cancel();
        (sockets, u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Parts with every socket, by `until` at the latest. New ones are refused already, and no socket is asked anything
/// new. One that was asked before goes when it has answered, unless the time is nearly over.
pub async fn part(gateway: &Arc<Gateway>, until: Instant) {
    let mut left: VecDeque<_> = gateway.courier.sockets.walk(SocketId::FIRST, usize::MAX).into();
    let began = Instant::now();
    let end = until - LAST_FAREWELLS.min(gateway.config.drain_timeout / 2);
    let span = end.saturating_duration_since(began);
    let mut pace = even(span, left.len());
    info!("draining {} sockets over {:.1} s", left.len(), (pace * count(left.len())).as_secs_f64());
    let (mut due, mut is_late) = (began, false);
    while !left.is_empty() {
        if !is_late && began.elapsed() >= span * 9 / 10 {
            is_late = true;
            pace = even(end.saturating_duration_since(Instant::now()), left.len());
        }
        match next(&mut left, |socket| is_late || !gateway.courier.calls.is_asked(socket.id)) {
            Some(socket) => {
                part_with(&socket);
                due = (due + pace).max(Instant::now() - LATE_MAX);
                sleep_until(due).await;
            }
            None => sleep(LOOK_AGAIN).await,
        }
    }
    gateway.socket_tasks.close();
    let last = (until - last_words(gateway)).min(Instant::now() + LAST_FAREWELLS);
    if timeout_at(last, gateway.socket_tasks.wait()).await.is_err() {
        info!("{} sockets did not part in time", gateway.socket_tasks.len());
    }
}

/// Waits until whoever asked here has an answer, and whoever asked the sockets that were here, or had it drain, too. Nobody new is let
/// in, but who is in may still ask.
pub async fn finish(gateway: &Arc<Gateway>, until: Instant) {
    let callers = async { tokio::join!(gateway.http_tasks.wait(), gateway.keyed_tasks.wait()) };
    let finished = async {
        // One that does not take its answer, or sends no end of a question, is not waited for.
        let _ = timeout(LAST_CALLERS, callers).await;
        gateway.desk.stop.telling.close();
        tokio::join!(gateway.courier.calls.finish(), gateway.desk.stop.telling.wait());
    };
    let _ = timeout_at(until - last_words(gateway) / 2, finished).await;
}

fn last_words(gateway: &Gateway) -> Duration {
    LAST_WORDS.min(gateway.config.drain_timeout / 4)
}

fn count(sockets: usize) -> u32 {
    u32::try_from(sockets).unwrap_or(u32::MAX)
}

fn even(span: Duration, sockets: usize) -> Duration {
    PACE_MAX.min(span / count(sockets).max(1))
}

/// The next that may go. Who has left by itself is left out; who has to wait goes to the end. A few are looked at, so
/// that a crowd that was asked something keeps no processor busy.
fn next(left: &mut VecDeque<Arc<Socket>>, may_go: impl Fn(&Socket) -> bool) -> Option<Arc<Socket>> {
    for _ in 0..left.len().min(SLICE) {
        let socket = left.pop_front().filter(|socket| socket.line.is_open());
        match socket {
            Some(socket) if may_go(&socket) => return Some(socket),
            Some(socket) => left.push_back(socket),
            None => {}
        }
    }
    None
}

fn part_with(socket: &Socket) {
    let after_ms = 1 + socket.id.spread() % RETRY_MS;
    // A full queue gets no advice, only the close behind it.
    let _ = socket.line.send(frame::retry(after_ms));
    // Not waited for: its own task writes the verdict, and a slow registry must not slow the drain.
    socket.line.close(Close::Restart);
}
