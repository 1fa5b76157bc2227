//! A refusal as a value: RFC 9457 members, plus `error`, `code`, `hint` and `requestId`.

use crate::{calls::told::Now, codes};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use registry::{Gone, SocketId, StoreName, Unknown, Verdict};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// Why a request is not served, and what to do about it.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    pub title: Cow<'static, str>,
    pub code: Cow<'static, str>,
    /// Apart, so that a result that may hold a problem stays small where there is none.
    more: Box<More>,
}

#[derive(Debug, Clone, Default)]
struct More {
    error: Option<Cow<'static, str>>,
    detail: Option<String>,
    hint: Cow<'static, str>,
    counted_as: Option<&'static str>,
    headers: HeaderMap,
    members: Map<String, Value>,
}

impl Problem {
    /// The code is the title in snake_case.
    pub fn new(status: StatusCode, title: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        let title = title.into();
        Self {
            status,
            code: snake_case(&title).into(),
            title,
            more: Box::new(More { hint: hint.into(), ..More::default() }),
        }
    }

    /// Whoever asks has to show something, or something else.
    pub fn unauthorized(title: &'static str, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, title, hint).header(WWW_AUTHENTICATE, "Bearer realm=\"holdfast\"")
    }

    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = code.into();
        self
    }

    /// Under which word it is counted, where status and code do not say enough.
    #[must_use]
    pub fn counted_as(mut self, word: &'static str) -> Self {
        self.more.counted_as = Some(word);
        self
    }

    pub fn counted(&self) -> Option<&'static str> {
        self.more.counted_as
    }

    #[must_use]
    pub fn error(mut self, error: impl Into<Cow<'static, str>>) -> Self {
        self.more.error = Some(error.into());
        self
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.more.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        if let Ok(value) = value.try_into() {
            self.more.headers.insert(name, value);
        }
        self
    }

    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, seconds.to_string())
    }

    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.members.insert(name.into(), value.into());
        self
    }

    /// 404 or 410: the socket is not there, and this is why.
    pub fn absent(verdict: &Verdict, now: Now) -> Self {
        let (status, title, code) = match verdict.state() {
            "never_seen" => (StatusCode::NOT_FOUND, "Socket never seen", "socket_never_seen"),
            "forgotten" => (StatusCode::NOT_FOUND, "Socket forgotten", "socket_forgotten"),
            _ => (StatusCode::GONE, "Socket gone", "socket_gone"),
        };
        let problem =
            Self::new(status, title, "ask the client to reconnect; it gets a new socket id with its hi frame")
                .code(code)
                .detail(sentence(verdict, now))
                .member("verdict", verdict_json(verdict, now));
        match status {
            StatusCode::GONE => problem.member("action", "reconnect"),
            _ => problem,
        }
    }

    /// 503: the registry cannot say, and nobody may guess.
    pub fn unknown(unknown: &Unknown) -> Self {
        let (title, hint) = match unknown {
            Unknown::Unavailable => ("Registry unavailable", "try again; sockets of this instance are still reached"),
            Unknown::Rebuilding => {
                ("Registry rebuilding", "try again in some seconds; the instances are telling it anew")
            }
            Unknown::OwnerUnreachable(_) => {
                ("Owner unreachable", "try again; within a minute its instance is heard again or declared dead")
            }
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, title, hint)
            .detail(format!("{unknown}; nothing was written, and it is not known to be offline"))
            .retry_after(if *unknown == Unknown::Rebuilding { 5 } else { 1 })
    }

    /// 503: the instance takes on nothing more.
    pub fn draining() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Draining",
            "try again; another instance answers, or this one when it is back",
        )
        .code("draining")
        .detail("its instance is about to end; nothing was written, and it is not known to be offline")
        .retry_after(1)
    }

    /// 504: the time was over. `delivered` says what became of it, as far as that is known.
    pub fn no_reply(delivered: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "No reply",
            "raise timeoutMs; with delivered unknown, make a repeat harmless",
        )
        .detail(detail)
        .member("delivered", delivered)
    }

    /// 502: the time is not over, and whoever has the call may still answer, but not to us. With a 503 a proxy would ask again
    /// unasked.
    pub fn instance_ended(delivered: impl Into<Value>) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "Instance ended",
            "with an Idempotency-Key, ask again for the answer; without one, if a second time does no harm",
        )
        .detail("the instance that was asked ended, or was taken for dead, before the client had answered")
        .member("delivered", delivered)
    }

    /// 409: the client was asked, and said this.
    pub fn call_failed(socket: SocketId, instance: &str, said: &[u8]) -> Self {
        Self::new(StatusCode::CONFLICT, "Call failed", "failure has what the client said")
            .detail(format!("{socket} was asked and said that it could not"))
            .member("failure", serde_json::from_slice::<Value>(said).unwrap_or_default())
            .member("socketId", socket.to_string())
            .member("instance", instance)
    }

    /// 502: it ended with a call in its hands, or on the way to them.
    pub fn socket_lost(verdict: &Verdict, delivered: Value, now: Now) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "Socket lost",
            "the client had the call when it left; ask it again if a second time does no harm",
        )
        .detail(sentence(verdict, now))
        .member("delivered", delivered)
        .member("verdict", verdict_json(verdict, now))
    }

    /// Title and detail, for the log.
    pub fn summary(&self) -> String {
        match &self.more.detail {
            Some(detail) => format!("{}: {detail}", self.title),
            None => self.title.to_string(),
        }
    }

    /// The members, as a body or as one line of a batch.
    pub fn json(self, request_id: &str) -> Value {
        debug_assert!(
            codes::is_problem(&self.code),
            "{} is in no table: add it to codes.rs and docs/codes.md",
            self.code
        );
        let mut body = Map::new();
        body.insert("type".into(), [codes::ADDRESS, &self.code].concat().into());
        body.insert("title".into(), self.title.as_ref().into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("error".into(), self.more.error.as_deref().unwrap_or(&self.title).into());
        body.insert("code".into(), self.code.as_ref().into());
        if let Some(detail) = self.more.detail {
            body.insert("detail".into(), detail.into());
        }
        body.insert("hint".into(), self.more.hint.as_ref().into());
        body.insert("requestId".into(), request_id.into());
        body.extend(self.more.members);
        body.into()
    }

    /// The answer on the wire. `as_problem`: the caller asked for `application/problem+json`.
    pub fn response(mut self, request_id: &str, as_problem: bool) -> Response<Full<Bytes>> {
        let (status, headers) = (self.status, std::mem::take(&mut self.more.headers));
        let mut response = Response::new(Full::from(format!("{}\n", self.json(request_id))));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let content_type = if as_problem { "application/problem+json" } else { "application/json" };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

/// The verdict, as every answer shows it: always with every member, null where nothing is known.
pub fn verdict_json(verdict: &Verdict, now: Now) -> Value {
    let known = match &verdict.gone {
        Gone::Closed { instance, connected_at, closed_at, store, ending, .. } => {
            Some((instance, connected_at, closed_at, store.as_ref(), ending))
        }
        Gone::NeverSeen | Gone::Forgotten => None,
    };
    json!({
        "socketId": verdict.asked,
        "state": verdict.state(),
        "cause": known.map(|(.., ending)| ending.cause.as_str()),
        "closeCode": known.and_then(|(.., ending)| ending.code),
        "reason": known.map(|(.., ending)| &ending.reason),
        "instance": known.map(|(instance, ..)| instance),
        "connectedAt": known.map(|(_, connected_at, ..)| connected_at),
        "closedAt": known.map(|(_, _, closed_at, ..)| closed_at),
        "storeId": known.and_then(|(_, _, _, store, _)| store).map(StoreName::as_str),
        "storeSockets": now.store_sockets,
        "restarts": now.restarts,
        "sentence": sentence(verdict, now),
    })
}

/// What became of it, and what has become of its instance since.
fn sentence(verdict: &Verdict, now: Now) -> String {
    match (&verdict.gone, now.restarts) {
        (Gone::Closed { instance, .. }, Some(restarts)) => {
            format!("{}; {instance} is back, restart {restarts}", verdict.sentence())
        }
        _ => verdict.sentence(),
    }
}

fn snake_case(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn what_is_unknown_is_never_called_offline() {
        let owner = registry::Incarnation::fresh("web2:5000");
        let codes = [Unknown::Unavailable, Unknown::Rebuilding, Unknown::OwnerUnreachable(owner)].map(|unknown| {
            let problem = Problem::unknown(&unknown);
            assert!(
                problem.status == StatusCode::SERVICE_UNAVAILABLE && problem.more.headers.contains_key(RETRY_AFTER)
            );
            problem.code.into_owned()
        });
        assert_eq!(codes, ["registry_unavailable", "registry_rebuilding", "owner_unreachable"]);
    }

    #[tokio::test]
    async fn the_members_are_those_of_the_contract() {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "Invalid Sec-WebSocket-Key", "fix it").error("e");
        let response = problem.response("r1", true);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "invalid_sec_websocket_key");
        assert_eq!((&body["error"], &body["hint"], &body["requestId"]), (&json!("e"), &json!("fix it"), &json!("r1")));
        assert_eq!(body["status"], 400);
    }
}
