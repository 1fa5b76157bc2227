//! Sending from HTTP: to a socket, a user, a store, a room or all, one by one or in batches.

use super::{
    Answer, Problem, Request, ok,
    shape::{Field, Kind, Reader, Shape, refused, unfit},
    sockets,
};
use crate::{
    courier::{Absent, KEPT_MAX, Receipt, Target, Unkept},
    frame, json,
    letters::LATE,
};
use hyper::StatusCode;
use registry::{Delivery, Group, Hashed, RoomName, SocketId, StoreName, Unknown, UserName, Verdict};
use serde_json::{Value, json, value::RawValue};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

pub const fn field(name: &'static str, kind: Kind, meaning: &'static str) -> Field {
    Field { name, kind, required: false, meaning }
}

const EVENT: Field = field("event", Kind::Text, "what the frame's type says; message unless given");
const DATA: Field = field("data", Kind::Any, "passed to the sockets untouched");
const TIMEOUT: Field =
    field("timeoutMs", Kind::Millis(600_000), "how long to wait for the owner's word; 5000 unless given");
const DURABLE: Field = field(
    "durable",
    Kind::Flag,
    "keep it for sockets that may come back, until they acknowledge it; not for rooms or all",
);
const TTL: Field = field("ttlMs", Kind::Millis(TTL_MAX), "how long a durable one is kept; QUEUE_TTL unless given");
/// A day.
const TTL_MAX: u64 = 86_400_000;
const EXCEPT: Field = field("exceptSocketId", Kind::Text, "a socket that does not get it");

const TARGET: [Field; 5] = [
    field("socketId", Kind::Text, "one socket"),
    field("userId", Kind::Name, "all sockets of a user"),
    field("storeId", Kind::Name, "all sockets of a store"),
    field("roomId", Kind::Name, "all sockets in a room"),
    field("all", Kind::Flag, "true: every socket"),
];

/// What stands in `to`.
static TO: Shape = Shape { fields: &TARGET, open: false };

/// The body of `/api/send`.
pub static SEND: Shape = Shape {
    fields: &[
        TARGET[0],
        TARGET[1],
        TARGET[2],
        TARGET[3],
        TARGET[4],
        field("to", Kind::Object, "the target may also stand in here"),
        EVENT,
        DATA,
        EXCEPT,
        TIMEOUT,
        DURABLE,
        TTL,
    ],
    open: false,
};

/// The body of `/api/rooms/{room}/send`.
pub static ROOM_SEND: Shape = Shape { fields: &[EVENT, DATA, EXCEPT, TIMEOUT, DURABLE, TTL], open: false };

/// The body of `/api/send/batch`.
pub static BATCH: Shape = Shape {
    fields: &[Field { name: "messages", kind: Kind::List, required: true, meaning: "up to 1000 bodies of /api/send" }],
    open: false,
};

/// Messages in one batch.
pub const BATCH_MAX: usize = 1000;

enum To {
    Socket(String),
    Many(Target),
}

struct Send<'a> {
    to: To,
    event: String,
    data: &'a RawValue,
    except: Option<SocketId>,
    budget: Duration,
    /// For how long it is kept, if it is.
    durable: Option<Option<Duration>>,
}

/// What became of a send.
enum Sent {
    Line(Receipt),
    Absent(Absent),
    Busy,
    /// Nobody here was meant, and nobody can say who is elsewhere.
    Blind(Unknown),
    /// It was to be kept, and was not.
    Unkept(Unkept),
}

