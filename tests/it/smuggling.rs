//! A request inside of another: whatever two readers could read in two ways gets one answer at most, and what hides behind it
//! is never served.

use crate::{
    gateway::Gateway,
    http::KEY,
    nginx::Nginx,
    patience::soon,
    raw::{Raw, text},
};

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What ends a connection on which all else was understood; its answer is told by its id.
const LAST: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: the-last\r\n\r\n";

/// The answers on one connection to these bytes, up to its end.
async fn answers(gateway: &Gateway, bytes: &[u8]) -> Vec<u16> {
    let mut raw = gateway.raw().await;
    let _ = raw.try_write(&[bytes, LAST.as_bytes()].concat()).await;
    statuses(&String::from_utf8_lossy(&raw.rest().await))
}

/// Those of answers; what is only said on the way is none.
fn statuses(said: &str) -> Vec<u16> {
    let others = said.split("HTTP/1.").skip(1).filter(|answer| !answer.contains("the-last"));
    others
        .filter_map(|answer| answer.get(2..5)?.parse().ok())
        .filter(|status| *status >= 200 || *status == 101)
        .collect()
}

async fn is_not_served(gateway: &Gateway, what: &str, bytes: &str) {
    let statuses = soon(what, answers(gateway, bytes.as_bytes())).await;
    assert!(statuses.len() <= 1, "{what}: {statuses:?}");
    assert!(!gateway.output().contains("/smuggled"), "{what}: {}", gateway.output());
}

/// So that the facts below would fail.
#[tokio::test]
async fn what_is_not_hidden_is_served_and_seen() {
    let mut gateway = Gateway::start().await;
    let ask = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(answers(&gateway, [ask, HIDDEN].concat().as_bytes()).await, [200, 404]);
    gateway.logs(&["/smuggled"]).await;
}

#[tokio::test]
async fn a_body_that_ends_in_two_places_hides_no_request() {
    let gateway = Gateway::start().await;
    let (length, chunked) = (format!("Content-Length: {}", HIDDEN.len() + 5), "Transfer-Encoding: chunked");
    for fields in [
        format!("{length}\r\n{chunked}"),
        format!("{chunked}\r\n{length}"),
        format!("Content-Length: 5\r\n{chunked}"),
        format!("{chunked}\r\nContent-Length: 5"),
        format!("Content-Length: 0\r\n{length}"),
        format!("{length}\r\nContent-Length: 0"),
        "Content-Length: 0, 5".into(),
        "Content-Length: 5 5".into(),
        "Content-Length: 5\r\ncontent-length: 6".into(),
        "Content-Length: 5;q=1".into(),
        "Content-Length:".into(),
        "Content-Length: 5\u{b}".into(),
        "Content-Length : 5".into(),
        " Content-Length: 5".into(),
        "Transfer-Encoding : chunked".into(),
        " Transfer-Encoding: chunked".into(),
        "Transfer-Encoding:\u{b}chunked".into(),
        "Transfer-Encoding: xchunked".into(),
        "Transfer-Encoding: chunked, identity".into(),
        "Transfer-Encoding: identity, chunked".into(),
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked".into(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity".into(),
        "Transfer-Encoding: \"chunked\"".into(),
        "Transfer-Encoding: chunked;q=1".into(),
        // Continued on the next line, as it once was allowed.
        "Transfer-Encoding:\r\n chunked".into(),
        "Transfer-Encoding: identity\r\n , chunked".into(),
        "X: y\r\n Transfer-Encoding: chunked".into(),
        format!("X: y\r\n\t{length}"),
        // Lines that end otherwise.
        format!("X: y\n{chunked}\r\n{length}"),
        format!("X: y\r{chunked}"),
        format!("X: y\0\r\n{chunked}\r\n{length}"),
        format!("X\0: y\r\n{chunked}\r\n{length}"),
    ] {
        for method in ["POST /api/send", "GET /health", "OPTIONS /health", "DELETE /api/sockets/ws_1", "POST /nowhere"]
        {
            let head =
                format!("{method} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{fields}\r\n\r\n");
            let bytes = [&head, "0\r\n\r\n", HIDDEN].concat();
            is_not_served(&gateway, &format!("{method} {fields:?}"), &bytes).await;
        }
    }
    let old = ["POST /api/send HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", HIDDEN];
    is_not_served(&gateway, "HTTP/1.0", &old.concat()).await;
    gateway.is_unharmed().await;
}

