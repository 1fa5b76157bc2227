//! The floor of a call: one half of a bare gateway, in one thread with one epoll. What an HTTP caller
//! asks is published to the other half, which writes it to its one client; what the client answers is
//! published back, and the caller gets it. A send is answered as soon as Redis says who heard it.
//!
//! As [`crate::floor`] it believes everybody: there are no rows, no leases, no deadlines and nothing is
//! kept. One read, and one write to each stream that what was read calls for.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::poller::Poller;
use crate::wire::{self, Frame};
use crate::{Result, resp};

/// The subcommand that runs it, followed by the port of Redis, its own channel and that of the other half.
pub const COMMAND: &str = "relay";

const SCRATCH_BYTES: usize = 256 * 1024;

/// The first byte of what is published, and of who waits for Redis.
const ASKED: u8 = b'c';
const REPLIED: u8 = b'r';
const SENT: u8 = b's';

pub fn serve(arguments: &[String]) -> Result<()> {
    let [port, own, other] = arguments else {
        return Err("expected the port of Redis and two channels".into());
    };
    let redis = || TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse::<u16>().unwrap_or_default()));
    let (mut bell, publisher) = (redis()?, redis()?);
    bell.write_all(&resp::command(&[b"SUBSCRIBE", own.as_bytes()]))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let mut relay = Relay::new(listener, [bell, publisher], other)?;
    while !relay.hears {
        relay.turn()?;
    }
    println!("http://{}", relay.listener.local_addr()?);
    println!("ready");
    loop {
        relay.turn()?;
    }
}

/// A stream with what has been read of it and what has to be written.
struct Stream {
    stream: TcpStream,
    pending: Vec<u8>,
    out: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bell,
    Publisher,
    Http,
    Client,
}

struct Relay {
    poller: Poller,
    listener: TcpListener,
    /// By descriptor, as the kernel gives them out.
    streams: Vec<Option<Stream>>,
    publisher: usize,
    /// The one WebSocket here.
    client: Option<usize>,
    other: Vec<u8>,
    hears: bool,
    /// Who is answered when Redis says how many heard what was published.
    waiting: VecDeque<Option<usize>>,
    /// Whose `out` is not empty.
    dirty: Vec<usize>,
    scratch: Vec<u8>,
}

impl Relay {
    fn new(listener: TcpListener, [bell, publisher]: [TcpStream; 2], other: &str) -> Result<Self> {
        let poller = Poller::new()?;
        poller.watch(&listener, listener.as_raw_fd() as u64)?;
        let mut relay = Self {
            poller,
            listener,
            streams: Vec::new(),
            publisher: publisher.as_raw_fd() as usize,
            client: None,
            other: other.as_bytes().to_vec(),
            hears: false,
            waiting: VecDeque::new(),
            dirty: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
        };
        for (stream, kind) in [(bell, Kind::Bell), (publisher, Kind::Publisher)] {
            stream.set_nonblocking(true)?;
            relay.add(stream, kind)?;
        }
        Ok(relay)
    }

