//! The wire's words: what a client can say, and what it is told.

mod greeting;

pub use greeting::{Greeting, Lasting};

use crate::{calls::Said, json, json::Members, wire};
use bytes::Bytes;
use registry::{CallId, RoomName, SocketId, StoreName, names};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, sync::LazyLock};

/// Room for what most frames say.
const TEXT_BYTES: usize = 256;

/// The version of this wire, as `hi` says it.
pub const VERSION: &str = "1";
/// What a client whose frame failed is told, whatever the reason; the reason is in `detail`.
pub const ERROR_MESSAGE: &str = "An error occurred while processing your action";

/// The member that carried the verb; the answer uses the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Type,
    Evt,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Evt => "evt",
        }
    }
}

/// What a client asks for.
#[derive(Debug)]
pub enum Ask<'a> {
    Ping {
        id: Option<&'a RawValue>,
        t: Option<&'a RawValue>,
    },
    Hi {
        version: Option<String>,
    },
    GetSocketId,
    SelectStore(StoreName),
    Join(RoomName),
    Leave(RoomName),
    Publish {
        room: RoomName,
        data: &'a RawValue,
    },
    Request,
    /// `progress`, `reply` or `failed`: words about a call.
    OfCall {
        call: Cow<'a, str>,
        said: Said,
        data: &'a RawValue,
    },
    /// Its client has every delivery up to this one; none if it says no number.
    Ack(Option<u64>),
    Unknown(String),
}

impl Ask<'_> {
    /// A word for metrics; there are only so many.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Ping { .. } => "ping",
            Self::Hi { .. } => "hi",
            Self::GetSocketId => "get_socket_id",
            Self::SelectStore(_) => "select_store",
            Self::Join(_) => "join",
            Self::Leave(_) => "leave",
            Self::Publish { .. } => "publish",
            Self::Request => "request",
            Self::OfCall { .. } => "call",
            Self::Ack(_) => "ack",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// The words of `error` frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BadJson,
    UnknownVerb,
    Invalid,
    NotInRoom,
    Forbidden,
    TooMany,
    HookFailed,
}

impl Code {
    pub const ALL: [Self; 7] = [
        Self::BadJson,
        Self::UnknownVerb,
        Self::Invalid,
        Self::NotInRoom,
        Self::Forbidden,
        Self::TooMany,
        Self::HookFailed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::UnknownVerb => "unknown_verb",
            Self::Invalid => "invalid",
            Self::NotInRoom => "not_in_room",
            Self::Forbidden => "forbidden",
            Self::TooMany => "too_many",
            Self::HookFailed => "hook_failed",
        }
    }
}

/// One frame that could be read, as far as its verb.
#[derive(Debug)]
pub struct ClientFrame<'a> {
    pub key: Key,
    pub id: Option<&'a RawValue>,
    /// What it asks for, or what is wrong with the way it asks.
    pub ask: Result<Ask<'a>, (Code, String)>,
}

impl<'a> ClientFrame<'a> {
    /// Reads one frame. Never fails: a frame that cannot be read is one that has to be answered.
    pub fn read(text: &'a [u8]) -> Self {
        let members = match Members::read(text) {
            Ok(members) => members,
            Err(fault) => return Self { key: Key::Type, id: None, ask: Err((Code::BadJson, fault.to_string())) },
        };
        let id = members.get("id");
        let verb = ["type", "evt", "action"].into_iter().find_map(|key| members.get(key).map(|verb| (key, verb)));
        let Some((key, verb)) = verb else {
            let ask = in_other_words(None, text, &members)
                .ok_or_else(|| (Code::Invalid, "a frame needs a verb in \"type\", \"evt\" or \"action\"".into()));
            return Self { key: Key::Type, id, ask };
        };
        let key = if key == "evt" { Key::Evt } else { Key::Type };
        let ask = match json::text(verb) {
            Some(verb) => match ask(&verb, &members) {
                Ok(Ask::Unknown(verb)) => Ok(in_other_words(Some(&verb), text, &members).unwrap_or(Ask::Unknown(verb))),
                ask => ask,
            },
            None => Err((Code::Invalid, "the verb is no text".into())),
        };
        Self { key, id, ask }
    }
}

