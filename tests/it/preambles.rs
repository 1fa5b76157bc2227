//! `PROXY_PROTOCOL=on`: whose a connection is stands in front of it, and counts from trusted balancers alone.

use crate::{
    balancer::{Balancer, binary, line, local, of},
    client::Client,
    gateway::Gateway,
    holdfast::{Finished, Holdfast},
    http::{Answer, Request},
    patience::{eventually, note, soon},
    raw::Raw,
};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::process::Command;

async fn behind_a_balancer<const N: usize>(settings: [(&str, &str); N]) -> Gateway {
    Gateway::with([("PROXY_PROTOCOL", "on")].into_iter().chain(settings)).await
}

/// The answer to a request behind these bytes.
async fn answer(gateway: &Gateway, preamble: &[u8], ask: &Request) -> Answer {
    let mut raw = gateway.raw().await;
    raw.write(&[preamble, &ask.bytes()].concat()).await;
    raw.answer().await
}

/// Nothing is answered behind these bytes, and the connection ends.
async fn is_refused(gateway: &Gateway, bytes: &[u8]) {
    let mut raw = gateway.raw().await;
    let _ = raw.try_write(bytes).await;
    raw.ends().await;
}

async fn refused(gateway: &Gateway) -> f64 {
    let metrics = answer(gateway, &local(), &gateway.get("/metrics")).await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("holdfast_proxy_header_refused_total "));
    line.expect("it is counted").parse().unwrap()
}

