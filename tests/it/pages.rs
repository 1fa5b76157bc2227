//! Pages in browsers: which may talk to the gateway, on every plane, and what they can read.

use crate::{
    gateway::Gateway,
    http::{Answer, Request},
};

const STRANGER: &str = "https://evil.example";
const FRIEND: &str = "http://localhost:5173";

/// One of every plane, and the doors.
const EVERYWHERE: [(&str, &str); 12] = [
    ("GET", "/health"),
    ("GET", "/"),
    ("GET", "/openapi.json"),
    ("GET", "/api/handshake?path=/ws"),
    ("GET", "/api/auth/session"),
    ("GET", "/ws"),
    ("GET", "/metrics"),
    ("GET", "/api/sockets"),
    ("POST", "/api/send"),
    ("POST", "/sse/push"),
    ("GET", "/api/debug/sockets"),
    ("DELETE", "/api/users/u"),
];

fn asks(gateway: &Gateway, (method, target): (&str, &str)) -> Request {
    gateway.request(method, target).with("Authorization", "Bearer t0ken")
}

fn is_refused(answer: &Answer, named: &str) {
    let body = answer.refuses(403, "Origin not allowed").to_string();
    assert!(body.contains(named) && body.contains("CORS_ORIGINS"), "{body}");
    for (name, value) in &answer.headers {
        assert!(!name.starts_with("access-control-"), "a stranger's page can read it: {name}: {value}");
    }
}

/// Checklist 94, 139: even with the right token.
#[tokio::test]
async fn a_page_of_a_stranger_is_refused_on_every_plane() {
    let gateway = Gateway::with([("API_TOKEN", "t0ken")]).await;
    for route in EVERYWHERE {
        for origin in [STRANGER, "null", "http://localhost.evil.example"] {
            is_refused(&asks(&gateway, route).with("Origin", origin).await, origin);
            is_refused(&gateway.request("OPTIONS", route.1).with("Origin", origin).await, origin);
        }
        let two = asks(&gateway, route).with("Origin", FRIEND).with("Origin", STRANGER).await;
        assert_eq!(two.status, 403, "{route:?}: {}", two.text());
        assert_ne!(asks(&gateway, route).await.status, 403, "{route:?}");
    }
}

/// Checklist 94: what it may not do it may read, so that its author sees why.
#[tokio::test]
async fn a_page_that_is_allowed_reads_answers_and_refusals() {
    let gateway = Gateway::with([("API_TOKEN", "t0ken")]).await;
    let readable = |answer: &Answer, what: &str| {
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(FRIEND), "{what}");
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), Some("true"), "{what}");
        assert!(answer.header("Vary").is_some_and(|vary| vary.contains("Origin")), "{what}");
        let exposed = answer.header("Access-Control-Expose-Headers").unwrap_or_default();
        for name in ["X-Request-Id", "Retry-After", "Link"] {
            assert!(exposed.contains(name), "{what}: {name}");
        }
    };
    for route in EVERYWHERE {
        readable(&asks(&gateway, route).with("Origin", FRIEND).await, route.1);
        let unknown = gateway.request(route.0, route.1).with("Origin", FRIEND).await;
        readable(&unknown, route.1);
    }
    for (method, target) in [("GET", "/nowhere"), ("PATCH", "/api/send")] {
        readable(&gateway.request(method, target).with("Origin", FRIEND).await, target);
    }
    assert_eq!(gateway.get("/health").await.header("Access-Control-Allow-Origin"), None);
}

/// Checklist 94: a browser sends no token with the question whether it may.
#[tokio::test]
async fn a_browsers_question_is_answered_without_a_token() {
    let gateway = Gateway::with([("API_TOKEN", "t0ken")]).await;
    for (target, method) in [
        ("/api/send", "POST"),
        ("/api/sockets/ws_123", "DELETE"),
        ("/api/sockets/ws_123", "GET"),
        ("/api/sockets/ws_123/rooms/r", "PUT"),
        ("/api/users/u", "DELETE"),
        ("/metrics", "GET"),
        ("/api/handshake", "GET"),
    ] {
        let ask = gateway.request("OPTIONS", target).with("Origin", FRIEND);
        let ask = ask.with("Access-Control-Request-Method", method);
        let answer = ask.with("Access-Control-Request-Headers", "authorization,content-type,idempotency-key").await;
        assert!(matches!(answer.status, 200 | 204), "{target}: {}", answer.text());
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(FRIEND));
        let methods = answer.header("Access-Control-Allow-Methods").unwrap();
        assert!(methods.contains(method), "{target}: {methods}");
        let headers = answer.header("Access-Control-Allow-Headers").unwrap().to_lowercase();
        for name in ["authorization", "content-type", "idempotency-key"] {
            assert!(headers.contains(name), "{target}: {headers}");
        }
    }
}

