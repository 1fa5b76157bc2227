//! Pages: which may ask, what they may read of the answer, and what a page on a rebound name gets.

use crate::{gateway::Gateway, patience::eventually};
use futures_util::future::join_all;
use serde_json::json;

const LISTED: &str = "https://app.example.com, https://*.shop.example, http://dev.example:3000, https://xn--bcher-kva.example, \
                      https://default.example:443, http://*.plain.example:80";

/// A stranger is refused at the door and on every plane, and is not told that it may read the refusal.
async fn is_refused(gateway: &Gateway, origin: &str) {
    for ask in [gateway.knock("/ws"), gateway.get("/health"), gateway.request("OPTIONS", "/api/handshake")] {
        let answer = ask.with("Origin", origin).await;
        answer.refuses(403, "Origin not allowed");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{origin}");
    }
}

async fn is_let_in(gateway: &Gateway, origin: &str) {
    assert_eq!(gateway.knock("/ws").with("Origin", origin).await.status, 101, "{origin}");
    for ask in [gateway.get("/health"), gateway.request("OPTIONS", "/api/handshake")] {
        let answer = ask.with("Origin", origin).await;
        assert!(matches!(answer.status, 200 | 204), "{origin}: {}", answer.text());
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(origin));
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), Some("true"));
    }
}

#[tokio::test]
async fn listed_pages_are_let_in_and_nothing_that_looks_like_them() {
    let gateway = Gateway::with([("CORS_ORIGINS", LISTED)]).await;
    for origin in [
        "https://app.example.com",
        "https://APP.example.com",
        "https://a.shop.example",
        "https://a.b.shop.example",
        "https://A.SHOP.example",
        "http://dev.example:3000",
        "https://xn--bcher-kva.example",
        // A browser leaves the port out where it is the scheme's own.
        "https://default.example",
        "http://a.plain.example",
    ] {
        is_let_in(&gateway, origin).await;
    }
    for origin in [
        "null",
        "",
        "*",
        "app.example.com",
        "//app.example.com",
        "http://app.example.com",
        "wss://app.example.com",
        "file://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com:80",
        "https://app.example.com.",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com?",
        "https://app.example.com#",
        "https://app.example.com.evil.com",
        "https://app.example.comevil",
        "https://evilapp.example.com",
        "https://app.example.com@evil.com",
        "https://evil.com@app.example.com",
        "https://user:word@app.example.com",
        "https://evil.com/https://app.example.com",
        "https://evil.com#https://app.example.com",
        "https://app.example.com, https://evil.com",
        "https://app.example.com https://evil.com",
        "https://app-example.com",
        "https://appxexample.com",
        "https://shop.example",
        "https://.shop.example",
        "https://evilshop.example",
        "https://a.shop.example.",
        "https://a.shop.example:8443",
        "https://a.shop.example.evil.com",
        "https://x@a.shop.example",
        "https://evil.com/.shop.example",
        "https://evil.com#.shop.example",
        "https://evil.com?.shop.example",
        "https://evil.com\\.shop.example",
        "https://evil.com:80.shop.example",
        "https://evil.com%2f.shop.example",
        "https://*.shop.example",
        "http://a.shop.example",
        "http://dev.example",
        "http://dev.example:30000",
        "http://dev.example:03000",
        "https://bücher.example",
        "https://b\u{fc}cher.example",
        "https://xn--bcher-kva.example.evil.com",
        "https://b%C3%BCcher.example",
        "https://plain.example",
        "http://localhost:3000",
    ] {
        is_refused(&gateway, origin).await;
    }
    let twice = gateway.knock("/ws").with("Origin", "https://app.example.com").with("Origin", "https://evil.com").await;
    twice.refuses(403, "Origin not allowed");
}

/// Without a list, pages of this machine.
#[tokio::test]
async fn without_a_list_only_pages_of_this_machine_are_let_in() {
    let gateway = Gateway::start().await;
    for origin in
        ["http://localhost", "https://localhost:5173", "http://LOCALHOST:1", "http://127.9.9.9", "http://[::1]"]
    {
        is_let_in(&gateway, origin).await;
    }
    for origin in [
        "null",
        "http://localhost.",
        "http://localhost.evil.com",
        "http://evil-localhost",
        "http://a.localhost@evil.com",
        "http://localhost:80:80",
        "http://localhost:99999",
        "http://localhost:",
        "http://localhost/",
        "http://127.0.0.1.nip.io",
        "http://127.1",
        "http://2130706433",
        "http://0177.0.0.1",
        "http://0.0.0.0:3000",
        "http://[::ffff:127.0.0.1]",
        "http://[::1]evil.com",
        "http://[::1",
        "file://",
        "chrome-extension://localhost",
    ] {
        is_refused(&gateway, origin).await;
    }
}

