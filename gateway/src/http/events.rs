//! Server-sent events: how they are written, and the body that brings them one by one. Nothing runs beside
//! it: what tells the events is polled by the connection, so that it goes only as fast as they are read,
//! and ends when the caller hangs up.

use super::Body;
use crate::{json::Members, problem::Problem, socket::listen::Word};
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use hyper::{
    HeaderMap, Response,
    body::Frame,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue},
};
use registry::Ending;
use serde_json::json;
use std::{
    any::Any,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};

const MEDIA: &str = "text/event-stream";
/// After so long without an event comes a comment. Proxies cut what is silent for longer, some after 30 s.
const QUIET: Duration = Duration::from_secs(15);

/// One event, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event(Bytes);

impl Event {
    /// `data` is JSON, and stays as it is: its lines are put together again by whoever reads them.
    pub fn new(name: &str, data: &str) -> Self {
        Self::with(&[("event", name)], data)
    }

    /// The same with other fields in front.
    pub fn with(fields: &[(&str, &str)], data: &str) -> Self {
        let mut text = String::with_capacity(data.len() + 64);
        for (name, value) in fields {
            // A line that somebody's name brought along would be a field of its own.
            let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.push_str(&format!("{name}: {value}\n"));
        }
        for line in data.trim_end().split(['\r', '\n']) {
            text.push_str("data: ");
            text.push_str(line);
            text.push('\n');
        }
        text.push('\n');
        Self(text.into())
    }

    /// A word for somebody who listens: a frame under the name of its verb.
    pub fn word(word: &Word) -> Option<Self> {
        match word {
            Word::Ping => Some(Self::comment("")),
            Word::Text(text) => Self::frame(std::str::from_utf8(text).ok()?),
            Word::Close(Ending { cause, code, reason }) => {
                let data = json!({ "type": "close", "code": code, "cause": cause.as_str(), "reason": reason });
                Some(Self::new("close", &data.to_string()))
            }
        }
    }

    fn frame(text: &str) -> Option<Self> {
        let members = Members::read(text.as_bytes()).ok()?;
        let verb = ["type", "evt"].into_iter().find_map(|key| members.text(key)).unwrap_or("message".into());
        let (seq, after) = (members.get("seq"), members.get("afterMs").filter(|_| verb == "retry"));
        let id = seq.map(|seq| ("id", seq.get()));
        // Readers of events have a time of their own for that.
        let retry = after.map(|after| ("retry", after.get()));
        let fields: Vec<_> = [Some(("event", &*verb)), id, retry].into_iter().flatten().collect();
        Some(Self::with(&fields, text))
    }

    /// Its name and data, as they were before they were written; a comment has none.
    pub fn read(&self) -> Option<(&str, String)> {
        let text = std::str::from_utf8(&self.0).ok()?;
        let name = text.lines().find_map(|line| line.strip_prefix("event: "))?;
        let data: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        Some((name, data.join("\n")))
    }

    /// A line that no reader is told of.
    pub fn comment(text: &str) -> Self {
        Self(format!(": {text}\n\n").into())
    }

    /// A problem that is found when the status has been told already.
    pub fn problem(problem: Problem, request_id: &str) -> Self {
        Self::new("error", &problem.json(request_id).to_string())
    }
}

/// Whether the caller wants events.
pub fn wanted(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let media = range.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case(MEDIA)
    })
}

/// What a future tells while it runs, until it ends. It waits whenever nobody takes what it told.
pub fn told<T, F>(tell: impl FnOnce(mpsc::Sender<T>) -> F) -> BoxStream<'static, T>
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, mut told) = mpsc::channel(1);
    let mut telling = Some(tell(sender).boxed());
    let next = move |cx: &mut Context<'_>| {
        if let Poll::Ready(Some(item)) = told.poll_recv(cx) {
            return Poll::Ready(Some(item));
        }
        if telling.as_mut().is_some_and(|telling| telling.as_mut().poll(cx).is_ready()) {
            telling = None;
        }
        told.poll_recv(cx)
    };
    stream::poll_fn(next).boxed()
}

