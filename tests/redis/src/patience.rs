//! Waiting for a condition, with a deadline: what holds early goes on early.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

/// Between two looks at something that cannot tell us by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks again and again until there is something; `None` when the deadline comes first.
pub fn within<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        sleep(LOOK_AGAIN);
    }
}

/// As `within`, for conditions that must come to hold.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, look: impl FnMut() -> Option<T>) -> T {
    match within(deadline, look) {
        Some(found) => found,
        None => panic!("waited {deadline:?} in vain: {what}"),
    }
}

/// A lock that a panic elsewhere does not take from us: cleaning up goes on after a failed test.
pub fn hold<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
