//! What was said of a session a moment ago. A yes counts for a while; a no is asked again, since whoever logs in keeps the
//! cookie. Whoever shows the same at the same time waits for one answer.

use super::{Finding, Found};
use crate::auth::grants::Grants;
use futures_util::{
    FutureExt,
    future::{Shared, WeakShared},
};
use registry::Hashed;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a yes counts for whoever shows the same again.
const KNOWN: Duration = Duration::from_secs(30);
/// Answers that are kept; beyond it all are asked for anew.
const KNOWN_MAX: usize = 10_000;

/// By what was shown, hashed, so that nobody reads it out of our memory or a copy of it.
#[derive(Default)]
pub struct Recent(Mutex<HashMap<Hashed, Known>>);

enum Known {
    /// It is asked about, for as long as anybody waits for it.
    Asked(Instant, WeakShared<Finding>),
    Found(Instant, Arc<Grants>),
}

impl Known {
    fn is_over(&self) -> bool {
        let (Self::Asked(at, _) | Self::Found(at, _)) = self;
        at.elapsed() >= KNOWN
    }
}

enum Looked {
    Found(Arc<Grants>),
    Asked(Instant, Shared<Finding>),
}

impl Recent {
    pub async fn find(&self, by: Hashed, ask: impl FnOnce() -> Finding) -> Found {
        let (at, finding) = match self.look(by, ask) {
            Looked::Found(grants) => return Ok(grants),
            Looked::Asked(at, finding) => (at, finding),
        };
        let found = finding.await;
        let mut known = self.known();
        match &found {
            Ok(grants) => drop(known.insert(by, Known::Found(at, grants.clone()))),
            Err(_) => drop(known.remove(&by)),
        }
        found
    }

    fn look(&self, by: Hashed, ask: impl FnOnce() -> Finding) -> Looked {
        let mut known = self.known();
        match known.get(&by) {
            Some(found @ Known::Found(_, grants)) if !found.is_over() => return Looked::Found(grants.clone()),
            Some(Known::Asked(at, finding)) => {
                if let Some(finding) = finding.upgrade() {
                    return Looked::Asked(*at, finding);
                }
            }
            _ => {}
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| !known.is_over());
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let (at, finding) = (Instant::now(), ask().shared());
        if let Some(weak) = finding.downgrade() {
            known.insert(by, Known::Asked(at, weak));
        }
        Looked::Asked(at, finding)
    }

    /// What counts no more makes room for others.
    pub fn forget_the_old(&self) {
        self.known().retain(|_, known| !known.is_over());
    }

    /// A panic while it was held leaves a table that can be used: every step is whole.
    fn known(&self) -> MutexGuard<'_, HashMap<Hashed, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Proof, Refused, grants::By, somebody};
    use std::{cell::Cell, future::pending};
    use tokio::time::{sleep, timeout};

    fn by(text: &str) -> Hashed {
        Hashed::of(&[text.as_bytes()])
    }

    fn ann() -> Found {
        Ok(Arc::new(Grants {
            user: somebody("ann").unwrap(),
            stores: Vec::new(),
            rooms: None,
            until: None,
            key: None,
            by: By::Session,
            more: None,
        }))
    }

    /// Asks, and says whether the application had to be asked for it.
    async fn asks(recent: &Recent, shown: &str, found: Found) -> (bool, bool) {
        let asked = Cell::new(false);
        let ask = || {
            asked.set(true);
            std::future::ready(found).boxed()
        };
        let found = recent.find(by(shown), ask).await;
        (asked.get(), found.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_yes_counts_for_half_a_minute_and_a_no_for_nothing() {
        let recent = Recent::default();
        let no = || Err(Refused::Session(Proof::Cookie));
        assert_eq!(asks(&recent, "a", no()).await, (true, false));
        assert_eq!(asks(&recent, "a", ann()).await, (true, true));
        sleep(KNOWN - Duration::from_millis(1)).await;
        assert_eq!(asks(&recent, "a", no()).await, (false, true));
        assert_eq!(asks(&recent, "b", no()).await, (true, false));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(asks(&recent, "a", no()).await, (true, false));
        recent.forget_the_old();
        assert!(recent.known().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_took_its_time_is_as_old_as_its_question() {
        let recent = Recent::default();
        let slow = || async { sleep(Duration::from_secs(20)).then(async |()| ann()).await }.boxed();
        assert!(recent.find(by("a"), slow).await.is_ok());
        sleep(Duration::from_secs(10)).await;
        assert_eq!(asks(&recent, "a", ann()).await, (true, true));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_for_those_who_have_left() {
        let recent = Recent::default();
        let never = || pending().boxed();
        assert!(timeout(Duration::from_secs(1), recent.find(by("a"), never)).await.is_err());
        assert_eq!(asks(&recent, "a", ann()).await, (true, true));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_what_is_kept() {
        let recent = Recent::default();
        for n in 0..=KNOWN_MAX {
            asks(&recent, &n.to_string(), ann()).await;
        }
        assert!(recent.known().len() <= KNOWN_MAX);
    }
}
