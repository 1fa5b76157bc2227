//! The settings for how clients prove who they are.

use super::{Reader, endpoint, value};
use crate::{auth::Modes, upstream::Endpoint};

const WANTED: &str = "none, or a list of keys, jwt, session and proxy is wanted";

/// Why `*` is no origin there.
pub const ANY_PAGE: &str =
    "with AUTH=session any page could open sockets with its visitor's cookies; name the origins of yours";

/// Who is asked whose a session is.
#[derive(Debug, Clone)]
pub struct SessionRules {
    pub endpoint: Endpoint,
    /// The cookie that is sent on; without it all of them.
    pub cookie: Option<String>,
}

impl Reader<'_> {
    pub(super) fn auth(&mut self) -> Option<Modes> {
        let mut modes = Modes::default();
        let words = value::list(self.text("AUTH"));
        if words.is_empty() {
            return self.fault("AUTH", format!("it names nothing; {WANTED}"));
        }
        for word in &words {
            match word.to_ascii_lowercase().as_str() {
                "none" if words.len() == 1 => {}
                "none" => return self.fault("AUTH", "none stands alone: with anything else a credential is wanted"),
                "keys" => modes.keys = true,
                "jwt" => modes.jwt = true,
                "proxy" => modes.proxy = true,
                "session" => modes.session = true,
                _ => return self.fault("AUTH", format!("{word} is unknown; {WANTED}")),
            }
        }
        if modes.keys && self.text("API_KEYS_FILE").is_empty() && self.text("REDIS_URL").is_empty() {
            self.fault::<()>("API_KEYS_FILE", "AUTH=keys wants a place for the keys: this file, or REDIS_URL");
        }
        if modes.jwt && ["JWT_SECRET", "JWT_PUBLIC_KEY", "JWKS_URL"].iter().all(|name| self.text(name).is_empty()) {
            self.fault::<()>("JWT_SECRET", "AUTH=jwt wants JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL");
        }
        if modes.session && self.text("SESSION_URL").is_empty() {
            self.fault::<()>("SESSION_URL", "AUTH=session asks the application there whose a session is");
        }
        if modes.session && value::list(self.text("CORS_ORIGINS")).iter().any(|origin| origin == "*") {
            self.fault::<()>("CORS_ORIGINS", ANY_PAGE);
        }
        if modes.proxy && self.is_default("TRUSTED_PROXIES") {
            self.fault::<()>(
                "TRUSTED_PROXIES",
                "AUTH=proxy believes these peers whoever they name; say which, even if it is 127.0.0.1",
            );
        }
        if !modes.keys && !self.text("API_KEYS_FILE").is_empty() {
            self.warnings.push("API_KEYS_FILE is set, but AUTH has no keys: no key is looked at at the doors".into());
        }
        Some(modes)
    }

    pub(super) fn session(&mut self) -> Option<Option<SessionRules>> {
        let endpoint = self.optional("SESSION_URL", endpoint);
        let plain =
            |text: &str| match text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b)) {
                true => Ok(text.to_owned()),
                false => Err("the name of a cookie is wanted".into()),
            };
        let cookie = self.optional("SESSION_COOKIE", plain)?;
        if !value::list(self.text("AUTH")).iter().any(|way| way.eq_ignore_ascii_case("session")) {
            let set = ["SESSION_URL", "SESSION_COOKIE"].into_iter().filter(|name| !self.text(name).is_empty());
            let warned = set.map(|name| format!("{name} is set, but AUTH has no session: no cookie is looked at"));
            self.warnings.extend(warned.collect::<Vec<_>>());
        }
        Some(endpoint?.map(|endpoint| SessionRules { endpoint, cookie }))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{read, sources::Environment};
    use std::collections::BTreeMap;

    fn faults<const N: usize>(pairs: [(&str, &str); N]) -> Vec<String> {
        let env: Environment = pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let reading = read(&BTreeMap::new(), None, &env);
        reading.config.err().unwrap_or_default().into_iter().map(|fault| fault.setting).collect()
    }

    #[test]
    fn what_is_set_and_never_looked_at_is_warned_of() {
        let warnings = |auth: &str| {
            let pairs = [("AUTH", auth), ("SESSION_COOKIE", "sid"), ("SESSION_URL", "http://127.0.0.1:3000/")];
            let env: Environment = pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
            read(&BTreeMap::new(), None, &env).sources.warnings
        };
        let said = warnings("none");
        assert!(said.len() == 2 && said[0].contains("SESSION_URL") && said[1].contains("SESSION_COOKIE"), "{said:?}");
        assert_eq!(warnings("session"), [""; 0]);
    }

    #[test]
    fn a_session_wants_somebody_who_is_asked_and_origins_by_name() {
        let url = ("SESSION_URL", "http://127.0.0.1:3000/session");
        assert_eq!(faults([("AUTH", "session")]), ["SESSION_URL"]);
        assert_eq!(faults([("AUTH", "session"), url]), [""; 0]);
        assert_eq!(
            faults([("AUTH", "keys,Session"), url, ("CORS_ORIGINS", "*"), ("API_KEYS_FILE", "k")]),
            ["CORS_ORIGINS"]
        );
        assert_eq!(faults([("AUTH", "session"), ("SESSION_URL", "localhost"), ("SESSION_COOKIE", "a=b")]).len(), 2);
        assert_eq!(faults([("AUTH", "jwt")]), ["JWT_SECRET"]);
        assert_eq!(faults([("AUTH", "jwt"), ("JWKS_URL", "http://127.0.0.1:3000/keys")]), [""; 0]);
    }
}
