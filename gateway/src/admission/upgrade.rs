//! The headers that turn an HTTP request into a WebSocket, checked one by one so that the answer
//! can say which of them is wrong.

use super::{says_upgrade, tokens};
use crate::problem::Problem;
use hyper::{
    HeaderMap, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What the 101 has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    pub accept: String,
    /// The first requested subprotocol that is no credential in disguise.
    pub subprotocol: Option<String>,
}

/// What proxies must be told so that these headers arrive.
const NGINX_LINES: &str = "the request came through a proxy that dropped the Upgrade header; in nginx: \
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; (with proxy_http_version 1.1; \
proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;)";

/// Reads and checks them.
pub fn read(headers: &HeaderMap) -> Result<Upgrade, Problem> {
    if !headers.contains_key(UPGRADE) {
        let stripped = headers.contains_key(SEC_WEBSOCKET_KEY);
        let hint = if stripped { NGINX_LINES } else { "open this address with a WebSocket client: ws://, not http://" };
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "Expected Upgrade: websocket", hint)
            .detail("Expected WebSocket upgrade request: there is no Upgrade header")
            .header(UPGRADE, "websocket"));
    }
    if !tokens(headers, &UPGRADE).any(|token| token == "websocket") {
        return Err(bad(
            "Invalid Upgrade header",
            format!("Upgrade is {}, websocket is wanted", shown(headers, &UPGRADE)),
        ));
    }
    if !says_upgrade(headers) {
        return Err(bad(
            "Invalid Connection header",
            format!("Connection is {}, Upgrade is wanted", shown(headers, &CONNECTION)),
        ));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
        return Err(Problem::new(
            StatusCode::UPGRADE_REQUIRED,
            "Invalid Sec-WebSocket-Version",
            "version 13 is the only one spoken here",
        )
        .header(SEC_WEBSOCKET_VERSION, "13"));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key.as_bytes()) => key.as_bytes(),
        _ => return Err(bad("Invalid Sec-WebSocket-Key", "one key is wanted, 16 bytes in base64".into())),
    };
    let has_body = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if has_body || headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("Invalid Upgrade header", "a request that upgrades has no body".into()));
    }
    Ok(Upgrade { accept: derive_accept_key(key), subprotocol: subprotocol(headers) })
}

fn bad(title: &'static str, detail: String) -> Problem {
    let hint = "send Upgrade: websocket, Connection: Upgrade and a Sec-WebSocket-Key, as every WebSocket client does";
    Problem::new(StatusCode::BAD_REQUEST, title, hint).detail(detail)
}

/// The header as it came, cut to a size that can be shown.
fn shown(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).chars().take(80).collect());
    value.map_or("missing".into(), |value: String| format!("{value:?}"))
}

/// 16 bytes in base64 are 22 letters and two equals signs.
fn is_key(key: &[u8]) -> bool {
    let letters = |bytes: &[u8]| bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    matches!(key.split_at_checked(22), Some((head, b"==")) if letters(head))
}

/// Echoed as it was written. A token that would not survive in a header is not echoed.
fn subprotocol(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let mut offered = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty());
    offered.find(|token| !token.starts_with("bearer.")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn with(changed: &'static str, value: Option<&'static str>) -> Result<Upgrade, Problem> {
        let mut pairs: Vec<_> = GOOD.into_iter().filter(|(name, _)| *name != changed).collect();
        pairs.extend(value.map(|value| (changed, value)));
        read(&headers(&pairs))
    }

    /// Checklist 159: the example of RFC 6455, section 1.3.
    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(read(&headers(&GOOD)).unwrap().accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// Checklist 67, 92, 157.
    #[test]
    fn upgrade_and_connection_are_lists_in_any_case() {
        for (name, value) in
            [("upgrade", "WebSocket"), ("upgrade", "foo, websocket"), ("connection", "keep-alive, UPGRADE")]
        {
            assert!(with(name, Some(value)).is_ok(), "{name}: {value}");
        }
        let refused = |name, value| {
            let problem = with(name, value).unwrap_err();
            (problem.status.as_u16(), problem.title.to_string())
        };
        assert_eq!(refused("upgrade", None), (426, "Expected Upgrade: websocket".into()));
        assert_eq!(refused("upgrade", Some("h2c")), (400, "Invalid Upgrade header".into()));
        assert_eq!(refused("connection", None), (400, "Invalid Connection header".into()));
        assert_eq!(refused("connection", Some("close")), (400, "Invalid Connection header".into()));
        assert_eq!(refused("sec-websocket-version", Some("8")), (426, "Invalid Sec-WebSocket-Version".into()));
        for key in
            [None, Some(""), Some("short=="), Some("dGhlIHNhbXBsZSBub25jZQ=="), Some("dGhlIHNhbXBsZSBub25jZQ==AAAA")]
        {
            let refused = with("sec-websocket-key", key);
            assert_eq!(refused.is_ok(), key == Some("dGhlIHNhbXBsZSBub25jZQ=="), "{key:?}");
        }
    }

    /// Checklist 54.
    #[test]
    fn only_a_requested_subprotocol_is_echoed_and_never_a_credential() {
        assert_eq!(read(&headers(&GOOD)).unwrap().subprotocol, None);
        let offered = with("sec-websocket-protocol", Some("bearer.s3cret, chat, other")).unwrap();
        assert_eq!(offered.subprotocol.as_deref(), Some("chat"));
    }
}
