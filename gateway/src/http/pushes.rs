//! Sending from HTTP: to a socket, a user, a store, a room or all, one by one or in batches.

use super::{
    Answer, Call, ok,
    shape::{Field, Kind, Reader, Shape, Wrong, errors, refused, unfit},
    sockets,
};
use crate::{
    courier::{Absent, Receipt, Target},
    frame, json, mention,
};
use hyper::StatusCode;
use registry::{Group, RoomName, SocketId, StoreName, UserName, Verdict};
use serde_json::{Value, json, value::RawValue};
use tracing::{error, info, warn};

const fn field(name: &'static str, kind: Kind, meaning: &'static str) -> Field {
    Field { name, kind, required: false, meaning }
}

const EVENT: Field = field("event", Kind::Text, "what the frame's type says; message unless given");
const DATA: Field = field("data", Kind::Any, "passed to the sockets untouched");
const TIMEOUT: Field =
    field("timeoutMs", Kind::Millis(600_000), "how long to wait for the owner's word; 5000 unless given");
const DURABLE: Field = field("durable", Kind::Flag, "keep it for sockets that are away; not in this version");
const TTL: Field = field("ttlMs", Kind::Millis(31_536_000_000), "how long a durable one is kept");
const EXCEPT: Field = field("exceptSocketId", Kind::Text, "a socket that does not get it");

const TARGET: [Field; 5] = [
    field("socketId", Kind::Text, "one socket"),
    field("userId", Kind::Name, "all sockets of a user"),
    field("storeId", Kind::Name, "all sockets of a store"),
    field("roomId", Kind::Name, "all sockets in a room"),
    field("all", Kind::Flag, "true: every socket"),
];

/// What stands in `to`.
static TO: Shape = Shape { fields: &TARGET };

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
};

/// The body of `/api/rooms/{room}/send`.
pub static ROOM_SEND: Shape = Shape { fields: &[EVENT, DATA, EXCEPT, TIMEOUT, DURABLE, TTL] };

/// The body of `/api/send/batch`.
pub static BATCH: Shape = Shape {
    fields: &[Field { name: "messages", kind: Kind::List, required: true, meaning: "up to 1000 bodies of /api/send" }],
};

/// The body of `/sse/push`.
pub static PUSH: Shape = Shape {
    fields: &[
        Field { name: "user_id", kind: Kind::Name, required: true, meaning: "who gets it" },
        Field { name: "data", kind: Kind::Any, required: true, meaning: "passed to the sockets untouched" },
        field("event_type", Kind::Text, "what the frame's type says; message unless given"),
    ],
};

/// Messages in one batch.
const BATCH_MAX: usize = 1000;

enum To {
    Socket(String),
    Many(Target),
}

struct Send<'a> {
    to: To,
    event: String,
    data: &'a RawValue,
    except: Option<SocketId>,
}

/// What became of a send.
enum Sent {
    Line(Receipt),
    Absent(Absent),
    Busy,
}

impl<'a> Send<'a> {
    fn read(body: &'a [u8]) -> Result<Self, super::Problem> {
        let mut reader = Reader::new(&SEND, body, "").map_err(|fault| refused(&fault))?;
        let to = read_target(&mut reader);
        let send = Self::rest(&mut reader, to);
        finish(reader, send)
    }

    fn to_room(body: &'a [u8], room: RoomName) -> Result<Self, super::Problem> {
        let mut reader = Reader::new(&ROOM_SEND, body, "").map_err(|fault| refused(&fault))?;
        let send = Self::rest(&mut reader, Some(To::Many(Target::Group(Group::Room(room)))));
        finish(reader, send)
    }

    fn rest(reader: &mut Reader<'a>, to: Option<To>) -> Option<Self> {
        let event = reader.text("event").map_or_else(|| "message".into(), Into::into);
        let data = reader.raw("data").unwrap_or(RawValue::NULL);
        let except = reader.text("exceptSocketId").and_then(|id| SocketId::parse(&id));
        reader.millis("timeoutMs");
        reader.millis("ttlMs");
        if reader.flag("durable") == Some(true) {
            reader.wrong::<()>("durable", "durable sends are not in this version; leave it out or say false");
        }
        Some(Self { to: to?, event, data, except })
    }

