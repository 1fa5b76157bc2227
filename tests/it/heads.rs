//! HTTP, as bad clients speak it. After each of these the gateway is as it was before.

use crate::{gateway::Gateway, raw::Raw};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How long a head may take from its first byte.
const HEAD: Duration = Duration::from_secs(5);
/// How much later than that it may be noticed on a busy machine.
const LATE: Duration = Duration::from_secs(8);

/// Writes bytes; returns the status of the answer, if one came before the end.
async fn status_of(gateway: &Gateway, bytes: &[u8]) -> Option<u16> {
    let mut raw = gateway.raw().await;
    // A gateway that has seen enough hangs up while we still write.
    let _ = raw.try_write(bytes).await;
    let answer = String::from_utf8_lossy(&raw.rest().await).into_owned();
    answer.strip_prefix("HTTP/1.").map(|rest| rest[2..5].parse().unwrap())
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

#[tokio::test]
async fn heads_without_measure_are_refused() {
    let gateway = Gateway::start().await;
    let many: String = (0..10_000).map(|n| format!("X-{n}: v\r\n")).collect();
    let endless = "v".repeat(1 << 20);
    for (what, bytes) in [
        ("10 000 headers", get(&many)),
        ("a 1 MB header", get(&format!("X-Big: {endless}\r\n"))),
        ("a 1 MB name", get(&format!("{endless}: v\r\n"))),
        ("a 1 MB address", format!("GET /{endless} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()),
        ("a 1 MB method", format!("{endless} / HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()),
    ] {
        let status = status_of(&gateway, &bytes).await;
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{what}: {status:?}");
    }
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn heads_that_are_none_are_refused() {
    let gateway = Gateway::start().await;
    for bytes in [
        &b"\r\n\r\n\r\nhello\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHo st: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\n: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: local\0host\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let status = status_of(&gateway, bytes).await;
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{status:?}: {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    gateway.is_unharmed().await;
}

/// Where two readers could disagree about where a body ends, nothing is read.
#[tokio::test]
async fn a_length_that_can_be_read_in_two_ways_is_refused() {
    let gateway = Gateway::start().await;
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
    ] {
        let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let bytes = format!("POST /api/send HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{smuggled}");
        assert_eq!(status_of(&gateway, bytes.as_bytes()).await, Some(400), "{headers}");
    }
    assert!(!gateway.output().contains("/smuggled"));
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_transfer_encoding_before_a_length_ends_the_connection() {
    let gateway = Gateway::start().await;
    let bytes = "POST /api/send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n\
                 2\r\n{}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let status = status_of(&gateway, bytes.as_bytes()).await;
    assert!(status.is_some_and(|status| (400..500).contains(&status)), "{status:?}");
    assert!(!gateway.output().contains("/smuggled"));
}

#[tokio::test]
async fn a_body_in_bad_chunks_is_a_clients_fault() {
    let gateway = Gateway::start().await;
    for body in ["zz\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n", "2\r\n{}}}\r\n0\r\n\r\n", "-2\r\n{}\r\n"] {
        let bytes = format!("POST /api/send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let status = status_of(&gateway, bytes.as_bytes()).await;
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{body:?}: {status:?}");
    }
    gateway.is_unharmed().await;
}

/// Whose name it was asked by must be beyond doubt where the name decides.
#[tokio::test]
async fn a_host_that_stands_there_twice_opens_no_door() {
    let gateway = Gateway::start().await;
    let ask = gateway.get("/api/debug/sockets");
    assert_eq!(ask.clone().await.status, 200);
    for (one, other) in [("localhost", "evil.example"), ("evil.example", "localhost")] {
        let answer = ask.clone().but("Host", one).with("Host", other).await;
        assert!((400..500).contains(&answer.status), "{one}, {other}: {}", answer.status);
    }
    for odd in ["", "localhost.evil.example", "localhost:80:80", "evil.example"] {
        let answer = ask.clone().but("Host", odd).await;
        assert!((400..500).contains(&answer.status), "{odd}: {}", answer.status);
    }
    ask.clone().without("Host").await.refuses(400, "Invalid Host header");
    gateway.knock("/ws").without("Host").await.refuses(400, "Invalid Host header");
    let absolute = "GET http://evil.example/api/debug/sockets HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let status = status_of(&gateway, absolute.as_bytes()).await;
    assert!(status.is_some_and(|status| (400..500).contains(&status)), "{status:?}");
}

/// Writes a byte a second, and returns when the connection ends.
async fn drip(raw: &mut Raw, head: &[u8]) -> Duration {
    let first_byte = Instant::now();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for byte in head {
        second.tick().await;
        if first_byte.elapsed() > HEAD + LATE || raw.try_write(&[*byte]).await.is_err() {
            break;
        }
        if raw.has_ended().await {
            break;
        }
    }
    first_byte.elapsed()
}

/// Checklist 286.
#[tokio::test]
async fn a_head_must_be_whole_5_s_after_its_first_byte() {
    let gateway = Gateway::start().await;
    let head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut fresh = gateway.raw().await;
    let mut kept = gateway.raw().await;
    kept.write(&gateway.get("/health").without("Connection").bytes()).await;
    assert_eq!(kept.answer().await.status, 200);
    let mut silent = gateway.raw().await;
    silent.write(b"GET").await;
    let (fresh, kept, silent) = tokio::join!(drip(&mut fresh, head), drip(&mut kept, head), ends_after(&mut silent));
    for (what, took) in [("fresh", fresh), ("kept", kept), ("silent", silent)] {
        assert!(took > HEAD - Duration::from_millis(500) && took < HEAD + LATE, "{what}: {took:?}");
    }
    gateway.is_unharmed().await;
}

/// When a connection ends on which nothing more is said.
async fn ends_after(raw: &mut Raw) -> Duration {
    let began = Instant::now();
    raw.rest().await;
    began.elapsed()
}

/// Checklist 286: what nginx keeps in its pool is not cut while it says nothing. The pause is the
/// fact here.
#[tokio::test]
async fn an_idle_connection_outlives_the_limit_of_a_head() {
    let gateway = Gateway::start().await;
    let ask = gateway.get("/health").without("Connection").bytes();
    let mut kept = gateway.raw().await;
    let mut unused = gateway.raw().await;
    kept.write(&ask).await;
    assert_eq!(kept.answer().await.status, 200);
    sleep(HEAD + Duration::from_millis(1500)).await;
    for raw in [&mut kept, &mut unused] {
        raw.write(&ask).await;
        assert_eq!(raw.answer().await.status, 200);
    }
}

/// Checklist 291.
#[tokio::test]
async fn http_1_0_is_answered_and_kept_alive_when_it_asks_for_that() {
    let gateway = Gateway::start().await;
    let mut ab = gateway.raw().await;
    for _ in 0..10 {
        ab.write(
            b"GET /health HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\nUser-Agent: ApacheBench/2.3\r\n\r\n",
        )
        .await;
        let answer = ab.answer().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("Connection").map(str::to_lowercase).as_deref(), Some("keep-alive"));
        assert!(answer.header("Content-Length").is_some());
    }
    let mut once = gateway.raw().await;
    once.write(b"GET /health HTTP/1.0\r\n\r\n").await;
    assert_eq!(once.answer().await.status, 200);
    once.ends().await;
    assert_eq!(status_of(&gateway, b"GET /ws HTTP/1.0\r\n\r\n").await, Some(426));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::start().await;
    let mut raw = gateway.raw().await;
    let ask = |path: &str| gateway.get(path).without("Connection").bytes();
    raw.write(&[ask("/health"), ask("/nowhere"), ask("/health/live")].concat()).await;
    let statuses = [raw.answer().await.status, raw.answer().await.status, raw.answer().await.status];
    assert_eq!(statuses, [200, 404, 200]);
}

#[tokio::test]
async fn whoever_connects_and_says_nothing_or_leaves_in_the_middle_harms_nobody() {
    let gateway = Gateway::start().await;
    let mut quiet = Vec::new();
    for n in 0..50 {
        let mut raw = gateway.raw().await;
        let knock = gateway.knock("/ws").bytes();
        raw.write(&knock[..knock.len() * n / 50]).await;
        quiet.push(raw);
    }
    gateway.is_unharmed().await;
    drop(quiet);
    gateway.is_unharmed().await;
}