#[tokio::test]
async fn the_client_is_whom_the_balancer_names() {
    for (preamble, address) in [
        (line("192.0.2.7"), "192.0.2.7"),
        (line("2001:db8::7"), "2001:db8::7"),
        (of([192, 0, 2, 8]), "192.0.2.8"),
        (local(), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut gateway = behind_a_balancer([("API_TOKEN", "t")]).await;
        let balancer = Balancer::before(gateway.address(), &preamble).await;
        let mut client = Client::open(balancer.address, "/ws?store_id=s&user_id=u", &[]).await;
        client.is_greeted().await;
        gateway.logs(&["WebSocket opened", &format!("address=\"{address}\"")]).await;
        client.heard_all().await;
        // A call comes by there too, and a large frame goes through in pieces.
        let ask = Request::new(balancer.address, "POST", "/api/call").with("Authorization", "Bearer t");
        let called = ask.json(&json!({ "storeId": "s", "event": "x", "data": "d".repeat(50_000) }));
        let replies = async {
            let asked = client.hears().await;
            client.says(json!({ "type": "reply", "callId": asked["callId"], "data": asked["data"] }).to_string()).await;
        };
        let (called, ()) = tokio::join!(called.into_future(), replies);
        assert_eq!((called.status, called.json()["result"].as_str().map(str::len)), (200, Some(50_000)));
        client.leaves().await;
    }
}

/// At once with what follows, byte by byte, or all but the last byte.
#[tokio::test]
async fn what_follows_the_header_is_read_whatever_the_pieces_are() {
    let gateway = behind_a_balancer([]).await;
    for preamble in [line("192.0.2.7"), of([192, 0, 2, 7]), binary(0x21, 0x11, &[9; 536]), local()] {
        let all = [&preamble[..], &gateway.get("/health").without("Connection").bytes()].concat();
        for piece in [1, 5, preamble.len() - 1, preamble.len(), preamble.len() + 1, all.len()] {
            let mut raw = gateway.raw().await;
            for part in all.chunks(piece) {
                raw.write(part).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(raw.answer().await.status, 200, "{piece} of {preamble:?}");
            // The next request has no header in front.
            raw.write(&gateway.get("/health/live").bytes()).await;
            assert_eq!(raw.answer().await.status, 200);
        }
        // A frame that comes at once with the handshake and the header is heard.
        let mut raw = gateway.raw().await;
        let knock = gateway.knock("/ws?greeting=none").bytes();
        raw.write(&[&preamble[..], &knock, &crate::raw::text(r#"{"evt":"ping"}"#)].concat()).await;
        assert_eq!(raw.answer().await.status, 101);
        assert_eq!(raw.text().await, r#"{"evt":"pong"}"#);
    }
}

#[tokio::test]
async fn whoever_sends_no_header_is_refused_and_it_is_said_once() {
    let mut gateway = behind_a_balancer([]).await;
    assert!(gateway.output().contains("PROXY protocol  on"), "the start says so: {}", gateway.output());
    let get = gateway.get("/health").bytes();
    let mut count = refused(&gateway).await;
    assert_eq!(count, 0.0);
    for bytes in [
        &get[..],
        &gateway.knock("/ws").bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
        b"PROXY TCP4 192.0.2.300 198.51.100.1 1 2\r\n",
        &[&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat(),
        // A second one is no HTTP.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        is_refused(&gateway, bytes).await;
        count += 1.0;
        assert_eq!(refused(&gateway).await, count, "{:?}", String::from_utf8_lossy(bytes));
    }
    let twice = [line("192.0.2.1"), line("192.0.2.2"), get].concat();
    assert_eq!(answer(&gateway, &twice, &gateway.get("/health")).await.status, 400);
    let said = gateway.logs(&["WARN", "127.0.0.1", "PROXY_PROTOCOL", "send-proxy"]).await;
    assert_eq!(gateway.output().matches("sent no PROXY header").count(), 1, "{said}");
    // Whoever looks only whether the port is open has done nothing wrong.
    drop(gateway.raw().await);
    gateway.logs(&["connected and left"]).await;
    assert_eq!(refused(&gateway).await, count);
}

#[tokio::test]
async fn nobody_but_a_trusted_balancer_is_believed() {
    let mut gateway = behind_a_balancer([("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let ask = [line("192.0.2.7"), gateway.get("/health").bytes()].concat();
    for from in [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 2]] {
        let mut raw = Raw::connect_from(from, gateway.address()).await;
        let _ = raw.try_write(&ask).await;
        raw.ends().await;
    }
    gateway.logs(&["WARN", "127.0.0.3", "TRUSTED_PROXIES"]).await;
    assert_eq!(gateway.output().matches("connection refused: ").count(), 2, "{}", gateway.output());
    assert_eq!(refused(&gateway).await, 3.0);
    assert_eq!(answer(&gateway, &line("192.0.2.7"), &gateway.get("/health")).await.status, 200);
}

/// What the client writes into headers counts if its own address is that of a proxy, and not because its balancer is one.
#[tokio::test]
async fn headers_of_whoever_is_named_count_if_that_is_a_trusted_proxy() {
    let gateway = behind_a_balancer([("TRUSTED_PROXIES", "127.0.0.0/8,::1,10.0.0.0/8")]).await;
    let ask = gateway.get("/api/auth/session?user_id=me").with("X-User-ID", "boss");
    let user = async |preamble: &[u8]| answer(&gateway, preamble, &ask).await.json()["userId"].clone();
    assert_eq!(user(&line("10.0.0.9")).await, "boss");
    assert_eq!(user(&of([10, 0, 0, 9])).await, "boss");
    for preamble in [
        line("192.0.2.7"),
        of([192, 0, 2, 7]),
        // The balancer's machine, or nobody knows who.
        line("127.0.0.1"),
        line("::1"),
        line("::ffff:127.0.0.1"),
        b"PROXY UNKNOWN\r\n".to_vec(),
        binary(0x21, 0x31, &[0; 216]),
    ] {
        assert_eq!(user(&preamble).await, "me", "{preamble:?}");
    }
}

#[tokio::test]
async fn rates_are_those_of_the_addresses_that_the_balancer_names() {
    let gateway = behind_a_balancer([("RATE_CONNECT", "1/s"), ("TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8")]).await;
    let check = gateway.get("/api/handshake?path=/ws");
    let status = async |preamble: &[u8], ask: &Request| answer(&gateway, preamble, ask).await.status;
    eventually("one is too fast", async || (status(&line("192.0.2.1"), &check).await == 429).then_some(())).await;
    assert_eq!(status(&line("192.0.2.2"), &check).await, 200);
    // A stranger is who the header says, whatever it writes itself; a proxy between it and the balancer is believed.
    let forged = |n: u8| check.clone().with("X-Forwarded-For", &format!("203.0.113.{n}"));
    eventually("it is too fast all the same", async || {
        let first = status(&line("192.0.2.3"), &forged(1)).await;
        (first == 429 || status(&line("192.0.2.3"), &forged(2)).await == 429).then_some(())
    })
    .await;
    for n in 10..15 {
        assert_eq!(status(&of([10, 0, 0, 1]), &forged(n)).await, 200);
    }
}

/// A balancer on this machine brings everybody's connections from loopback. Only what it says of itself is local.
#[tokio::test]
async fn in_protected_mode_no_header_makes_anybody_local() {
    let gateway = behind_a_balancer([]).await;
    let ask = gateway.get("/api/sockets").but("Host", "localhost");
    for preamble in [
        line("192.0.2.7"),
        line("127.0.0.1"),
        line("::1"),
        line("::ffff:127.0.0.1"),
        of([127, 0, 0, 1]),
        b"PROXY UNKNOWN\r\n".to_vec(),
        binary(0x21, 0x00, b""),
        binary(0x21, 0x31, &[0; 216]),
    ] {
        answer(&gateway, &preamble, &ask).await.refuses(401, "Protected mode");
    }
    assert_eq!(answer(&gateway, &local(), &ask).await.status, 200);
    answer(&gateway, &local(), &ask.clone().with("X-Forwarded-For", "192.0.2.1")).await.refuses(401, "Protected mode");
    // What a client writes itself stands behind what the balancer wrote.
    let balancer = Balancer::before(gateway.address(), &line("192.0.2.7")).await;
    let mut raw = Raw::connect(balancer.address).await;
    raw.write(&[local(), ask.bytes()].concat()).await;
    let said = String::from_utf8_lossy(&raw.rest().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
}

/// As long as a head may take, and no longer; and a drain does not wait for it.
#[tokio::test]
async fn a_header_is_whole_in_time() {
    let mut gateway = behind_a_balancer([]).await;
    let began = Instant::now();
    let mut silent = [gateway.raw().await, gateway.raw().await, gateway.raw().await];
    silent[1].write(b"PROXY TCP4 192.0").await;
    silent[2].write(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x20abc").await;
    for raw in &mut silent {
        raw.ends().await;
        assert!(began.elapsed() > Duration::from_millis(4500), "{:?}", began.elapsed());
    }
    gateway.logs(&["WARN", "in time"]).await;
    // Accepted, since the next one is, which has asked half of a question.
    let mut waits = gateway.raw().await;
    let mut asks = gateway.raw().await;
    asks.write(&[local(), gateway.get("/health").without("Connection").bytes()].concat()).await;
    assert_eq!(asks.answer().await.status, 200);
    let question = gateway.post("/api/send", &json!({ "userId": "nobody", "data": 1 })).bytes();
    let (half, rest) = question.split_at(question.len() - 1);
    asks.write(half).await;
    gateway.signal(Signal::TERM);
    waits.ends().await;
    asks.write(rest).await;
    assert_eq!(asks.answer().await.status, 200, "its end was not that of the gateway");
    assert_eq!(gateway.exits().await, 0);
}

async fn command(gateway: &Gateway, args: &[&str], setting: &str) -> Finished {
    let command = Holdfast::command(args).env("PORT", &gateway.port().to_string());
    command.env("PROXY_PROTOCOL", setting).run().await
}

/// They read the same settings, and say that they speak for themselves.
#[tokio::test]
async fn commands_reach_a_gateway_that_wants_a_header() {
    let gateway = behind_a_balancer([]).await;
    let mut raw = gateway.raw().await;
    raw.write(&[line("192.0.2.7"), gateway.knock("/ws?user_id=ann").bytes()].concat()).await;
    assert_eq!(raw.answer().await.status, 101);
    raw.is_greeted().await;
    assert_eq!(command(&gateway, &["healthcheck"], "on").await.code, 0);
    let sockets = command(&gateway, &["sockets"], "on").await;
    assert!(sockets.code == 0 && sockets.stdout.contains("ann"), "{sockets:?}");
    assert_eq!(command(&gateway, &["healthcheck"], "off").await.code, 69);
    let wrong = Gateway::command(&[]).env("PROXY_PROTOCOL", "maybe").run().await;
    assert!(wrong.code == 78 && wrong.said().contains("PROXY_PROTOCOL"), "{wrong:?}");
}

/// Where it is off, the header is what it looks like: bad HTTP.
#[tokio::test]
async fn without_the_setting_a_header_is_no_http() {
    let gateway = Gateway::start().await;
    for preamble in [line("192.0.2.7"), of([192, 0, 2, 7]), local()] {
        let mut raw = gateway.raw().await;
        raw.write(&[&preamble[..], &gateway.get("/api/sockets").bytes()].concat()).await;
        let said = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(said.starts_with("HTTP/1.1 400 ") && said.matches("HTTP/1.1 ").count() == 1, "{said}");
    }
}

/// Somebody else's idea of the header.
#[tokio::test]
async fn curl_is_let_in_with_its_header_and_not_without() {
    let gateway = behind_a_balancer([]).await;
    let url = format!("http://{}/health", gateway.address());
    let curl = async |args: &[&str]| {
        let output = Command::new("curl").args(["-s", "-m", "10"]).args(args).arg(&url).output();
        soon("curl ends", output).await.ok().filter(|output| output.status.code() != Some(2))
    };
    let Some(with) = curl(&["--haproxy-protocol"]).await else { return note("there is no curl here that knows it") };
    assert!(String::from_utf8_lossy(&with.stdout).contains("healthy"), "{with:?}");
    assert!(!curl(&[]).await.unwrap().status.success());
}
