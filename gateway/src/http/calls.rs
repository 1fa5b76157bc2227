//! Calls from HTTP: asking a client, and answering with what it says.

use super::{
    Answer, Body, Problem, Request, events, json, queued,
    sends::{field, finish},
    shape::{Field, Kind, Reader, Shape, refused},
    sockets, streams,
};
use crate::{
    calls::{
        Ears,
        told::{self, Answered},
    },
    config::Config,
    courier::{self, Absent, Fallback, Outcome, Question, Step, WhenOffline, Whom, Wording},
    letters::LATE,
    problem::verdict_json,
};
use hyper::{
    Response, StatusCode,
    header::{HeaderName, HeaderValue},
};
use registry::{CallId, Group, StoreName, UserName};
use serde_json::{json, value::RawValue};
use std::{borrow::Cow, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, info, warn};

/// A kind becomes part of a verb, so it looks like one.
const KIND_BYTES_MAX: usize = 64;
/// W3C's, as a client gets it.
const TRACEPARENT_BYTES_MAX: usize = 128;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What `Server-Timing` has, nearly always.
const TIMING_BYTES: usize = 64;

const SOCKET: Field = field("socketId", Kind::Text, "the socket that is asked");
const TIMEOUT: Field = field("timeoutMs", Kind::Millis(600_000), "how long to wait; CALL_TIMEOUT unless given");

/// The body of `/api/call`.
pub static CALL: Shape = Shape {
    fields: &[
        SOCKET,
        field("userId", Kind::Name, "the most recently active socket of a user"),
        field("storeId", Kind::Name, "the most recently active socket of a store"),
        field("to", Kind::Object, "the target may also stand in here"),
        Field { name: "event", kind: Kind::Text, required: true, meaning: "what the frame's type says" },
        field("data", Kind::Any, "passed to the client untouched"),
        field("fallback", Kind::Text, "none, store or user: who else may be asked when a named socket is not reached"),
        field(
            "whenOffline",
            Kind::Text,
            "fail; wait: within timeoutMs, until somebody comes who can be asked; queue: keep it until then",
        ),
        TIMEOUT,
    ],
    open: false,
};

/// What stands in `to`.
static TO: Shape = Shape {
    fields: &[
        SOCKET,
        field("userId", Kind::Name, "the most recently active socket of a user"),
        field("storeId", Kind::Name, "the most recently active socket of a store"),
    ],
    open: false,
};

/// The body of `/api/sync/{kind}`; all other members are its data.
pub static SYNC: Shape = Shape {
    fields: &[
        SOCKET,
        field("storeId", Kind::Name, "the store, whose most recently active socket is asked else"),
        TIMEOUT,
    ],
    open: true,
};

/// One call, as it was read.
pub struct Call<'a> {
    pub whom: Whom,
    pub event: String,
    pub data: Cow<'a, RawValue>,
    pub store: Option<StoreName>,
    pub fallback: Fallback,
    pub when_offline: WhenOffline,
    pub budget: Duration,
    pub wording: Wording,
}

impl Call<'_> {
    /// Until when it waits for an answer.
    pub fn by(&self, request: &Request) -> Instant {
        request.began + self.budget
    }

    /// The same, without the body that it was read from.
    fn into_owned(self) -> Call<'static> {
        let Call { whom, event, data, store, fallback, when_offline, budget, wording } = self;
        Call { whom, event, data: Cow::Owned(data.into_owned()), store, fallback, when_offline, budget, wording }
    }
}

/// `POST /api/call`.
pub async fn call(request: Request) -> Answer {
    let body = request.body.clone();
    let mut reader = Reader::new(&CALL, &body, "").map_err(|fault| refused(&fault))?;
    let read = read_call(&mut reader, &request.gateway.config);
    let call = finish(reader, read)?;
    go(request, call).await
}

