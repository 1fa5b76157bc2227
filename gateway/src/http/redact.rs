//! Addresses without their secrets, for the log.

use hyper::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Query parameters that carry credentials: those that are called so, and those whose name ends like one of these.
const SECRETS: [&str; 8] = ["ticket", "resume", "jwt", "sid", "session", "auth", "signature", "sig"];
const ENDINGS: [&str; 6] = ["key", "token", "secret", "password", "passwd", "credential"];

/// Path and query, with the values of secrets replaced.
pub fn uri(uri: &Uri) -> String {
    match uri.query() {
        None => uri.path().to_owned(),
        Some(query) => format!("{}?{}", uri.path(), self::query(query)),
    }
}

/// The same of a target that is no more than text.
pub fn target(target: &str) -> String {
    match target.split_once('?') {
        None => target.to_owned(),
        Some((path, query)) => format!("{path}?{}", self::query(query)),
    }
}

/// The headers that tell why a handshake failed; no others, since any of them may hold a secret.
const TELLING: [&str; 8] =
    ["host", "origin", "upgrade", "connection", "sec-websocket-version", "user-agent", "x-forwarded-for", "via"];

/// Those headers that are there, cut to what a line can hold.
pub fn headers(headers: &HeaderMap) -> String {
    let present = TELLING.iter().filter_map(|name| {
        let value = String::from_utf8_lossy(headers.get(*name)?.as_bytes()).chars().take(100).collect::<String>();
        Some(format!("{name}: {value}"))
    });
    present.collect::<Vec<_>>().join("; ")
}

fn query(query: &str) -> String {
    let parts = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if is_secret(name) || holds_secret(value) => format!("{name}=***"),
        _ => pair.to_owned(),
    });
    parts.collect::<Vec<_>>().join("&")
}

/// The query as an object, without what is secret in it; a name that is there several times has a list.
pub fn members(query: &str) -> Value {
    let mut members = Map::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if is_secret(name) || holds_secret(value) {
            continue;
        }
        let value = percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned();
        match members.get_mut(name) {
            None => drop(members.insert(name.to_owned(), value.into())),
            Some(Value::Array(all)) => all.push(value.into()),
            Some(one) => *one = Value::Array(vec![one.take(), value.into()]),
        }
    }
    members.into()
}

fn is_secret(name: &str) -> bool {
    // A name that is written in percent signs hides something; it is not shown either.
    let plain: String = name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect();
    name.contains('%') || SECRETS.contains(&plain.as_str()) || ENDINGS.iter().any(|ending| plain.ends_with(ending))
}

/// A value can be an address of its own, with a query of its own.
fn holds_secret(value: &str) -> bool {
    let decoded = percent_decode_str(value).decode_utf8_lossy();
    let mut pairs = decoded.split(['?', '&', ';', '#']).filter_map(|pair| pair.split_once('='));
    pairs.any(|(name, _)| is_secret(name.trim()))
}

#[cfg(test)]
mod tests {
    /// Checklist 24.
    #[test]
    fn secrets_do_not_reach_the_log() {
        for name in ["accessToken", "id_token", "X-Auth-Token", "apiKey", "client_secret", "sid"] {
            assert_eq!(super::query(&format!("{name}=x")), format!("{name}=***"));
        }
        assert_eq!(super::query("monkey_count=1&next=%2Fx%3Ftoken%3Dt"), "monkey_count=1&next=***");
        assert_eq!(super::query("user_id=u&key=nk_1&Token=t&%6bey=nk_2&x"), "user_id=u&key=***&Token=***&%6bey=***&x");
    }

    #[test]
    fn a_query_is_told_without_its_secrets() {
        let told = super::members("user_id=a%20b&key=nk_1&%6bey=nk_2&x&tag=1&tag=2&next=%2Fa%3Ftoken%3Dt").to_string();
        assert_eq!(told, r#"{"user_id":"a b","tag":["1","2"]}"#);
    }
}
