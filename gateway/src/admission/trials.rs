//! Credentials that are tried from one address: how many at once, and how many of them may be no good, so that nobody tries
//! until one fits, and nobody takes all of the application's time.

use super::rate::neighbourhood;
use crate::problem::Problem;
use hyper::StatusCode;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Each that is refused counts for so long: twenty a second.
const EACH: Duration = Duration::from_millis(50);
/// So much may come together.
const TOGETHER: Duration = Duration::from_secs(1);
/// Those of one address that are looked at at the same time: half of what an application is asked at once.
const AT_ONCE: u32 = 64;
/// Addresses that have to wait; beyond it they are let go early.
const KNOWN_MAX: usize = 100_000;

#[derive(Default)]
pub struct Trials(Mutex<HashMap<IpAddr, Standing>>);

struct Standing {
    /// Until when those that were refused count.
    until: Instant,
    trying: u32,
}

impl Standing {
    fn is_quiet(&self) -> bool {
        self.trying == 0 && self.until <= Instant::now()
    }
}

impl Trials {
    /// One more is to be looked at. Whoever leaves before it is known what it is worth has shown one that is no good.
    pub fn begin(&self, address: IpAddr) -> Result<Trial<'_>, Problem> {
        let address = neighbourhood(address);
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, standing| !standing.is_quiet());
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, standing| standing.trying > 0);
        }
        let now = Instant::now();
        let standing = known.entry(address).or_insert(Standing { until: now, trying: 0 });
        let wait = standing.until.saturating_duration_since(now);
        if wait >= TOGETHER {
            return Err(too_many(
                "Too many refused credentials",
                "wait before you try again, and then with a good one",
            )
            .retry_after((wait - TOGETHER).as_secs() + 1));
        }
        if standing.trying >= AT_ONCE {
            return Err(
                too_many("Too many credentials at once", "wait until some of yours are answered; if all come from the address of your proxy, name it in TRUSTED_PROXIES").retry_after(1)
            );
        }
        standing.trying += 1;
        Ok(Trial { trials: self, address, is_over: false })
    }

    pub fn forget_the_quiet(&self) {
        let mut known = self.known();
        known.retain(|_, standing| !standing.is_quiet());
        known.shrink_to_fit();
    }

    /// A panic while the lock was held leaves a table that can be used: every step is whole.
    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(title: &'static str, hint: &'static str) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, title, hint).code("too_fast")
}

/// One credential that is looked at.
pub struct Trial<'a> {
    trials: &'a Trials,
    address: IpAddr,
    is_over: bool,
}

impl Trial<'_> {
    /// It was good, or nobody can say what it is.
    pub fn is_no_refusal(mut self) {
        self.is_over = true;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(standing) = self.trials.known().get_mut(&self.address) {
            standing.trying = standing.trying.saturating_sub(1);
            if !self.is_over {
                standing.until = standing.until.max(Instant::now()) + EACH;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn refused(trials: &Trials, address: IpAddr) -> bool {
        trials.begin(address).map(drop).is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_refused_too_often_is_not_looked_at() {
        let trials = Trials::default();
        assert!((0..20).all(|_| refused(&trials, ONE)));
        let near = "::ffff:10.0.0.1".parse().unwrap();
        let problem = trials.begin(near).map(drop).unwrap_err();
        assert_eq!((problem.status.as_u16(), &*problem.code), (429, "too_fast"));
        assert!(refused(&trials, [10, 0, 0, 2].into()));
        trials.forget_the_quiet();
        assert!(!refused(&trials, ONE));
        // Twenty a second, however they come.
        let mut looked_at = 0;
        for _ in 0..1000 {
            sleep(Duration::from_millis(10)).await;
            looked_at += u32::from(refused(&trials, ONE));
        }
        assert!((199..=201).contains(&looked_at), "{looked_at}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_looked_at_at_the_same_time_count_as_well() {
        let trials = Trials::default();
        let many: Vec<_> = (0..AT_ONCE).map(|_| trials.begin(ONE).ok().unwrap()).collect();
        assert_eq!(trials.begin(ONE).map(drop).unwrap_err().title, "Too many credentials at once");
        assert!(refused(&trials, [10, 0, 0, 2].into()));
        many.into_iter().for_each(Trial::is_no_refusal);
        assert!(refused(&trials, ONE));
        // Whoever hangs up all the time is refused all the time.
        let many: Vec<_> = (0..AT_ONCE).map(|_| trials.begin(ONE).ok().unwrap()).collect();
        drop(many);
        assert!(!refused(&trials, ONE));
        sleep(EACH * AT_ONCE).await;
        assert!(refused(&trials, ONE));
    }

    /// Ten thousand come and go, and nothing of them is left.
    #[tokio::test(start_paused = true)]
    async fn crowds_are_forgotten() {
        let trials = Trials::default();
        for n in 0..10_000_u32 {
            assert!(refused(&trials, IpAddr::from((0x0a00_0000 | n).to_be_bytes())));
        }
        assert_eq!(trials.known().len(), 10_000);
        sleep(TOGETHER).await;
        trials.forget_the_quiet();
        assert_eq!(trials.known().capacity(), 0);
    }
}