/// Whatever is refused, a page that may ask may read why; and a cache is told that it depends on the page.
#[tokio::test]
async fn every_refusal_can_be_read_by_a_page_that_may_ask() {
    const PAGE: &str = "https://app.example.com";
    let gateway = Gateway::with([
        ("CORS_ORIGINS", PAGE),
        ("API_TOKEN", "t"),
        ("MAX_SOCKETS", "1"),
        ("RATE_CONNECT", "5/s"),
        ("MAX_BODY_BYTES", "1KiB"),
    ])
    .await;
    let _holder = gateway.greeted("/ws").await;
    let send = |body: &str| gateway.request("POST", "/api/send").with("Authorization", "Bearer t").body(body);
    for (ask, status) in [
        (gateway.knock("/websocket"), 400),
        (gateway.get("/api/sockets"), 401),
        (gateway.get("/nowhere"), 404),
        (gateway.request("PUT", "/api/send"), 405),
        (send(&" ".repeat(2000)).with("Content-Type", "application/json"), 413),
        (send("{}").with("Content-Type", "text/plain"), 415),
        (send("{}").with("Content-Type", "application/json"), 422),
        (gateway.get("/ws"), 426),
        (gateway.knock("/ws"), 503),
        (gateway.request("OPTIONS", "/nowhere"), 404),
    ] {
        let answer = ask.with("Origin", PAGE).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(PAGE), "{status}");
        assert!(answer.header("Vary").is_some_and(|vary| vary.contains("Origin")), "{status}");
        assert!(answer.header("Access-Control-Expose-Headers").is_some_and(|all| all.contains("Retry-After")));
    }
    let fast = eventually("it is too fast", async || {
        let crowd = join_all((0..10).map(|_| gateway.get("/api/handshake").with("Origin", PAGE).into_future())).await;
        crowd.into_iter().find(|answer| answer.status == 429)
    });
    assert_eq!(fast.await.header("Access-Control-Allow-Origin"), Some(PAGE));
    assert!(gateway.get("/health").await.header("Vary").is_some_and(|vary| vary.contains("Origin")));
}

/// To anybody, and then without cookies.
#[tokio::test]
async fn any_page_is_let_in_without_its_cookies() {
    let gateway = Gateway::with([("CORS_ORIGINS", "*")]).await;
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        assert_eq!(gateway.knock("/ws").with("Origin", origin).await.status, 101, "{origin}");
        for ask in [gateway.get("/health"), gateway.request("OPTIONS", "/api/handshake"), gateway.get("/websocket")] {
            let answer = ask.with("Origin", origin).await;
            assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"), "{origin}");
            assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
        }
    }
}

/// The name of the page's own server leads here now. Its browser says Origin for what could change something, and for the
/// rest Sec-Fetch-Site; what says neither wants the loopback's own name.
#[tokio::test]
async fn a_page_on_a_rebound_name_gets_nothing() {
    let gateway = Gateway::start().await;
    for host in ["evil.example", "evil.example:8080", "127.0.0.1.nip.io", "localhost.evil.example:80"] {
        let own = format!("http://{host}");
        gateway.knock("/ws").but("Host", host).with("Origin", &own).await.refuses(403, "Origin not allowed");
        let post = gateway.post("/api/send", &json!({ "all": true })).but("Host", host).with("Origin", &own);
        post.await.refuses(403, "Origin not allowed");
        for target in ["/api/sockets", "/metrics", "/health", "/api/handshake?path=/ws", "/sse/stream?user_id=u"] {
            let ask = gateway.get(target).but("Host", host).with("Sec-Fetch-Site", "same-origin");
            ask.with("Sec-Fetch-Mode", "cors").await.refuses(403, "Origin not allowed");
        }
        gateway.get("/api/sockets").but("Host", host).await.refuses(401, "Protected mode");
        // Somebody who types the name, or follows a link, is shown nothing of the server plane.
        let link = gateway.get("/api/sockets").but("Host", host).with("Sec-Fetch-Site", "none");
        link.with("Sec-Fetch-Mode", "navigate").await.refuses(401, "Protected mode");
    }
    // What a form or an image of any page sends, though no page could read the answer.
    for (name, value) in [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example"), ("Origin", "null")] {
        let form = gateway.request("POST", "/api/send").with("Content-Type", "text/plain").body(r#"{"all":true}"#);
        let answer = form.with(name, value).await;
        assert!((400..500).contains(&answer.status), "{name}: {}", answer.text());
    }
}

/// What is no origin as browsers write it would let nobody in, and is named before it starts.
#[tokio::test]
async fn an_entry_that_is_no_origin_ends_the_start() {
    for entry in [
        "null",
        "app.example.com",
        "//app.example.com",
        "wss://app.example.com",
        "https://app.example.com/path",
        "https://user@app.example.com",
        "https://bücher.example",
        "https://*",
        "https://*.",
        "*.example.com",
        "https://app.*.example",
        "https://*.*.example",
        "https://*evil.example",
        "https://app.example.com:port",
        "https://app.example.com:70000",
    ] {
        let listed = format!("https://good.example, {entry}");
        let finished = Gateway::command(&[]).env("CORS_ORIGINS", &listed).run().await;
        let said = finished.said();
        assert!(finished.code == 78 && said.contains("CORS_ORIGINS") && said.contains(entry), "{entry}: {finished:?}");
        assert!(!said.contains("invalid: https://good.example"), "{said}");
    }
}