fn ask<'a>(verb: &str, members: &Members<'a>) -> Result<Ask<'a>, (Code, String)> {
    Ok(match verb {
        "ping" => Ask::Ping { id: members.get("id"), t: members.get("t") },
        "hi" => Ask::Hi { version: members.text("ver").map(Into::into) },
        "getSocketId" => Ask::GetSocketId,
        "selectStore" => Ask::SelectStore(store(members)?),
        "join" => Ask::Join(room(members)?),
        "leave" => Ask::Leave(room(members)?),
        "publish" => Ask::Publish { room: room(members)?, data: members.get("data").unwrap_or(RawValue::NULL) },
        "request" => Ask::Request,
        "progress" if is_final(members) => of_call(Said::Reply, members)?,
        "progress" => of_call(Said::Progress, members)?,
        "reply" => of_call(Said::Reply, members)?,
        "failed" => of_call(Said::Failed, members)?,
        "ack" => Ask::Ack(members.get("seq").and_then(|seq| seq.get().parse().ok())),
        other => Ask::Unknown(other.to_owned()),
    })
}

/// Clients of other gateways speak of a call by its name alone, whatever their verb is, if they have one: all of it is
/// progress but the last. Where such a frame has no data it is all data.
fn in_other_words<'a>(verb: Option<&str>, text: &'a [u8], members: &Members<'a>) -> Option<Ask<'a>> {
    let said = if verb == Some("final_response") || is_final(members) { Said::Reply } else { Said::Progress };
    let Ask::OfCall { call, data, .. } = of_call(said, members).ok()? else { return None };
    // Under a verb of its own it may mean something else by that name.
    if verb.is_some() {
        CallId::parse(&call)?;
    }
    let whole = serde_json::from_slice(text).ok()?;
    Some(Ask::OfCall { call, said, data: members.get("data").map_or(whole, |_| data) })
}

fn is_final(members: &Members<'_>) -> bool {
    members.get("is_final").is_some_and(|flag| flag.get() == "true")
}

/// What a client says about a call.
fn of_call<'a>(said: Said, members: &Members<'a>) -> Result<Ask<'a>, (Code, String)> {
    let call = members.text("callId").or_else(|| members.text("correlation_id"));
    let call = call.ok_or_else(|| (Code::Invalid, "callId is missing or no text".to_owned()))?;
    let name = if said == Said::Failed { "error" } else { "data" };
    Ok(Ask::OfCall { call, said, data: members.get(name).unwrap_or(RawValue::NULL) })
}

fn room(members: &Members<'_>) -> Result<RoomName, (Code, String)> {
    let name = members.text("room").ok_or_else(|| (Code::Invalid, "room is missing or no text".to_owned()))?;
    RoomName::parse(&name).map_err(|fault| invalid("room", fault))
}

fn store(members: &Members<'_>) -> Result<StoreName, (Code, String)> {
    let data = members.get("data").and_then(|data| Members::read(data.get().as_bytes()).ok()).unwrap_or_default();
    let name = data.text("storeId").or_else(|| data.text("store_id"));
    let name = name.ok_or_else(|| (Code::Invalid, "data.storeId is missing or no text".to_owned()))?;
    StoreName::parse(&name).map_err(|fault| invalid("data.storeId", fault))
}

fn invalid(what: &str, fault: names::NameFault) -> (Code, String) {
    (Code::Invalid, format!("{what}: {fault}"))
}

/// What the application answers, as it stands there.
pub fn response(key: Key, id: &RawValue, result: &RawValue) -> Bytes {
    Answer::new(key, "response").with_raw("id", Some(id)).with_raw("result", Some(result)).encode()
}

