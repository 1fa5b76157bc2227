//! The WebSocket wire, as bad clients use it. Each is told why, and nobody else notices.

use crate::{
    client::Client,
    gateway::Gateway,
    patience::eventually,
    raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Raw, TEXT, frame, text},
};
use std::time::{Duration, Instant};

const KIB_64: usize = 65_536;

/// Writes these bytes on a fresh socket, and returns the code it is closed with.
async fn closed_for(gateway: &Gateway, bytes: &[u8]) -> u16 {
    let mut raw = gateway.raw_greeted("/ws").await;
    // Closed in the middle of it is closed too.
    let _ = raw.try_write(bytes).await;
    let (code, _) = raw.closed().await;
    code
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

/// Checklist 56, 112, 115.
#[tokio::test]
async fn a_broken_protocol_is_1002() {
    let gateway = Gateway::start().await;
    let cases: &[(&str, Vec<u8>)] = &[
        ("unmasked", unmasked(FIN | TEXT, b"hello")),
        ("unmasked ping", unmasked(FIN | PING, b"")),
        ("reserved bit 1", frame(FIN | TEXT | 0x40, b"hello")),
        ("reserved bit 2", frame(FIN | TEXT | 0x20, b"hello")),
        ("reserved bit 3", frame(FIN | TEXT | 0x10, b"hello")),
        ("reserved bit of a control frame", frame(FIN | PING | 0x40, b"")),
        ("reserved opcode 3", frame(FIN | 3, b"")),
        ("reserved opcode 7", frame(FIN | 7, b"")),
        ("reserved opcode 11", frame(FIN | 11, b"")),
        ("reserved opcode 15", frame(FIN | 15, b"")),
        ("fragmented ping", frame(PING, b"half")),
        ("fragmented close", frame(CLOSE, &1000_u16.to_be_bytes())),
        ("long ping", frame(FIN | PING, &[0; 126])),
        ("long close", frame(FIN | CLOSE, &[&1000_u16.to_be_bytes()[..], &[b'x'; 124]].concat())),
        ("continuation of nothing", frame(FIN | CONTINUATION, b"hello")),
        ("text within a message", [frame(TEXT, b"one"), frame(FIN | TEXT, b"two")].concat()),
        ("binary within a message", [frame(TEXT, b"one"), frame(FIN | BINARY, b"two")].concat()),
        ("close with one byte", frame(FIN | CLOSE, &[3])),
        ("an HTTP request", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        assert_eq!(closed_for(&gateway, bytes).await, 1002, "{what}");
    }
    gateway.is_unharmed().await;
}

/// Checklist 56.
#[tokio::test]
async fn a_close_code_that_nobody_may_send_is_1002() {
    let gateway = Gateway::start().await;
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        assert_eq!(closed_for(&gateway, &frame(FIN | CLOSE, &code.to_be_bytes())).await, 1002, "{code}");
    }
}

/// Checklist 56, 112.
#[tokio::test]
async fn text_that_is_no_utf8_is_1007() {
    let gateway = Gateway::start().await;
    let cases: &[(&str, Vec<u8>)] = &[
        ("in one frame", frame(FIN | TEXT, b"\xff")),
        ("a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80")),
        ("too long a form", frame(FIN | TEXT, b"\xc0\xaf")),
        ("cut off", frame(FIN | TEXT, b"\xe2\x82")),
        ("across fragments", [frame(TEXT, b"\xe2\x82"), frame(FIN | CONTINUATION, b"\x28")].concat()),
        ("cut off in the last fragment", [frame(TEXT, b"ok"), frame(FIN | CONTINUATION, b"\xf0\x9f")].concat()),
        ("a close reason", frame(FIN | CLOSE, b"\x03\xe8\xff")),
    ];
    for (what, bytes) in cases {
        assert_eq!(closed_for(&gateway, bytes).await, 1007, "{what}");
    }
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_message_of_64_kib_is_let_through_and_one_byte_more_is_1009() {
    let gateway = Gateway::start().await;
    let mut member = gateway.greeted("/ws?room_id=r").await;
    let mut raw = gateway.raw_greeted("/ws?room_id=r").await;
    raw.write(&frame(FIN | BINARY, &vec![7; KIB_64])).await;
    assert_eq!(member.hears_bytes().await.len(), KIB_64);
    let halves = [frame(BINARY, &[7; KIB_64 / 2]), frame(FIN | CONTINUATION, &[7; KIB_64 / 2])].concat();
    raw.write(&halves).await;
    assert_eq!(member.hears_bytes().await.len(), KIB_64);

    assert_eq!(closed_for(&gateway, &frame(FIN | BINARY, &vec![7; KIB_64 + 1])).await, 1009);
    assert_eq!(closed_for(&gateway, &frame(FIN | TEXT, &vec![b'a'; KIB_64 + 1])).await, 1009);
    let halves = [frame(BINARY, &[7; KIB_64 / 2]), frame(FIN | CONTINUATION, &[7; KIB_64 / 2 + 1])].concat();
    assert_eq!(closed_for(&gateway, &halves).await, 1009);
    member.heard_all().await;
    gateway.is_unharmed().await;
}

/// Told by the header alone: nobody waits for what will never come.
#[tokio::test]
async fn a_length_of_2_to_the_63_is_refused_by_its_header() {
    let gateway = Gateway::start().await;
    for length in [1_u64 << 63, u64::MAX, (1 << 63) - 1, 1 << 32] {
        let header = [&[FIN | BINARY, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat();
        let code = closed_for(&gateway, &header).await;
        assert!(matches!(code, 1002 | 1009), "{length}: {code}");
    }
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn the_largest_message_can_be_set() {
    let gateway = Gateway::with([("MAX_MESSAGE_BYTES", "1KiB")]).await;
    assert_eq!(closed_for(&gateway, &frame(FIN | TEXT, &[b'a'; 1025])).await, 1009);
    let mut raw = gateway.raw_greeted("/ws").await;
    raw.write(&frame(FIN | TEXT, &[b'a'; 1024])).await;
    assert_eq!(raw.json().await["code"], "bad_json");
}

#[tokio::test]
async fn a_message_may_come_in_pieces() {
    let gateway = Gateway::start().await;
    let mut raw = gateway.raw_greeted("/ws").await;
    let said = r#"{"type":"join","room":"€🎲"}"#.as_bytes();
    raw.write(&frame(TEXT, &said[..1])).await;
    for byte in &said[1..] {
        raw.write(&frame(CONTINUATION, &[*byte])).await;
    }
    raw.write(&frame(FIN | PING, b"between")).await;
    let pong = raw.frame().await;
    assert_eq!((pong.first, &pong.payload[..]), (FIN | PONG, &b"between"[..]));
    raw.write(&frame(FIN | CONTINUATION, b"")).await;
    assert_eq!(raw.text().await, r#"{"type":"joined","room":"€🎲"}"#);
    for byte in text(r#"{"evt":"ping"}"#) {
        raw.write(&[byte]).await;
    }
    assert_eq!(raw.text().await, r#"{"evt":"pong"}"#);
}

/// Checklist 133.
#[tokio::test]
async fn a_ping_is_answered_with_its_own_payload() {
    let gateway = Gateway::start().await;
    let mut raw = gateway.raw_greeted("/ws").await;
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        raw.write(&frame(FIN | PING, payload)).await;
        let pong = raw.frame().await;
        assert_eq!((pong.first, &pong.payload[..]), (FIN | PONG, payload));
    }
    raw.write(&frame(FIN | PONG, b"unasked")).await;
    raw.write(&text(r#"{"evt":"ping"}"#)).await;
    assert_eq!(raw.text().await, r#"{"evt":"pong"}"#);
}

/// Checklist 16, 56, 112.
#[tokio::test]
async fn a_close_is_answered_in_kind_and_the_connection_ends() {
    let gateway = Gateway::start().await;
    for code in [1000_u16, 1001, 3000, 4999] {
        let mut raw = gateway.raw_greeted("/ws").await;
        raw.write(&frame(FIN | CLOSE, &[&code.to_be_bytes()[..], b"bye"].concat())).await;
        assert_eq!(raw.frame().await.close().map(|(code, _)| code), Some(code));
        raw.ends().await;
    }
    let mut raw = gateway.raw_greeted("/ws").await;
    raw.write(&frame(FIN | CLOSE, b"")).await;
    assert_eq!(raw.frame().await.opcode(), CLOSE);
    raw.ends().await;
}

/// A flood of any kind of frame, by the rate that is set.
#[tokio::test]
async fn a_flood_is_4429() {
    let gateway = Gateway::with([("RATE_MESSAGES", "20/s")]).await;
    for flood in [frame(FIN | PING, b""), text(r#"{"evt":"ping"}"#), frame(FIN | BINARY, b"x")] {
        assert_eq!(closed_for(&gateway, &flood.repeat(2000)).await, 4429);
    }
    let batch = format!("[{}]", vec![r#"{"evt":"ping"}"#; 2000].join(","));
    assert_eq!(closed_for(&gateway, &text(&batch)).await, 4429);
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn a_hundred_frames_a_second_is_what_a_client_gets() {
    let gateway = Gateway::start().await;
    assert_eq!(closed_for(&gateway, &frame(FIN | PING, b"").repeat(20_000)).await, 4429);
    let mut calm = gateway.greeted("/ws").await;
    for _ in 0..50 {
        calm.heard_all().await;
    }
}

/// Checklist 282, 286: what it does not read is bounded, and in the end so is the wait for it.
#[tokio::test]
async fn a_client_that_never_reads_is_4101() {
    let gateway = Gateway::with([("WS_PING_TIMEOUT", "1s"), ("RATE_MESSAGES", "off")]).await;
    let mut deaf = Raw::connect_narrow(gateway.address()).await;
    deaf.upgrade(gateway.address(), "/ws?room_id=r").await;
    let id = deaf.is_greeted().await["socketId"].as_str().unwrap().to_owned();
    let mut loud = gateway.greeted("/ws?room_id=r").await;
    let verdict = {
        let gone = gateway.verdict(&id);
        let talk = async {
            loop {
                loud.says_bytes(vec![0; 60_000]).await;
            }
        };
        tokio::select! { verdict = gone => verdict, () = talk => unreachable!() }
    };
    assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&"too_slow".into(), &4101.into()), "{verdict}");
    loud.heard_all().await;
    gateway.is_unharmed().await;
}

/// Checklist 282: nor does it help to be the one that asks.
#[tokio::test]
async fn a_client_that_asks_and_never_reads_is_4101() {
    let gateway = Gateway::with([("WS_PING_TIMEOUT", "1s"), ("RATE_MESSAGES", "off")]).await;
    let mut deaf = Raw::connect_narrow(gateway.address()).await;
    deaf.upgrade(gateway.address(), "/ws").await;
    let id = deaf.is_greeted().await["socketId"].as_str().unwrap().to_owned();
    let questions = text(r#"{"type":"getSocketId"}"#).repeat(1000);
    let gone = gateway.verdict(&id);
    let talk = async {
        while deaf.try_write(&questions).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let verdict = tokio::select! { verdict = gone => verdict, () = talk => unreachable!() };
    assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&"too_slow".into(), &4101.into()), "{verdict}");
    gateway.is_unharmed().await;
}

/// Checklist 286: two seconds is what the other side gets.
#[tokio::test]
async fn a_client_that_never_closes_is_dropped() {
    let gateway = Gateway::start().await;
    let mut raw = Raw::connect(gateway.address()).await;
    raw.upgrade(gateway.address(), "/ws").await;
    let id = raw.is_greeted().await["socketId"].as_str().unwrap().to_owned();
    assert!(gateway.delete(&format!("/api/sockets/{id}?reason=enough")).await.status < 300);
    let closed = Instant::now();
    assert_eq!(raw.closed().await, (4403, "kicked: enough".into()));
    raw.ends().await;
    assert!(closed.elapsed() < Duration::from_secs(8), "{:?}", closed.elapsed());
}

/// Bytes behind a refused upgrade belong to nobody.
#[tokio::test]
async fn what_is_pipelined_behind_a_refusal_is_not_read() {
    let gateway = Gateway::start().await;
    for knock in [gateway.knock("/websocket"), gateway.knock("/ws").but("Upgrade", "h2c"), gateway.knock("/nowhere")] {
        let behind = [knock.bytes(), text(r#"{"evt":"ping"}"#), gateway.get("/health").bytes()].concat();
        let mut raw = gateway.raw().await;
        raw.write(&behind).await;
        let answer = raw.answer().await;
        assert!((400..500).contains(&answer.status), "{}", answer.status);
        assert_eq!(answer.header("Connection").map(str::to_lowercase).as_deref(), Some("close"));
        raw.ends().await;
    }
    gateway.is_unharmed().await;
}

/// Checklist 180, 252, 281: connections that just vanish leave nothing behind.
#[tokio::test]
async fn a_connection_that_breaks_is_noticed_and_told_as_such() {
    let gateway = Gateway::start().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        let client = Client::open(gateway.address(), &format!("/ws?user_id=u{n}&room_id=r"), &[]).await;
        drop(client);
        let mut raw = gateway.raw().await;
        raw.upgrade(gateway.address(), "/ws?store_id=s").await;
        ids.push(raw.is_greeted().await["socketId"].as_str().unwrap().to_owned());
    }
    for id in ids {
        let verdict = gateway.verdict(&id).await;
        assert_eq!((&verdict["cause"], &verdict["state"]), (&"connection_lost".into(), &"closed".into()), "{verdict}");
    }
    eventually("all are gone", async || (gateway.sockets().await == 0).then_some(())).await;
    let opened = gateway.metric("holdfast_sockets_opened_total").await;
    let metrics = gateway.get("/metrics").await.text();
    let closed =
        metrics.lines().filter_map(|line| line.strip_prefix("holdfast_sockets_closed_total{")?.split(' ').nth(1));
    let closed: f64 = closed.map(|count| count.parse::<f64>().unwrap()).sum();
    assert_eq!(opened, closed, "{metrics}");
    gateway.is_unharmed().await;
}