impl<'a> Send<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Problem> {
        let mut reader = Reader::new(&SEND, body, "").map_err(|fault| refused(&fault))?;
        let to = read_target(&mut reader);
        let send = Self::rest(&mut reader, to);
        finish(reader, send)
    }

    fn to_room(body: &'a [u8], room: RoomName) -> Result<Self, Problem> {
        let mut reader = Reader::new(&ROOM_SEND, body, "").map_err(|fault| refused(&fault))?;
        let send = Self::rest(&mut reader, Some(To::Many(Target::Group(Group::Room(room)))));
        finish(reader, send)
    }

    fn rest(reader: &mut Reader<'a>, to: Option<To>) -> Option<Self> {
        let event = reader.text("event").map_or_else(|| "message".into(), Into::into);
        let data = reader.raw("data").unwrap_or(RawValue::NULL);
        let except = reader.text("exceptSocketId").and_then(|id| SocketId::parse(&id));
        let budget = reader.millis("timeoutMs").map_or(sockets::PATIENCE, Duration::from_millis);
        let ttl = reader.millis("ttlMs").map(Duration::from_millis);
        let durable = (reader.flag("durable") == Some(true)).then_some(ttl);
        let is_for_all = matches!(&to, Some(To::Many(target)) if !target.can_be_kept_for());
        if durable.is_some() && is_for_all {
            reader.wrong::<()>("durable", "only what is for a socket, a user or a store is kept; leave it out here");
        }
        Some(Self { to: to?, event, data, except, budget, durable })
    }

    /// Until when it waits for the owner. Counted from the request on: what came before, as the look for what became
    /// of an earlier one, is of the same time, and so is all of a batch.
    fn by(&self, request: &Request) -> Instant {
        request.began + self.budget
    }

    async fn go(&self, request: &Request) -> Sent {
        let sent = self.hand_over(request, self.by(request)).await;
        request.gateway.metrics.sent(match &sent {
            Sent::Line(receipt) => outcome(receipt),
            Sent::Absent(Absent::Gone(_)) => "absent",
            Sent::Absent(_) | Sent::Blind(_) | Sent::Unkept(_) => "unknown",
            Sent::Busy => "busy",
        });
        if let Sent::Absent(Absent::Gone(verdict)) = &sent {
            log_absent(request, verdict);
        }
        sent
    }

    async fn hand_over(&self, request: &Request, by: Instant) -> Sent {
        if let Some(ttl) = self.durable {
            return self.hand_over_durably(request, ttl, by).await;
        }
        let courier = &request.gateway.courier;
        let frame = frame::sent(&self.event, self.data, None);
        match &self.to {
            To::Many(target) => match courier.to_many(target, self.except, &frame, by).await {
                Receipt { matched: 0, blind: Some(unknown), .. } => Sent::Blind(unknown),
                receipt => Sent::Line(receipt),
            },
            // Whoever is both meant and excepted is excepted.
            To::Socket(id) if self.except.is_some() && SocketId::parse(id) == self.except => {
                Sent::Line(Receipt::default())
            }
            To::Socket(id) => match courier.to_socket(id, frame, by).await {
                Err(absent) => Sent::Absent(absent),
                Ok(receipt) if receipt.full > 0 => Sent::Busy,
                Ok(receipt) => Sent::Line(receipt),
            },
        }
    }
}

impl Send<'_> {
    async fn hand_over_durably(&self, request: &Request, ttl: Option<Duration>, by: Instant) -> Sent {
        let gateway = &request.gateway;
        let delivery = Delivery {
            key: Hashed::of(&[registry::names::mark().as_bytes()]),
            text: frame::unclosed(&self.event, self.data),
            ttl: ttl.unwrap_or(gateway.config.queue_ttl),
            wants: gateway.config.durability,
        };
        let sending = async {
            match &self.to {
                To::Socket(id) if self.except.is_some() && SocketId::parse(id) == self.except => Ok(Receipt::default()),
                To::Socket(id) => gateway.courier.to_socket_durably(id, &delivery, by).await,
                To::Many(Target::Group(group)) => {
                    gateway.courier.to_group_durably(group, self.except, &delivery, by).await
                }
                // Refused when it was read.
                To::Many(_) => Ok(Receipt::default()),
            }
        };
        match timeout_at(by + LATE, sending).await.unwrap_or(Err(Unkept::Perhaps)) {
            Ok(Receipt { matched: 0, kept: 0, blind: Some(unknown), .. }) => Sent::Blind(unknown),
            Ok(receipt) if receipt.full > 0 && receipt.matched == receipt.full && receipt.kept == 0 => Sent::Busy,
            Ok(receipt) => Sent::Line(receipt),
            Err(Unkept::Absent(absent)) => Sent::Absent(absent),
            Err(Unkept::Blind(unknown)) => Sent::Blind(unknown),
            Err(unkept) => Sent::Unkept(unkept),
        }
    }
}

