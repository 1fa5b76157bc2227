//! How often one address may knock, and how often one API key.

use crate::{auth::key::Digest, config::value::Rate, problem::Problem};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use hyper::StatusCode;
use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
};

type Keyed<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

/// The limit, if there is one. Neither table grows without bound: an address is forgotten when it has been quiet for as
/// long as its limit looks back, and keys are only those that were found good.
pub struct ConnectRate {
    addresses: Option<Keyed<IpAddr>>,
    keys: Option<Keyed<Digest>>,
}

impl ConnectRate {
    pub fn new(rate: Option<Rate>) -> Self {
        let quota = rate.map(|rate| Quota::per_second(rate.0));
        Self { addresses: quota.map(Keyed::hashmap), keys: quota.map(Keyed::hashmap) }
    }

    pub fn check(&self, address: IpAddr) -> Result<(), Problem> {
        let hint = "wait before you try again; RATE_CONNECT sets the limit";
        check(self.addresses.as_ref(), &neighbourhood(address), hint)
    }

    /// The same for a key that is good, from wherever it is shown.
    pub fn check_key(&self, key: Digest) -> Result<(), Problem> {
        let hint = "this API key is used too often; wait, or use several; RATE_CONNECT sets the limit";
        check(self.keys.as_ref(), &key, hint)
    }

    /// Forgets who has been quiet for long enough, so that the tables stay small.
    pub fn forget_the_quiet(&self) {
        self.addresses.iter().for_each(forget);
        self.keys.iter().for_each(forget);
    }
}

fn check<K: Clone + Eq + Hash>(limiter: Option<&Keyed<K>>, who: &K, hint: &'static str) -> Result<(), Problem> {
    let Some(limiter) = limiter else { return Ok(()) };
    limiter.check_key(who).map_err(|early| {
        let wait = early.wait_time_from(DefaultClock::default().now());
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many connection attempts", hint)
            .code("too_fast")
            .retry_after(wait.as_secs() + 1)
    })
}

/// Its room is given back as well, since a crowd of strangers comes once.
fn forget<K: Clone + Eq + Hash>(limiter: &Keyed<K>) {
    limiter.retain_recent();
    limiter.shrink_to_fit();
}

/// A household owns a whole /64 of IPv6 addresses, so that is what counts as one.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
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
    use std::num::NonZeroU32;

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
    fn a_key_has_a_limit_of_its_own() {
        let rate = ConnectRate::new(NonZeroU32::new(2).map(Rate));
        let (one, other) = (Digest::of("hf_one"), Digest::of("hf_other"));
        assert!(rate.check_key(one).is_ok() && rate.check_key(one).is_ok());
        let refused = rate.check_key(one).unwrap_err();
        assert_eq!((refused.status.as_u16(), &*refused.code), (429, "too_fast"));
        assert!(rate.check_key(other).is_ok() && rate.check([10, 0, 0, 1].into()).is_ok());
        assert!((0..100).all(|_| ConnectRate::new(None).check_key(one).is_ok()));
    }

    /// Ten thousand come and go, and nothing of them is left.
    #[test]
    fn crowds_are_forgotten() {
        let rate = ConnectRate::new(NonZeroU32::new(100).map(Rate));
        let crowd = || (0..10_000_u32).map(|n| IpAddr::from((0x0a00_0000 | n).to_be_bytes()));
        for address in crowd() {
            assert!(rate.check(address).is_ok());
        }
        let known = || rate.addresses.as_ref().map_or(0, Keyed::len);
        assert_eq!(known(), 10_000);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while known() > 0 {
            assert!(std::time::Instant::now() < deadline, "{} are known", known());
            std::thread::sleep(std::time::Duration::from_millis(50));
            rate.forget_the_quiet();
        }
    }
}