/// Tells a client to load afresh: what was before is not continued.
pub fn reset() -> Bytes {
    wire::text(Bytes::from_static(br#"{"type":"reset"}"#))
}

/// The pings that are answered with no work behind them, and their answers.
pub fn exact_pong(text: &[u8]) -> Option<Bytes> {
    // Encoded once: most of what clients say is this.
    static EVT: LazyLock<Bytes> = LazyLock::new(|| wire::text(&br#"{"evt":"pong"}"#[..]));
    static TYPE: LazyLock<Bytes> = LazyLock::new(|| wire::text(&br#"{"type":"pong"}"#[..]));
    match text {
        br#"{"evt":"ping"}"# => Some(EVT.clone()),
        br#"{"type":"ping"}"# | br#"{"action":"ping"}"# => Some(TYPE.clone()),
        _ => None,
    }
}

/// An answer under the asker's own key, member by member.
pub struct Answer {
    text: String,
}

impl Answer {
    pub fn new(key: Key, verb: &str) -> Self {
        let mut text = String::with_capacity(TEXT_BYTES);
        ["{\"", key.name(), "\":"].into_iter().for_each(|piece| text.push_str(piece));
        json::quote(&mut text, verb);
        Self { text }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        json::quote(&mut self.text, value);
        self
    }

    #[must_use]
    pub fn with_raw(self, name: &str, value: Option<&RawValue>) -> Self {
        match value {
            Some(value) => self.with_json(name, value.get()),
            None => self,
        }
    }

    /// `value` is JSON.
    fn with_json(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        self.text.push_str(value);
        self
    }

    fn name(&mut self, name: &str) {
        [",\"", name, "\":"].into_iter().for_each(|piece| self.text.push_str(piece));
    }

    #[must_use]
    pub fn with_data(mut self, name: &str, value: &str) -> Self {
        self.text.push_str(&format!(",\"data\":{{\"{name}\":{}}}", json::quoted(value)));
        self
    }

    pub fn encode(mut self) -> Bytes {
        self.text.push('}');
        wire::text(self.text)
    }
}

/// What a client hears of a frame that failed.
pub fn error(key: Key, code: Code, detail: &str, id: Option<&RawValue>) -> Bytes {
    Answer::new(key, "error")
        .with("code", code.name())
        .with("message", ERROR_MESSAGE)
        .with("detail", detail)
        .with_raw("id", id)
        .encode()
}

/// What the others in a room hear.
pub fn message(room: &RoomName, from: SocketId, data: &RawValue) -> Bytes {
    Answer::new(Key::Type, "message")
        .with("room", room.as_str())
        .with("from", &from.to_string())
        .with_raw("data", Some(data))
        .encode()
}

/// What an HTTP caller sends, `extra` members behind the data.
pub fn sent(event: &str, data: &RawValue, extra: Option<(&str, &RawValue)>) -> Bytes {
    let answer = Answer::new(Key::Type, event).with_raw("data", Some(data));
    match extra {
        Some((name, value)) => answer.with_raw(name, Some(value)).encode(),
        None => answer.encode(),
    }
}

/// What an HTTP caller sends to whoever may come back, without the last brace: a number comes behind it.
pub fn unclosed(event: &str, data: &RawValue) -> Bytes {
    Answer::new(Key::Type, event).with_raw("data", Some(data)).text.into()
}

/// The same for a socket, with its place in the log.
pub fn numbered(unclosed: &[u8], seq: u64) -> Bytes {
    wire::text([unclosed, b",\"seq\":", seq.to_string().as_bytes(), b"}"].concat())
}

/// The same for one without a log.
pub fn unnumbered(unclosed: &[u8]) -> Bytes {
    wire::text([unclosed, b"}"].concat())
}

/// What an HTTP caller sends and waits for an answer to: a message that says by which name to answer it.
pub fn answerable(event: &str, data: &RawValue, id: &CallId, sender: Option<&RawValue>) -> Bytes {
    Answer::new(Key::Type, event)
        .with_raw("data", Some(data))
        .with("callId", id.as_str())
        .with("correlation_id", id.as_str())
        .with_raw("original_sender", sender)
        .encode()
}

/// A call, as its client gets it.
pub struct Call<'a> {
    pub event: &'a str,
    pub id: &'a CallId,
    pub store: Option<&'a StoreName>,
    pub data: &'a RawValue,
    /// By the clock of `hi`'s time.
    pub deadline: u64,
    pub request_id: &'a str,
    pub traceparent: Option<&'a str>,
    /// Which time it is that a queued call is given to a socket.
    pub attempt: Option<u32>,
}

/// What a caller asks of a client.
pub fn call(call: &Call<'_>) -> Bytes {
    let answer = Answer::new(Key::Type, call.event).with("callId", call.id.as_str());
    let answer = match call.store {
        Some(store) => answer.with("storeId", store.as_str()),
        None => answer.with_json("storeId", "null"),
    };
    let answer = answer
        .with_json("data", call.data.get())
        .with_json("deadline", &call.deadline.to_string())
        .with("requestId", call.request_id);
    let answer = match call.attempt {
        Some(attempt) => answer.with_json("attempt", &attempt.to_string()),
        None => answer,
    };
    match call.traceparent {
        Some(traceparent) => answer.with("traceparent", traceparent).encode(),
        None => answer.encode(),
    }
}

/// Nobody waits for the answer any more.
pub fn cancel(id: &CallId) -> Bytes {
    wire::text(format!(r#"{{"type":"cancel","callId":"{id}"}}"#))
}

/// The word before a drain's close: come back, and when.
pub fn retry(after_ms: u64) -> Bytes {
    wire::text(format!(r#"{{"type":"retry","afterMs":{after_ms}}}"#))
}

fn frame(value: &impl Serialize) -> Bytes {
    // Our own structures always serialize.
    wire::text(serde_json::to_vec(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use registry::Incarnation;

    #[test]
    fn the_verb_is_the_first_of_type_evt_action() {
        let read = |text: &'static str| ClientFrame::read(text.as_bytes());
        let frame = read(r#"{"action":"leave","room":"r","type":"join"}"#);
        assert!(matches!(frame.ask, Ok(Ask::Join(_))) && frame.key == Key::Type);
        let frame = read(r#"{"evt":"getSocketId"}"#);
        assert!(matches!(frame.ask, Ok(Ask::GetSocketId)) && frame.key == Key::Evt);
        assert_eq!(read(r#"{"action":"ping"}"#).key, Key::Type);
        assert!(matches!(read(r#"{"room":"r"}"#).ask, Err((Code::Invalid, _))));
        assert!(matches!(read("no").ask, Err((Code::BadJson, _))));
    }

    #[test]
    fn a_call_is_spoken_of_by_its_name_under_any_verb() {
        let id = CallId::fresh(&Incarnation::fresh("web1"));
        let read = |rest: &str| {
            let text = format!(r#"{{"correlation_id":"{id}"{rest}}}"#);
            match ClientFrame::read(text.as_bytes()).ask {
                Ok(Ask::OfCall { said, data, .. }) => (said, data.get().replace(id.as_str(), "id")),
                other => panic!("{other:?}"),
            }
        };
        for (rest, said, data) in [
            (r#","data":1"#, Said::Progress, "1"),
            (r#","type":"chunk","data":[]"#, Said::Progress, "[]"),
            (r#","is_final":true,"data":2"#, Said::Reply, "2"),
            (r#","type":"chunk","is_final":true,"data":null"#, Said::Reply, "null"),
            (r#","type":"final_response","data":3"#, Said::Reply, "3"),
            (r#","type":"progress","is_final":true,"data":4"#, Said::Reply, "4"),
            (r#","type":"final_response""#, Said::Reply, r#"{"correlation_id":"id","type":"final_response"}"#),
            (r#","content":"a""#, Said::Progress, r#"{"correlation_id":"id","content":"a"}"#),
            (r#","type":"reply""#, Said::Reply, "null"),
        ] {
            assert_eq!(read(rest), (said, data.into()), "{rest}");
        }
        let other = ClientFrame::read(br#"{"type":"final_response","callId":"7"}"#).ask;
        assert!(matches!(other, Ok(Ask::Unknown(_))), "no call of ours");
    }

    #[test]
    fn a_call_says_what_its_client_needs_in_this_order() {
        let id = CallId::fresh(&Incarnation::fresh("web1"));
        let store = StoreName::parse("s").unwrap();
        let data = RawValue::from_string("[1]".into()).unwrap();
        let mut call = Call {
            event: "a\"b",
            id: &id,
            store: None,
            data: &data,
            deadline: 7,
            request_id: "r_1",
            traceparent: None,
            attempt: None,
        };
        let said = |call: &Call<'_>| {
            let frame = wire::payload(&super::call(call)).flatten().unwrap();
            String::from_utf8(frame.to_vec()).unwrap().replace(id.as_str(), "id")
        };
        let begins = r#"{"type":"a\"b","callId":"id","storeId":"#;
        assert_eq!(said(&call), format!(r#"{begins}null,"data":[1],"deadline":7,"requestId":"r_1"}}"#));
        (call.store, call.traceparent) = (Some(&store), Some("00-1"));
        let all = format!(r#"{begins}"s","data":[1],"deadline":7,"requestId":"r_1","traceparent":"00-1"}}"#);
        assert_eq!(said(&call), all);
        (call.attempt, call.traceparent) = (Some(2), None);
        let again = format!(r#"{begins}"s","data":[1],"deadline":7,"requestId":"r_1","attempt":2}}"#);
        assert_eq!(said(&call), again);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let frame = ClientFrame::read(text.as_bytes());
            if let Err((code, detail)) = frame.ask {
                prop_assert!(!error(frame.key, code, &detail, frame.id).is_empty());
            }
        }
    }
}