pub fn finish<T>(reader: Reader<'_>, read: Option<T>) -> Result<T, Problem> {
    match (reader.finish(), read) {
        (Ok(()), Some(read)) => Ok(read),
        (Err(wrong), _) => Err(unfit(&wrong)),
        (Ok(()), None) => Err(unfit(&[])),
    }
}

/// Exactly one target, at the top or in `to`.
fn read_target(reader: &mut Reader<'_>) -> Option<To> {
    let mut targets = targets(reader);
    if let Some(to) = reader.raw("to") {
        targets.extend(reader.inside(&TO, "to", to, self::targets)?);
    }
    match targets.len() {
        1 => targets.pop().flatten(),
        0 => reader.wrong_as_a_whole("a target is wanted: socketId, userId, storeId, roomId or all"),
        _ => reader.wrong_as_a_whole(
            "one target is wanted, not several: keep one of socketId, userId, storeId, roomId and all",
        ),
    }
}

/// A target that is named but is no good counts as one; its fault is noted.
fn targets(reader: &mut Reader<'_>) -> Vec<Option<To>> {
    let group = |group| To::Many(Target::Group(group));
    let mut found = Vec::new();
    if reader.has("socketId") {
        found.push(reader.text("socketId").map(|id| To::Socket(id.into())));
    }
    if reader.has("userId") {
        found.push(reader.name("userId", UserName::parse).map(|name| group(Group::User(name))));
    }
    if reader.has("storeId") {
        found.push(reader.name("storeId", StoreName::parse).map(|name| group(Group::Store(name))));
    }
    if reader.has("roomId") {
        found.push(reader.name("roomId", RoomName::parse).map(|name| group(Group::Room(name))));
    }
    if reader.has("all") {
        match reader.flag("all") {
            Some(false) => {}
            Some(true) => found.push(Some(To::Many(Target::All))),
            None => found.push(None),
        }
    }
    found
}

fn line(receipt: &Receipt) -> Value {
    let mut line = json!({
        "id": format!("m_{}", registry::names::mark()),
        "status": status(receipt),
        "matched": receipt.matched,
        "delivered": receipt.delivered,
        "unknown": receipt.unknown,
        "instances": receipt.instances,
    });
    if let Some(unknown) = &receipt.blind {
        line["registry"] = sockets::in_a_word(unknown).into();
    }
    if let Some(durability) = receipt.durability {
        line["durability"] = durability.as_str().into();
        line["queued"] = receipt.kept.into();
    }
    line
}

fn status(receipt: &Receipt) -> &'static str {
    match receipt {
        Receipt { blind: Some(_), .. } => "partial",
        // All that was not written is kept.
        Receipt { delivered: 0, full: 0, unknown: 0, kept: 1.., .. } => "queued",
        Receipt { matched, delivered, kept: 1.., .. } if delivered < matched => "partial",
        Receipt { delivered: 0, unknown: 0, .. } => "undelivered",
        Receipt { matched, delivered, .. } if delivered < matched => "partial",
        _ => "delivered",
    }
}

/// The word in metrics.
pub fn outcome(receipt: &Receipt) -> &'static str {
    match receipt {
        Receipt { delivered: 0, unknown: 0, .. } => "undelivered",
        Receipt { delivered: 0, .. } => "unknown",
        _ => "delivered",
    }
}

/// `POST /api/send`.
pub async fn send(request: Request) -> Answer {
    let send = Send::read(&request.body)?;
    answer(&request, send).await
}

