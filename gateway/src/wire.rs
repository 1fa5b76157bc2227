//! Bytes to messages: tungstenite's `WebSocketContext`, fed one frame at a time.
//!
//! The context never touches a stream here. It reads from a slice that holds no more than the
//! current frame, and what it wants to answer (pong, close) it writes into a buffer. So the socket
//! decides when and in which order bytes leave, unread bytes stay ours, and between two messages
//! nothing is inside the context. There it is thrown away: an idle socket holds none, and what a
//! large message made fat does not stay.

use bytes::Bytes;
use std::io::{self, Cursor, Read, Write};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    error::{CapacityError, ProtocolError},
    handshake::derive_accept_key,
    protocol::{
        Role, WebSocketConfig, WebSocketContext,
        frame::{CloseFrame, Frame, FrameHeader, coding::Control, coding::Data, coding::OpCode},
    },
};

/// The context's own read step; most client frames fit.
const READ_STEP: usize = 256;
/// The longest frame header there is: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// Why a peer's bytes cannot be read on.
#[derive(Debug)]
pub enum Fault {
    Protocol(String),
    BadUtf8,
    TooBig,
}

/// What the wire says next.
#[derive(Debug)]
pub enum Heard {
    Text(Bytes),
    Binary(Bytes),
    Ping,
    Pong,
    /// The peer closes; the reply is in the answers already.
    Close(Option<CloseFrame>),
}

/// One connection's decoder.
pub struct Wire {
    /// There while bytes of a message are inside.
    context: Option<Box<WebSocketContext>>,
    gate: Gate,
    message_bytes_max: Option<usize>,
}

impl Wire {
    pub fn new(message_bytes_max: Option<usize>) -> Self {
        Self { context: None, gate: Gate::default(), message_bytes_max }
    }

    pub fn message_bytes_max(&self) -> Option<usize> {
        self.message_bytes_max
    }

    /// Takes bytes from `input` until a message is whole or the input is used up (`None`).
    /// Automatic answers are appended to `answers` as frames ready to send.
    pub fn read(&mut self, input: &mut &[u8], answers: &mut Vec<u8>) -> Result<Option<Heard>, Fault> {
        self.read_as(Role::Server, input, answers)
    }

    /// The same for a client: what a gateway sends has no masks, and the answers to it have.
    pub fn read_of_a_gateway(&mut self, input: &mut &[u8], answers: &mut Vec<u8>) -> Result<Option<Heard>, Fault> {
        self.read_as(Role::Client, input, answers)
    }

    fn read_as(&mut self, role: Role, input: &mut &[u8], answers: &mut Vec<u8>) -> Result<Option<Heard>, Fault> {
        let context = self.context.get_or_insert_with(|| context(role, self.message_bytes_max));
        loop {
            let (header, payload) = self.gate.admit(input)?;
            let starved = header.is_empty() && payload.is_empty() && input.is_empty();
            match context.read(&mut Pipe { header, payload, answers }) {
                Ok(message) => {
                    // Lets the context write the pong or close that it owes. The pipe takes all of
                    // it, so the only error is "closed", which is what was wanted.
                    let _ = context.flush(&mut Pipe { header: &[], payload: &[], answers });
                    return Ok(heard(message));
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if starved {
                        break;
                    }
                }
                Err(error) => return Err(fault(error)),
            }
        }
        if self.gate.at_boundary() {
            self.context = None;
        }
        Ok(None)
    }
}

fn context(role: Role, message_bytes_max: Option<usize>) -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_STEP)
        .write_buffer_size(0)
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max);
    Box::new(WebSocketContext::new(role, Some(config)))
}

fn heard(message: Message) -> Option<Heard> {
    match message {
        Message::Text(text) => Some(Heard::Text(text.into())),
        Message::Binary(bytes) => Some(Heard::Binary(bytes)),
        Message::Ping(_) => Some(Heard::Ping),
        Message::Pong(_) => Some(Heard::Pong),
        Message::Close(frame) => Some(Heard::Close(frame)),
        Message::Frame(_) => None,
    }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Utf8(_) => Fault::BadUtf8,
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Fault::TooBig,
        Error::Protocol(ProtocolError::InvalidCloseSequence) => Fault::Protocol("invalid close frame".into()),
        Error::Protocol(error) => Fault::Protocol(error.to_string().to_lowercase()),
        other => Fault::Protocol(other.to_string().to_lowercase()),
    }
}

/// Lets the bytes of one frame through, and knows when nothing of a message is inside.
#[derive(Default)]
struct Gate {
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// Payload bytes of the current frame that have not come yet.
    payload_left: u64,
    in_frame: bool,
    in_message: bool,
}

