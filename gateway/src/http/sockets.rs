//! Looking one socket up, moving it between rooms, and telling it to go.

use super::{Answer, Request, ok, paging::bad_query};
use crate::{
    admission::names::Query,
    calls::told,
    close::{Close, KICKED},
    courier::{Absent, Found, Move, Moved, Target},
    letters::LATE,
    problem::Problem,
    view,
};
use hyper::StatusCode;
use registry::{Group, Incarnation, NameFault, RoomName, Unknown, UserName};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long another instance may take to do what is asked here.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// 400 for a name in the path.
pub fn bad_name(kind: &str, fault: NameFault) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("Invalid {kind} name"), "1 to 256 bytes without control characters")
        .detail(fault.to_string())
}

/// `GET /api/sockets/{id}`.
pub async fn show(request: Request) -> Answer {
    match request.gateway.courier.find(request.path_value()).await {
        Ok(Found::Here(socket)) => Ok(ok(&view::of_socket(&socket))),
        Ok(Found::There(record)) => Ok(ok(&view::of_record(&record))),
        Err(absent) => Err(self::absent(&request, &absent, request.began + PATIENCE).await),
    }
}

/// The problem for a socket that was not reached `by` then, with what is known about its store and its instance.
pub async fn absent(request: &Request, absent: &Absent, by: Instant) -> Problem {
    let verdict = match absent {
        Absent::Gone(verdict) => verdict,
        Absent::Unsettled => {
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Socket in transition", "try again in a second")
                .code("owner_unreachable")
                .detail("the socket is on its way in or out; nothing was written")
                .retry_after(1);
        }
        Absent::Unknown(unknown) => return Problem::unknown(unknown),
        Absent::Silent(owner) => {
            let detail = format!("{}, which holds it, did not say in time whether it was done", owner.instance());
            return Problem::no_reply("unknown", detail);
        }
        Absent::Draining => return Problem::draining(),
        Absent::OutOfTime => return Problem::no_reply(false, "the time was over before it was reached"),
    };
    let now = told::now(&request.gateway.courier.registry, &verdict.gone, by + LATE).await;
    Problem::absent(verdict, now)
}

/// The close that a caller asks for: 4403, or an application's own code.
fn asked_close(request: &Request) -> Result<Close, Problem> {
    let query = Query::of(request.query());
    let code = match query.one("code")? {
        None => KICKED,
        Some(text) => {
            text.parse()
                .ok()
                .filter(|code| matches!(code, 1000 | 1001 | 1008 | 1011..=1013 | 3000..=4999))
                .ok_or_else(|| bad_query("code", "a close code is 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999"))?
        }
    };
    Ok(Close::Kicked { code, reason: query.one("reason")?.unwrap_or_default() })
}

/// `DELETE /api/sockets/{id}`.
pub async fn kick(request: Request) -> Answer {
    let close = asked_close(&request)?;
    let by = request.began + PATIENCE;
    if let Err(absent) = request.gateway.courier.close_anywhere(request.path_value(), close.clone(), by).await {
        return Err(self::absent(&request, &absent, by).await);
    }
    Ok(ok(&json!({
        "status": "closed",
        "socketId": request.path_value(),
        "code": close.code(),
        "reason": close.reason(),
    })))
}

/// `DELETE /api/users/{name}`.
pub async fn kick_user(request: Request) -> Answer {
    let close = asked_close(&request)?;
    let user = UserName::parse(request.path_value()).map_err(|fault| bad_name("user", fault))?;
    let (courier, group) = (&request.gateway.courier, Group::User(user));
    // First those who are away: who comes back meanwhile is there.
    let away = timeout(PATIENCE, courier.dismiss_many(&group, &close)).await.unwrap_or_default();
    let mut parted = courier.close_many(&Target::Group(group), close, Instant::now() + PATIENCE).await;
    parted.closed += away;
    let mut body = json!({ "status": "closed", "userId": request.path_value(), "closed": parted.closed });
    match &parted.blind {
        Some(unknown) if parted.closed == 0 => return Err(Problem::unknown(unknown)),
        Some(unknown) => {
            body["status"] = "partial".into();
            body["registry"] = in_a_word(unknown).into();
        }
        None if parted.missing.is_empty() => {}
        None => {
            body["status"] = "partial".into();
            body["missing"] = parted.missing.iter().map(Incarnation::instance).collect::<Vec<_>>().into();
        }
    }
    Ok(ok(&body))
}

/// How the registry is, for answers that could only be given in part.
pub fn in_a_word(unknown: &Unknown) -> &'static str {
    match unknown {
        Unknown::Rebuilding => "rebuilding",
        Unknown::Unavailable | Unknown::OwnerUnreachable(_) => "unavailable",
    }
}

/// `PUT /api/sockets/{id}/rooms/{room}`.
pub async fn join(request: Request) -> Answer {
    shift(&request, Move::In, "joined").await
}

/// `DELETE /api/sockets/{id}/rooms/{room}`.
pub async fn leave(request: Request) -> Answer {
    shift(&request, Move::Out, "left").await
}

async fn shift(request: &Request, way: Move, done: &str) -> Answer {
    let room = room_of(request)?;
    let (courier, max, by) = (&request.gateway.courier, request.gateway.config.rooms_max, request.began + PATIENCE);
    match courier.move_anywhere(request.path_value(), &room, way, max, by).await {
        Ok(Moved::Done) => Ok(ok(&json!({ "status": done, "socketId": request.path_value(), "room": room.as_str() }))),
        Ok(Moved::TooManyRooms { max }) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Too many rooms",
            format!("a socket is in {max} rooms at most; MAX_ROOMS sets it"),
        )),
        Err(absent) => Err(self::absent(request, &absent, by).await),
    }
}

fn room_of(request: &Request) -> Result<RoomName, Problem> {
    let name = request.path_values.get(1).map_or("", String::as_str);
    RoomName::parse(name).map_err(|fault| bad_name("room", fault))
}
