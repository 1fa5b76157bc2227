//! Server-sent events, read as a browser reads them.

use crate::{http::Answer, patience::soon, raw::Raw};
use serde_json::Value;

/// One event. A comment has no name and no data.
#[derive(Debug, Default, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
    pub id: Option<String>,
    pub retry: Option<u64>,
}

/// An answer that goes on.
pub struct Stream {
    raw: Raw,
    pub answer: Answer,
    unread: String,
}

impl Stream {
    /// What follows a request that was written.
    pub async fn over(mut raw: Raw) -> Self {
        let mut answer = soon("the answer begins", raw.head()).await;
        if answer.header("content-type") != Some("text/event-stream") {
            answer.body = match answer.header("content-length") {
                Some(_) => soon("the answer is whole", raw.rest()).await,
                None => Vec::new(),
            };
            panic!("no stream: {} {}", answer.status, answer.text());
        }
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        // nginx keeps this one to itself.
        let unbuffered = answer.header("x-accel-buffering");
        assert!(unbuffered == Some("no") || answer.header("server").is_some(), "{:?}", answer.headers);
        Self { raw, answer, unread: String::new() }
    }

    /// The next event or comment; nothing at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((text, rest)) = self.unread.split_once("\n\n") {
                let event = parse(text);
                self.unread = rest.to_owned();
                return Some(event);
            }
            let Some(chunk) = soon("an event comes", self.raw.chunk()).await else {
                assert_eq!(self.unread, "", "ended within an event");
                return None;
            };
            self.unread.push_str(&String::from_utf8(chunk).unwrap());
        }
    }

    /// The next that is no comment.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            match self.next().await {
                Some(event) if event.name.is_empty() => {}
                other => return other,
            }
        }
    }

    /// The next one, which is called so; its data.
    pub async fn hears(&mut self, name: &str) -> Value {
        let event = self.event().await;
        let event = event.unwrap_or_else(|| panic!("ended before {name}"));
        assert_eq!(event.name, name, "{event:?}");
        event.data
    }

    /// The connection under it breaks.
    pub fn breaks(self) {
        self.raw.breaks();
    }

    /// Nothing more comes, and the answer is whole.
    pub async fn ends(&mut self) {
        assert_eq!(self.event().await, None);
    }
}

fn parse(text: &str) -> Event {
    let (mut event, mut data) = (Event::default(), Vec::new());
    for line in text.lines() {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("event", name) => event.name = name.to_owned(),
            ("data", line) => data.push(line),
            ("id", id) => event.id = Some(id.to_owned()),
            ("retry", after) => event.retry = Some(after.parse().unwrap()),
            (comment, _) => assert!(comment.is_empty() || comment == ":", "{line:?}"),
        }
    }
    if !data.is_empty() {
        event.data = serde_json::from_str(&data.join("\n")).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    event
}