    async fn go(&self, call: &Call) -> Sent {
        let sent = self.hand_over(call).await;
        call.gateway.metrics.sent(match &sent {
            Sent::Line(Receipt { delivered: 0, .. }) => "undelivered",
            Sent::Line(_) => "delivered",
            Sent::Absent(_) => "absent",
            Sent::Busy => "busy",
        });
        if let Sent::Absent(Absent::Gone(verdict)) = &sent {
            log_absent(verdict);
        }
        sent
    }

    async fn hand_over(&self, call: &Call) -> Sent {
        let courier = &call.gateway.courier;
        let frame = frame::sent(&self.event, self.data, None);
        match &self.to {
            To::Many(target) => Sent::Line(courier.to_many(target, self.except, &frame)),
            // Whoever is both meant and excepted is excepted.
            To::Socket(id) if self.except.is_some() && SocketId::parse(id) == self.except => {
                Sent::Line(Receipt::default())
            }
            To::Socket(id) => match courier.to_socket(id, frame).await {
                Err(absent) => Sent::Absent(absent),
                Ok(receipt) if receipt.full > 0 => Sent::Busy,
                Ok(receipt) => Sent::Line(receipt),
            },
        }
    }
}

fn finish<T>(reader: Reader<'_>, read: Option<T>) -> Result<T, super::Problem> {
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
        let inside = Reader::new(&TO, to.get().as_bytes(), "/to").map_err(|fault| vec![Wrong::of(&fault, "/to")]);
        let inside = inside.and_then(|mut inside| {
            targets.extend(self::targets(&mut inside));
            inside.finish()
        });
        if let Err(wrong) = inside {
            reader.include(wrong);
            return None;
        }
    }
    match targets.len() {
        1 => targets.pop().flatten(),
        0 => reader.wrong_as_a_whole("a target is wanted: socketId, userId, storeId, roomId or all"),
        _ => reader.wrong_as_a_whole("one target is wanted, not several"),
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

fn line(receipt: Receipt) -> Value {
    json!({
        "id": format!("m_{}", registry::names::mark()),
        "status": status(receipt),
        "matched": receipt.matched,
        "delivered": receipt.delivered,
        "unknown": 0,
        "instances": usize::from(receipt.matched > 0),
    })
}

fn status(receipt: Receipt) -> &'static str {
    match receipt {
        Receipt { delivered: 0, .. } => "undelivered",
        Receipt { matched, delivered, .. } if delivered < matched => "partial",
        _ => "delivered",
    }
}

/// `POST /api/send`.
pub async fn send(call: Call) -> Answer {
    let send = Send::read(&call.body)?;
    answer(&call, send).await
}

/// `POST /api/rooms/{room}/send`.
pub async fn to_room(call: Call) -> Answer {
    let room = RoomName::parse(call.path_value()).map_err(|fault| sockets::bad_name("room", fault))?;
    let send = Send::to_room(&call.body, room)?;
    answer(&call, send).await
}

async fn answer(call: &Call, send: Send<'_>) -> Answer {
    match send.go(call).await {
        Sent::Line(receipt) => Ok(ok(&line(receipt))),
        Sent::Absent(absent) => Err(sockets::absent(call, &absent).await),
        Sent::Busy => Err(busy()),
    }
}

fn busy() -> super::Problem {
    super::Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "Socket busy",
        "its client reads too slowly; try again later, or raise MAX_QUEUE_BYTES",
    )
    .code("socket_busy")
    .detail("its queue is full; nothing was written")
    .retry_after(1)
}

fn log_absent(verdict: &Verdict) {
    warn!("⚠️ Socket {} not found in activeSockets: {}", verdict.asked, verdict.sentence());
    if verdict.state() == "never_seen" {
        warn!(
            "🔍 Socket lookup failed. Possible causes: the id was never given out, it is of another gateway or namespace, or it was mistyped"
        );
    }
    info!("🔄 No socket found, requesting client reconnect");
}

