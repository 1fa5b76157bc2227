//! Addresses without their secrets, for the log.

use hyper::{HeaderMap, Uri};

/// Query parameters that carry credentials.
const SECRETS: [&str; 12] = [
    "key",
    "token",
    "session_token",
    "sessiontoken",
    "api_key",
    "apikey",
    "access_token",
    "ticket",
    "resume",
    "password",
    "secret",
    "jwt",
];

/// Path and query, with the values of secrets replaced.
pub fn uri(uri: &Uri) -> String {
    match uri.query() {
        None => uri.path().to_owned(),
        Some(query) => format!("{}?{}", uri.path(), self::query(query)),
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

fn is_secret(name: &str) -> bool {
    // A name that is written in percent signs hides something; it is not shown either.
    let name = name.to_ascii_lowercase();
    name.contains('%') || SECRETS.contains(&name.as_str())
}

/// A value can be an address of its own, with a query of its own.
fn holds_secret(value: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy().to_ascii_lowercase();
    SECRETS.iter().any(|name| decoded.contains(&format!("{name}=")))
}

#[cfg(test)]
mod tests {
    /// Checklist 24.
    #[test]
    fn secrets_do_not_reach_the_log() {
        assert_eq!(super::query("user_id=u&key=nk_1&Token=t&%6bey=nk_2&x"), "user_id=u&key=***&Token=***&%6bey=***&x");
    }
}
