//! A coarse clock for the many small stamps that sockets carry: milliseconds since the start, in
//! four bytes. It wraps after 49 days, so stamps are only ever compared through [`since`].

use registry::epoch_ms;
use std::{
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};
use tokio::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the process first asked; wrapping.
pub fn now_ms() -> u32 {
    START.elapsed().as_millis() as u32
}

/// How long ago `then` was. A stamp set by another thread a moment after `now` was read is not ages old.
pub fn since(now: u32, then: u32) -> u32 {
    u32::try_from(now.wrapping_sub(then) as i32).unwrap_or(0)
}

/// Now, in ISO 8601 with milliseconds and Z, for people and answers.
pub fn timestamp() -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(epoch_ms())).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn stamps_survive_the_wrap_and_a_race() {
        assert_eq!(super::since(5, u32::MAX - 4), 10);
        assert_eq!(super::since(1000, 1001), 0);
        assert_eq!(super::since(1000, 400), 600);
    }
}
