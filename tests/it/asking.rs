//! More verbs for what callers ask over HTTP: bodies written to the byte, pages that are turned,
//! and clients that do not read.

use crate::{
    gateway::Gateway,
    http::{Answer, Request},
    patience::DEADLINE,
    raw::{PING, Raw},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use std::{collections::BTreeSet, time::Instant};

/// More than any kernel holds back for a client with a narrow window, so that the queue fills.
const PADDING: usize = 50_000;

impl Gateway {
    /// A JSON body as somebody wrote it, good or not.
    pub fn posts(&self, target: &str, body: impl Into<Vec<u8>>) -> Request {
        self.request("POST", target).with("Content-Type", "application/json").body(body)
    }

    /// The same body in pieces, without a length told before.
    pub async fn posts_in_chunks(&self, target: &str, chunks: &[&[u8]]) -> Answer {
        let head = self.request("POST", target).with("Content-Type", "application/json");
        let mut bytes = head.with("Transfer-Encoding", "chunked").bytes();
        for chunk in chunks {
            bytes.extend(format!("{:x};an=extension\r\n", chunk.len()).as_bytes());
            bytes.extend(*chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\nX-Trailer: ignored\r\n\r\n");
        let mut raw = self.raw().await;
        // A gateway that has heard enough may hang up while we still write; what it said counts.
        let _ = raw.try_write(&bytes).await;
        raw.answer().await
    }

    /// A socket whose client reads only what it is told to read, and its id.
    pub async fn lazy(&self, target: &str) -> (Raw, String) {
        let mut raw = Raw::connect_narrow(self.address()).await;
        raw.upgrade(self.address(), target).await;
        let id = raw.is_greeted().await["socketId"].as_str().unwrap().to_owned();
        (raw, id)
    }

    /// Sends numbered data to a lazy socket until that is refused; returns how many were taken,
    /// and the refusal.
    pub async fn fills(&self, id: &str) -> (usize, Answer) {
        let padding = "x".repeat(PADDING);
        let began = Instant::now();
        for n in 0.. {
            let body = format!(r#"{{"socketId":"{id}","data":[{n},"{padding}"]}}"#);
            let answer = self.posts("/api/send", body).await;
            if answer.status != 200 {
                return (n, answer);
            }
            assert!(began.elapsed() < DEADLINE, "{n} messages were taken for a client that reads nothing");
        }
        unreachable!("it was asked without end");
    }

    /// Follows the links to the next page until there are no more; returns the pages.
    pub async fn pages(&self, target: &str) -> Vec<Value> {
        let mut pages = Vec::new();
        let mut next = Some(target.to_owned());
        while let Some(target) = next {
            let answer = self.get(&target).await;
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            pages.push(answer.json());
            next = answer.next_page();
            assert!(pages.len() < 100, "a walk without end: {target}");
        }
        pages
    }
}

impl Raw {
    /// What the next text holds; pings, which come at their own time, are passed over.
    pub async fn reads(&mut self) -> Value {
        loop {
            let frame = self.frame().await;
            if frame.opcode() != PING {
                return serde_json::from_slice(&frame.payload).unwrap();
            }
        }
    }
}

impl Answer {
    /// Where the link to the next page leads, if there is one.
    pub fn next_page(&self) -> Option<String> {
        let (target, relation) = self.header("Link")?.split_once(';').unwrap();
        assert_eq!(relation.trim().replace('"', ""), "rel=next");
        Some(target.trim().strip_prefix('<').unwrap().strip_suffix('>').unwrap().to_owned())
    }

    /// 422, with what is wrong at which place; the places, sorted.
    pub fn pointers(&self) -> Vec<String> {
        assert_eq!(self.status, 422, "{}", self.text());
        self.is_problem();
        let body = self.json();
        let errors = body["errors"].as_array().unwrap_or_else(|| panic!("no errors in {body}"));
        assert!(errors.iter().all(|error| error["detail"].as_str().is_some_and(|text| !text.is_empty())), "{body}");
        let mut pointers: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect();
        pointers.sort_unstable();
        pointers
    }
}

/// Where a process may open 1024 files unless it asks for more, a thousand sockets do not fit.
pub fn open_more_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// The names of an object's members.
pub fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap_or_else(|| panic!("no object: {object}")).keys().map(String::as_str).collect()
}

/// The texts in a list, in order.
pub fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|text| text.as_str().unwrap_or_else(|| panic!("no text: {text}"))).collect()
}

/// A text as one step of a path, or one value of a query.
pub fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