/// A body that its route does not want, or that comes with a refusal, is no request either.
#[tokio::test]
async fn a_body_that_nobody_reads_is_not_taken_for_a_request() {
    let gateway = Gateway::with([("API_TOKEN", "t"), ("MAX_BODY_BYTES", "1KiB")]).await;
    let body = HIDDEN.repeat(2000);
    for (what, line, fields, body) in [
        ("small", "GET /health", "", HIDDEN),
        ("large", "GET /health", "", &body),
        ("refused", "POST /api/send", "", HIDDEN),
        ("refused and large", "POST /api/send", "", &body),
        ("too large", "POST /api/send", "Authorization: Bearer t\r\nContent-Type: application/json\r\n", &body),
        ("no JSON", "POST /api/send", "Authorization: Bearer t\r\nContent-Type: application/json\r\n", HIDDEN),
        ("no type", "POST /api/send", "Authorization: Bearer t\r\n", HIDDEN),
        ("nowhere", "POST /nowhere", "", &body),
        ("method", "PUT /api/send", "", HIDDEN),
        ("before", "OPTIONS /api/send", "", HIDDEN),
        ("waiting", "POST /api/send", "Expect: 100-continue\r\n", HIDDEN),
        ("a stranger", "POST /api/send", "Origin: https://evil.example\r\n", HIDDEN),
        ("no door", "GET /ws", "", HIDDEN),
        ("a name", "GET /websocket", "", HIDDEN),
    ] {
        let head = |framing: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}{framing}\r\n\r\n");
        let whole = [&head(&format!("Content-Length: {}", body.len())), body].concat();
        is_not_served(&gateway, what, &whole).await;
        let pieces = format!("{}{:x}\r\n{body}\r\n0\r\n\r\n", head("Transfer-Encoding: chunked"), body.len());
        is_not_served(&gateway, what, &pieces).await;
    }
    assert_eq!(gateway.get("/health").await.status, 200);
}

