//! How often one address may knock.

use crate::{config::value::Rate, problem::Problem};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use hyper::StatusCode;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

type Keyed = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>;

/// The limit, if there is one.
pub struct ConnectRate(Option<Keyed>);

impl ConnectRate {
    pub fn new(rate: Option<Rate>) -> Self {
        Self(rate.map(|rate| Keyed::hashmap(Quota::per_second(rate.0))))
    }

    pub fn check(&self, address: IpAddr) -> Result<(), Problem> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        limiter.check_key(&neighbourhood(address)).map_err(|early| {
            let wait = early.wait_time_from(DefaultClock::default().now());
            Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many connection attempts",
                "wait before you try again; RATE_CONNECT sets the limit",
            )
            .code("too_fast")
            .retry_after(wait.as_secs() + 1)
        })
    }

    /// Forgets the addresses that have been quiet for long enough, so that the table stays small.
    pub fn forget_the_quiet(&self) {
        if let Some(limiter) = &self.0 {
            limiter.retain_recent();
        }
    }
}

/// Credentials of one address that may be refused in a second. Beyond it none is looked at for a while, so that nobody
/// tries keys until one fits.
const REFUSED: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// Addresses that have to wait; beyond it they are let go early.
const WAITING_MAX: usize = 100_000;

/// Who showed too many credentials that are not good.
pub struct Refusals {
    limiter: Keyed,
    waiting: Mutex<HashMap<IpAddr, Instant>>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { limiter: Keyed::hashmap(Quota::per_second(REFUSED)), waiting: Mutex::default() }
    }
}

impl Refusals {
    /// Whether a credential of this address is to be looked at.
    pub fn check(&self, address: IpAddr) -> Result<(), Problem> {
        let until = self.waiting().get(&neighbourhood(address)).copied();
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many refused credentials",
                "wait before you try again, and then with a good one",
            )
            .code("too_fast")
            .retry_after(left.as_secs() + 1)),
            _ => Ok(()),
        }
    }

    /// One was refused.
    pub fn note(&self, address: IpAddr) {
        let address = neighbourhood(address);
        if let Err(early) = self.limiter.check_key(&address) {
            let mut waiting = self.waiting();
            if waiting.len() >= WAITING_MAX {
                waiting.clear();
            }
            waiting.insert(address, Instant::now() + early.wait_time_from(DefaultClock::default().now()));
        }
    }

    pub fn forget_the_quiet(&self) {
        self.limiter.retain_recent();
        self.waiting().retain(|_, until| *until > Instant::now());
    }

    /// A panic while the lock was held leaves a table that can be used: every step is whole.
    fn waiting(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A household owns a whole /64 of IPv6 addresses, so that is what counts as one.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_household_shares_one_limit() {
        let rate = ConnectRate::new(NonZeroU32::new(2).map(Rate));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(rate.check(address("2001:db8::1")).is_ok());
        assert!(rate.check(address("2001:db8::2")).is_ok());
        let refused = rate.check(address("2001:db8::3")).unwrap_err();
        assert_eq!(refused.status, 429);
        assert!(rate.check(address("2001:db8:0:1::1")).is_ok());
        assert!(rate.check(address("10.0.0.1")).is_ok());
        assert!(rate.check(address("::ffff:10.0.0.1")).is_ok());
        assert!(rate.check(address("10.0.0.1")).is_err());
    }

    #[test]
    fn whoever_is_refused_too_often_is_not_looked_at() {
        let refusals = Refusals::default();
        let (one, near, other) = ([10, 0, 0, 1].into(), "::ffff:10.0.0.1".parse().unwrap(), [10, 0, 0, 2].into());
        for _ in 0..20 {
            assert!(refusals.check(one).is_ok());
            refusals.note(one);
        }
        refusals.note(one);
        assert_eq!(refusals.check(near).unwrap_err().status, 429);
        assert!(refusals.check(other).is_ok());
        refusals.forget_the_quiet();
        assert!(refusals.check(one).is_err());
    }
}