/// `POST /api/send/batch`: in order, each by itself.
pub async fn batch(call: Call) -> Answer {
    let mut reader = Reader::new(&BATCH, &call.body, "").map_err(|fault| refused(&fault))?;
    let messages = reader.raw("messages").and_then(|list| match json::elements(list.get().as_bytes()) {
        Ok(messages) if messages.len() <= BATCH_MAX => Some(messages),
        Ok(_) => reader.wrong("messages", &format!("{BATCH_MAX} messages at most")),
        Err(_) => reader.wrong("messages", "a list is wanted"),
    });
    let messages = finish(reader, messages)?;
    let mut results = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let mut result = match Send::read(message.get().as_bytes()) {
            Err(problem) => failed(problem, &call),
            Ok(send) => match send.go(&call).await {
                Sent::Line(receipt) => line(receipt),
                Sent::Absent(absent) => failed(sockets::absent(&call, &absent).await, &call),
                Sent::Busy => failed(busy(), &call),
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
fn failed(problem: super::Problem, call: &Call) -> Value {
    let mut line = problem.json(&call.request_id);
    line["httpStatus"] = line["status"].take();
    line["status"] = "failed".into();
    line
}

struct Push<'a> {
    user: UserName,
    data: &'a RawValue,
    event: String,
}

impl<'a> Push<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self, Vec<Wrong>> {
        let user = reader.name("user_id", UserName::parse);
        let data = reader.raw("data");
        let event = reader.text("event_type").map_or_else(|| "message".into(), Into::into);
        reader.finish()?;
        user.zip(data).map(|(user, data)| Self { user, data, event }).ok_or_else(Vec::new)
    }

    /// Sends it to its user, or to the public account that it mentions.
    fn go(&self, call: &Call) -> Receipt {
        info!(user_id = self.user.as_str(), request_id = call.request_id, "Processing SSE message");
        let account = mention::mentioned(self.data, &call.gateway.config.public_accounts);
        let account = account.and_then(|account| UserName::parse(account).ok());
        let (user, frame) = match account {
            Some(account) => {
                info!(account = account.as_str(), user_id = self.user.as_str(), "Detected @mention of public account");
                let sender = mention::original_sender(&self.user);
                let extra = sender.as_deref().map(|sender| ("original_sender", sender));
                (account, frame::sent(&self.event, self.data, extra))
            }
            None => (self.user.clone(), frame::sent(&self.event, self.data, None)),
        };
        let receipt = call.gateway.courier.to_many(&Target::Group(Group::User(user.clone())), None, &frame);
        call.gateway.metrics.sent(if receipt.delivered > 0 { "delivered" } else { "undelivered" });
        match receipt {
            Receipt { matched: 0, .. } => {
                warn!(
                    user_id = user.as_str(),
                    "Attempt to send message to disconnected user: no socket of this user is connected"
                );
            }
            Receipt { full, delivered, .. } if full > 0 => {
                error!(
                    user_id = user.as_str(),
                    delivered, full, "Error sending to user: the queue of {full} sockets is full"
                );
            }
            Receipt { delivered, .. } => info!(user_id = user.as_str(), delivered, "Message sent to user"),
        }
        receipt
    }
}

/// `POST /sse/push`.
pub async fn push(call: Call) -> Answer {
    let reader = Reader::new(&PUSH, &call.body, "").map_err(|fault| refused(&fault))?;
    let push = Push::read(reader).map_err(|wrong| unfit(&wrong))?;
    let receipt = push.go(&call);
    let (status, message) = match receipt {
        Receipt { delivered, .. } if delivered > 0 => ("success", "Message delivered"),
        Receipt { matched: 0, .. } => ("partial", "User not connected"),
        _ => ("partial", "User connected, but its queue is full"),
    };
    Ok(ok(&json!({
        "status": status,
        "message": message,
        "user_id": push.user.as_str(),
        "matched": receipt.matched,
        "delivered": receipt.delivered,
    })))
}

/// `POST /sse/push/batch`.
pub async fn push_batch(call: Call) -> Answer {
    let messages = json::elements(&call.body).map_err(|fault| refused(&fault))?;
    if messages.len() > BATCH_MAX {
        return Err(unfit(&[Wrong { pointer: String::new(), detail: format!("{BATCH_MAX} messages at most") }]));
    }
    let mut results = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let at = format!("/{index}");
        let reader = Reader::new(&PUSH, message.get().as_bytes(), &at).map_err(|fault| vec![Wrong::of(&fault, &at)]);
        results.push(match reader.and_then(Push::read) {
            Ok(push) => {
                let receipt = push.go(&call);
                json!({ "index": index, "user_id": push.user.as_str(), "success": receipt.delivered > 0 })
            }
            Err(wrong) => json!({ "index": index, "user_id": null, "success": false, "errors": errors(&wrong) }),
        });
        tokio::task::yield_now().await;
    }
    Ok(ok(&json!({ "results": results })))
}
