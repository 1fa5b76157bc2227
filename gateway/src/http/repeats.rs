//! Requests with an Idempotency-Key: acted upon once, and every repeat gets the first outcome, on any instance. That ours
//! ended is none.

use super::{
    Answer, Body, Request,
    events::{self, Event, Events},
    queued,
    routes::{Repeats, Route},
};
use crate::{gateway::Gateway, kept::Kept, letters::LATE, problem::Problem};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use registry::{Errand, Hashed, Once, Outcome, Registry, Unknown};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, sleep, timeout_at},
};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is a repetition.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const KEY_BYTES_MAX: usize = 255;
/// Events that wait for a caller who reads slowly. Progress beyond them is dropped, the end never is.
const EVENTS_MAX: usize = 64;
/// Keyed requests that run or are told later at once, for one more to be told later.
const KEYED_MAX: usize = 10_000;
/// How often one who waits looks for the outcome.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Nothing said so long after its time: whoever took it on is gone.
const GRACE_MS: u64 = 5000;
/// The key of a request, on the routes that know keys.
pub fn key(route: &Route, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if !headers.contains_key(KEY) || route.repeats == Repeats::Anew {
        return Ok(None);
    }
    let mut keys = headers.get_all(KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(bad_key()) };
    let fits = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.as_bytes().iter().all(|b| (b' '..=b'~').contains(b));
    let key = key.to_str().ok().filter(|_| fits).ok_or_else(bad_key)?;
    Ok(Some(key.to_owned()))
}

/// Acts upon the request if it is the first with its key, or answers what came of the first.
pub async fn once(route: &'static Route, request: Request, key: &str) -> Answer {
    let registry = request.gateway.courier.registry.clone();
    let budget = budget(route, &request);
    let by = request.began + budget;
    let until = registry.now_ms() + u64::try_from(budget.as_millis()).unwrap_or(u64::MAX);
    let errand =
        Errand::new(hash_of(route, &request, key), Hashed::of(&[&request.body]), registry.incarnation(), until);
    let wants = Wants::of(route, &request);
    let mut runs = false;
    loop {
        let mut taking = Taking { gateway: request.gateway.clone(), errand: Some(errand.clone()) };
        let said = match timeout_at(by, registry.take_on(&errand)).await {
            Ok(said) => said,
            Err(_) if runs => return Err(still_runs()),
            Err(_) => Err(Unknown::Unavailable),
        };
        if said.is_ok() {
            taking.errand = None;
        }
        match said {
            Ok(Once::Ours) => return act(route, request, (errand, by), wants).await,
            Ok(Once::Done(kept)) => return wants.replay(&kept),
            Ok(Once::Other) => return Err(other_body()),
            Ok(Once::Running { ticket, until }) if registry.now_ms() > until.saturating_add(GRACE_MS) => {
                let lost = Kept::problem(owner_lost(), &request.request_id).outcome();
                // If somebody was faster, the next look finds their word.
                let settled = timeout_at(by + LATE, registry.settle(&ticket, &lost)).await;
                settled.unwrap_or(Err(Unknown::Unavailable)).map_err(|unknown| Problem::unknown(&unknown))?;
            }
            Ok(Once::Running { .. }) if Instant::now() + LOOK_EVERY >= by => {
                return Err(still_runs());
            }
            Ok(Once::Running { .. }) => {
                runs = true;
                sleep(LOOK_EVERY).await;
            }
            Err(unknown) => return Err(Problem::unknown(&unknown)),
        }
    }
}

/// A request that is being taken on. Dropped before the registry has answered, since its time is over or its caller
/// is gone, it may have been taken on after all, by nobody: whoever repeats it should not have to wait for that.
struct Taking {
    gateway: Arc<Gateway>,
    errand: Option<Errand>,
}

impl Drop for Taking {
    fn drop(&mut self) {
        let Some(errand) = self.errand.take().filter(|_| self.gateway.keyed_tasks.len() < KEYED_MAX) else { return };
        let registry = self.gateway.courier.registry.clone();
        let free = async move { tell_later(&registry, &errand, &Outcome::Nothing).await };
        self.gateway.keyed_tasks.spawn(free);
    }
}

