//! Whether two instances are configured alike: a short mark of what is in force, which metrics show.

use super::{
    settings::{Kind, SETTINGS},
    sources::Sources,
    value,
};
use std::fmt::Write;

/// In these the instances of one fleet may differ.
const OWN: &[&str] = &["HOST", "PORT", "INSTANCE", "CANARY", "MAX_SOCKETS", "LOG_LEVEL", "LOG_FORMAT", "DEBUG"];

/// So many digits that two configurations of one fleet hardly ever have the same.
const DIGITS: usize = 8;

impl Sources {
    /// The same for the same settings, however they are written. No secret is in it, not even its hash: whoever sees the
    /// mark could try guesses against it.
    pub fn mark(&self) -> String {
        let mut whole = String::new();
        for setting in SETTINGS.iter().filter(|setting| !OWN.contains(&setting.name)) {
            let Some(given) = self.get(setting.name) else { continue };
            let text = given.text.trim();
            let value = match setting.kind {
                Kind::Duration => value::duration(text).map(|span| format!("{span:?}")),
                Kind::Size => value::size(text).map(|bytes| bytes.to_string()),
                Kind::Flag => value::flag(text).map(|flag| flag.to_string()),
                Kind::List => Ok(value::list(text).join(",")),
                kind => Ok(kind.shown(text)),
            };
            // Writing into a string cannot fail.
            let _ = writeln!(whole, "{}={}", setting.name, value.unwrap_or_default());
        }
        let hash = ring::digest::digest(&ring::digest::SHA256, whole.as_bytes());
        let mut mark: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        mark.truncate(DIGITS);
        mark
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read, sources::Environment};

    fn mark(settings: &[(&str, &str)]) -> String {
        let flags = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&flags, None, &Environment::default()).sources.mark()
    }

    #[test]
    fn instances_that_are_configured_alike_have_the_same_mark() {
        let plain = mark(&[]);
        assert_eq!(plain.len(), super::DIGITS);
        assert_eq!(plain, mark(&[("PORT", "8082"), ("INSTANCE", "web2"), ("CANARY", "true")]));
        assert_eq!(mark(&[("CALL_TIMEOUT", "60")]), mark(&[("CALL_TIMEOUT", "1m")]));
        assert_ne!(plain, mark(&[("CALL_TIMEOUT", "60")]));
        assert_ne!(plain, mark(&[("CORS_ORIGINS", "https://app.example.com")]));
    }

    #[test]
    fn a_mark_tells_that_a_secret_is_set_and_nothing_of_it() {
        let with = |secret| mark(&[("API_TOKEN", secret)]);
        assert_eq!(with("0123456789abcdef0"), with("fedcba98765432100"));
        assert_ne!(with("0123456789abcdef0"), mark(&[]));
    }
}
