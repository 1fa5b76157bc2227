//! Bodies: what is no JSON, what does not fit, what is too large, and what is let pass though it
//! is written oddly.

use crate::gateway::Gateway;

/// Every route that takes a body, a good one for it, and what it is answered with. Those that wait for a client ask
/// nobody.
const ROUTES: [(&str, &str, u16); 8] = [
    ("/api/send", r#"{"userId":"u","data":1}"#, 200),
    ("/api/send/batch", r#"{"messages":[{"userId":"u","data":1}]}"#, 200),
    ("/api/rooms/r/send", r#"{"data":1}"#, 200),
    ("/sse/push", r#"{"user_id":"u","data":1}"#, 200),
    ("/sse/push/batch", r#"[{"user_id":"u","data":1}]"#, 200),
    ("/api/call", r#"{"userId":"nobody","event":"e","data":1}"#, 404),
    ("/api/sync/orders", r#"{"storeId":"nobody","since":1}"#, 404),
    ("/sse/send", r#"{"user_id":"nobody","data":1}"#, 404),
];

#[tokio::test]
async fn what_is_no_json_is_400_and_says_where() {
    let gateway = Gateway::start().await;
    for (route, ..) in ROUTES {
        for body in [
            &b"{"[..],
            b"nonsense",
            b"{'userId':'u'}",
            b"{userId:u}",
            br#"{"userId":"u",}"#,
            br#"{"userId":"u"} {}"#,
            br#"{"userId":"u","data":NaN}"#,
            br#"{"userId":"u","data":01}"#,
            b"user_id=u&data=1",
            b"   ",
            b"\0",
            b"[[[[",
        ] {
            let shown = String::from_utf8_lossy(body);
            let answer = gateway.posts(route, body).await;
            assert_eq!(answer.status, 400, "{route} {shown}: {}", answer.text());
            answer.is_problem();
            assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", answer.text());
        }
    }
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn bytes_that_are_no_utf8_are_no_json() {
    let gateway = Gateway::start().await;
    for (route, good, _) in ROUTES {
        for bad in [&b"\"\xff\""[..], b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\xff"] {
            let at = good.find('1').unwrap();
            let body = [&good.as_bytes()[..at], bad, &good.as_bytes()[at + 1..]].concat();
            let answer = gateway.posts(route, body).await;
            assert_eq!(answer.status, 400, "{route} {bad:?}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn an_empty_body_is_400() {
    let gateway = Gateway::start().await;
    for (route, ..) in ROUTES {
        assert_eq!(gateway.posts(route, "").await.status, 400, "{route}");
        assert_eq!(gateway.request("POST", route).with("Content-Length", "0").await.status, 400, "{route}");
        assert_eq!(gateway.posts_in_chunks(route, &[]).await.status, 400, "{route}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let gateway = Gateway::with([("MAX_BODY_BYTES", "1000")]).await;
    for (route, good, status) in ROUTES {
        let sized = |bytes: usize| good.to_owned() + &" ".repeat(bytes - good.len());
        assert_eq!(gateway.posts(route, sized(1000)).await.status, status, "{route}");
        let (half, rest) = (sized(500), " ".repeat(500));
        assert_eq!(gateway.posts_in_chunks(route, &[half.as_bytes(), rest.as_bytes()]).await.status, status, "{route}");
        for bytes in [1001, 100_000] {
            let (whole, rest) = (sized(bytes), " ".repeat(bytes - 500));
            let chunked = gateway.posts_in_chunks(route, &[half.as_bytes(), rest.as_bytes()]).await;
            for answer in [gateway.posts(route, whole).await, chunked] {
                assert_eq!(answer.status, 413, "{route} {bytes}: {}", answer.text());
                answer.is_problem();
                assert!(answer.text().contains("MAX_BODY_BYTES"), "{}", answer.text());
            }
        }
    }
    gateway.is_unharmed().await;
}

/// `curl` asks first when a body is large; whoever may not send it hears so before.
#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_comes() {
    let gateway = Gateway::with([("MAX_BODY_BYTES", "1000")]).await;
    for expect in [true, false] {
        let mut ask = gateway.request("POST", "/api/send").with("Content-Length", "1000000000");
        if expect {
            ask = ask.with("Expect", "100-continue");
        }
        let mut raw = gateway.raw().await;
        raw.write(&ask.with("Content-Type", "application/json").bytes()).await;
        assert_eq!(raw.answer().await.status, 413, "Expect: 100-continue {expect}");
    }
}

/// Checklist 260: what `curl -d` says of itself, or nothing, is as good.
#[tokio::test]
async fn json_is_taken_under_the_names_that_clients_give_it() {
    let gateway = Gateway::start().await;
    for (route, good, status) in ROUTES {
        let ask = gateway.request("POST", route).body(good);
        assert_eq!(ask.clone().await.status, status, "{route}");
        for media in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON;charset=UTF-8",
            "application/vnd.api+json",
            "application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded; charset=UTF-8",
        ] {
            assert_eq!(ask.clone().with("Content-Type", media).await.status, status, "{route} {media}");
        }
        for media in
            ["text/plain", "text/html", "application/xml", "multipart/form-data; boundary=x", "application/jsonp"]
        {
            let answer = ask.clone().with("Content-Type", media).await;
            assert_eq!(answer.status, 415, "{route} {media}: {}", answer.text());
            answer.is_problem();
            assert!(answer.json()["hint"].as_str().unwrap().contains("application/json"), "{}", answer.text());
        }
    }
}

/// Checklist 260: and a form that holds no JSON is told what is wanted.
#[tokio::test]
async fn a_form_is_not_json() {
    let gateway = Gateway::start().await;
    let ask = gateway.request("POST", "/sse/push").with("Content-Type", "application/x-www-form-urlencoded");
    let answer = ask.body("user_id=u&data=hello").await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.json()["hint"].as_str().unwrap().contains("JSON"), "{}", answer.text());
}

#[tokio::test]
async fn a_body_may_come_in_chunks_of_any_size() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u&room_id=r").await;
    for (route, good, status) in ROUTES {
        let bytes: Vec<_> = good.as_bytes().chunks(1).collect();
        for chunks in [&[good.as_bytes()][..], &bytes] {
            let answer = gateway.posts_in_chunks(route, chunks).await;
            assert_eq!(answer.status, status, "{route}: {}", answer.text());
            if status == 200 {
                assert_eq!(client.hears_text().await, r#"{"type":"message","data":1}"#, "{route}");
            }
        }
    }
}

/// A body that nobody asked for is not taken for the next request.
#[tokio::test]
async fn a_body_where_none_belongs_is_passed_over() {
    let gateway = Gateway::start().await;
    let mut raw = gateway.raw().await;
    let smuggled = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for target in ["/health", "/api/sockets", "/nothing"] {
        let ask = gateway.get(target).without("Connection").body(smuggled).bytes();
        raw.write(&ask).await;
        let status = raw.answer().await.status;
        assert_eq!(status, if target == "/nothing" { 404 } else { 200 });
    }
    assert!(!gateway.output().contains("/nowhere"));
}

/// Whoever leaves in the middle of a body harms nobody.
#[tokio::test]
async fn a_body_that_ends_too_early_is_given_up() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    for (route, good, _) in ROUTES {
        let mut raw = gateway.raw().await;
        let whole = gateway.posts(route, good).bytes();
        raw.write(&whole[..whole.len() - 1]).await;
    }
    client.heard_all().await;
    gateway.is_unharmed().await;
}
