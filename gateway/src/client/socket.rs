//! A WebSocket, as its client holds it.

use super::{
    dial::Connection,
    talk::{Asked, Heard},
};
use crate::wire::{self, Heard as Frame, Wire};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// No gateway says more at once.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long the other side has to answer a close.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the other side may take nothing of what is said.
const UNREAD_MAX: Duration = Duration::from_secs(5);
/// What there is where no close frame came.
const ABNORMAL: u16 = 1006;
const HUNG_UP: &str = "the connection ended without a close frame";

/// A socket that is open.
pub struct Socket {
    connection: Connection,
    wire: Wire,
    unread: Vec<u8>,
    /// What has to be written still.
    unwritten: Vec<u8>,
}

/// What comes on it.
#[derive(Debug)]
pub enum Said {
    Text(String),
    Binary(Bytes),
    Closed(Closed),
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Closed {
    pub code: u16,
    pub reason: String,
}

impl Closed {
    fn without_a_word(why: impl Into<String>) -> Self {
        Self { code: ABNORMAL, reason: why.into() }
    }
}

/// The headers of a handshake, and the key that its answer is checked with.
pub fn knock(asked: Asked) -> (Asked, String) {
    let key = STANDARD.encode(std::array::from_fn::<u8, 16, _>(|_| fastrand::u8(..)));
    let asked = asked.with("Connection", "Upgrade").with("Upgrade", "websocket");
    (asked.with("Sec-WebSocket-Version", "13").with("Sec-WebSocket-Key", &*key), key)
}

impl Socket {
    /// Out of the answer to a handshake; the error says what is wrong with it.
    pub fn of(heard: Heard, key: &str) -> Result<Self, String> {
        let header = |name: &str| heard.header(name).unwrap_or_default();
        if heard.status != 101 {
            return Err(format!("it answered {}", heard.status_line()));
        }
        if !header("upgrade").eq_ignore_ascii_case("websocket") {
            return Err("the answer has no Upgrade: websocket".into());
        }
        if header("sec-websocket-accept") != wire::accept(key) {
            return Err("its Sec-WebSocket-Accept does not belong to the key that was sent".into());
        }
        let (connection, unread) = heard.into_parts();
        Ok(Self { connection, wire: Wire::new(Some(MESSAGE_BYTES_MAX)), unread, unwritten: Vec::new() })
    }

    /// Says a text; an error where it has broken, or nobody takes it.
    pub async fn say(&mut self, text: &str) -> Result<(), String> {
        self.unwritten.extend(wire::text_of_a_client(text.to_owned()));
        self.write().await
    }

    /// Whoever is dropped in the middle has lost nothing.
    async fn write(&mut self) -> Result<(), String> {
        let broken = |error: std::io::Error| error.to_string();
        let unread = |_| format!("the other side has read nothing for {} s", UNREAD_MAX.as_secs());
        while !self.unwritten.is_empty() {
            let length = timeout(UNREAD_MAX, self.connection.write(&self.unwritten)).await.map_err(unread)?;
            self.unwritten.drain(..length.map_err(broken)?);
        }
        timeout(UNREAD_MAX, self.connection.flush()).await.map_err(unread)?.map_err(broken)
    }

    /// What comes next; pings are answered meanwhile. May be dropped and called again.
    pub async fn next(&mut self) -> Said {
        loop {
            // What has come is read also where nothing can be written any more: it may say why.
            let broken = if self.unwritten.is_empty() { None } else { self.write().await.err() };
            let mut input = &self.unread[..];
            let heard = self.wire.read_of_a_gateway(&mut input, &mut self.unwritten);
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            match heard {
                Ok(Some(Frame::Text(text))) => return Said::Text(String::from_utf8_lossy(&text).into_owned()),
                Ok(Some(Frame::Binary(bytes))) => return Said::Binary(bytes),
                Ok(Some(Frame::Ping | Frame::Pong)) => continue,
                Ok(Some(Frame::Close(frame))) => {
                    let closed = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                    // 1005 is what there is where a close frame says nothing.
                    let (code, reason) = closed.unwrap_or((1005, String::new()));
                    let _ = self.write().await;
                    return Said::Closed(Closed { code, reason });
                }
                // An answer is written before more is waited for.
                Ok(None) if !self.unwritten.is_empty() && broken.is_none() => continue,
                Ok(None) => {}
                Err(fault) => {
                    let reason = format!("what it says cannot be read: {fault:?}");
                    return Said::Closed(Closed { code: 1002, reason });
                }
            }
            match self.connection.read_buf(&mut self.unread).await {
                Ok(0) => return Said::Closed(Closed::without_a_word(broken.as_deref().unwrap_or(HUNG_UP))),
                Ok(_) => {}
                Err(error) => return Said::Closed(Closed::without_a_word(error.to_string())),
            }
        }
    }

    /// The next text within so much time; the error says what came instead.
    pub async fn hear(&mut self, within: Duration) -> Result<String, String> {
        match timeout(within, self.next()).await {
            Ok(Said::Text(text)) => Ok(text),
            Ok(Said::Binary(bytes)) => Err(format!("a binary frame of {} bytes came", bytes.len())),
            Ok(Said::Closed(Closed { code, reason })) => Err(format!("it was closed with {code} ({reason})")),
            Err(_) => Err(format!("nothing came within {} s", within.as_secs())),
        }
    }

    /// Says goodbye, and waits a moment for the answer.
    pub async fn close(mut self) {
        self.unwritten.extend(wire::close_of_a_client(1000, ""));
        let ends = async {
            if self.write().await.is_ok() {
                while !matches!(self.next().await, Said::Closed(_)) {}
            }
        };
        // Who does not answer, or does not even read, is left.
        let _ = timeout(FAREWELL, ends).await;
    }
}