impl Gate {
    fn at_boundary(&self) -> bool {
        !self.in_frame && !self.in_message
    }

    /// The header, once it is whole, and then as much of the payload as there is.
    fn admit<'a, 'b>(&'a mut self, input: &mut &'b [u8]) -> Result<(&'a [u8], &'b [u8]), Fault> {
        if self.in_frame {
            return Ok((&[], self.take_payload(input)));
        }
        loop {
            let have = usize::from(self.header_len);
            let missing = header_bytes(&self.header[..have]) - have;
            if missing == 0 {
                break;
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            if taken.is_empty() {
                return Ok((&[], &[]));
            }
            self.header[have..have + taken.len()].copy_from_slice(taken);
            self.header_len += taken.len() as u8;
            *input = rest;
        }
        let whole = usize::from(std::mem::take(&mut self.header_len));
        let parsed = FrameHeader::parse(&mut Cursor::new(&self.header[..whole])).map_err(fault)?;
        let (header, length) = parsed.ok_or_else(|| Fault::Protocol("invalid frame header".into()))?;
        self.payload_left = length;
        self.in_frame = true;
        self.in_message = match header.opcode {
            OpCode::Data(Data::Text | Data::Binary | Data::Continue) => !header.is_final,
            _ => self.in_message,
        };
        let payload = self.take_payload(input);
        Ok((&self.header[..whole], payload))
    }

    fn take_payload<'b>(&mut self, input: &mut &'b [u8]) -> &'b [u8] {
        let length = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(input.len());
        let (payload, rest) = input.split_at(length);
        *input = rest;
        self.payload_left -= length as u64;
        self.in_frame = self.payload_left > 0;
        payload
    }
}

/// How long a header is, as far as its first two bytes tell: so that it is parsed once, when whole.
fn header_bytes(so_far: &[u8]) -> usize {
    let Some(second) = so_far.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + length + mask
}

/// What the context takes for a stream: reads what the gate let through, keeps what it writes.
struct Pipe<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    answers: &'a mut Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let source = if self.header.is_empty() { &mut self.payload } else { &mut self.header };
        if source.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = source.len().min(buffer.len());
        let (taken, rest) = source.split_at(length);
        buffer[..length].copy_from_slice(taken);
        *source = rest;
        Ok(length)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A text frame, ready for any number of sockets.
pub fn text(payload: impl Into<Bytes>) -> Bytes {
    encode(Frame::message(payload, OpCode::Data(Data::Text), true))
}

/// A binary frame, likewise.
pub fn binary(payload: impl Into<Bytes>) -> Bytes {
    encode(Frame::message(payload, OpCode::Data(Data::Binary), true))
}

/// The text in a frame of ours, or nothing in a ping; `None` for all others, which are no text.
pub fn payload(frame: &Bytes) -> Option<Option<Bytes>> {
    let mut cursor = Cursor::new(&frame[..]);
    let (header, _) = FrameHeader::parse(&mut cursor).ok()??;
    match header.opcode {
        OpCode::Data(Data::Text) => Some(Some(frame.slice(usize::try_from(cursor.position()).ok()?..))),
        OpCode::Control(Control::Ping) => Some(None),
        _ => None,
    }
}

/// A ping without a payload.
pub fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0x00])
}

/// A close frame.
pub fn close(code: u16, reason: &str) -> Bytes {
    encode(Frame::close(Some(CloseFrame { code: code.into(), reason: reason.into() })))
}

/// A text frame of a client.
pub fn text_of_a_client(payload: impl Into<Bytes>) -> Bytes {
    masked(Frame::message(payload, OpCode::Data(Data::Text), true))
}

/// A close frame of a client.
pub fn close_of_a_client(code: u16, reason: &str) -> Bytes {
    masked(Frame::close(Some(CloseFrame { code: code.into(), reason: reason.into() })))
}

