//! Leaving alone who does not answer: after some failures in a row nobody asks for a while, then one does, and what
//! becomes of that decides.

use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row, with no answer between them.
const FAILURES: u32 = 10;
/// The first rest; each that follows is twice as long.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// What is known of the last questions.
pub enum Breaker {
    Closed {
        failures: u32,
    },
    /// Nobody asks before this. How many rests there were in a row.
    Open {
        until: Instant,
        rests: u32,
    },
    /// One asks, who may be gone before there is an answer; then the next one does.
    Trial {
        until: Instant,
        rests: u32,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether one may ask now, or for how long not. A question takes so long at most.
    pub fn enter(&mut self, within: Duration) -> Result<(), Duration> {
        let (Self::Open { until, rests } | Self::Trial { until, rests }) = *self else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Err(left);
        }
        *self = Self::Trial { until: Instant::now() + within, rests };
        Ok(())
    }

    pub fn note(&mut self, failed: bool) {
        match self {
            _ if !failed => *self = Self::default(),
            Self::Closed { failures } if *failures + 1 < FAILURES => *failures += 1,
            Self::Closed { .. } => self.rest(0),
            // Of those who had asked before.
            Self::Open { .. } => {}
            Self::Trial { rests, .. } => {
                let rests = *rests;
                self.rest(rests);
            }
        }
    }

    /// Whoever asked is gone, and nobody knows what would have come of it.
    pub fn leave(&mut self) {
        if let Self::Trial { until, .. } = self {
            *until = Instant::now();
        }
    }

    fn rest(&mut self, rests: u32) {
        // Not all instances at the same moment.
        let span = (REST * 2_u32.pow(rests.min(5))).min(REST_MAX).mul_f64(0.75 + 0.5 * fastrand::f64());
        *self = Self::Open { until: Instant::now() + span, rests: rests + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const WITHIN: Duration = Duration::from_secs(2);

    /// Fails often enough, and says for how long nobody may ask then.
    fn failing(breaker: &mut Breaker) -> Duration {
        for _ in 0..FAILURES {
            assert_eq!(breaker.enter(WITHIN), Ok(()));
            breaker.note(true);
        }
        breaker.enter(WITHIN).unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_left_alone_and_then_asked_by_one() {
        let mut breaker = Breaker::default();
        let span = failing(&mut breaker);
        // Those who had asked before change nothing.
        breaker.note(true);
        assert_eq!(breaker.enter(WITHIN), Err(span));
        sleep(span).await;
        assert!(breaker.enter(WITHIN).is_ok() && breaker.enter(WITHIN).is_err());
        breaker.note(true);
        let longer = breaker.enter(WITHIN).unwrap_err();
        assert!(longer >= REST.mul_f64(1.5) && longer <= REST_MAX.mul_f64(1.25));
        sleep(longer).await;
        assert!(breaker.enter(WITHIN).is_ok());
        breaker.note(false);
        assert!(breaker.enter(WITHIN).is_ok() && breaker.enter(WITHIN).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_between_failures_counts_for_more_than_they_do() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES * 3 {
            breaker.note(true);
            breaker.note(false);
        }
        assert!(breaker.enter(WITHIN).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asked_and_is_gone_holds_nobody_up_for_ever() {
        let mut breaker = Breaker::default();
        sleep(failing(&mut breaker)).await;
        assert!(breaker.enter(WITHIN).is_ok());
        assert!(breaker.enter(WITHIN).is_err());
        breaker.leave();
        assert!(breaker.enter(WITHIN).is_ok());
        sleep(WITHIN).await;
        assert!(breaker.enter(WITHIN).is_ok());
    }
}
