//! Calls that are kept: the first answer, how one stands, and taking it back.

use super::{Answer, Body, Problem, Request, json, ok};
use crate::{calls::outcome_of, kept::Kept, letters::LATE};
use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{HeaderValue, LOCATION},
};
use registry::{CallId, Cancelled, Durability, Group, Standing, Unknown};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout_at;

/// What the registry may take to say how a call stands.
const PATIENCE: Duration = Duration::from_secs(5);

/// 202, and where to ask what came of it.
pub fn accepted(call: &CallId, durability: Durability) -> Response<Body> {
    let body = json!({ "status": "queued", "callId": call.as_str(), "durability": durability.as_str() });
    let mut response = json(format!("{body}\n"));
    *response.status_mut() = StatusCode::ACCEPTED;
    point(&mut response, call.as_str());
    response
}

/// Where a kept call is asked for.
pub fn point(response: &mut Response<Body>, call: &str) {
    if let Ok(place) = HeaderValue::try_from(format!("/api/calls/{call}")) {
        response.headers_mut().insert(LOCATION, place);
    }
}

/// 429: as many are kept for this group as may.
pub fn full(group: &Group) -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "Queue full",
        "try again when a client of it has connected, or take queued calls back with DELETE /api/calls/{id}",
    )
    .detail(format!(
        "as many calls wait for a socket of {} {} as may; this one is not kept",
        group.kind(),
        group.name()
    ))
    .retry_after(10)
}

/// 504: the registry went away over it.
pub fn silent(call: &CallId) -> Problem {
    let detail =
        format!("the registry did not say whether it keeps the call; GET /api/calls/{call} does when it is back");
    Problem::no_reply("unknown", detail).member("callId", call.as_str())
}

/// `GET /api/calls/{id}`.
pub async fn show(request: Request) -> Answer {
    let call = named(&request)?;
    let (registry, by) = (&request.gateway.courier.registry, request.began + PATIENCE);
    let look = async || match timeout_at(by + LATE, registry.standing(&call)).await {
        Ok(standing) => standing,
        Err(_) => Err(Unknown::Unavailable),
    };
    let mut standing = look().await.map_err(|unknown| Problem::unknown(&unknown))?;
    if let Standing::Overdue(was_given) = standing {
        // Whoever finds that out says so, and then it is so for all.
        let outcome = outcome_of(&call, was_given, &request.request_id);
        registry.answer(&call, None, &outcome).await.map_err(|unknown| Problem::unknown(&unknown))?;
        standing = look().await.map_err(|unknown| Problem::unknown(&unknown))?;
    }
    match standing {
        Standing::Unknown => Err(unknown(&call)),
        Standing::Waits { attempt } => {
            Ok(ok(&json!({ "status": "queued", "callId": call.as_str(), "attempt": attempt })))
        }
        Standing::Given { socket, owner, attempt } => Ok(ok(&json!({
            "status": "given",
            "callId": call.as_str(),
            "socketId": socket.to_string(),
            "instance": owner.instance(),
            "attempt": attempt,
        }))),
        Standing::Overdue(was_given) => kept(&outcome_of(&call, was_given, &request.request_id)),
        Standing::Done(outcome) => kept(&outcome),
    }
}

/// As a caller who had waited would have been answered.
fn kept(outcome: &Bytes) -> Answer {
    let Some(Kept { status, body }) = Kept::read(outcome) else {
        let hint = "ask an instance of the version that kept it";
        return Err(Problem::new(StatusCode::BAD_GATEWAY, "Outcome unreadable", hint));
    };
    let mut response = json(body);
    // Whatever is kept has been a status before.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    Ok(response)
}

/// `DELETE /api/calls/{id}`.
pub async fn cancel(request: Request) -> Answer {
    let call = named(&request)?;
    let courier = &request.gateway.courier;
    let cancelled = timeout_at(request.began + PATIENCE, courier.registry.cancel(&call)).await;
    let cancelled = cancelled.unwrap_or(Err(Unknown::Unavailable));
    match cancelled.map_err(|unknown| Problem::unknown(&unknown))? {
        Cancelled::Unknown => return Err(unknown(&call)),
        Cancelled::Done => {
            let hint = "GET /api/calls/{id} says what came of it";
            return Err(Problem::new(StatusCode::CONFLICT, "Call done", hint)
                .detail(format!("{call} is over; it cannot be taken back"))
                .member("callId", call.as_str()));
        }
        Cancelled::Waited => {}
        Cancelled::Given(owner) => courier.take_from(&owner, &call).await,
    }
    Ok(ok(&json!({ "status": "cancelled", "callId": call.as_str() })))
}

/// Any text may be asked for; one that is no id of a kept call never was one.
fn named(request: &Request) -> Result<CallId, Problem> {
    let asked = request.path_value();
    let call = CallId::parse(asked).filter(CallId::is_queued);
    call.ok_or_else(|| unknown(&asked.chars().take(64).collect::<String>()))
}

fn unknown(call: &impl std::fmt::Display) -> Problem {
    let hint = "ask with the callId of a 202; what came of it is kept for 24 h";
    Problem::new(StatusCode::NOT_FOUND, "Call unknown", hint)
        .detail(format!("{call} is no queued call that is known here: it was taken back, is forgotten, or never was"))
}
