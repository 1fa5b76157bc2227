//! What came of telling the application something.

use super::Hook;
use crate::{
    metrics::{Event as Told, Metrics},
    upstream::{Answer, Fault},
};
use std::{fmt, time::Duration};

/// Why it is still to be told.
#[derive(Debug, Clone, Copy)]
pub enum Untold {
    /// The application is not there, or has no time. Others would fare no better.
    Away(Fault),
    Busy(u16),
    /// It did not want this one.
    Refused(u16),
}

impl Untold {
    /// How long to wait before it is told again: a while, or for as long as nobody may ask.
    pub fn wait(self, pause: Duration) -> Duration {
        match self {
            Self::Away(Fault::Resting(rest)) => jittered(pause.max(rest)),
            _ => jittered(pause),
        }
    }
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(fault) => fault.fmt(f),
            Self::Busy(status) | Self::Refused(status) => {
                write!(f, "status {status} does not say that it was taken")
            }
        }
    }
}

/// Whatever is no 2xx has not been heard. It is counted, and said in the log if it goes otherwise than before.
pub fn of(hook: &Hook, metrics: &Metrics, kind: &'static str, answer: Result<Answer, Fault>) -> Result<(), Untold> {
    let told = match answer {
        Ok(answer) => match answer.status {
            200..=299 => Ok(()),
            status @ (408 | 429 | 502..=504) => Err(Untold::Busy(status)),
            status => Err(Untold::Refused(status)),
        },
        Err(fault) => Err(Untold::Away(fault)),
    };
    let outcome = match &told {
        Ok(()) => Some("told"),
        Err(Untold::Refused(_)) => Some("refused"),
        // It was not even tried.
        Err(Untold::Away(Fault::Resting(_))) => None,
        Err(Untold::Busy(_) | Untold::Away(_)) => Some("failed"),
    };
    if let Some(outcome) = outcome {
        metrics.events.of(Told { r#type: kind, outcome }).inc();
    }
    hook.fares(told.as_ref().map(drop).map_err(|why| why as &dyn fmt::Display));
    told
}

/// So that those who failed together do not all come back together.
pub fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.75 + 0.5 * fastrand::f64())
}
