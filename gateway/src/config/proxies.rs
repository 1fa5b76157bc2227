//! The settings for what stands in front: whose word about others counts.

use super::{Reader, value};
use crate::auth::Modes;
use ipnet::IpNet;
use std::{net::IpAddr, time::Duration};

/// After how long of silence a proxy gives a connection up, if nobody told it otherwise: nginx, Apache, ALB.
const PROXIES_WAIT: Duration = Duration::from_secs(60);

impl Reader<'_> {
    pub(super) fn trusted_proxies(&mut self) -> Option<Vec<IpNet>> {
        let mut nets = Vec::new();
        for part in value::list(self.text("TRUSTED_PROXIES")) {
            match part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)) {
                Ok(net) => nets.push(net),
                Err(_) => {
                    return self
                        .fault("TRUSTED_PROXIES", format!("{part} is no address and no network such as 10.0.0.0/8"));
                }
            }
        }
        Some(nets)
    }

    pub(super) fn proxy_protocol(&mut self) -> Option<bool> {
        let is_on = self.parsed("PROXY_PROTOCOL", value::flag)?;
        if is_on && self.is_default("TRUSTED_PROXIES") {
            self.warnings.push(
                "PROXY_PROTOCOL is on with the default TRUSTED_PROXIES: a balancer on another host is refused; name it there, and 127.0.0.1 for checks"
                    .into(),
            );
        }
        Some(is_on)
    }

    /// A proxy that hears nothing for a minute closes the socket, and nobody here knows why.
    pub(super) fn notice_silence(&mut self, ping_interval: Option<Duration>, ping_timeout: Option<Duration>) {
        let Some(silence) = ping_interval.zip(ping_timeout).map(|(interval, timeout)| interval + timeout) else {
            return;
        };
        if silence > PROXIES_WAIT {
            let span = humantime::format_duration;
            self.warnings.push(format!(
                "WS_PING_INTERVAL + WS_PING_TIMEOUT are {}: a proxy gives up what is silent for {} unless it is told \
                 otherwise (nginx: proxy_read_timeout); keep the sum below that, or set the proxy's time above the sum",
                span(silence),
                span(PROXIES_WAIT),
            ));
        }
    }

    /// Without a token nobody may call who comes through a proxy, or from another machine.
    pub(super) fn notice_shut_doors(&mut self, auth: Option<Modes>, proxy_protocol: Option<bool>) {
        let sign = if proxy_protocol == Some(true) {
            "PROXY_PROTOCOL is on".to_owned()
        } else if !self.is_default("TRUSTED_PROXIES") {
            "TRUSTED_PROXIES names a proxy".to_owned()
        } else if !is_loopback(self.text("HOST")) {
            format!("HOST={} is open to other machines", self.text("HOST"))
        } else {
            return;
        };
        // A key of scope call opens the same doors.
        if self.text("API_TOKEN").is_empty() && auth.is_some_and(|auth| !auth.keys) {
            self.warnings.push(format!(
                "API_TOKEN is not set, and {sign}: calls over HTTP are answered to direct callers on this machine only \
                 (protected mode); set API_TOKEN and send it as Authorization: Bearer"
            ));
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use crate::config::{read, sources::Environment};
    use std::collections::BTreeMap;

    fn warnings<const N: usize>(pairs: [(&str, &str); N]) -> Vec<String> {
        let env: Environment = pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        read(&BTreeMap::new(), None, &env).sources.warnings
    }

    #[test]
    fn a_proxy_that_would_not_wait_for_a_ping_is_warned_of() {
        let said = warnings([("WS_PING_INTERVAL", "55s"), ("WS_PING_TIMEOUT", "10s")]);
        assert!(said.len() == 1 && said[0].starts_with("WS_PING_INTERVAL + WS_PING_TIMEOUT are 1m 5s"), "{said:?}");
        assert_eq!(warnings([("WS_PING_INTERVAL", "50s"), ("WS_PING_TIMEOUT", "10s")]), [""; 0]);
    }

    #[test]
    fn doors_that_are_shut_to_whoever_stands_behind_the_proxy_are_warned_of() {
        for sign in [("HOST", "0.0.0.0"), ("TRUSTED_PROXIES", "127.0.0.1"), ("HOST", "gateway.internal")] {
            let said = warnings([sign]);
            assert!(said.len() == 1 && said[0].contains("API_TOKEN") && said[0].contains(sign.0), "{said:?}");
            assert_eq!(warnings([sign, ("API_TOKEN", "hush")]), [""; 0]);
            assert_eq!(warnings([sign, ("AUTH", "keys"), ("REDIS_URL", "redis://h")]), [""; 0]);
        }
        for alone in ["127.0.0.1", "::1", "localhost"] {
            assert_eq!(warnings([("HOST", alone)]), [""; 0]);
        }
    }

    #[test]
    fn a_balancer_elsewhere_has_to_be_named() {
        let warnings = |[one, other]: [(&str, &str); 2]| warnings([one, other, ("API_TOKEN", "hush")]);
        let said = warnings([("PROXY_PROTOCOL", "on"), ("CANARY", "false")]);
        assert!(said.len() == 1 && said[0].contains("TRUSTED_PROXIES"), "{said:?}");
        assert_eq!(warnings([("PROXY_PROTOCOL", "on"), ("TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.1")]), [""; 0]);
        assert_eq!(warnings([("PROXY_PROTOCOL", "off"), ("CANARY", "false")]), [""; 0]);
    }
}