/// Runs it to its end even if the caller hangs up: a caller who comes again wants to know what came of it.
async fn act(route: &'static Route, mut request: Request, (errand, by): (Errand, Instant), wants: Wants) -> Answer {
    let (answered, answer) = oneshot::channel();
    let (gateway, request_id) = (request.gateway.clone(), request.request_id.clone());
    request.ticket = Some(errand.ticket.clone());
    let tasks = gateway.keyed_tasks.clone();
    tasks.spawn(async move {
        let answer = (route.handler)(request).await;
        let answer =
            answer.unwrap_or_else(|problem| problem.response(&request_id, wants.problem_json).map(Body::Whole));
        let (head, body) = answer.into_parts();
        let told = match body {
            Body::Whole(whole) => {
                let body = match whole.collect().await {
                    Ok(body) => body.to_bytes(),
                    Err(never) => match never {},
                };
                let told = tell(&gateway, &errand, &Kept::new(head.status.as_u16(), &body), by).await;
                let own = Response::from_parts(head, Body::from(body));
                // Nobody waits for it any more if the caller hung up.
                let _ = answered.send(told.instead().map_or(own, |kept| wants.answer(kept)));
                told
            }
            Body::Events(events) => {
                let (sender, mut receiver) = mpsc::channel(EVENTS_MAX);
                let events_heard = stream::poll_fn(move |cx| receiver.poll_recv(cx));
                let _ = answered.send(events::answer(events_heard.boxed()));
                hand_on(&gateway, (&errand, by), events, &sender).await
            }
        };
        if let Told::Unheard(outcome) = told {
            tell_later(&gateway.courier.registry, &errand, &outcome).await;
        }
    });
    // The task is gone without a word only if it panicked, or at the end of the process.
    answer.await.map_err(|_| owner_lost())
}

/// Hands on events, whether or not somebody takes them. The last one is what came of it.
async fn hand_on(
    gateway: &Gateway,
    (errand, by): (&Errand, Instant),
    events: Events,
    sender: &mpsc::Sender<Event>,
) -> Told {
    let mut source = events.into_source();
    while let Some(event) = source.next().await {
        let Some(kept) = end(&event) else {
            if let Err(TrySendError::Full(_)) = sender.try_send(event) {
                gateway.metrics.progress_dropped.inc();
            }
            continue;
        };
        let told = tell(gateway, errand, &kept, by).await;
        let last = told.instead().map_or(event, as_event);
        // A slow reader is waited for until it takes the end, or is gone.
        let _ = sender.send(last).await;
        return told;
    }
    Told::AsItIs
}

/// What came of a call, if this is the event that says so.
fn end(event: &Event) -> Option<Kept> {
    let (name, data) = event.read()?;
    let status = match name {
        "result" => 200,
        "error" => serde_json::from_str::<Value>(&data).ok()?["status"].as_u64()?.try_into().ok()?,
        _ => return None,
    };
    Some(Kept::new(status, format!("{data}\n").as_bytes()))
}

fn as_event(kept: &Kept) -> Event {
    Event::new(if kept.status < 400 { "result" } else { "error" }, &kept.body)
}

/// Whether the registry knows what came of it.
enum Told {
    AsItIs,
    /// Another word stands: of the owner who found us gone, or of a caller who thought so.
    Otherwise(Kept),
    /// It could not be told yet.
    Unheard(Outcome),
}

impl Told {
    fn instead(&self) -> Option<&Kept> {
        match self {
            Self::Otherwise(kept) => Some(kept),
            Self::AsItIs | Self::Unheard(_) => None,
        }
    }
}

/// Tells what came of it, before the caller hears it: so whatever else stands is what all of them hear. A caller who
/// has waited `by` then for the outcome itself does not wait long for this.
async fn tell(gateway: &Gateway, errand: &Errand, kept: &Kept, by: Instant) -> Told {
    if kept.is_open() {
        return Told::AsItIs;
    }
    let registry = &gateway.courier.registry;
    let outcome = kept.outcome();
    let told = async {
        if registry.settle(&errand.ticket, &outcome).await? {
            return Ok(Told::AsItIs);
        }
        Ok::<_, Unknown>(match registry.take_on(errand).await? {
            Once::Done(stands) => Kept::read(&stands).map_or(Told::AsItIs, Told::Otherwise),
            // Somebody knew that nothing was done, and took the record away.
            Once::Ours => Told::Unheard(outcome.clone()),
            Once::Running { .. } | Once::Other => Told::AsItIs,
        })
    };
    match timeout_at(by.min(Instant::now()) + LATE, told).await {
        Ok(Ok(told)) => told,
        Ok(Err(_)) | Err(_) => Told::Unheard(outcome),
    }
}

