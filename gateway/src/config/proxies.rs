//! The settings for what stands in front: whose word about others counts.

use super::{Reader, value};
use ipnet::IpNet;
use std::net::IpAddr;

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
}

#[cfg(test)]
mod tests {
    use crate::config::{read, sources::Environment};
    use std::collections::BTreeMap;

    #[test]
    fn a_balancer_elsewhere_has_to_be_named() {
        let warnings = |pairs: [(&str, &str); 2]| {
            let env: Environment = pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
            read(&BTreeMap::new(), None, &env).sources.warnings
        };
        let said = warnings([("PROXY_PROTOCOL", "on"), ("CANARY", "false")]);
        assert!(said.len() == 1 && said[0].contains("TRUSTED_PROXIES"), "{said:?}");
        assert_eq!(warnings([("PROXY_PROTOCOL", "on"), ("TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.1")]), [""; 0]);
        assert_eq!(warnings([("PROXY_PROTOCOL", "off"), ("CANARY", "false")]), [""; 0]);
    }
}