#[tokio::test]
async fn chunks_that_can_be_read_in_two_ways_hide_no_request() {
    let gateway = Gateway::start().await;
    for chunks in [
        format!("0\n\n{HIDDEN}"),
        format!("0\r\r\n{HIDDEN}"),
        format!("0x5\r\n{{}}   \r\n0\r\n\r\n{HIDDEN}"),
        format!("2;\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("2;a=b\nx\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("2\r\n{{}}0\r\n\r\n{HIDDEN}"),
        format!("2\r\n{{}}XX0\r\n\r\n{HIDDEN}"),
        format!("10000000000000002\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("-1\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
        format!("\r\n0\r\n\r\n{HIDDEN}"),
        format!("2\0\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"),
    ] {
        let head = "POST /api/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
        is_not_served(&gateway, &format!("{chunks:?}"), &format!("{head}\r\n\r\n{chunks}")).await;
    }
    gateway.is_unharmed().await;
}

/// Whoever asks to leave HTTP and may not, does not stay in it either: what follows was meant for somebody else.
#[tokio::test]
async fn nothing_is_served_behind_an_upgrade_that_is_refused() {
    let gateway = Gateway::start().await;
    let asks = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{HIDDEN}");
    let good = format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n");
    for (target, fields) in [
        ("/ws", format!("{good}Sec-WebSocket-Version: 777\r\n")),
        ("/ws", good.clone()),
        ("/ws", format!("{good}Sec-WebSocket-Version: 13\r\nContent-Length: {}\r\n", HIDDEN.len())),
        ("/ws", format!("{good}Sec-WebSocket-Version: 13\r\nTransfer-Encoding: chunked\r\n")),
        ("/ws", format!("{good}Sec-WebSocket-Version: 13\r\nOrigin: https://evil.example\r\n")),
        ("/websocket", format!("{good}Sec-WebSocket-Version: 13\r\n")),
        ("/nowhere", format!("{good}Sec-WebSocket-Version: 13\r\n")),
        ("/health", format!("{good}Sec-WebSocket-Version: 13\r\n")),
        ("/openapi.json", format!("{good}Sec-WebSocket-Version: 13\r\n")),
        (
            "/api/sockets",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".into(),
        ),
        (
            "/health",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".into(),
        ),
        ("/ws", "Upgrade: h2c\r\nConnection: Upgrade\r\n".into()),
        ("/health", "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n".into()),
    ] {
        let statuses = answers(&gateway, asks(target, &fields).as_bytes()).await;
        assert!(statuses.len() == 1 && statuses[0] != 101, "{target} {fields:?}: {statuses:?}");
        assert!(!gateway.output().contains("/smuggled"), "{target} {fields:?}");
    }
    gateway.is_unharmed().await;
}

/// Nor behind one that is granted: from there on it is frames.
#[tokio::test]
async fn nothing_is_served_behind_an_upgrade_that_is_granted() {
    let gateway = Gateway::start().await;
    for target in ["/ws", "/websocket?reject=close"] {
        let knock = gateway.knock(target).bytes();
        let mut raw = gateway.raw().await;
        raw.write(&[&knock, HIDDEN.as_bytes()].concat()).await;
        let said = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert_eq!(statuses(&said), [101], "{said}");
    }
    assert!(!gateway.output().contains("/smuggled"), "{}", gateway.output());
}

/// A proxy that was told no passes on nothing more of what the client sends: it asks anew, and by its own rules.
#[tokio::test]
async fn a_refused_upgrade_leaves_no_tunnel_behind_nginx() {
    let gateway = Gateway::start().await;
    let nginx = Nginx::before(&[gateway.address()]).await;
    // Which nginx keeps for this machine's own servers.
    let stranger = async || Raw::connect_from([127, 0, 0, 2], nginx.address).await;
    let closed = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let version = |version: &str| format!("Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: {version}\r\n");
    for (target, fields) in [
        ("/ws", format!("Upgrade: websocket\r\n{}", version("777"))),
        ("/websocket", format!("Upgrade: websocket\r\n{}", version("13"))),
        ("/health", format!("Upgrade: websocket\r\n{}", version("13"))),
        ("/nowhere", format!("Upgrade: websocket\r\n{}", version("13"))),
        ("/ws", "Upgrade: h2c\r\n".into()),
        ("/health", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".into()),
        ("/api/handshake?path=/ws", format!("Upgrade: websocket\r\n{}", version("13"))),
    ] {
        let ask = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n{fields}\r\n");
        let mut raw = stranger().await;
        raw.write([&ask, closed].concat().as_bytes()).await;
        let first = raw.answer().await;
        assert_ne!(first.status, 101, "{target} {fields:?}");
        let rest = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(matches!(statuses(&rest)[..], [] | [403]), "{target} {fields:?}: {rest}");
    }
    // A tunnel that was granted carries frames alone.
    let mut raw = stranger().await;
    raw.write(&[&gateway.knock("/ws").bytes()[..], closed.as_bytes()].concat()).await;
    assert_eq!(raw.answer().await.status, 101);
    let rest = String::from_utf8_lossy(&raw.rest().await).into_owned();
    assert!(statuses(&rest).is_empty(), "{rest}");
    let mut raw = Raw::greeted(nginx.address, "/ws").await;
    raw.write(&text(r#"{"evt":"ping"}"#)).await;
    assert_eq!(raw.text().await, r#"{"evt":"pong"}"#);
    assert!(!gateway.output().contains("GET /metrics"), "{}", gateway.output());
}
