//! Parting with every socket before the process ends: each is told to come back, and closed, one
//! after the other, so that the clients do not return all at once.

use crate::{close::Close, frame, gateway::Gateway};
use registry::SocketId;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::info;

/// Few sockets need no spreading; from here on the whole drain time is used.
const PACE: Duration = Duration::from_millis(5);
/// Clients are told to wait up to this long, each another time.
const RETRY_MS: u64 = 1000;
/// What the farewells of the last sockets may take, if the drain time is long enough for it.
const LAST_FAREWELLS: Duration = Duration::from_millis(2500);
/// And what is left of it for words about their calls.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Drains the instance, by `until` at the latest. New sockets are refused already.
pub async fn run(gateway: &Arc<Gateway>, until: Instant) {
    // Who is asked something may still answer.
    let _ =
        timeout_at(until - LAST_FAREWELLS.min(gateway.config.drain_timeout / 2), gateway.courier.calls.finish()).await;
    let sockets = gateway.courier.sockets.walk(SocketId::FIRST, usize::MAX);
    let span = until.saturating_duration_since(Instant::now()).saturating_sub(LAST_FAREWELLS);
    let count = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
    let pace = PACE.min(span / count.max(1));
    info!("draining {count} sockets over {:.1} s", (pace * count).as_secs_f64());
    let began = Instant::now();
    for (socket, nth) in sockets.into_iter().zip(0_u32..) {
        sleep_until(began + pace * nth).await;
        let after_ms = 1 + socket.id.spread() % RETRY_MS;
        // A full queue gets no advice, only the close behind it.
        let _ = socket.line.send(frame::retry(after_ms));
        // Not waited for: its own task writes the verdict, and a slow registry must not slow the drain.
        socket.line.close(Close::Restart);
    }
    gateway.socket_tasks.close();
    let words = LAST_WORDS.min(gateway.config.drain_timeout / 4);
    let last = (until - words).min(Instant::now() + LAST_FAREWELLS);
    if timeout_at(last, gateway.socket_tasks.wait()).await.is_err() {
        info!("{} sockets did not part in time", gateway.socket_tasks.len());
    }
    // What became of the calls that they still had.
    let _ = timeout_at(Instant::now() + words, gateway.courier.calls.all_is_told()).await;
}
