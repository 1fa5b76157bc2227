//! The first frame, and what a client needs to come back.

use super::{VERSION, frame};
use bytes::Bytes;
use registry::{Incarnation, SocketId};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// The greeting, as far as it is the same at every time.
#[derive(Debug, Clone)]
pub struct Greeting {
    pub socket: SocketId,
    pub instance: Arc<str>,
    pub ping_interval_seconds: f64,
    /// A JSON object, from the application.
    pub state: Option<Arc<str>>,
    /// Only of a socket that may come back.
    pub lasting: Option<Box<Lasting>>,
}

/// What a client has to know to come back.
#[derive(Debug, Clone)]
pub struct Lasting {
    /// Whether it has come back now, and missed nothing.
    pub resumed: bool,
    pub token: String,
    /// Deliveries after this one follow.
    pub seq: u64,
    /// Who held it before: what is said about a call that was given there goes there.
    pub came_from: Option<Incarnation>,
}

impl Greeting {
    /// `hi`, with the time it is written at.
    pub fn hi(&self, time: u64) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Hi<'a> {
            r#type: &'a str,
            evt: &'a str,
            ver: &'a str,
            time: u64,
            socket_id: String,
            instance: &'a str,
            resumed: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            session: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            seq: Option<u64>,
            ping_interval: serde_json::Number,
            state: &'a RawValue,
        }
        let seconds = self.ping_interval_seconds;
        let lasting = self.lasting.as_deref();
        let whole = (seconds.fract() == 0.0).then(|| (seconds as u64).into());
        frame(&Hi {
            r#type: "hi",
            evt: "hi",
            ver: VERSION,
            time,
            socket_id: self.socket.to_string(),
            instance: &self.instance,
            resumed: lasting.is_some_and(|lasting| lasting.resumed),
            session: lasting.map(|lasting| lasting.token.as_str()),
            seq: lasting.map(|lasting| lasting.seq),
            ping_interval: whole.or_else(|| serde_json::Number::from_f64(seconds)).unwrap_or_else(|| 0.into()),
            state: serde_json::from_str(self.state.as_deref().unwrap_or("{}")).unwrap_or(RawValue::NULL),
        })
    }
}
