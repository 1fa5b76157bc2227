//! Waiting for a condition, with a deadline. Nothing here waits for a guess: a fact that holds
//! early goes on early, and the deadline is only there to end what would hang.

use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Generous, since two busy cores may run everything at once.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at something that cannot tell us by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The future's output, or a failure that says what did not happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}

/// Looks again and again until there is something.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = soon(what, look()).await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        sleep(LOOK_AGAIN).await;
    }
}

/// What was measured, for whoever runs this with `--nocapture` or reads a failure.
#[expect(clippy::print_stderr, reason = "the test harness keeps it until somebody wants it")]
pub fn note(text: &str) {
    eprintln!("{text}");
}
