//! What a caller is told of a call that came to an end. Whoever asked says it; if they are gone, whoever holds the
//! socket does, for those who ask again.

use crate::{json, problem::Problem};
use bytes::Bytes;
use registry::{CallId, Cause, Gone, Group, Incarnation, Registry, SocketId, Verdict, envelope::LostSocket};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What stands around a client's words, nearly always.
const REPLIED_BYTES: usize = 384;

/// Who answered, and what.
#[derive(Debug)]
pub struct Answered {
    pub socket: SocketId,
    pub instance: String,
    pub is_remote: bool,
    pub is_fallback: bool,
    pub data: Bytes,
    /// Until it was known where to send it, and what the client took.
    pub lookup: Duration,
    pub client: Duration,
}

/// Whether the client was given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    Yes,
    No,
    Unknown,
}

impl From<Delivered> for Value {
    fn from(delivered: Delivered) -> Self {
        match delivered {
            Delivered::Yes => true.into(),
            Delivered::No => false.into(),
            Delivered::Unknown => "unknown".into(),
        }
    }
}

/// 200, with the client's words as it wrote them.
pub fn replied(call: &CallId, answered: &Answered, elapsed: Duration) -> String {
    let hop = if answered.is_remote { "remote" } else { "local" };
    let result = std::str::from_utf8(&answered.data).unwrap_or("null");
    let mut text = String::with_capacity(REPLIED_BYTES + result.len());
    for (before, value) in [
        (r#"{"status":"replied","callId":""#, call.as_str()),
        (r#"","socketId":""#, &answered.socket.to_string()),
        (r#"","instance":"#, &json::quoted(&answered.instance)),
        (r#","hop":""#, hop),
        (r#"","fallback":"#, if answered.is_fallback { "true" } else { "false" }),
        (r#","result":"#, result),
        (r#","elapsedMs":"#, &(elapsed.as_millis() as u64).to_string()),
    ] {
        text.push_str(before);
        text.push_str(value);
    }
    text.push('}');
    text
}

pub fn failed(call: &CallId, answered: &Answered) -> Problem {
    Problem::call_failed(answered.socket, &answered.instance, &answered.data).member("callId", call.as_str())
}

/// The count of its store's sockets is left out if nobody can say `until` then.
pub async fn lost(
    registry: &Registry,
    call: &CallId,
    verdict: &Verdict,
    delivered: Delivered,
    until: Instant,
) -> Problem {
    let now = now(registry, &verdict.gone, until).await;
    Problem::socket_lost(verdict, delivered.into(), now).member("callId", call.as_str())
}

/// What is known now of where a socket was that is gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// How many sockets its store has.
    pub store_sockets: Option<usize>,
    /// How often its instance has been started again, if it went with that instance, which is back and says so.
    pub restarts: Option<u64>,
}

/// Whatever nobody can say `until` then is left out.
pub async fn now(registry: &Registry, gone: &Gone, until: Instant) -> Now {
    let (store_sockets, restarts) = tokio::join!(store_sockets(registry, gone, until), restarts(registry, gone, until));
    Now { store_sockets, restarts }
}

async fn restarts(registry: &Registry, gone: &Gone, until: Instant) -> Option<u64> {
    let Gone::Closed { instance, connected_at, ending, .. } = gone else { return None };
    if ![Cause::InstanceRestart, Cause::InstanceCrash].contains(&ending.cause) {
        return None;
    }
    let leases = timeout_at(until, registry.instances()).await.ok()?.ok()?;
    // The process that held it had started before it came; who started later came after that one.
    let later = leases.iter().map(|lease| &lease.about).filter(|about| about.started_at > *connected_at);
    later.filter(|about| *about.instance == **instance).max_by_key(|about| about.started_at)?.restarts
}

async fn store_sockets(registry: &Registry, gone: &Gone, until: Instant) -> Option<usize> {
    match gone {
        Gone::Closed { store: Some(store), .. } => {
            timeout_at(until, registry.members(Group::Store(store.clone()).key())).await.ok().flatten()
        }
        _ => Some(0),
    }
}

pub fn no_reply(call: &CallId, delivered: Delivered) -> Problem {
    let detail = match delivered {
        Delivered::Yes => "the client was given the call and did not answer in time",
        Delivered::No => "the time was over before it was written",
        Delivered::Unknown => "nobody said whether the client was given the call",
    };
    Problem::no_reply(Value::from(delivered), detail).member("callId", call.as_str())
}

pub fn ended(call: &CallId, delivered: Delivered) -> Problem {
    Problem::instance_ended(Value::from(delivered)).member("callId", call.as_str())
}

/// Why a socket is not there any more that had a call.
pub fn verdict(owner: &Incarnation, lost: LostSocket, now_ms: u64) -> Verdict {
    let LostSocket { socket, store, connected_at, ending, .. } = lost;
    let gone = Gone::Closed {
        instance: owner.instance().into(),
        connected_at,
        closed_at: now_ms,
        store,
        user: None,
        ending,
        back_within: None,
    };
    Verdict::new(&socket.to_string(), gone, Duration::ZERO)
}
