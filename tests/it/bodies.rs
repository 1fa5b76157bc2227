//! Bodies: what is no JSON, what does not fit, what is too large, and what is let pass though it
//! is written oddly.

use crate::gateway::Gateway;
use serde_json::json;

/// Every route that takes a body, and a good one for it.
const ROUTES: [(&str, &str); 5] = [
    ("/api/send", r#"{"userId":"u","data":1}"#),
    ("/api/send/batch", r#"{"messages":[{"userId":"u","data":1}]}"#),
    ("/api/rooms/r/send", r#"{"data":1}"#),
    ("/sse/push", r#"{"user_id":"u","data":1}"#),
    ("/sse/push/batch", r#"[{"user_id":"u","data":1}]"#),
];

#[tokio::test]
async fn what_is_no_json_is_400_and_says_where() {
    let gateway = Gateway::start().await;
    for (route, _) in ROUTES {
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
    for (route, good) in ROUTES {
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
    for (route, _) in ROUTES {
        assert_eq!(gateway.posts(route, "").await.status, 400, "{route}");
        assert_eq!(gateway.request("POST", route).with("Content-Length", "0").await.status, 400, "{route}");
        assert_eq!(gateway.posts_in_chunks(route, &[]).await.status, 400, "{route}");
    }
}

#[tokio::test]
async fn json_of_another_kind_does_not_fit() {
    let gateway = Gateway::start().await;
    for (route, _) in ROUTES {
        let wrong = if route == "/sse/push/batch" { "{}" } else { "[]" };
        for body in [wrong, "3", r#""x""#, "null", " true "] {
            assert_eq!(gateway.posts(route, body).await.pointers(), [""], "{route} {body}");
        }
    }
}

/// Checklist 271: each at its place, and once.
#[tokio::test]
async fn every_fault_of_a_body_is_told_with_its_place() {
    let gateway = Gateway::start().await;
    for (body, places) in [
        (r#"{"userId":3}"#, &["/userId"][..]),
        (r#"{"userId":""}"#, &["/userId"]),
        (r#"{"userId":" \u3000"}"#, &["/userId"]),
        (r#"{"roomId":"a\u0000b"}"#, &["/roomId"]),
        (r#"{"storeId":"undefined"}"#, &["/storeId"]),
        (r#"{"socketId":["ws_1"]}"#, &["/socketId"]),
        (r#"{"all":"yes"}"#, &["/all"]),
        (r#"{"to":"u"}"#, &["/to"]),
        (r#"{"to":{"userId":3}}"#, &["/to/userId"]),
        (r#"{"to":{"userId":"u","x":1}}"#, &["/to/x"]),
        (r#"{"to":{"userId":"u"},"data":1,"a/b":1,"m~n":2,"":3}"#, &["/", "/a~1b", "/m~0n"]),
        (r#"{"userId":"u","userId":"u"}"#, &["/userId"]),
        (r#"{"userId":"u","user\u0049d":"v"}"#, &["/userId"]),
        (r#"{"userId":"u","data":1,"data":2}"#, &["/data"]),
        (r#"{"userId":"u","USERID":"u"}"#, &["/USERID"]),
        (
            r#"{"userId":{},"event":4,"timeoutMs":"5","ttlMs":1.5,"durable":"no","exceptSocketId":1,"hello":"world"}"#,
            &["/durable", "/event", "/exceptSocketId", "/hello", "/timeoutMs", "/ttlMs", "/userId"],
        ),
    ] {
        assert_eq!(gateway.posts("/api/send", body).await.pointers(), places, "{body}");
    }
    for ms in ["0", "-1", "600001", "1e3", "true", "\"5000\"", "99999999999999999999"] {
        let body = format!(r#"{{"userId":"u","timeoutMs":{ms}}}"#);
        assert_eq!(gateway.posts("/api/send", body).await.pointers(), ["/timeoutMs"], "{ms}");
    }
    let answer = gateway.posts("/api/rooms/r/send", r#"{"data":1,"event":[],"room":"r"}"#).await;
    assert_eq!(answer.pointers(), ["/event", "/room"]);
}

/// A pointer leads to something that stands in the body, so it is spelled as the body is.
#[tokio::test]
async fn a_place_is_spelled_as_it_was_written() {
    let gateway = Gateway::start().await;
    for (route, body, place) in [
        ("/api/send", r#"{"user_id":3}"#, "/user_id"),
        ("/api/send", r#"{"to":{"user_id":3}}"#, "/to/user_id"),
        ("/api/send", r#"{"userId":"u","timeout_ms":0}"#, "/timeout_ms"),
        ("/api/rooms/r/send", r#"{"except_socket_id":3}"#, "/except_socket_id"),
        ("/sse/push", r#"{"userId":3,"data":1}"#, "/userId"),
        ("/sse/push", r#"{"user_id":"u","data":1,"eventType":3}"#, "/eventType"),
    ] {
        assert_eq!(gateway.posts(route, body).await.pointers(), [place], "{route} {body}");
    }
}

/// Which of the two was meant cannot be known.
#[tokio::test]
async fn a_name_in_both_spellings_is_one_fault() {
    let gateway = Gateway::start().await;
    for (route, body) in [
        ("/api/send", r#"{"userId":"u","user_id":"u"}"#),
        ("/api/send", r#"{"userId":"u","user_id":null}"#),
        ("/api/send", r#"{"to":{"room_id":"r","roomId":"r2"}}"#),
        ("/api/rooms/r/send", r#"{"exceptSocketId":"ws_1","except_socket_id":"ws_1"}"#),
        ("/sse/push", r#"{"user_id":"u","userId":"v","data":1}"#),
    ] {
        let pointers = gateway.posts(route, body).await.pointers();
        assert_eq!(pointers.len(), 1, "{route} {body}: {pointers:?}");
    }
}

/// It says which names it knows, so that a typing error is seen at a glance.
#[tokio::test]
async fn an_unknown_member_is_told_with_those_that_are_known() {
    let gateway = Gateway::start().await;
    let answer = gateway.posts("/api/send", r#"{"usrId":"u","data":1}"#).await;
    assert!(answer.pointers().contains(&"/usrId".to_owned()), "{}", answer.text());
    assert!(answer.text().contains("userId"), "{}", answer.text());
}

/// It can be read, but nobody should have to.
#[tokio::test]
async fn json_that_is_too_deep_does_not_fit() {
    let gateway = Gateway::start().await;
    for (depth, status) in [(100, 200), (1000, 422), (100_000, 422)] {
        let body = format!(r#"{{"userId":"u","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let answer = gateway.posts("/api/send", body).await;
        assert_eq!(answer.status, status, "{depth}: {}", answer.text());
    }
    let endless = gateway.posts("/api/send", "[".repeat(500_000)).await;
    assert!(matches!(endless.status, 400 | 422), "{}", endless.text());
    let quoted = json!({ "userId": "u", "data": "[".repeat(1000) });
    assert_eq!(gateway.post("/api/send", &quoted).await.status, 200);
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let gateway = Gateway::with([("MAX_BODY_BYTES", "1000")]).await;
    for (route, good) in ROUTES {
        let sized = |bytes: usize| good.to_owned() + &" ".repeat(bytes - good.len());
        assert_eq!(gateway.posts(route, sized(1000)).await.status, 200, "{route}");
        let (half, rest) = (sized(500), " ".repeat(500));
        assert_eq!(gateway.posts_in_chunks(route, &[half.as_bytes(), rest.as_bytes()]).await.status, 200, "{route}");
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
    for (route, good) in ROUTES {
        let ask = gateway.request("POST", route).body(good);
        assert_eq!(ask.clone().await.status, 200, "{route}");
        for media in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON;charset=UTF-8",
            "application/vnd.api+json",
            "application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded; charset=UTF-8",
        ] {
            assert_eq!(ask.clone().with("Content-Type", media).await.status, 200, "{route} {media}");
        }
        for media in ["text/plain", "text/html", "application/xml", "multipart/form-data; boundary=x", "application/jsonp"] {
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
    for (route, good) in ROUTES {
        let bytes: Vec<_> = good.as_bytes().chunks(1).collect();
        for chunks in [&[good.as_bytes()][..], &bytes] {
            let answer = gateway.posts_in_chunks(route, chunks).await;
            assert_eq!(answer.status, 200, "{route}: {}", answer.text());
            assert_eq!(client.hears_text().await, r#"{"type":"message","data":1}"#, "{route}");
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
    for (route, good) in ROUTES {
        let mut raw = gateway.raw().await;
        let whole = gateway.posts(route, good).bytes();
        raw.write(&whole[..whole.len() - 1]).await;
    }
    client.heard_all().await;
    gateway.is_unharmed().await;
}
