//! Answers that come in pieces: a call with what happens on its way, a message with all that its user answers, and
//! the feed.

use super::{
    Answer, Body, Problem, Request,
    calls::{self, Call},
    events::{self, Event},
};
use crate::{
    admission::names::Query,
    calls::told::{self, Delivered},
    courier::Step,
    feed::{Happening, Scope},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::{Method, Response, StatusCode};
use registry::CallId;
use serde_json::json;
use std::{pin::pin, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// How long the answers to a message may pause.
const SILENCE: Duration = Duration::from_secs(30);
/// How long they may go on at most.
pub const ANSWERS_MAX: Duration = Duration::from_secs(600);

/// A piece, or what came instead of it.
type Piece = Result<Event, Problem>;

/// `accepted`, `progress`…, and then `result` or `error`.
pub fn of_call(request: Request, call: Call<'static>) -> Response<Body> {
    let request_id = request.request_id.clone();
    let pieces = events::told(|pieces| async move {
        let as_event = |id: &CallId, step| match step {
            Step::Accepted { socket, instance } => {
                let data = json!({ "callId": id.as_str(), "socketId": socket.to_string(), "instance": instance });
                Event::new("accepted", &data.to_string())
            }
            Step::Progress(data) => Event::new("progress", text(&data)),
        };
        let end = follow(&request, &call, None, as_event, &pieces).await;
        // Who has hung up hears nothing more.
        let _ = pieces.send(end.map(|replied| Event::new("result", &replied.json))).await;
    });
    let events = pieces.map(move |piece| piece.unwrap_or_else(|problem| Event::problem(problem, &request_id)));
    events::answer(events.boxed())
}

/// Each word of the client as a `message`, the last one too. What is known before its first word, or before anybody
/// has the message, is still a plain answer.
pub async fn of_message(request: Request, call: Call<'static>) -> Answer {
    let request_id = request.request_id.clone();
    let mut pieces = events::told(|pieces| async move {
        let as_event = |_: &CallId, step| match step {
            Step::Accepted { .. } => Event::comment("accepted"),
            Step::Progress(data) => Event::new("message", text(&data)),
        };
        let end = follow(&request, &call, Some(SILENCE), as_event, &pieces).await;
        let _ = pieces.send(end.map(|replied| Event::new("message", text(&replied.answered.data)))).await;
    });
    let first = pieces.next().await.transpose()?;
    let rest = pieces.map(move |piece| piece.unwrap_or_else(|problem| Event::problem(problem, &request_id)));
    Ok(events::answer(stream::iter(first).chain(rest).boxed()))
}

/// `GET /api/events`: what happens on all instances from now on; with `scope=local` on this one.
pub async fn feed(request: Request) -> Answer {
    let scope = match Query::of(request.query()).one("scope")?.as_deref() {
        None | Some("fleet") => Scope::Fleet,
        Some("local") => Scope::Local,
        Some(_) => {
            let title = "No such scope";
            return Err(Problem::new(StatusCode::BAD_REQUEST, title, "say scope=local, or leave it out for the fleet"));
        }
    };
    if request.head.method == Method::HEAD {
        return Ok(events::head());
    }
    let gateway = request.gateway;
    let mut look = gateway.desk.feed.look(scope);
    let events = events::told(|events| async move {
        loop {
            let happening = tokio::select! {
                biased;
                happening = look.next() => happening,
                () = gateway.closing.cancelled() => None,
            };
            let Some(Happening { kind, data }) = happening else { return };
            if events.send(Event::new(&kind, &data)).await.is_err() {
                return;
            }
        }
    });
    Ok(events::answer(events))
}

/// Asks, and tells what happens on the way. Whoever pauses for longer than `silence` is not waited for.
async fn follow(
    request: &Request,
    call: &Call<'static>,
    silence: Option<Duration>,
    as_event: impl Fn(&CallId, Step) -> Event,
    pieces: &mpsc::Sender<Piece>,
) -> Result<calls::Replied, Problem> {
    let gateway = &request.gateway;
    let mut ears = gateway.courier.calls.begin();
    let id = ears.id.clone();
    let (sender, mut steps) = mpsc::channel(1);
    let (mut heard_at, mut delivered) = (Instant::now(), Delivered::Unknown);
    let outcome = {
        let mut asking = pin!(calls::ask(request, call, &mut ears, Some(sender)));
        loop {
            tokio::select! {
                biased;
                Some(step) = steps.recv() => {
                    let _ = pieces.send(Ok(as_event(&id, step))).await;
                    (heard_at, delivered) = (Instant::now(), Delivered::Yes);
                }
                outcome = &mut asking => break Ok(outcome),
                () = sleep_until(heard_at + silence.unwrap_or_default()), if silence.is_some() => {
                    gateway.metrics.called("no_reply");
                    let paused = Problem::no_reply(delivered, "the client paused for too long");
                    break Err(paused.member("callId", id.as_str()));
                }
                () = gateway.stopping.cancelled() => break Err(told::ended(&id, delivered)),
            }
        }
    };
    while let Ok(step) = steps.try_recv() {
        let _ = pieces.send(Ok(as_event(&id, step))).await;
    }
    match outcome {
        Ok(outcome) => calls::answer(request, &id, outcome, call.by(request)).await,
        Err(problem) => Err(problem),
    }
}

fn text(data: &Bytes) -> &str {
    std::str::from_utf8(data).unwrap_or("null")
}