/// 200, and events for as long as there are any.
pub fn answer(source: BoxStream<'static, Event>) -> Response<Body> {
    dressed(Body::Events(Events { source, quiet: Box::pin(sleep(QUIET)), busy: None }))
}

/// The same to HEAD, which wants no events.
pub fn head() -> Response<Body> {
    dressed(Body::default())
}

fn dressed(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A body of events.
pub struct Events {
    source: BoxStream<'static, Event>,
    quiet: Pin<Box<Sleep>>,
    /// Whatever has to last for as long as this does.
    busy: Option<Box<dyn Any + Send>>,
}

impl Events {
    /// The events alone, for somebody else to hand on.
    pub fn into_source(self) -> BoxStream<'static, Event> {
        self.source
    }

    /// Keeps something until the last event is out, or nobody is left to take it.
    pub fn keep(&mut self, busy: impl Send + 'static) {
        self.busy = Some(Box::new(busy));
    }
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = match self.source.poll_next_unpin(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(event)) => event,
            Poll::Pending => {
                if self.quiet.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                Event::comment("")
            }
        };
        self.quiet.as_mut().reset(Instant::now() + QUIET);
        Poll::Ready(Some(Ok(Frame::data(event.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use http_body_util::BodyExt;

    #[test]
    fn no_text_breaks_out_of_its_line() {
        assert_eq!(Event::new("a\nb", "{\"n\":\r\n1}\n").0, "event: a b\ndata: {\"n\":\ndata: \ndata: 1}\n\n");
        assert_eq!(Event::with(&[("event", "e"), ("id", "7")], "1").0, "event: e\nid: 7\ndata: 1\n\n");
        let read = Event::new("a", "{\"n\":\n1}");
        assert_eq!((read.read(), Event::comment("a").read()), (Some(("a", "{\"n\":\n1}".into())), None));
    }

    #[test]
    fn a_frame_is_an_event_under_its_verb() {
        let event = |text: &'static str| Event::word(&Word::Text(Bytes::from_static(text.as_bytes()))).unwrap().0;
        assert_eq!(event(r#"{"type":"a","seq":7}"#), "event: a\nid: 7\ndata: {\"type\":\"a\",\"seq\":7}\n\n");
        assert_eq!(event(r#"{"evt":"b\nid: 9"}"#), "event: b id: 9\ndata: {\"evt\":\"b\\nid: 9\"}\n\n");
        let retry = event(r#"{"type":"retry","afterMs":50}"#);
        assert!(retry.starts_with(b"event: retry\nretry: 50\n"), "{retry:?}");
    }

    #[test]
    fn events_are_wanted_by_their_name_alone() {
        let wants = |accept: &'static str| wanted(&[(ACCEPT, HeaderValue::from_static(accept))].into_iter().collect());
        assert!(wants("text/event-stream") && wants("application/json, Text/Event-Stream;q=0.9"));
        assert!(!wants("*/*") && !wants("text/event-stream2") && !wants("application/json"));
    }

    #[tokio::test]
    async fn what_is_told_waits_for_its_reader_and_ends_with_the_telling() {
        let (counted, mut count) = mpsc::unbounded_channel();
        let mut numbers = told(|numbers| async move {
            for n in 0..3 {
                let _ = counted.send(n);
                let _ = numbers.send(n).await;
            }
        });
        assert_eq!(numbers.next().await, Some(0));
        let mut begun = 0;
        while count.try_recv().is_ok() {
            begun += 1;
        }
        assert!(begun <= 2, "{begun} were begun when one had been taken");
        assert_eq!((numbers.next().await, numbers.next().await, numbers.next().await), (Some(1), Some(2), None));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_comments() {
        let mut body = answer(stream::pending().boxed()).into_body();
        for _ in 0..3 {
            let began = Instant::now();
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(frame.starts_with(b":") && began.elapsed() <= QUIET + Duration::from_millis(10));
        }
        assert!(poll!(Box::pin(body.frame())).is_pending());
    }
}
