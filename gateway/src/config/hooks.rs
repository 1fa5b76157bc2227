//! The settings for what the application is told and asked.

use super::{Reader, endpoint, value, value::Secret};
use crate::upstream::{Endpoint, sign::key_bytes};
use std::time::Duration;

/// A shorter one could be found by trying, from a single message.
const SECRET_BYTES_MIN: usize = 16;

/// How to make one.
const EXAMPLE: &str = "HOOK_SECRET=whsec_$(openssl rand -base64 32)";

#[derive(Debug, Clone)]
pub struct HookRules {
    pub connect: Option<Endpoint>,
    pub message: Option<Endpoint>,
    pub events: Option<Endpoint>,
    /// Each signs.
    pub secrets: Vec<Secret>,
    pub within: Duration,
}

impl Reader<'_> {
    pub(super) fn hooks(&mut self) -> Option<HookRules> {
        let [connect, message, events] =
            ["CONNECT_URL", "MESSAGE_URL", "EVENTS_URL"].map(|name| self.optional(name, endpoint));
        let within = self.positive("HOOK_TIMEOUT");
        let secrets: Vec<_> = value::list(self.text("HOOK_SECRET")).into_iter().map(Secret::new).collect();
        for secret in &secrets {
            match key_bytes(secret) {
                Some(bytes) if bytes.len() >= SECRET_BYTES_MIN => {}
                Some(_) => {
                    let fix = format!("at least {SECRET_BYTES_MIN} bytes each are wanted, such as {EXAMPLE}");
                    return self.fault("HOOK_SECRET", fix);
                }
                None => {
                    let fix = format!("base64 is wanted behind whsec_, such as {EXAMPLE}");
                    return self.fault("HOOK_SECRET", fix);
                }
            }
        }
        let rules = HookRules { connect: connect?, message: message?, events: events?, secrets, within: within? };
        let signed = [&rules.connect, &rules.message, &rules.events].iter().any(|url| url.is_some());
        if !rules.secrets.is_empty() && !signed && self.text("SESSION_URL").is_empty() {
            self.warnings.push("HOOK_SECRET is set, but there is no hook that it would sign".into());
        }
        Some(rules)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{read, sources::Environment};
    use std::collections::BTreeMap;

    #[test]
    fn a_secret_that_cannot_sign_is_a_fault_and_is_not_shown() {
        let fixes = |secret: &str| {
            let env = Environment::from([("HOOK_SECRET".to_owned(), secret.to_owned())]);
            let faults = read(&BTreeMap::new(), None, &env).config.err().unwrap_or_default();
            faults.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for good in ["whsec_AAECAwQFBgcICQoLDA0ODw==", "whsec_AAECAwQFBgcICQoLDA0ODw", "sixteen letters!"] {
            assert_eq!(fixes(good), [""; 0], "{good}");
        }
        for (bad, fix) in [
            ("whsec_hush hush hush hush", "base64 is wanted behind whsec_, such as HOOK_SECRET=whsec_$(openssl"),
            ("whsec_hushhushhush", "at least 16 bytes"),
            ("hush", "at least 16 bytes"),
        ] {
            let said = fixes(bad);
            assert!(said.len() == 1 && said[0].contains(fix) && !said[0].contains("hush"), "{said:?}");
        }
    }
}
