//! Saying that an application fails, and that it does so no more: once each, however many ask it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// That it fails is said so often at most.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// How an application takes what it is asked.
#[derive(Default)]
pub struct Mood(Mutex<State>);

#[derive(Default)]
struct State {
    /// Since when nothing went well.
    ill: Option<Instant>,
    /// When that was said last, and whether it was said of this time.
    said: Option<Instant>,
    is_said: bool,
}

impl Mood {
    /// It fails; whether that is to be said.
    pub fn ill(&self) -> bool {
        let mut state = self.state();
        state.ill.get_or_insert_with(Instant::now);
        let is_news = !state.is_said && state.said.is_none_or(|said| said.elapsed() >= SAID_EVERY);
        if is_news {
            (state.said, state.is_said) = (Some(Instant::now()), true);
        }
        is_news
    }

    /// It does not; for how long it did, if that was said.
    pub fn well(&self) -> Option<Duration> {
        let mut state = self.state();
        let since = state.ill.take()?;
        std::mem::take(&mut state.is_said).then(|| since.elapsed())
    }

    /// A panic while it was held leaves what can be used: every step is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn both_are_said_once_and_not_all_the_time() {
        let mood = Mood::default();
        assert!(mood.well().is_none());
        assert!(mood.ill() && !mood.ill());
        sleep(Duration::from_secs(3)).await;
        assert_eq!((mood.well(), mood.well()), (Some(Duration::from_secs(3)), None));
        // One that fails and does not, again and again, fills no log.
        assert!(!mood.ill() && mood.well().is_none());
        sleep(SAID_EVERY).await;
        assert!(mood.ill());
    }
}
