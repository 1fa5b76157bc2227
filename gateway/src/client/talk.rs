//! HTTP as it stands on the wire. Who shows both sides of an exchange has to write and read them himself: a library
//! would set right what went wrong on the way.

use super::dial::Connection;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More than any gateway or proxy answers with.
const HEAD_BYTES_MAX: usize = 64 << 10;
const LINE_BYTES_MAX: usize = 4096;
/// Nobody writes larger pieces; whoever says so wants to fill our memory.
const CHUNK_BYTES_MAX: usize = 16 << 20;
/// Headers whose values are nobody's business.
const SECRETS: [&str; 6] =
    ["authorization", "cookie", "set-cookie", "x-api-key", "x-nano-key", "sec-websocket-protocol"];

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    method: &'static str,
    /// Path and query.
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Asked {
    pub fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: String::new() }
    }

    pub fn post(target: impl Into<String>, body: &Value) -> Self {
        let asked = Self { body: body.to_string(), ..Self::new("POST", target) };
        let length = asked.body.len().to_string();
        asked.with("Content-Type", "application/json").with("Content-Length", length)
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn target(&self) -> &str {
        &self.target
    }

    fn head(&self, shown: impl Fn(&str, &str) -> String) -> String {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {}\r\n", shown(name, value))).collect();
        format!("{} {} HTTP/1.1\r\n{headers}\r\n", self.method, self.target)
    }

    /// Its lines for somebody to read, without what is secret in them.
    pub fn lines(&self) -> Vec<String> {
        let target = crate::http::redact::target(&self.target);
        let head = Self { target, ..self.clone() }.head(harmless);
        head.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

/// A value that may be shown.
fn harmless(name: &str, value: &str) -> String {
    let is_secret = SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name));
    match is_secret {
        true => "***".to_owned(),
        // Whoever sends elsewhere takes the query along.
        false if name.eq_ignore_ascii_case("location") => crate::http::redact::target(value),
        false => value.to_owned(),
    }
}

/// Where the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Bytes(usize),
    Chunks,
    UntilTheEnd,
}

/// An answer: its head, and the connection on which its body comes.
pub struct Heard {
    pub status: u16,
    lines: Vec<String>,
    connection: Connection,
    /// What has come and was not read yet.
    pub unread: Vec<u8>,
    rest: Rest,
}

/// Asks, and reads the head of the answer.
pub async fn ask(mut connection: Connection, asked: &Asked) -> Result<Heard, String> {
    let broken = |error: std::io::Error| error.to_string();
    let bytes = asked.head(|_, value| value.to_owned()) + &asked.body;
    connection.write_all(bytes.as_bytes()).await.map_err(broken)?;
    connection.flush().await.map_err(broken)?;
    let mut unread = Vec::new();
    let end = loop {
        if let Some(at) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if unread.len() > HEAD_BYTES_MAX {
            return Err("the head of its answer does not end".into());
        }
        if read_more(&mut connection, &mut unread).await? == 0 {
            return Err(match unread.is_empty() {
                true => "it hung up without an answer".into(),
                false => "what it answers is no HTTP".into(),
            });
        }
        if !b"HTTP/1.".starts_with(&unread[..unread.len().min(7)]) {
            return Err("what it answers is no HTTP".into());
        }
    };
    let head = String::from_utf8_lossy(&unread[..end]).into_owned();
    unread.drain(..end);
    let lines: Vec<_> = head.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or("what it answers is no HTTP")?;
    let mut heard = Heard { status, lines, connection, unread, rest: Rest::UntilTheEnd };
    let is_chunked = heard.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let length = heard.header("content-length").and_then(|length| length.parse().ok());
    heard.rest = match (is_chunked, length) {
        (true, _) => Rest::Chunks,
        (false, Some(length)) => Rest::Bytes(length),
        (false, None) if status == 204 || status == 304 => Rest::Bytes(0),
        (false, None) => Rest::UntilTheEnd,
    };
    Ok(heard)
}

async fn read_more(connection: &mut Connection, unread: &mut Vec<u8>) -> Result<usize, String> {
    match connection.read_buf(unread).await {
        Ok(length) => Ok(length),
        // Some servers of TLS leave without a word.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(error.to_string()),
    }
}

impl Heard {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.lines.iter().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The head for somebody to read, without what is secret in it.
    pub fn lines(&self) -> Vec<String> {
        let shown = |line: &String| match line.split_once(':') {
            Some((name, value)) => format!("{name}: {}", harmless(name, value.trim())),
            None => line.clone(),
        };
        self.lines.iter().map(shown).collect()
    }

    /// The first line.
    pub fn status_line(&self) -> &str {
        self.lines.first().map_or("", String::as_str)
    }

    /// The next bytes of the body; nothing at its end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        match self.rest {
            Rest::Bytes(0) => Ok(None),
            Rest::Bytes(left) => {
                if self.unread.is_empty() && self.more().await? == 0 {
                    return Err("its answer broke off".into());
                }
                let piece: Vec<_> = self.unread.drain(..left.min(self.unread.len())).collect();
                self.rest = Rest::Bytes(left - piece.len());
                Ok(Some(piece))
            }
            Rest::UntilTheEnd => {
                if self.unread.is_empty() && self.more().await? == 0 {
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.unread)))
            }
            Rest::Chunks => self.chunk().await,
        }
    }

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, String> {
        let end = loop {
            if let Some(at) = self.unread.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            if self.unread.len() > LINE_BYTES_MAX || self.more().await? == 0 {
                return Err("its answer broke off".into());
            }
        };
        let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok().filter(|size| *size <= CHUNK_BYTES_MAX);
        let size = size.ok_or("its answer cannot be read")?;
        self.unread.drain(..end + 2);
        while self.unread.len() < size + 2 {
            if self.more().await? == 0 {
                return Err("its answer broke off".into());
            }
        }
        let piece: Vec<_> = self.unread.drain(..size).collect();
        self.unread.drain(..2);
        if size == 0 {
            self.rest = Rest::Bytes(0);
            return Ok(None);
        }
        Ok(Some(piece))
    }

    async fn more(&mut self) -> Result<usize, String> {
        read_more(&mut self.connection, &mut self.unread).await
    }

    /// The whole body, if it is not larger than that.
    pub async fn whole(&mut self, bytes_max: usize) -> Result<Vec<u8>, String> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next().await? {
            whole.extend(piece);
            if whole.len() > bytes_max {
                return Err("its answer is too large".into());
            }
        }
        Ok(whole)
    }

    /// The connection, and what has come on it behind the head.
    pub fn into_parts(self) -> (Connection, Vec<u8>) {
        (self.connection, self.unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_holds_no_secret() {
        let asked = Asked::new("GET", "/ws?user_id=u&key=hush&ticket=hush");
        let asked = asked.with("Host", "web1").with("cookie", "sid=hush").with("X-API-Key", "hush");
        let asked = asked.with("Authorization", "Bearer hush").with("Sec-WebSocket-Protocol", "bearer.hush");
        assert_eq!(
            asked.lines(),
            [
                "GET /ws?user_id=u&key=***&ticket=*** HTTP/1.1",
                "Host: web1",
                "cookie: ***",
                "X-API-Key: ***",
                "Authorization: ***",
                "Sec-WebSocket-Protocol: ***",
            ]
        );
        assert_eq!(harmless("Location", "https://web1/ws?key=hush"), "https://web1/ws?key=***");
    }
}
