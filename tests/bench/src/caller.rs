//! One HTTP caller with one request under way, on a connection that stays.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::{Result, wire};

pub struct Caller {
    stream: TcpStream,
    address: SocketAddr,
    pending: Vec<u8>,
}

impl Caller {
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, address, pending: Vec::new() })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn post(&mut self, target: &str, body: &str) -> Result<()> {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        // A few kilobytes always fit an idle connection.
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Whether the answer has come; one that is not 200 is an error.
    pub fn answered(&mut self) -> Result<bool> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err("the server hung up on the caller".into()),
            Ok(length) => self.pending.extend(&chunk[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let Some(head) = wire::head_length(&self.pending) else {
            return Ok(false);
        };
        let length = head + wire::content_length(&self.pending[..head]);
        if self.pending.len() < length {
            return Ok(false);
        }
        if !self.pending.starts_with(b"HTTP/1.1 200 ") {
            return Err(format!("the server answered: {}", String::from_utf8_lossy(&self.pending)).into());
        }
        self.pending.drain(..length);
        Ok(true)
    }
}