/// `POST /api/sync/{kind}`, and as Shopify's apps write it.
pub async fn sync(request: Request) -> Answer {
    let kind = request.path_value();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if kind.is_empty() || kind.len() > KIND_BYTES_MAX || !kind.bytes().all(plain) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Invalid kind",
            "a kind is 1 to 64 letters, digits, dots, dashes and underscores, such as orders",
        )
        .detail(format!("{:?} is no kind", kind.chars().take(KIND_BYTES_MAX).collect::<String>())));
    }
    let body = request.body.clone();
    let mut reader = Reader::new(&SYNC, &body, "").map_err(|fault| refused(&fault))?;
    let read = read_sync(&mut reader, kind, request.gateway.config.call_timeout);
    let call = finish(reader, read)?;
    debug!(
        request_id = request.request_id,
        kind,
        "🔍 SYNC {} REQUEST DEBUG: {} bytes",
        kind.to_uppercase(),
        request.body.len()
    );
    if let Whom::Socket(id) = &call.whom {
        info!(request_id = request.request_id, "🔌 Socket ID from request: {id:.128}");
    }
    go(request, call).await
}

fn read_call<'a>(reader: &mut Reader<'a>, config: &Config) -> Option<Call<'a>> {
    let mut targets = targets(reader);
    if let Some(to) = reader.raw("to") {
        targets.extend(reader.inside(&TO, "to", to, self::targets)?);
    }
    let event = reader.text("event");
    let data = reader.raw("data").unwrap_or(RawValue::NULL);
    let fallback = match reader.text("fallback").as_deref() {
        None | Some("none") => Some(Fallback::None),
        Some("store") => Some(Fallback::Store),
        Some("user") => Some(Fallback::User),
        Some(_) => reader.wrong("fallback", "none, store or user is wanted"),
    };
    let when_offline = match reader.text("whenOffline").as_deref() {
        None | Some("fail") => Some(WhenOffline::Fail),
        Some("wait") => Some(WhenOffline::Wait),
        Some("queue") => Some(WhenOffline::Queue(config.queue_ttl)),
        Some(_) => reader.wrong("whenOffline", "fail, wait or queue is wanted"),
    };
    let budget = reader.millis("timeoutMs").map_or(config.call_timeout, Duration::from_millis);
    let event = event.and_then(|event| match event.is_empty() {
        true => reader.wrong("event", "it is empty"),
        false => Some(event),
    });
    let whom = match targets.len() {
        1 => targets.pop().flatten(),
        0 => reader.wrong_as_a_whole("a target is wanted: socketId, userId or storeId"),
        _ => reader.wrong_as_a_whole("one target is wanted, not several: keep one of socketId, userId and storeId"),
    };
    let store = match &whom {
        Some(Whom::Group(Group::Store(store))) => Some(store.clone()),
        _ => None,
    };
    Some(Call {
        whom: whom?,
        event: event?.into(),
        data: Cow::Borrowed(data),
        store,
        fallback: fallback?,
        when_offline: when_offline?,
        budget,
        wording: Wording::Call,
    })
}

/// A target that is named but is no good counts as one; its fault is noted.
fn targets(reader: &mut Reader<'_>) -> Vec<Option<Whom>> {
    let mut found = Vec::new();
    if reader.has("socketId") {
        found.push(reader.text("socketId").map(|id| Whom::Socket(id.into())));
    }
    if reader.has("userId") {
        found.push(reader.name("userId", UserName::parse).map(|name| Whom::Group(Group::User(name))));
    }
    if reader.has("storeId") {
        found.push(reader.name("storeId", StoreName::parse).map(|name| Whom::Group(Group::Store(name))));
    }
    found
}

fn read_sync<'a>(reader: &mut Reader<'a>, kind: &str, budget: Duration) -> Option<Call<'a>> {
    let is_targeted = reader.has("storeId") || reader.has("socketId");
    let store = reader.name("storeId", StoreName::parse);
    let socket = reader.text("socketId");
    let budget = reader.millis("timeoutMs").map_or(budget, Duration::from_millis);
    let whom = match (socket, &store) {
        (Some(id), _) => Whom::Socket(id.into()),
        (None, Some(store)) => Whom::Group(Group::Store(store.clone())),
        // What is wrong with it is noted.
        (None, None) if is_targeted => return None,
        (None, None) => return reader.wrong_as_a_whole("a target is wanted: socketId or storeId"),
    };
    let data = Cow::Owned(reader.strangers());
    Some(Call {
        whom,
        event: format!("sync_{kind}"),
        data,
        store,
        fallback: Fallback::Store,
        when_offline: WhenOffline::Fail,
        budget,
        wording: Wording::Call,
    })
}

