//! The floor: what the same work costs a server that does nothing else.
//!
//! One thread, one epoll, one read per readiness and one write per answer. It believes its client:
//! no checks, no limits, no registry, no queue. What a gateway costs above it is what its promises
//! cost.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, listen, sockopt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::Result;
use crate::poller::Poller;
use crate::wire::{self, Frame};

/// The subcommand that runs it.
pub const COMMAND: &str = "floor";

const BACKLOG: i32 = 4096;
const SCRATCH_BYTES: usize = 64 * 1024;
const NO_ROOM: u32 = u32::MAX;

pub fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    // Again: std chooses a backlog for us that a burst of handshakes could overflow.
    listen(&listener, BACKLOG)?;
    println!("http://{}", listener.local_addr()?);
    println!("ready");
    Floor::new(listener)?.run()
}

struct Connection {
    stream: OwnedFd,
    upgraded: bool,
    room: u32,
    /// The beginning of something whose end has not come; mostly empty.
    pending: Vec<u8>,
}

struct Floor {
    poller: Poller,
    listener: TcpListener,
    connections: Connections,
    pong: Vec<u8>,
}

/// By descriptor: the kernel gives out the lowest one that is free, which makes it a slab.
#[derive(Default)]
struct Connections {
    slots: Vec<Option<Connection>>,
    names: HashMap<Vec<u8>, u32>,
    rooms: Vec<Vec<u32>>,
}

impl Floor {
    fn new(listener: TcpListener) -> Result<Self> {
        let poller = Poller::new()?;
        poller.watch(&listener, listener.as_raw_fd() as u64)?;
        let pong = wire::plain(wire::TEXT, br#"{"evt":"pong"}"#);
        Ok(Self { poller, listener, connections: Connections::default(), pong })
    }

    fn run(mut self) -> Result<()> {
        let listener = self.listener.as_raw_fd() as u64;
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut out = Vec::with_capacity(SCRATCH_BYTES);
        loop {
            for index in 0..self.poller.wait(None)? {
                let token = self.poller.token(index);
                if token == listener {
                    self.accept()?;
                } else if !self.serve(token as usize, &mut scratch, &mut out) {
                    self.connections.remove(token as usize);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(stream) => {
                    sockopt::set_tcp_nodelay(&stream, true)?;
                    self.poller.watch(&stream, stream.as_raw_fd() as u64)?;
                    self.connections.add(stream);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads once, answers once; false when the connection is over.
    fn serve(&mut self, index: usize, scratch: &mut [u8], out: &mut Vec<u8>) -> bool {
        let Some(connection) = self.connections.get(index) else {
            return true;
        };
        let length = match rustix::io::read(&connection.stream, &mut *scratch) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return error == Errno::AGAIN,
        };
        let mut joined = std::mem::take(&mut connection.pending);
        let bytes = if joined.is_empty() {
            &mut scratch[..length]
        } else {
            joined.extend(&scratch[..length]);
            &mut joined[..]
        };
        out.clear();
        let Some(used) = self.digest(index, bytes, out) else {
            return false;
        };
        let Some(connection) = self.connections.get(index) else {
            return true;
        };
        if used < bytes.len() {
            connection.pending = bytes[used..].to_vec();
        }
        out.is_empty() || send(connection, out)
    }

    /// Handles what is there as a whole and returns its length; `None` ends the connection.
    fn digest(&mut self, index: usize, bytes: &mut [u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &mut bytes[used..];
            let length = if self.connections.get(index)?.upgraded {
                let Some(frame) = Frame::find(rest) else {
                    break;
                };
                self.frame(&frame, rest, out)?;
                frame.end
            } else {
                let Some(head) = wire::head_length(rest) else {
                    break;
                };
                let length = head + wire::content_length(&rest[..head]);
                if rest.len() < length {
                    break;
                }
                self.request(index, &rest[..head], &rest[head..length], out)?;
                length
            };
            used += length;
        }
        Some(used)
    }

    fn frame(&self, frame: &Frame, bytes: &mut [u8], out: &mut Vec<u8>) -> Option<()> {
        let payload = &mut bytes[frame.start..frame.end];
        if let Some(key) = frame.key {
            for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
        match frame.kind {
            wire::TEXT if payload == br#"{"evt":"ping"}"# => out.extend(&self.pong),
            wire::TEXT | wire::PONG => {}
            wire::PING => out.extend(wire::plain(wire::PONG, payload)),
            _ => return None,
        }
        Some(())
    }

    fn request(&mut self, index: usize, head: &[u8], body: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let target = head.split(|byte| *byte == b' ').nth(1)?;
        if let Some(key) = wire::header(head, "sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            out.extend(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
            out.extend(accept.as_bytes());
            out.extend(b"\r\n\r\n");
            self.connections.upgrade(index, room_id(target));
            return Some(());
        }
        let room = target.strip_prefix(b"/api/rooms/")?.strip_suffix(b"/send")?;
        let delivered = self.connections.send(room, &encode(body)?);
        let answer = format!("{{\"status\":\"delivered\",\"delivered\":{delivered}}}");
        out.extend(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
                answer.len()
            )
            .as_bytes(),
        );
        Some(())
    }
}

impl Connections {
    fn get(&mut self, index: usize) -> Option<&mut Connection> {
        self.slots.get_mut(index)?.as_mut()
    }

    fn add(&mut self, stream: OwnedFd) {
        let index = stream.as_raw_fd() as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Connection { stream, upgraded: false, room: NO_ROOM, pending: Vec::new() });
    }

    fn upgrade(&mut self, index: usize, room: Option<&[u8]>) {
        let room = room.map_or(NO_ROOM, |name| self.room(name));
        if let Some(connection) = self.get(index) {
            connection.upgraded = true;
            connection.room = room;
        }
        if let Some(members) = self.rooms.get_mut(room as usize) {
            members.push(index as u32);
        }
    }

    fn room(&mut self, name: &[u8]) -> u32 {
        if let Some(room) = self.names.get(name) {
            return *room;
        }
        let room = self.rooms.len() as u32;
        self.rooms.push(Vec::new());
        self.names.insert(name.to_vec(), room);
        room
    }

    fn remove(&mut self, index: usize) {
        let Some(connection) = self.slots.get_mut(index).and_then(Option::take) else {
            return;
        };
        if let Some(members) = self.rooms.get_mut(connection.room as usize) {
            members.retain(|member| *member as usize != index);
        }
    }

    /// One write per member, and no second try.
    fn send(&mut self, room: &[u8], frame: &[u8]) -> usize {
        let Some(room) = self.names.get(room) else {
            return 0;
        };
        let members = &self.rooms[*room as usize];
        let reached = |member: &&u32| self.slots[**member as usize].as_ref().is_some_and(|member| send(member, frame));
        members.iter().filter(reached).count()
    }
}

fn send(connection: &Connection, bytes: &[u8]) -> bool {
    rustix::io::write(&connection.stream, bytes) == Ok(bytes.len())
}

fn room_id(target: &[u8]) -> Option<&[u8]> {
    let name = b"room_id=";
    let at = wire::find(target, name)? + name.len();
    target[at..].split(|byte| *byte == b'&').next()
}

/// `{"event":E,"data":D}` becomes the frame `{"type":E,"data":D}`.
fn encode(body: &[u8]) -> Option<Vec<u8>> {
    let rest = body.strip_prefix(br#"{"event":"#)?;
    Some(wire::plain(wire::TEXT, &[br#"{"type":"#, rest].concat()))
}
