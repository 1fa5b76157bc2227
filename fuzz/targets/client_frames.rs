//! From a client's bytes to what is said to it. However the bytes are cut, the same is heard, and
//! whatever is heard, the answers are frames that we would take ourselves.
//!
//! An input begins with a byte `n` and `n % 8` sizes in which the bytes behind them are cut, over
//! and over again.
#![no_main]

use bytes::Bytes;
use futures_util::FutureExt;
use gateway::{
    close::REASON_BYTES_MAX,
    courier::Courier,
    frame::{ClientFrame, Greeting},
    json::Members,
    metrics::Metrics,
    session::{Desk, Session},
    socket::{Conversation, Reaction, Said},
    wire::{Heard, Wire},
};
use libfuzzer_sys::fuzz_target;
use std::{
    io::Cursor,
    sync::{Arc, LazyLock},
};
use tokio_tungstenite::tungstenite::protocol::frame::{FrameHeader, coding::Data, coding::OpCode};

const MESSAGE_BYTES_MAX: usize = 512;

/// Making one takes longer than everything else here.
static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(Arc::default);

/// What a wire makes of bytes that come in these pieces.
#[derive(Debug, PartialEq)]
struct Story {
    /// Kind and payload of what was heard.
    heard: Vec<(&'static str, Bytes)>,
    answers: Vec<u8>,
    fault: Option<String>,
}

fn listen<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Story {
    let mut wire = Wire::new(Some(MESSAGE_BYTES_MAX));
    let mut story = Story { heard: Vec::new(), answers: Vec::new(), fault: None };
    for piece in pieces {
        let mut input = piece;
        loop {
            let before = input.len();
            match wire.read(&mut input, &mut story.answers) {
                Ok(Some(Heard::Text(text))) => story.heard.push(("text", text)),
                Ok(Some(Heard::Binary(bytes))) => story.heard.push(("binary", bytes)),
                Ok(Some(Heard::Ping)) => story.heard.push(("ping", Bytes::new())),
                Ok(Some(Heard::Pong)) => story.heard.push(("pong", Bytes::new())),
                Ok(Some(Heard::Close(frame))) => {
                    let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                    assert!(reason.len() <= REASON_BYTES_MAX);
                    story.heard.push(("close", reason.into()));
                    return story;
                }
                Ok(None) => break,
                Err(fault) => {
                    story.fault = Some(format!("{fault:?}"));
                    read_on(wire, input);
                    return story;
                }
            }
            assert!(input.len() < before, "a message out of nothing");
        }
        assert!(input.is_empty(), "left over: {input:?}");
    }
    story
}

/// Whoever reads on after a fault learns nothing, but comes to an end.
fn read_on(mut wire: Wire, mut input: &[u8]) {
    while !input.is_empty() {
        let before = input.len();
        let _ = wire.read(&mut input, &mut Vec::new());
        assert!(input.len() < before, "stands still");
    }
}

/// The frames in bytes of ours: unmasked, whole, nothing behind them.
fn frames(mut bytes: &[u8]) -> Vec<(OpCode, &[u8])> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let mut cursor = Cursor::new(bytes);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        assert!(header.is_final && header.mask.is_none() && !header.rsv1 && !header.rsv2 && !header.rsv3);
        let (head, length) = (cursor.position() as usize, length as usize);
        frames.push((header.opcode, &bytes[head..head + length]));
        bytes = &bytes[head + length..];
    }
    frames
}

/// A session, and a neighbour in its room who hears what it publishes.
fn talk(said: impl Iterator<Item = Said>) {
    let courier = Courier::new(fuzz::registry(), &METRICS);
    let desk = Desk {
        courier: courier.clone(),
        metrics: METRICS.clone(),
        feed: Default::default(),
        rate: None,
        rooms_max: 3,
        stop: Default::default(),
    };
    let seat = fuzz::enter(&courier, &["r"]).now_or_never().unwrap();
    let _neighbour = fuzz::enter(&courier, &["r", "q"]).now_or_never().unwrap();
    let greeting = Greeting { socket: seat.socket.record().id, instance: "fuzz".into(), ping_interval_seconds: 30.0 };
    let mut session = Session::new(Arc::new(desk), seat.socket.clone(), greeting);
    for said in said {
        let answers = match session.hear(said) {
            Reaction::Silence => Vec::new(),
            Reaction::Say(frame) => vec![frame],
            // The registry in memory never makes anybody wait.
            Reaction::Later(work) => work.now_or_never().unwrap(),
            Reaction::Close(close) => panic!("closed without a reason: {close:?}"),
        };
        for answer in answers {
            let frames = frames(&answer);
            let [(OpCode::Data(Data::Text), text)] = frames[..] else { panic!("{frames:?}") };
            let members = Members::read(text).unwrap_or_else(|fault| panic!("{fault}: {}", text.escape_ascii()));
            assert!(members.text("type").or(members.text("evt")).is_some());
            assert!(members.get("type").is_none() || members.get("evt").is_none() || members.get("ver").is_some());
        }
        assert!(seat.socket.record().rooms.len() <= 3);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else { return };
    let Some((sizes, bytes)) = rest.split_at_checked(usize::from(*count % 8)) else { return };
    let whole = listen(std::iter::once(bytes));
    if !sizes.is_empty() {
        let mut sizes = sizes.iter().cycle();
        let mut left = bytes;
        let pieces = std::iter::from_fn(|| {
            let size = usize::from(*sizes.next()?).clamp(1, left.len().max(1));
            let (piece, rest) = left.split_at_checked(size)?;
            left = rest;
            Some(piece)
        });
        assert_eq!(listen(pieces), whole);
    }
    // A close with a code that nobody may send is answered with a sentence.
    assert!(whole.answers.len() <= bytes.len() + REASON_BYTES_MAX, "more answers than questions");
    assert!(frames(&whole.answers).iter().all(|(opcode, _)| matches!(opcode, OpCode::Control(_))));

    let said = whole.heard.into_iter().filter_map(|(kind, payload)| match kind {
        "text" => {
            assert!(std::str::from_utf8(&payload).is_ok() && payload.len() <= MESSAGE_BYTES_MAX);
            Some(Said::Text(payload))
        }
        "binary" => Some(Said::Binary(payload)),
        "ping" => Some(Said::Ping),
        _ => None,
    });
    // Most bytes are no frames, so what they are without a frame around them is said as well.
    let bare = std::str::from_utf8(bytes).ok().map(|_| Said::Text(Bytes::copy_from_slice(bytes)));
    let _ = ClientFrame::read(bytes);
    talk(said.chain(bare));
});
