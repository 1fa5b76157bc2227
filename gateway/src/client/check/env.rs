//! The settings in force as lines of an environment file: what was given, to be copied, and the defaults as comments.

use crate::config::{Reading, settings::SETTINGS, sources::Source};

/// A line for each setting that has a value.
pub fn lines(reading: &Reading) -> Vec<String> {
    let given = SETTINGS.iter().filter_map(|setting| Some((setting, reading.sources.get(setting.name)?)));
    let lines = given.filter(|(_, given)| !given.text.trim().is_empty()).map(|(setting, given)| {
        let (name, text) = (setting.name, given.text.trim());
        match (&given.source, is_open(text, &setting.kind.shown(text))) {
            (source, false) => format!("# {name} is set ({source}), and left out, since it is secret"),
            (Source::Default, true) => format!("# {name}={}", quoted(text)),
            (_, true) => format!("{name}={}", quoted(text)),
        }
    });
    lines.collect()
}

/// Whether nothing was taken out of it to be shown: a value that is secret, a query, or a login, which stands in front of an
/// `@`. Else it may still read otherwise, as a URL with its last slash does.
fn is_open(text: &str, shown: &str) -> bool {
    !shown.contains("***") && text.contains('@') == shown.contains('@')
}

/// As a shell and systemd take it. What is plain stays as it is, since Docker takes quotes for a part of the value.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:,*@%+=".contains(&byte);
    match text.bytes().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{read, sources::Environment};
    use std::collections::BTreeMap;

    #[test]
    fn what_was_given_can_be_copied_and_secrets_cannot() {
        let env: Environment = [
            ("PORT", "8081"),
            ("API_TOKEN", "hush"),
            ("REDIS_URL", "redis://:hush@h"),
            ("MESSAGE_URL", "http://127.0.0.1:1"),
            ("EVENTS_URL", "http://ann:hush@127.0.0.1:1/"),
            ("CONNECT_URL", "http://127.0.0.1:1/?token=hush"),
            ("WS_CODE_PATTERN", "^[a-z']{5}$"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
        let lines = lines(&read(&BTreeMap::new(), None, &env));
        for line in [
            "PORT=8081",
            "# HOST=127.0.0.1",
            "MESSAGE_URL=http://127.0.0.1:1",
            r"WS_CODE_PATTERN='^[a-z'\'']{5}$'",
            "# API_TOKEN is set (environment API_TOKEN), and left out, since it is secret",
        ] {
            assert!(lines.iter().any(|shown| shown == line), "{line} in {lines:#?}");
        }
        assert!(lines.iter().all(|line| !line.contains("hush") && !line.contains("CORS_ORIGINS")), "{lines:#?}");
    }
}
