//! Requests and answers. Written to the byte, since many facts are about requests that no HTTP
//! library would send.

use crate::{patience::soon, raw::Raw, stream::Stream};
use serde_json::Value;
use std::{
    future::{Future, IntoFuture},
    net::SocketAddr,
    pin::Pin,
};

/// The key of RFC 6455's example, and what has to be answered to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request; awaiting it sends it over a connection of its own.
#[derive(Debug, Clone)]
pub struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        let request =
            Self { address, method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() };
        request.with("Host", &address.to_string()).with("Connection", "close")
    }

    pub fn knock(address: SocketAddr, target: &str) -> Self {
        Self::new(address, "GET", target)
            .but("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", KEY)
    }

    /// One header line more.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// That header with another value.
    pub fn but(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.with("Content-Type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    async fn send(self) -> Answer {
        let mut connection = Raw::connect(self.address).await;
        // A gateway that has heard enough may hang up while we still write; what it said counts.
        let _ = connection.try_write(&self.bytes()).await;
        connection.answer_to(&self.method).await
    }
}

impl Request {
    /// Sends it, and listens to the events that are its answer.
    pub async fn streams(self) -> Stream {
        let wants = self.with("Accept", "text/event-stream");
        let mut raw = Raw::connect(wants.address).await;
        raw.write(&wants.bytes()).await;
        Stream::over(raw).await
    }
}

impl IntoFuture for Request {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let what = format!("{} {} is answered", self.method, self.target);
        Box::pin(async move { soon(&what, self.send()).await })
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads a head; the body comes later.
    pub fn head(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Self { status, headers, body: Vec::new() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A refusal with every member that the contract gives to one; returns its body.
    pub fn refuses(&self, status: u16, title: &str) -> Value {
        assert_eq!(self.status, status, "{title}: {}", self.text());
        let body = self.json();
        assert_eq!(body["title"], title);
        self.is_problem();
        body
    }

    /// Whatever it says, it says it as the contract wants refusals to be said.
    pub fn is_problem(&self) {
        let body = self.json();
        assert_eq!(body["status"], self.status, "{body}");
        for member in ["title", "error", "code", "hint", "requestId"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "no {member} in {body}");
        }
        assert_eq!(body["requestId"].as_str(), self.header("X-Request-Id"));
        if let 429 | 503 = self.status {
            let seconds = self.header("Retry-After").and_then(|seconds| seconds.parse::<u64>().ok());
            assert!(seconds.is_some(), "no Retry-After: {:?}", self.headers);
        }
    }
}
