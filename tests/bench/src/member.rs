//! One client socket: its handshake, the frames it reads, the pongs it owes.
//!
//! A server that breaks the protocol, closes a socket or stops reading is an error, not a slow
//! sample.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use crate::Result;
use crate::wire::{self, Frame};

/// Of RFC 6455, with the answer it gives there. One key for all: nothing here caches.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub struct Member {
    stream: TcpStream,
    stage: Stage,
    /// The beginning of a frame whose end has not come; mostly empty.
    pending: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upgrading,
    /// So many frames of the greeting are still to come.
    Greeting(usize),
    Open,
}

/// What one read brought.
#[derive(Default)]
pub struct Heard {
    /// Text frames after the greeting.
    pub texts: usize,
    /// Answered already.
    pub pings: usize,
    /// The greeting is complete, by this read.
    pub opened: bool,
}

impl Member {
    /// Blocking, since on loopback a connection is there as soon as it is asked for.
    pub fn dial(source: SocketAddrV4, address: SocketAddr, target: &str) -> Result<Self> {
        let kind = SocketType::STREAM;
        let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &source)?;
        connect(&socket, &address)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let member = Self { stream, stage: Stage::Upgrading, pending: Vec::new() };
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        member.write(request.as_bytes())?;
        Ok(member)
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A member never has more under way than a socket's buffer holds, so a write that does not
    /// fit means that the server does not read.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        match (&self.stream).write(bytes) {
            Ok(length) if length == bytes.len() => Ok(()),
            Ok(_) => Err("the server has stopped reading".into()),
            Err(error) => Err(format!("cannot write to the server: {error}").into()),
        }
    }

    /// Reads once. The first `greeting` text frames are not for `heard`.
    pub fn read(
        &mut self,
        scratch: &mut [u8],
        greeting: usize,
        heard: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Heard> {
        let length = match self.stream.read(scratch) {
            Ok(0) => return Err("the server ended the connection".into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Heard::default()),
            Err(error) => return Err(error.into()),
        };
        if self.pending.is_empty() {
            return self.digest(&scratch[..length], greeting, heard);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend(&scratch[..length]);
        self.digest(&joined, greeting, heard)
    }

    fn digest(
        &mut self,
        mut bytes: &[u8],
        greeting: usize,
        mut heard: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Heard> {
        let mut sum = Heard::default();
        if self.stage == Stage::Upgrading
            && let Some(length) = wire::head_length(bytes)
        {
            check_upgrade(&bytes[..length])?;
            bytes = &bytes[length..];
            self.stage = Stage::Greeting(greeting);
        }
        while self.stage != Stage::Upgrading
            && let Some(frame) = Frame::find(bytes)
        {
            let payload = &bytes[frame.start..frame.end];
            match (frame.kind, self.stage) {
                (wire::TEXT, Stage::Greeting(left @ 1..)) => self.stage = Stage::Greeting(left - 1),
                (wire::TEXT, _) => {
                    heard(payload)?;
                    sum.texts += 1;
                }
                (wire::PING, _) => {
                    self.write(&wire::masked(wire::PONG, payload))?;
                    sum.pings += 1;
                }
                (kind, _) => return Err(unexpected(kind, payload).into()),
            }
            bytes = &bytes[frame.end..];
        }
        if !bytes.is_empty() {
            self.pending = bytes.to_vec();
        }
        if self.stage == Stage::Greeting(0) {
            self.stage = Stage::Open;
            sum.opened = true;
        }
        Ok(sum)
    }
}

impl Drop for Member {
    /// By reset, so that no port stays in TIME_WAIT and the next sample has them all again.
    fn drop(&mut self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).ok();
    }
}

fn check_upgrade(head: &[u8]) -> Result<()> {
    let accept = wire::header(head, "sec-websocket-accept");
    if head.starts_with(b"HTTP/1.1 101 ") && accept == Some(ACCEPT) {
        return Ok(());
    }
    Err(format!("the server refused the upgrade: {}", String::from_utf8_lossy(head)).into())
}

fn unexpected(kind: u8, payload: &[u8]) -> String {
    if kind != wire::CLOSE {
        return format!("the server sent a frame that begins with {kind:#04x}");
    }
    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
    format!("the server closed the socket with {code} {reason}")
}