/// `POST /api/rooms/{room}/send`.
pub async fn to_room(request: Request) -> Answer {
    let room = RoomName::parse(request.path_value()).map_err(|fault| sockets::bad_name("room", fault))?;
    let send = Send::to_room(&request.body, room)?;
    answer(&request, send).await
}

async fn answer(request: &Request, send: Send<'_>) -> Answer {
    match send.go(request).await {
        Sent::Line(receipt) => {
            let mut answer = ok(&line(&receipt));
            if receipt.durability.is_some() {
                *answer.status_mut() = StatusCode::ACCEPTED;
            }
            Ok(answer)
        }
        Sent::Absent(absent) => Err(sockets::absent(request, &absent, send.by(request)).await),
        Sent::Blind(unknown) => Err(Problem::unknown(&unknown)),
        Sent::Busy => Err(busy()),
        Sent::Unkept(unkept) => Err(self::unkept(&unkept)),
    }
}

fn unkept(unkept: &Unkept) -> Problem {
    match unkept {
        Unkept::TooMany => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Too many sockets",
            "send it to fewer at once, or without durable",
        )
        .code("too_many_sockets")
        .detail(format!("one durable delivery is kept for {KEPT_MAX} sockets at most; nothing was sent")),
        Unkept::Full => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Log full",
            "its client has to acknowledge what it has: {\"type\":\"ack\",\"seq\":n}",
        )
        .code("log_full")
        .detail("there is no room until something in it is acknowledged or expires; nothing was kept")
        .retry_after(1),
        _ => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "No word from the registry",
            "it may have been kept; whoever sends it again may send it twice",
        )
        .code("registry_silent")
        .member("delivered", "unknown"),
    }
}

pub fn busy() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "Socket busy",
        "its client reads too slowly; try again later, or raise MAX_QUEUE_BYTES",
    )
    .code("socket_busy")
    .detail("its queue is full; nothing was written")
    .retry_after(1)
}

pub fn log_absent(request: &Request, verdict: &Verdict) {
    let request_id = &request.request_id;
    warn!(request_id, "⚠️ Socket {} not found in activeSockets: {}", verdict.asked, verdict.sentence());
    if verdict.state() == "never_seen" {
        warn!(
            request_id,
            "🔍 Socket lookup failed. Possible causes: the id was never given out, it is of another gateway or namespace, or it was mistyped"
        );
    }
    info!(request_id, "🔄 No socket found, requesting client reconnect");
}

/// `POST /api/send/batch`: in order, each by itself.
pub async fn batch(request: Request) -> Answer {
    let mut reader = Reader::new(&BATCH, &request.body, "").map_err(|fault| refused(&fault))?;
    let messages = reader.raw("messages").and_then(|list| match json::elements(list.get().as_bytes()) {
        Ok(messages) if messages.len() <= BATCH_MAX => Some(messages),
        Ok(_) => reader.wrong("messages", &format!("{BATCH_MAX} messages at most")),
        Err(_) => reader.wrong("messages", "a list is wanted"),
    });
    let messages = finish(reader, messages)?;
    let mut results = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let mut result = match Send::read(message.get().as_bytes()) {
            Err(problem) => failed(problem, &request),
            Ok(send) => match send.go(&request).await {
                Sent::Line(receipt) => line(&receipt),
                Sent::Absent(absent) => failed(sockets::absent(&request, &absent, send.by(&request)).await, &request),
                Sent::Blind(unknown) => failed(Problem::unknown(&unknown), &request),
                Sent::Busy => failed(busy(), &request),
                Sent::Unkept(unkept) => failed(self::unkept(&unkept), &request),
            },
        };
        result["index"] = index.into();
        results.push(result);
        // Each may have gone to every socket there is; others want to be served, too.
        tokio::task::yield_now().await;
    }
    Ok(ok(&json!({ "results": results })))
}

/// A problem as a line among others: there `status` is a word, so the number has another name.
fn failed(problem: Problem, request: &Request) -> Value {
    let mut line = problem.json(&request.request_id);
    line["httpStatus"] = line["status"].take();
    line["status"] = "failed".into();
    line
}
