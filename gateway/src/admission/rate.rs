//! How often one address may knock.

use crate::{config::value::Rate, problem::Problem};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use hyper::StatusCode;
use std::net::{IpAddr, Ipv6Addr};

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
}
