//! A short hash of the settings in force, so that instances that should be alike can be compared at a glance.

use super::{
    settings::{Kind, SETTINGS},
    sources::Sources,
    value,
};
use ring::digest::{SHA256, digest};

/// In these the instances of one fleet may differ.
const OWN: &[&str] = &["HOST", "PORT", "INSTANCE", "CANARY", "MAX_SOCKETS", "LOG_LEVEL", "LOG_FORMAT", "DEBUG"];
/// What SIGHUP puts in force.
const LIVE: &[&str] = &["CORS_ORIGINS", "API_TOKEN", "ADMIN_TOKEN"];
/// So many that no two of a fleet are alike by chance, and that a person still compares.
const BYTES: usize = 4;

/// Of what was read at the start.
pub fn of(sources: &Sources) -> String {
    after(sources, sources)
}

/// Of what is in force when some of it was read again. Of a secret only whether there is one: who sees the hash could try
/// out words.
pub fn after(start: &Sources, again: &Sources) -> String {
    let mut text = String::new();
    for setting in SETTINGS.iter().filter(|setting| !OWN.contains(&setting.name)) {
        let sources = if LIVE.contains(&setting.name) { again } else { start };
        let given = sources.get(setting.name).map_or("", |given| given.text.trim());
        text.push_str(&format!("{}={}\n", setting.name, plain(setting.kind, given)));
    }
    let hash = digest(&SHA256, text.as_bytes());
    hash.as_ref().iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// The same for the same value, however it is written.
fn plain(kind: Kind, given: &str) -> String {
    let value = match kind {
        Kind::Duration => value::duration(given).map(|span| format!("{span:?}")),
        Kind::Size => value::size(given).map(|bytes| bytes.to_string()),
        Kind::Flag => value::flag(given).map(|flag| flag.to_string()),
        Kind::List => Ok(value::list(given).join(",")),
        kind => Ok(kind.shown(given)),
    };
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{read, sources::Environment};
    use std::collections::BTreeMap;

    fn sources<const N: usize>(pairs: [(&str, &str); N]) -> Sources {
        let env: Environment = pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        read(&BTreeMap::new(), None, &env).sources
    }

    #[test]
    fn instances_that_should_be_alike_are_and_others_are_not() {
        let plain = of(&sources([]));
        assert_eq!(plain.len(), 2 * BYTES);
        let own = sources([("PORT", "8082"), ("INSTANCE", "web2"), ("CANARY", "true"), ("HOST", "10.0.0.2")]);
        assert_eq!(of(&own), plain);
        assert_ne!(of(&sources([("WS_PING_INTERVAL", "20s")])), plain);
        assert_eq!(of(&sources([("WS_PING_INTERVAL", "60")])), of(&sources([("WS_PING_INTERVAL", "1m")])));
        assert_ne!(of(&sources([("API_TOKEN", "hush")])), plain);
    }

    #[test]
    fn secrets_leave_no_trace() {
        assert_eq!(of(&sources([("API_TOKEN", "one")])), of(&sources([("API_TOKEN", "two")])));
        let redis = |password: &str| of(&sources([("REDIS_URL", &format!("redis://:{password}@h"))]));
        assert_eq!(redis("one"), redis("two"));
    }

    #[test]
    fn what_waits_for_a_restart_is_not_in_force_before() {
        let (start, waits) = (sources([]), sources([("DRAIN_TIMEOUT", "20s")]));
        assert_eq!(after(&start, &waits), of(&start));
        assert_ne!(after(&start, &sources([("CORS_ORIGINS", "https://example.com")])), of(&start));
    }
}