    fn add(&mut self, stream: TcpStream, kind: Kind) -> Result<()> {
        let index = stream.as_raw_fd() as usize;
        stream.set_nodelay(true)?;
        self.poller.watch(&stream, index as u64)?;
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, || None);
        }
        self.streams[index] = Some(Stream { stream, pending: Vec::new(), out: Vec::new(), kind });
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let listener = self.listener.as_raw_fd() as u64;
        for event in 0..self.poller.wait(None)? {
            match self.poller.token(event) {
                token if token == listener => self.accept()?,
                index => self.read(index as usize)?,
            }
            self.write()?;
        }
        Ok(())
    }

    /// What one read called for, once to each stream that it is for.
    fn write(&mut self) -> Result<()> {
        while let Some(index) = self.dirty.pop() {
            if let Some(stream) = &mut self.streams[index] {
                // What does not fit is lost with an error: nobody here has more under way than a buffer holds.
                if rustix::io::write(&stream.stream, &stream.out) != Ok(stream.out.len()) {
                    return Err("a stream does not take what is written to it".into());
                }
                stream.out.clear();
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(stream) => {
                    sockopt::set_tcp_nodelay(&stream, true)?;
                    self.add(TcpStream::from(stream), Kind::Http)?;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = self.read_with(index, &mut scratch);
        self.scratch = scratch;
        read
    }

    fn read_with(&mut self, index: usize, scratch: &mut [u8]) -> Result<()> {
        let Some(stream) = self.streams.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        let length = match rustix::io::read(&stream.stream, &mut *scratch) {
            Ok(0) if matches!(stream.kind, Kind::Http | Kind::Client) => {
                self.streams[index] = None;
                self.client = self.client.filter(|client| *client != index);
                return Ok(());
            }
            Ok(0) => return Err("Redis ended the connection".into()),
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(()),
            Err(_) if matches!(stream.kind, Kind::Http | Kind::Client) => {
                self.streams[index] = None;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let kind = stream.kind;
        let mut joined = std::mem::take(&mut stream.pending);
        let bytes = if joined.is_empty() {
            &mut scratch[..length]
        } else {
            joined.extend(&scratch[..length]);
            &mut joined[..]
        };
        let mut used = 0;
        while used < bytes.len() {
            let rest = &mut bytes[used..];
            let one = match kind {
                Kind::Bell => self.rung(rest)?,
                Kind::Publisher => self.published(rest)?,
                Kind::Http => self.request(index, rest)?,
                Kind::Client => self.frame(rest)?,
            };
            match one {
                Some(length) => used += length,
                None => break,
            }
        }
        if let Some(stream) = self.streams[index].as_mut().filter(|_| used < bytes.len()) {
            stream.pending = bytes[used..].to_vec();
        }
        Ok(())
    }

    /// What a stream is to be sent when all of a read is done.
    fn out(&mut self, index: usize) -> Option<&mut Vec<u8>> {
        let stream = self.streams.get_mut(index)?.as_mut()?;
        if stream.out.is_empty() {
            self.dirty.push(index);
        }
        Some(&mut stream.out)
    }

    fn publish(&mut self, parts: &[&[u8]], waits: Option<usize>) {
        self.waiting.push_back(waits);
        let other = std::mem::take(&mut self.other);
        if let Some(out) = self.out(self.publisher) {
            resp::publish(out, &other, parts);
        }
        self.other = other;
    }

    fn request(&mut self, index: usize, bytes: &[u8]) -> Result<Option<usize>> {
        let Some(head) = wire::head_length(bytes) else { return Ok(None) };
        let length = head + wire::content_length(&bytes[..head]);
        if bytes.len() < length {
            return Ok(None);
        }
        let (head, body) = bytes[..length].split_at(head);
        if let Some(key) = wire::header(head, "sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            self.client = Some(index);
            if let Some(stream) = &mut self.streams[index] {
                stream.kind = Kind::Client;
            }
            if let Some(out) = self.out(index) {
                write!(
                    out,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                )?;
            }
            return Ok(Some(length));
        }
        let data = wire::find(body, br#""data":"#).map(|at| &body[at + 7..body.len() - 1]);
        let data = data.ok_or("a request without data")?;
        if head.starts_with(b"POST /api/call ") {
            let from = index.to_string();
            self.publish(&[&[ASKED], from.as_bytes(), b" ", data], None);
        } else {
            self.publish(&[&[SENT], data], Some(index));
        }
        Ok(Some(length))
    }

    /// What the other half has published.
    fn rung(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let Some((words, length)) = resp::words(bytes)? else { return Ok(None) };
        if words.first() != Some(&&b"message"[..]) {
            self.hears = true;
            return Ok(Some(length));
        }
        let [_, _, said] = words;
        let (kind, said) = said.split_first().ok_or("an empty message")?;
        if *kind == SENT {
            self.tell_client(&[br#"{"type":"m","data":"#, said, b"}"])?;
            return Ok(Some(length));
        }
        let at = said.iter().position(|byte| *byte == b' ').ok_or("a message without a caller")?;
        let (caller, data) = (&said[..at], &said[at + 1..]);
        if *kind == ASKED {
            self.tell_client(&[br#"{"type":"m","callId":""#, caller, br#"","data":"#, data, b"}"])?;
        } else {
            let caller: usize = std::str::from_utf8(caller)?.parse()?;
            self.answer(caller, &[br#"{"status":"replied","result":"#, data, b"}"])?;
        }
        Ok(Some(length))
    }

    fn tell_client(&mut self, parts: &[&[u8]]) -> Result<()> {
        let client = self.client.ok_or("nobody is connected here")?;
        let frame = wire::plain(wire::TEXT, &parts.concat());
        if let Some(out) = self.out(client) {
            out.extend(frame);
        }
        Ok(())
    }

    fn answer(&mut self, caller: usize, parts: &[&[u8]]) -> Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if let Some(out) = self.out(caller) {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")?;
            parts.iter().for_each(|part| out.extend(*part));
        }
        Ok(())
    }

    /// How many heard what was published longest ago.
    fn published(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let Some(length) = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1) else { return Ok(None) };
        if &bytes[..length] != b":1\r\n" {
            return Err(format!("one was to hear it: {}", String::from_utf8_lossy(&bytes[..length])).into());
        }
        if let Some(Some(caller)) = self.waiting.pop_front() {
            self.answer(caller, &[br#"{"status":"delivered","delivered":1}"#])?;
        }
        Ok(Some(length))
    }

    /// What the client answers goes back to the other half.
    fn frame(&mut self, bytes: &mut [u8]) -> Result<Option<usize>> {
        let Some(frame) = Frame::find(bytes) else { return Ok(None) };
        let payload = &mut bytes[frame.start..frame.end];
        if let Some(key) = frame.key {
            for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
        if frame.kind == wire::TEXT {
            let rest = payload.strip_prefix(br#"{"type":"reply","callId":""#).ok_or("a frame that is no reply")?;
            let at = wire::find(rest, br#"","data":"#).ok_or("a reply without data")?;
            let (caller, data) = (&rest[..at], &rest[at + 9..rest.len() - 1]);
            self.publish(&[&[REPLIED], caller, b" ", data], None);
        }
        Ok(Some(frame.end))
    }
}