/// What a gateway has to answer to a client's key.
pub fn accept(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

fn masked(mut frame: Frame) -> Bytes {
    frame.header_mut().mask = Some(std::array::from_fn(|_| fastrand::u8(..)));
    encode(frame)
}

fn encode(frame: Frame) -> Bytes {
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing into a vector cannot fail.
    let _ = frame.format(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(frame: Frame) -> Vec<u8> {
        let mut frame = frame;
        frame.header_mut().mask = Some([1, 2, 3, 4]);
        encode(frame).to_vec()
    }

    fn message(payload: &[u8], data: Data, last: bool) -> Vec<u8> {
        masked(Frame::message(payload.to_vec(), OpCode::Data(data), last))
    }

    fn read_all(wire: &mut Wire, bytes: &[u8], step: usize) -> (Vec<Heard>, Vec<u8>) {
        let (mut heard, mut answers) = (Vec::new(), Vec::new());
        for chunk in bytes.chunks(step) {
            let mut input = chunk;
            while let Some(next) = wire.read(&mut input, &mut answers).unwrap() {
                heard.push(next);
                if let Some(Heard::Close(_)) = heard.last() {
                    return (heard, answers);
                }
            }
            assert!(input.is_empty());
        }
        (heard, answers)
    }

    #[test]
    fn nothing_stays_behind_a_message() {
        let mut wire = Wire::new(None);
        let big = vec![b'x'; 1 << 20];
        let (heard, _) = read_all(&mut wire, &message(&big, Data::Text, true), 16 << 10);
        assert!(matches!(&heard[..], [Heard::Text(text)] if text.len() == big.len()));
        assert!(wire.context.is_none());
        let next = message(b"next", Data::Text, true);
        read_all(&mut wire, &next[..8], 100);
        assert!(!wire.gate.at_boundary() && wire.context.is_some());
        let (heard, _) = read_all(&mut wire, &next[8..], 100);
        assert!(matches!(&heard[..], [Heard::Text(text)] if text == "next"));
    }

    #[test]
    fn the_frames_of_one_message_are_never_torn_apart() {
        let mut wire = Wire::new(None);
        let mut bytes = message(&[b'a'; 5000], Data::Text, false);
        bytes.extend(masked(Frame::ping(vec![7])));
        bytes.extend(message(&[b'b'; 5000], Data::Continue, true));
        let (heard, answers) = read_all(&mut wire, &bytes, 3);
        assert!(matches!(&heard[..], [Heard::Ping, Heard::Text(text)] if text.len() == 10_000));
        assert_eq!(answers, [0x8a, 1, 7]);
    }

    #[test]
    fn a_close_is_answered_once() {
        let mut wire = Wire::new(None);
        let frame = Frame::close(Some(CloseFrame { code: 1000.into(), reason: "bye".into() }));
        let (heard, answers) = read_all(&mut wire, &masked(frame), 2);
        assert!(matches!(&heard[..], [Heard::Close(Some(_))]));
        assert_eq!(answers, [0x88, 5, 3, 0xe8, b'b', b'y', b'e']);
    }

    #[test]
    fn faults_have_their_kind() {
        let fault = |bytes: &[u8]| Wire::new(Some(64)).read(&mut &*bytes, &mut Vec::new()).unwrap_err();
        assert!(matches!(fault(&message(&[b'x'; 65], Data::Text, true)), Fault::TooBig));
        assert!(matches!(fault(&message(&[0xff], Data::Text, true)), Fault::BadUtf8));
        let mut endless = vec![0x81, 0xff];
        endless.extend([0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
        assert!(matches!(fault(&endless), Fault::TooBig));
        for bad in
            [&[0xc1, 0x80, 0, 0, 0, 0][..], &[0x81, 0x01, b'x'], &[0x09, 0x80, 0, 0, 0, 0], &[0x83, 0x80, 0, 0, 0, 0]]
        {
            assert!(matches!(fault(bad), Fault::Protocol(_)), "{bad:?}");
        }
    }

    /// Fuzzing found that a refused header of full length stayed, and that reading on never ended.
    #[test]
    fn after_a_fault_bytes_are_still_used_up() {
        let mut wire = Wire::new(None);
        let mut input = &[0xff; 64][..];
        while !input.is_empty() {
            let left = input.len();
            assert!(wire.read(&mut input, &mut Vec::new()).is_err() || input.is_empty());
            assert!(input.len() < left);
        }
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_changes_nothing(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..6),
            step in 1usize..700,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| message(payload, Data::Binary, true)).collect();
            let (heard, _) = read_all(&mut Wire::new(None), &bytes, step);
            let read: Vec<_> = heard.into_iter().map(|heard| match heard {
                Heard::Binary(bytes) => bytes.to_vec(),
                other => panic!("{other:?}"),
            }).collect();
            prop_assert_eq!(read, payloads);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
            let mut wire = Wire::new(Some(100));
            let mut answers = Vec::new();
            'cut: for chunk in bytes.chunks(step) {
                let mut input = chunk;
                loop {
                    match wire.read(&mut input, &mut answers) {
                        Ok(Some(Heard::Close(_))) | Err(_) => break 'cut,
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                    }
                }
            }
        }
    }
}