/// The registry is away: as long as a repeat would still wait for it, the outcome is offered again.
async fn tell_later(registry: &Registry, errand: &Errand, outcome: &Outcome) {
    while registry.now_ms() <= errand.until.saturating_add(GRACE_MS) {
        sleep(LOOK_EVERY).await;
        if registry.settle(&errand.ticket, outcome).await.is_ok() {
            return;
        }
    }
}

/// Two callers who choose the same key, or one who uses it at two doors, mean different requests.
fn hash_of(route: &Route, request: &Request, key: &str) -> Hashed {
    let of = |name: &str| request.head.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    let credentials = [header::AUTHORIZATION.as_str(), "x-api-key", "x-nano-key"].map(of);
    let mut parts = [&credentials[..], &[route.path.as_bytes(), key.as_bytes()]].concat();
    parts.extend(request.path_values.iter().map(String::as_bytes));
    Hashed::of(&parts)
}

/// The time that the request gives itself, or its handler gives it. What does not fit is refused by that.
fn budget(route: &Route, request: &Request) -> Duration {
    #[derive(Deserialize)]
    struct Says<'a> {
        #[serde(borrow, rename = "timeoutMs", alias = "timeout_ms")]
        timeout_ms: Option<&'a RawValue>,
    }
    let said = serde_json::from_slice::<Says<'_>>(&request.body).ok().and_then(|says| says.timeout_ms);
    let ms = said.and_then(|ms| ms.get().parse::<u64>().ok()).filter(|ms| (1..=600_000).contains(ms));
    let default = match route.repeats {
        Repeats::OnceAsEvents => request.gateway.config.call_timeout,
        Repeats::Anew | Repeats::Once => super::sockets::PATIENCE,
    };
    ms.map_or(default, Duration::from_millis)
}

/// How a caller wants to be answered.
#[derive(Clone, Copy)]
struct Wants {
    events: bool,
    problem_json: bool,
}

impl Wants {
    fn of(route: &Route, request: &Request) -> Self {
        let headers = &request.head.headers;
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        Self {
            events: route.repeats == Repeats::OnceAsEvents && events::wanted(headers),
            problem_json: accept.contains("application/problem+json"),
        }
    }

    fn answer(self, kept: &Kept) -> Response<Body> {
        // One that is kept is never told in pieces.
        let is_queued = kept.status == StatusCode::ACCEPTED;
        if self.events && !is_queued {
            let event = as_event(kept);
            return events::answer(stream::iter([event]).boxed());
        }
        let mut response = Response::new(Body::from(kept.body.clone()));
        // Whatever is kept has been a status before.
        *response.status_mut() = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let is_problem = kept.status >= 400 && self.problem_json;
        let media = if is_problem { "application/problem+json" } else { "application/json" };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        if is_queued && let Ok(body) = serde_json::from_str::<Value>(&kept.body) {
            queued::point(&mut response, body["callId"].as_str().unwrap_or_default());
        }
        response
    }

    fn replay(self, kept: &Bytes) -> Answer {
        // Of a later version, or somebody else's: it was acted upon, and nobody here can say how it went.
        let mut response = self.answer(&Kept::read(kept).ok_or_else(owner_lost)?);
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

fn still_runs() -> Problem {
    Problem::no_reply("unknown", "the first request with this Idempotency-Key still runs")
}

fn bad_key() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "Invalid Idempotency-Key",
        format!("send one Idempotency-Key of 1 to {KEY_BYTES_MAX} printable ASCII characters, such as a UUID"),
    )
    .code("invalid_idempotency_key")
}

fn other_body() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "Idempotency-Key reused",
        "repeat a request with the body that it had, or choose another key",
    )
    .code("idempotency_key_reused")
    .detail("this key came with another body within the last 24 h; this request was not acted upon")
}

fn owner_lost() -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "Owner lost",
        "ask the client what it did before you try again with another Idempotency-Key",
    )
    .code("owner_lost")
    .detail("the instance that took the first request on did not say what came of it")
    .member("delivered", "unknown")
}
