//! A TCP client that does exactly what it is told: it answers no ping, closes nothing, and may
//! write any bytes at any time.

use crate::{
    http::{Answer, Request},
    patience::soon,
};
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
/// The bit of a first byte that says: this is the last fragment.
pub const FIN: u8 = 0x80;

/// A frame as the gateway sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// Code and reason, if this is a close frame.
    pub fn close(&self) -> Option<(u16, String)> {
        let (code, reason) = self.payload.split_first_chunk::<2>()?;
        let reason = String::from_utf8(reason.to_vec()).expect("a reason is UTF-8");
        (self.opcode() == CLOSE).then(|| (u16::from_be_bytes(*code), reason))
    }
}

/// The bytes of a client's frame: `first` holds FIN, the reserved bits and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65536 => bytes.extend([&[0xfe][..], &(length as u16).to_be_bytes()].concat()),
        length => bytes.extend([&[0xff][..], &(length as u64).to_be_bytes()].concat()),
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A whole text frame.
pub fn text(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}

pub struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = soon("TCP connects", TcpStream::connect(address)).await.expect("the gateway listens");
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Somebody at another address of this machine.
    pub async fn connect_from(from: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = soon("TCP connects", socket.connect(address)).await.expect("the gateway listens");
        Self { stream, unread: Vec::new() }
    }

    /// A client into whose kernel little fits, so that whatever it does not read is soon felt.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = soon("TCP connects", socket.connect(address)).await.expect("the gateway listens");
        Self { stream, unread: Vec::new() }
    }

    pub async fn greeted(address: SocketAddr, target: &str) -> Self {
        let mut raw = Self::connect(address).await;
        raw.upgrade(address, target).await;
        raw.is_greeted().await;
        raw
    }

    /// Asks for a socket and gets it.
    pub async fn upgrade(&mut self, address: SocketAddr, target: &str) {
        self.write(&Request::knock(address, target).bytes()).await;
        let answer = self.answer().await;
        assert_eq!(answer.status, 101, "{target}: {}", answer.text());
    }

    /// Reads `hi` and `reset`; returns `hi`.
    pub async fn is_greeted(&mut self) -> Value {
        let hi = self.json().await;
        assert_eq!(hi["type"], "hi");
        assert_eq!(self.text().await, r#"{"type":"reset"}"#);
        hi
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await.expect("the gateway reads");
    }

    pub async fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        soon("the gateway reads on", self.stream.write_all(bytes)).await
    }

    /// The next answer on this connection.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// The next answer, which to HEAD has no body.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return answer;
        }
        let length = answer.header("content-length").map(|length| length.parse().unwrap());
        answer.body = match length {
            Some(length) => self.take(length).await,
            None if answer.header("transfer-encoding") == Some("chunked") => self.chunks().await,
            None => self.rest().await,
        };
        answer
    }

    /// The head of the next answer; its body is still to be read.
    pub async fn head(&mut self) -> Answer {
        let end = loop {
            match self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => assert!(self.fill().await, "ended within a head: {:?}", String::from_utf8_lossy(&self.unread)),
            }
        };
        let head = self.take(end).await;
        Answer::head(&String::from_utf8_lossy(&head))
    }

    /// The next frame, whatever it is.
    pub async fn frame(&mut self) -> Frame {
        let header = self.take(2).await;
        assert_eq!(header[1] & 0x80, 0, "a server does not mask");
        let length = match header[1] {
            126 => u64::from(u16::from_be_bytes(self.take(2).await.try_into().unwrap())),
            127 => u64::from_be_bytes(self.take(8).await.try_into().unwrap()),
            length => length.into(),
        };
        let payload = self.take(usize::try_from(length).unwrap()).await;
        Frame { first: header[0], payload }
    }

    /// The next frame, which is a text. Pings come when the second hand passes, be it in between.
    pub async fn text(&mut self) -> String {
        let mut frame = self.frame().await;
        while frame.opcode() == PING {
            frame = self.frame().await;
        }
        assert_eq!(frame.first, FIN | TEXT, "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// Reads on to the gateway's close frame. Every one has a reason that a person can read.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = self.frame().await;
            if frame.opcode() != CLOSE {
                continue;
            }
            let (code, reason) = frame.close().expect("a close frame with a code");
            assert!(!reason.is_empty() && reason.len() <= 123, "{code} {reason:?}");
            return (code, reason);
        }
    }

    /// Reads until the connection ends; returns what came before that.
    pub async fn rest(&mut self) -> Vec<u8> {
        soon("the connection ends", async { while self.fill().await {} }).await;
        std::mem::take(&mut self.unread)
    }

    /// The connection ends, and nothing more comes before that.
    pub async fn ends(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// Breaks the connection: the other side gets a reset, and no word of an end.
    pub fn breaks(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("Linux resets what may not linger");
    }

    /// Whether it has ended by now.
    pub async fn has_ended(&mut self) -> bool {
        let mut buffer = [0; 1024];
        match self.stream.try_read(&mut buffer) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            let (have, early) = (self.unread.len(), format!("{:?}", String::from_utf8_lossy(&self.unread)));
            assert!(self.fill().await, "ended after {have} of {length} bytes: {early:.200}");
        }
        self.unread.drain(..length).collect()
    }

    /// Reads more; false at the end, be it a clean one or not.
    async fn fill(&mut self) -> bool {
        let read = soon("the gateway says something", self.stream.read_buf(&mut self.unread)).await;
        read.is_ok_and(|length| length > 0)
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend(chunk);
        }
        body
    }

    /// The next piece of a body that comes in pieces; nothing at its end.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            match self.unread.windows(2).position(|window| window == b"\r\n") {
                Some(at) => break at,
                None => assert!(self.fill().await, "ended within a chunk"),
            }
        };
        let size = String::from_utf8(self.take(end + 2).await).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let chunk = self.take(size).await;
        self.take(2).await;
        (size > 0).then_some(chunk)
    }
}
