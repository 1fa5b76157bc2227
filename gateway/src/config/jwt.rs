//! The settings for JSON Web Tokens.

use super::{Reader, value, value::Secret};
use crate::{auth::jwt::Rules, upstream::Endpoint};

/// What stands around keys that everybody may have. As a secret they would let everybody sign.
const PUBLIC: [&str; 2] = ["PUBLIC KEY-----", "CERTIFICATE-----"];

impl Reader<'_> {
    /// `set`: where more keys are published. `None` inside: there is no key, nor a place of keys, so no token is good.
    pub(super) fn jwt(&mut self, set: Option<&Endpoint>) -> Option<Option<Rules>> {
        let secret = self.secret("JWT_SECRET");
        // Env files have no place for line ends, so people write them as two characters.
        let public_key = self.text("JWT_PUBLIC_KEY").replace("\\n", "\n");
        let public_key = Some(public_key.as_str()).filter(|pem| !pem.is_empty());
        let [issuer, audience] = ["JWT_ISSUER", "JWT_AUDIENCE"].map(|name| match self.text(name) {
            "" => None,
            text => Some(text.to_owned()),
        });
        if secret.is_none() && public_key.is_none() && self.text("JWKS_URL").is_empty() {
            for (name, set) in [("JWT_ISSUER", issuer), ("JWT_AUDIENCE", audience)] {
                if set.is_some() {
                    let fix = "without JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL no token can be checked; set one, or unset this";
                    self.fault::<()>(name, fix);
                }
            }
            return Some(None);
        }
        if let Some(set) = set {
            self.warn_of_set(set, issuer.is_some(), audience.is_some());
        }
        let by_secret = secret.as_ref().map_or("", Secret::expose);
        if PUBLIC.iter().any(|mark| by_secret.contains(mark)) {
            return self.fault("JWT_SECRET", "this is no secret but a public key; give it as JWT_PUBLIC_KEY");
        }
        let rules = match Rules::new(secret.as_ref(), public_key, issuer.as_deref(), audience.as_deref()) {
            Ok(rules) => rules,
            Err(fix) => return self.fault("JWT_PUBLIC_KEY", fix),
        };
        self.warnings.extend(rules.warnings());
        if !value::list(self.text("AUTH")).iter().any(|way| way.eq_ignore_ascii_case("jwt")) {
            self.warnings.push("there are keys for JSON Web Tokens, but AUTH has no jwt: no token is looked at".into());
        }
        Some(Some(rules))
    }

    /// Whoever publishes keys signs for many, and whoever reads them over an open line may be told others.
    fn warn_of_set(&mut self, set: &Endpoint, has_issuer: bool, has_audience: bool) {
        let missing = match (has_issuer, has_audience) {
            (true, true) => None,
            (true, false) => Some("JWT_AUDIENCE"),
            (false, true) => Some("JWT_ISSUER"),
            (false, false) => Some("JWT_ISSUER and JWT_AUDIENCE"),
        };
        self.warnings.extend(missing.map(|names| {
            format!(
                "JWKS_URL is set without {names}: whoever has a token of that provider for another service comes in"
            )
        }));
        if !set.is_tls() && !set.is_here() {
            self.warnings.push(
                "JWKS_URL is no https address: whoever can change what comes from there decides who comes in".into(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Reading, read, sources::Environment};
    use std::collections::BTreeMap;

    const SECRET: &str = "a secret of at least thirty-two bytes";
    const PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE+m8ipCT3O59MUma3cy/YRJGjw6SZ
BTrz4m+Fs427Y+6pD9POVa1uwiVM2WGUlW+cW95jG57+ez9myt4+gg5G4Q==
-----END PUBLIC KEY-----";

    fn from_env<const N: usize>(pairs: [(&str, &str); N]) -> Reading {
        let env: Environment = pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        read(&BTreeMap::new(), None, &env)
    }

    fn rules<const N: usize>(pairs: [(&str, &str); N]) -> bool {
        from_env(pairs).config.unwrap().jwt.is_some()
    }

    #[test]
    fn there_are_rules_when_there_is_a_key() {
        assert!(!rules([]));
        assert!(rules([("JWT_SECRET", SECRET)]));
        assert!(rules([("JWT_PUBLIC_KEY", PEM)]));
        assert!(rules([("JWT_SECRET", SECRET), ("JWT_PUBLIC_KEY", PEM), ("JWT_ISSUER", "i"), ("JWT_AUDIENCE", "a")]));
    }

    #[test]
    fn a_public_key_may_stand_on_one_line_or_in_a_file() {
        let one_line = PEM.replace('\n', "\\n");
        for text in [&one_line, &format!("{one_line}\\n"), &format!("\"{one_line}\""), &format!("{one_line} # ours")] {
            assert!(rules([("JWT_PUBLIC_KEY", text)]), "{text}");
        }
        let path = std::env::temp_dir().join(format!("holdfast-jwt-{}", std::process::id()));
        for (name, text) in [("JWT_PUBLIC_KEY_FILE", PEM), ("HOLDFAST_JWT_SECRET_FILE", SECRET)] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            assert!(rules([(name, path.to_str().unwrap())]), "{name}");
        }
        std::fs::remove_file(&path).unwrap();
        let table = format!("jwt_public_key = \"\"\"\n{PEM}\n\"\"\"\n");
        std::fs::write(&path, table).unwrap();
        let reading = read(&BTreeMap::new(), path.to_str(), &Environment::new());
        std::fs::remove_file(&path).unwrap();
        assert!(reading.config.unwrap().jwt.is_some());
    }

    #[test]
    fn issuer_and_audience_without_a_key_are_faults() {
        let faults = from_env([("JWT_ISSUER", "i"), ("JWT_AUDIENCE", "a")]).config.unwrap_err();
        let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert!(shown[0].starts_with("JWT_ISSUER=i: without JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL"), "{shown:?}");
        assert!(shown[1].starts_with("JWT_AUDIENCE=a: ") && shown.len() == 2, "{shown:?}");
    }

    #[test]
    fn a_place_of_keys_is_enough_and_whom_it_signs_for_is_asked() {
        let url = ("JWKS_URL", "https://id.test/keys");
        let named = [url, ("AUTH", "jwt"), ("JWT_ISSUER", "i"), ("JWT_AUDIENCE", "a")];
        let reading = from_env(named);
        assert!(reading.config.unwrap().jwt.is_some());
        assert_eq!(reading.sources.warnings, [""; 0]);
        for (pairs, word) in [
            (vec![url], "JWT_ISSUER and JWT_AUDIENCE"),
            (vec![url, ("JWT_ISSUER", "i")], "without JWT_AUDIENCE"),
            (vec![url, ("JWT_AUDIENCE", "a")], "without JWT_ISSUER"),
            (vec![("JWKS_URL", "http://id.test/keys"), ("JWT_ISSUER", "i"), ("JWT_AUDIENCE", "a")], "no https"),
            (vec![("JWKS_URL", "http://127.0.0.1.id.test/"), ("JWT_ISSUER", "i"), ("JWT_AUDIENCE", "a")], "no https"),
        ] {
            let env: Environment = pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
            let warnings = read(&BTreeMap::new(), None, &env).sources.warnings;
            assert!(warnings[0].contains(word) && warnings[1].contains("AUTH"), "{warnings:?}");
        }
    }

    #[test]
    fn keys_in_each_others_places_are_faults_and_are_not_shown() {
        for (name, text, word) in [
            ("JWT_SECRET", PEM, "give it as JWT_PUBLIC_KEY"),
            ("JWT_PUBLIC_KEY", SECRET, "no public key in PEM"),
            ("JWT_PUBLIC_KEY", "-----BEGIN PRIVATE KEY-----\\nhush\\n-----END PRIVATE KEY-----", "private key"),
        ] {
            let reading = from_env([(name, text)]);
            let shown = reading.sources.get(name).map(|given| given.text.as_str());
            assert_eq!(shown, Some(text));
            let faults = reading.config.unwrap_err();
            assert_eq!((faults.len(), faults[0].setting.as_str()), (1, name));
            assert!(faults[0].fix.contains(word), "{}", faults[0]);
            assert!(!faults[0].to_string().contains(text) && !faults[0].to_string().contains("hush"));
        }
    }

    #[test]
    fn a_short_secret_and_an_unused_key_are_warned_of() {
        let reading = from_env([("JWT_SECRET", "hushhush")]);
        let warnings = reading.sources.warnings;
        assert!(warnings[0].contains("JWT_SECRET") && warnings[1].contains("AUTH"), "{warnings:?}");
        assert!(!format!("{warnings:?} {:?}", reading.config.unwrap()).contains("hushhush"));
        assert_eq!(from_env([("JWT_SECRET", SECRET)]).sources.warnings.len(), 1);
    }
}