async fn go(request: Request, call: Call<'_>) -> Answer {
    let calls = &request.gateway.courier.calls;
    if calls.are_cut_off() {
        return Err(Problem::draining());
    }
    // Of one that may be kept nothing happens that could be told in pieces.
    let is_kept = matches!(call.when_offline, WhenOffline::Queue(_));
    if !is_kept && events::wanted(&request.head.headers) {
        return Ok(streams::of_call(request, call.into_owned()));
    }
    let mut ears = calls.begin();
    let outcome = ask(&request, &call, &mut ears, None).await;
    if let Outcome::Queued(call, durability) = &outcome {
        return Ok(queued::accepted(call, *durability));
    }
    answer(&request, &ears.id, outcome, call.by(&request)).await.map(|replied| replied.response())
}

/// Asks, waits, and says in metrics and log what came of it.
pub async fn ask(request: &Request, call: &Call<'_>, ears: &mut Ears, progress: Option<mpsc::Sender<Step>>) -> Outcome {
    let question = Question {
        whom: call.whom.clone(),
        event: &call.event,
        data: &call.data,
        store: call.store.clone(),
        fallback: call.fallback,
        when_offline: call.when_offline,
        patience: call.budget,
        wants: request.gateway.config.durability,
        by: call.by(request),
        request_id: &request.request_id,
        traceparent: traceparent(request),
        wording: &call.wording,
        ticket: request.ticket.as_ref(),
        progress,
    };
    let outcome = request.gateway.courier.call(&question, ears).await;
    let metrics = &request.gateway.metrics;
    metrics.called(word(&outcome));
    metrics.call_seconds.observe(request.began.elapsed().as_secs_f64());
    log(request, &ears.id, &outcome);
    request.gateway.desk.feed.tell("call", || {
        json!({
            "instance": request.gateway.instance,
            "callId": ears.id.as_str(),
            "event": call.event,
            "outcome": word(&outcome),
            "ms": u64::try_from(request.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "requestId": request.request_id,
        })
    });
    outcome
}

fn traceparent(request: &Request) -> Option<&str> {
    let parent = request.head.headers.get(TRACEPARENT)?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_hexdigit() || b == b'-';
    (parent.len() <= TRACEPARENT_BYTES_MAX && parent.bytes().all(plain)).then_some(parent)
}

/// The word in metrics.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Replied(_) => "replied",
        Outcome::Failed(_) => "failed",
        Outcome::Busy => "busy",
        Outcome::Absent(Absent::Gone(_)) | Outcome::Nobody(_) => "absent",
        Outcome::Absent(_) => "unknown",
        Outcome::NobodyCame { .. } => "nobody_came",
        Outcome::TooManyWait => "too_many_wait",
        Outcome::Queued(..) => "queued",
        Outcome::QueueFull(_) => "queue_full",
        Outcome::QueueSilent(_) => "unknown",
        Outcome::OwnerLost { .. } => "owner_lost",
        Outcome::SocketLost(..) => "socket_lost",
        Outcome::AskerEnded(_) => "instance_ended",
        Outcome::NoReply(_) => "no_reply",
    }
}

fn log(request: &Request, id: &CallId, outcome: &Outcome) {
    let request_id = &request.request_id;
    match outcome {
        Outcome::Replied(answered) | Outcome::Failed(answered) => {
            info!(
                request_id,
                "✅ Found socket {} for sync: call {id} {} after {} ms",
                answered.socket,
                word(outcome),
                request.began.elapsed().as_millis()
            );
        }
        Outcome::Absent(Absent::Gone(verdict)) => super::sends::log_absent(request, verdict),
        Outcome::Nobody(group) => {
            warn!(request_id, "call {id}: no socket of {} {} is connected", group.kind(), group.name());
            info!(request_id, "🔄 No socket found, requesting client reconnect");
        }
        Outcome::Queued(call, _) => info!(request_id, "call {id} is kept as {call}: nobody is there"),
        _ => warn!(request_id, "call {id}: {}", word(outcome)),
    }
}

