//! `MESSAGE_URL`: what clients say that the gateway does not understand goes to the application, and its answer back.

use super::{Hook, Who};
use crate::{
    frame::{self, Code, Key},
    json::Members,
    outbox::Refused,
    sockets::Socket,
};
use bytes::Bytes;
use registry::{SocketId, SocketRecord, names::mark};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Messages of one socket that may wait for the application.
const WAITING_MAX: usize = 16;
/// And of all sockets together, in bytes.
const BYTES_MAX: usize = 64 << 20;

/// Something that a client said.
#[derive(Clone, Copy)]
pub enum Message<'a> {
    /// `request`, with a method and its parameters.
    Request(&'a [u8]),
    /// A verb that is not ours.
    Frame(&'a [u8]),
}

/// What clients said, on its way to the application: of each socket one after another and in its order, those of
/// different sockets side by side. What one socket said before it ended is told all the same.
pub struct Messages {
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

struct Inner {
    hook: Hook,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Of each socket for which somebody is asking now; nothing of others.
    of: HashMap<SocketId, VecDeque<Asked>>,
    bytes: usize,
}

/// One message, as it will be posted.
struct Asked {
    /// Where its client hears of it: whoever has come back meanwhile has another connection, and asks there.
    socket: Arc<Socket>,
    record: Arc<SocketRecord>,
    key: Key,
    id: Option<Box<RawValue>>,
    body: Bytes,
}

impl Messages {
    pub fn new(hook: Hook) -> Self {
        Self { inner: Arc::new(Inner { hook, waiting: Mutex::default() }), tasks: TaskTracker::new() }
    }

    /// Takes it on; what comes of it the client hears on its socket, if the message has an id.
    pub fn take(
        &self,
        socket: &Arc<Socket>,
        key: Key,
        id: Option<&RawValue>,
        message: Message<'_>,
    ) -> Result<(), (Code, &'static str)> {
        let record = socket.record();
        let body = body(&record, id, message);
        let asked = Asked { socket: socket.clone(), record, key, id: id.map(ToOwned::to_owned), body };
        let mut waiting = self.inner.waiting();
        if waiting.bytes + asked.body.len() > BYTES_MAX {
            return Err((Code::TooMany, "too many messages wait for the application; say it again later"));
        }
        let bytes = asked.body.len();
        match waiting.of.entry(socket.id) {
            Entry::Occupied(queue) if queue.get().len() >= WAITING_MAX => {
                return Err((Code::TooMany, "16 messages of this socket wait for the application; say it again later"));
            }
            Entry::Occupied(mut queue) => queue.get_mut().push_back(asked),
            Entry::Vacant(place) => {
                place.insert(VecDeque::from([asked]));
                let (inner, id) = (self.inner.clone(), socket.id);
                self.tasks.spawn(async move {
                    while let Some(asked) = inner.next(id) {
                        inner.post(asked).await;
                    }
                });
            }
        }
        waiting.bytes += bytes;
        Ok(())
    }

    /// Waits for what is on its way; nothing more comes.
    pub async fn finish(&self, until: Instant) {
        self.tasks.close();
        if timeout_at(until, self.tasks.wait()).await.is_err() {
            let waiting = self.inner.waiting();
            let left = waiting.of.values().map(VecDeque::len).sum::<usize>() + waiting.of.len();
            warn!("MESSAGE_URL was not told {left} things that clients said: DRAIN_TIMEOUT is over");
        }
    }
}

impl Inner {
    /// The next one of a socket; when there is none nobody asks for it any more.
    fn next(&self, socket: SocketId) -> Option<Asked> {
        let mut waiting = self.waiting();
        let next = waiting.of.get_mut(&socket).and_then(VecDeque::pop_front);
        match &next {
            Some(asked) => waiting.bytes = waiting.bytes.saturating_sub(asked.body.len()),
            None => drop(waiting.of.remove(&socket)),
        }
        next
    }

    async fn post(&self, Asked { socket, record, key, id, body }: Asked) {
        let answer = self.hook.post(&format!("{}.{}", socket.id, mark()), body, &Who::of(&record), None).await;
        let id = id.as_deref();
        let failed = |detail: &str| Some(frame::error(key, Code::HookFailed, detail, id));
        let understood = match &answer {
            Ok(answer) => match answer.status {
                200..=299 => read(&answer.body).map(Some).ok_or_else(|| "an answer that is no JSON".to_owned()),
                401 | 403 => Ok(None),
                status => Err(format!("status {status} is no answer")),
            },
            Err(fault) => Err(fault.to_string()),
        };
        self.hook.fares(understood.as_ref().map(drop).map_err(|why| why as &dyn fmt::Display));
        let said = match (understood, &answer) {
            (Ok(Some(result)), _) => id.map(|id| frame::response(key, id, result)),
            (Ok(None), _) => Some(frame::error(key, Code::Forbidden, "the application does not allow it", id)),
            (Err(_), Err(fault)) => failed(&fault.to_string()),
            // How it failed is for the log.
            (Err(_), Ok(_)) => failed("the application failed"),
        };
        if let Some(frame) = said
            && socket.line.send(frame) == Err(Refused::Full)
        {
            let frame = failed("the application's answer found no room among what this client has not read yet");
            // Whoever has not even room for that does not read at all, and is told goodbye for it.
            let _ = frame.map(|frame| socket.line.send(frame));
        }
    }

    /// A panic while it was held leaves what can be used: every step is whole.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer without a body says nothing, which is a result as well.
fn read(body: &[u8]) -> Option<&RawValue> {
    match body.trim_ascii() {
        b"" => Some(RawValue::NULL),
        body => serde_json::from_slice(body).ok(),
    }
}

fn body(record: &SocketRecord, id: Option<&RawValue>, message: Message<'_>) -> Bytes {
    #[derive(Serialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        socket_id: String,
        user_id: Option<&'a str>,
        store_id: Option<&'a str>,
        id: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        method: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        params: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        frame: Option<&'a RawValue>,
    }
    let mut body = Body {
        socket_id: record.id.to_string(),
        user_id: record.user.as_ref().map(|user| user.as_str()),
        store_id: record.store.as_ref().map(|store| store.as_str()),
        id,
        ..Body::default()
    };
    match message {
        Message::Request(text) => {
            let members = Members::read(text).unwrap_or_default();
            let member = |name| members.get(name).or(Some(RawValue::NULL));
            (body.method, body.params) = (member("method"), member("params"));
        }
        Message::Frame(text) => body.frame = serde_json::from_slice(text).ok(),
    }
    // Nothing in it can fail to be written.
    serde_json::to_vec(&body).unwrap_or_default().into()
}