/// Checklist 94, 232: a star never comes with credentials.
#[tokio::test]
async fn with_a_star_every_page_reads_and_none_with_credentials() {
    let gateway = Gateway::with([("CORS_ORIGINS", "*")]).await;
    for route in EVERYWHERE {
        for origin in [STRANGER, FRIEND, "null"] {
            let answer = gateway.request(route.0, route.1).with("Origin", origin).await;
            assert_ne!(answer.status, 403, "{route:?} {origin}");
            assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"), "{route:?} {origin}");
            assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
        }
    }
}

/// Checklist 232.
#[tokio::test]
async fn listed_pages_may_and_others_may_not() {
    let listed = " https://App.example.com , https://*.shop.example,https://app.example.com";
    let gateway = Gateway::with([("CORS_ORIGINS", listed)]).await;
    for (origin, may) in [
        ("https://app.example.com", true),
        ("https://APP.example.com", true),
        ("https://a.b.shop.example", true),
        ("https://shop.example", false),
        ("http://a.shop.example", false),
        ("https://app.example.com.evil.example", false),
        (FRIEND, false),
    ] {
        for route in EVERYWHERE {
            let answer = gateway.request(route.0, route.1).with("Origin", origin).await;
            let reads = answer
                .header("Access-Control-Allow-Origin")
                .is_some_and(|allowed| allowed.eq_ignore_ascii_case(origin));
            assert_eq!((answer.status != 403, reads), (may, may), "{route:?} {origin}: {}", answer.text());
        }
    }
}

/// A page on a name that was rebound to this machine is its own origin and sends none; but its
/// browser says that a page asks, and the Host is the page's name.
#[tokio::test]
async fn a_page_on_a_rebound_name_can_read_nothing() {
    let gateway = Gateway::start().await;
    for route in EVERYWHERE {
        for (site, mode) in
            [("same-origin", "cors"), ("same-origin", "no-cors"), ("same-site", "cors"), ("cross-site", "no-cors")]
        {
            let ask = gateway.request(route.0, route.1).with("Sec-Fetch-Site", site).with("Sec-Fetch-Mode", mode);
            is_refused(&ask.clone().but("Host", "rebound.example:8080").await, "rebound.example");
            assert_eq!(ask.but("Host", "rebound.example").without("Sec-Fetch-Mode").await.status, 403, "{route:?}");
        }
    }
}

/// Those of this machine may, those of listed names may, and whoever types the address may look.
#[tokio::test]
async fn a_page_of_ones_own_and_a_navigation_are_let_in() {
    let gateway = Gateway::with([("CORS_ORIGINS", "https://app.example.com"), ("API_TOKEN", "t0ken")]).await;
    for route in EVERYWHERE {
        let ask = asks(&gateway, route).with("Sec-Fetch-Site", "same-origin");
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "app.example.com"] {
            let answer = ask.clone().with("Sec-Fetch-Mode", "cors").but("Host", host).await;
            assert_ne!(answer.status, 403, "{route:?} {host}: {}", answer.text());
        }
        let typed = asks(&gateway, route).with("Sec-Fetch-Site", "none").with("Sec-Fetch-Mode", "navigate");
        let answer = typed.but("Host", "gateway.example.com").await;
        assert_ne!(answer.status, 403, "{route:?}: {}", answer.text());
    }
}

/// Checklist 95: on answers and refusals alike.
#[tokio::test]
async fn no_answer_is_sniffed_framed_or_kept() {
    let gateway = Gateway::start().await;
    for route in EVERYWHERE.into_iter().chain([("GET", "/nowhere"), ("PATCH", "/api/send")]) {
        let answer = gateway.request(route.0, route.1).await;
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{route:?}");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{route:?}");
        assert!(
            answer.header("Content-Security-Policy").is_some_and(|policy| policy.contains("frame-ancestors 'none'"))
        );
        assert!(answer.header("X-Holdfast-Instance").is_some() && answer.header("X-Request-Id").is_some(), "{route:?}");
    }
}