/// What a caller hears of it, who waited `by` then.
pub async fn answer(request: &Request, id: &CallId, outcome: Outcome, by: Instant) -> Result<Replied, Problem> {
    match outcome {
        Outcome::Replied(answered) => Ok(Replied::new(request, id, answered)),
        Outcome::Failed(answered) => Err(told::failed(id, &answered)),
        Outcome::Busy => Err(super::sends::busy().member("callId", id.as_str())),
        Outcome::Absent(absent) => Err(sockets::absent(request, &absent, by).await.member("callId", id.as_str())),
        Outcome::Nobody(group) => {
            Err(Problem::new(StatusCode::NOT_FOUND, "No live socket", "ask again when its client has connected")
                .code("no_live_socket")
                .detail(format!("no socket of {} {} is connected", group.kind(), group.name()))
                .member("callId", id.as_str()))
        }
        Outcome::NobodyCame { awaited, last } => {
            let detail = format!("{}; {awaited} was waited for until the time was over", courier::why(&last));
            let problem = Problem::no_reply(false, detail).member("callId", id.as_str());
            Err(match courier::verdict(&last) {
                None => problem,
                Some(verdict) => {
                    let registry = &request.gateway.courier.registry;
                    let now = told::now(registry, &verdict.gone, by + LATE).await;
                    problem.member("verdict", verdict_json(verdict, now))
                }
            })
        }
        // Said before by whoever asks for it; a stream is never asked for with it.
        Outcome::Queued(call, _) => Err(queued::silent(&call)),
        Outcome::QueueFull(group) => Err(queued::full(&group)),
        Outcome::QueueSilent(call) => Err(queued::silent(&call)),
        Outcome::TooManyWait => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many calls wait",
            "try again in a while, at another instance, or say whenOffline fail",
        )
        .detail("as many calls wait at this instance as may; nothing was written")
        .retry_after(5)
        .member("callId", id.as_str())),
        Outcome::OwnerLost { owner, delivered } => Err(Problem::new(
            StatusCode::BAD_GATEWAY,
            "Owner lost",
            "the client comes back by itself; ask it again if a second time does no harm",
        )
        .code("owner_lost")
        .detail(format!("{}, which had the call, is gone", owner.instance()))
        .member("delivered", delivered)
        .member("callId", id.as_str())),
        Outcome::SocketLost(verdict, delivered) => {
            Err(told::lost(&request.gateway.courier.registry, id, &verdict, delivered, by + LATE).await)
        }
        Outcome::AskerEnded(delivered) => Err(told::ended(id, delivered)),
        Outcome::NoReply(delivered) => Err(told::no_reply(id, delivered)),
    }
}

/// What `Server-Timing` says, in milliseconds.
fn timing(lookup: Duration, bus: Duration, client: Duration) -> String {
    let digit = |number: u64| char::from(b'0' + (number % 10) as u8);
    let mut timing = String::with_capacity(TIMING_BYTES);
    for (before, span) in [("lookup;dur=", lookup), (", bus;dur=", bus)] {
        let hundredths = span.as_micros() as u64 / 10;
        timing += before;
        timing += &(hundredths / 100).to_string();
        timing.extend(['.', digit(hundredths / 10), digit(hundredths)]);
    }
    timing += ", client;dur=";
    timing += &(client.as_millis() as u64).to_string();
    timing
}

/// 200, with the client's words as it wrote them.
pub struct Replied {
    pub json: String,
    pub answered: Answered,
    elapsed: Duration,
}

impl Replied {
    fn new(request: &Request, id: &CallId, answered: Answered) -> Self {
        let elapsed = request.began.elapsed();
        let json = told::replied(id, &answered, elapsed);
        Self { json, answered, elapsed }
    }

    fn response(mut self) -> Response<Body> {
        self.json.push('\n');
        let mut response = json(self.json);
        let (lookup, client) = (self.answered.lookup, self.answered.client);
        let bus = self.elapsed.saturating_sub(lookup).saturating_sub(client);
        if let Ok(timing) = HeaderValue::try_from(timing(lookup, bus, client)) {
            response.headers_mut().insert(SERVER_TIMING, timing);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_digits_behind_the_point() {
        let [none, some, long] = [0, 1_049, 12_345_678].map(Duration::from_micros);
        assert_eq!(timing(none, some, long), "lookup;dur=0.00, bus;dur=1.04, client;dur=12345");
        assert_eq!(timing(long, none, some), "lookup;dur=12345.67, bus;dur=0.00, client;dur=1");
    }
}
