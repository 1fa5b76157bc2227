//! One HTTP caller, made so that it costs next to nothing: its requests are bytes in which a number
//! changes, and its answer is looked at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::Act;
use crate::{Result, wire};

/// The JSON of a call's `data`, and of what the client answers: a string that says who asks and for the
/// how-manieth time, and is filled up.
pub const DATA_BYTES: usize = 128;
const CALLER_DIGITS: usize = 4;
const NUMBER_DIGITS: usize = 10;

pub struct Asker {
    stream: TcpStream,
    /// By [`Act`].
    requests: [Vec<u8>; 3],
    /// What is asked for now.
    data: [u8; DATA_BYTES],
    pub number: u64,
    /// What it waits for, and since when; an open load counts from when it was due.
    pub under_way: Option<(Act, Instant)>,
    pending: Vec<u8>,
}

impl Asker {
    pub fn connect(address: SocketAddr, socket: &str, caller: usize) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut data = [b'x'; DATA_BYTES];
        data[0] = b'"';
        data[1..=CALLER_DIGITS].copy_from_slice(format!("{caller:04}").as_bytes());
        data[DATA_BYTES - 1] = b'"';
        let requests =
            [("/api/call", ""), ("/api/send", ""), ("/api/send", r#","durable":true"#)].map(|(target, more)| {
                // The data ends the body, so that its place is known.
                let body = format!(r#"{{"socketId":"{socket}","event":"m"{more},"data":{}}}"#, "x".repeat(DATA_BYTES));
                format!(
                    "POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .into_bytes()
            });
        Ok(Self { stream, requests, data, number: 0, under_way: None, pending: Vec::new() })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Asks once more.
    pub fn ask(&mut self, act: Act, since: Instant) -> Result<()> {
        self.number += 1;
        let digits = format!("{:0width$}", self.number, width = NUMBER_DIGITS);
        self.data[1 + CALLER_DIGITS..][..NUMBER_DIGITS].copy_from_slice(digits.as_bytes());
        let request = &mut self.requests[act as usize];
        let at = request.len() - 1 - DATA_BYTES;
        request[at..at + DATA_BYTES].copy_from_slice(&self.data);
        self.under_way = Some((act, since));
        // A request always fits an idle connection.
        Ok(self.stream.write_all(request)?)
    }

    /// What has been answered, and since when it was waited for. Any other answer than the right one is an error.
    pub fn answered(&mut self, scratch: &mut [u8]) -> Result<Option<(Act, Instant)>> {
        let length = match self.stream.read(scratch) {
            Ok(0) => return Err("the server hung up on a caller".into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let joined;
        let bytes = if self.pending.is_empty() {
            &scratch[..length]
        } else {
            joined = [&self.pending, &scratch[..length]].concat();
            &joined[..]
        };
        let head = wire::head_length(bytes);
        let Some(head) = head.filter(|head| bytes.len() >= head + wire::content_length(&bytes[..*head])) else {
            self.pending = bytes.to_vec();
            return Ok(None);
        };
        let body = &bytes[head..];
        let is = |status: &[u8]| bytes.strip_prefix(b"HTTP/1.1 ").is_some_and(|rest| rest.starts_with(status));
        let says = |words: &[u8]| wire::find(body, words).is_some();
        let is_right = match self.under_way {
            Some((Act::Call, _)) => {
                let result = wire::find(body, br#""result":"#).map(|at| &body[at + 9..]);
                is(b"200 ") && result.is_some_and(|result| result.starts_with(&self.data))
            }
            Some((Act::Send, _)) => is(b"200 ") && says(br#""delivered":1"#),
            // What came out of turn is read from the log a moment later; the client has to hear that, too.
            Some((Act::Durable, _)) => is(b"202 ") && (says(br#""delivered":1"#) || says(br#""queued":1"#)),
            None => false,
        };
        if !is_right {
            return Err(format!("caller was answered: {}", String::from_utf8_lossy(bytes)).into());
        }
        self.pending.clear();
        Ok(self.under_way.take())
    }
}

/// Who asks, and for the how-manieth time.
pub fn sender(data: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(data.get(1..=CALLER_DIGITS + NUMBER_DIGITS)?).ok()?;
    let (caller, number) = text.split_at(CALLER_DIGITS);
    Some((caller.parse().ok()?, number.parse().ok()?))
}
