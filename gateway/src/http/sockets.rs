//! Looking sockets up, moving them between rooms, and telling them to go.

use super::{
    Answer, Body, Call, ok,
    paging::{Paging, bad_query},
};
use crate::{
    admission::names::Query,
    clock,
    close::{Close, KICKED},
    courier::Absent,
    problem::Problem,
    session,
    sockets::Socket,
};
use hyper::{Response, StatusCode};
use registry::{Gone, Group, NameFault, RoomName, SocketRecord, StoreName, UserName, epoch_ms};
use serde_json::{Value, json};
use std::sync::Arc;

/// 400 for a name in the path.
pub fn bad_name(kind: &str, fault: NameFault) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("Invalid {kind} name"), "1 to 256 bytes without control characters")
        .detail(fault.to_string())
}

/// A socket as lists show it.
fn shown(socket: &Socket) -> Value {
    let record = socket.record();
    let now = clock::now_ms();
    let mut value = shown_record(&record);
    value["lastActivity"] = epoch_ms().saturating_sub(u64::from(socket.line.silent_ms(now))).into();
    value["rttMs"] = socket.line.rtt_ms().into();
    value
}

fn shown_record(record: &SocketRecord) -> Value {
    json!({
        "socketId": record.id.to_string(),
        "instance": record.owner.instance(),
        "connectedAt": record.connected_at,
        "userId": record.user.as_ref().map(UserName::as_str),
        "storeId": record.store.as_ref().map(StoreName::as_str),
        "rooms": record.rooms.iter().map(RoomName::as_str).collect::<Vec<_>>(),
        "clientId": record.client.as_deref(),
        "readyState": 1,
    })
}

/// `GET /api/sockets`.
pub async fn list(call: Call) -> Answer {
    let query = Query::of(call.query());
    let paging = Paging::of(&query)?;
    let group = one_group(&query)?;
    let instance = query.one("instance")?;
    let wanted = |record: &SocketRecord| instance.as_ref().is_none_or(|name| record.owner.instance() == name);
    let mut found = Vec::new();
    // Whether more may follow is told by what was looked at, not by what was wanted of it.
    let (last, looked_at);
    match group {
        Some(groups) => {
            let members = call.gateway.courier.sockets.members(groups[0].key());
            let also = |record: &SocketRecord| groups.iter().all(|group| record.groups().any(|own| own == *group));
            let members = members.iter().map(|socket| (socket, socket.record()));
            let members = members.filter(|(_, record)| record.id > paging.after && wanted(record) && also(record));
            let members: Vec<_> = members.take(paging.limit).collect();
            (last, looked_at) = (members.last().map(|(_, record)| record.id), members.len());
            found.extend(members.into_iter().map(|(socket, _)| shown(socket)));
        }
        None => {
            let page = call.gateway.courier.registry.page(paging.after, paging.limit).await;
            let here = |record: &SocketRecord| call.gateway.courier.sockets.get(record.id);
            (last, looked_at) = (page.last().map(|record| record.id), page.len());
            let show =
                |record: &SocketRecord| here(record).map_or_else(|| shown_record(record), |socket| shown(&socket));
            found.extend(page.iter().filter(|record| wanted(record)).map(|record| show(record)));
        }
    }
    let mut response = ok(&json!({ "count": found.len(), "sockets": found }));
    paging.link(&call, &mut response, last, looked_at);
    Ok(response)
}

/// The groups a list is narrowed to, if any.
fn one_group(query: &Query<'_>) -> Result<Option<Vec<Group>>, Problem> {
    let mut groups = Vec::new();
    if let Some(name) = query.one("user")? {
        groups.push(Group::User(UserName::parse(&name).map_err(|fault| bad_query("user", &fault.to_string()))?));
    }
    if let Some(name) = query.one("store")? {
        groups.push(Group::Store(StoreName::parse(&name).map_err(|fault| bad_query("store", &fault.to_string()))?));
    }
    if let Some(name) = query.one("room")? {
        groups.push(Group::Room(RoomName::parse(&name).map_err(|fault| bad_query("room", &fault.to_string()))?));
    }
    Ok(Some(groups).filter(|groups| !groups.is_empty()))
}

/// `GET /api/sockets/{id}`.
pub async fn show(call: Call) -> Answer {
    Ok(ok(&shown(&*socket(&call).await?)))
}

async fn socket(call: &Call) -> Result<Arc<Socket>, Problem> {
    match call.gateway.courier.find(call.path_value()).await {
        Ok(socket) => Ok(socket),
        Err(absent) => Err(self::absent(call, &absent).await),
    }
}

/// The problem for a socket that is not there, with what is known about its store.
pub async fn absent(call: &Call, absent: &Absent) -> Problem {
    let verdict = match absent {
        Absent::Gone(verdict) => verdict,
        Absent::Unsettled => {
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Socket in transition", "try again in a second")
                .code("owner_unreachable")
                .detail("the socket is on its way in or out; nothing was written")
                .retry_after(1);
        }
    };
    let store = match &verdict.gone {
        Gone::Closed { store: Some(store), .. } => Some(store.clone()),
        _ => None,
    };
    let store_sockets = match store {
        Some(store) => {
            let holders = call.gateway.courier.registry.holders(Group::Store(store).key()).await;
            holders.iter().map(|holder| holder.members).sum()
        }
        None => 0,
    };
    Problem::absent(verdict, store_sockets)
}

/// The close that a caller asks for: 4403, or an application's own code.
fn asked_close(call: &Call) -> Result<Close, Problem> {
    let query = Query::of(call.query());
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
pub async fn kick(call: Call) -> Answer {
    let close = asked_close(&call)?;
    // One that goes by itself in this moment is found gone at the second look.
    while !call.gateway.courier.close(&*socket(&call).await?, close.clone()).await {}
    Ok(ok(&json!({
        "status": "closed",
        "socketId": call.path_value(),
        "code": close.code(),
        "reason": close.reason(),
    })))
}

/// `DELETE /api/users/{name}`.
pub async fn kick_user(call: Call) -> Answer {
    let close = asked_close(&call)?;
    let user = UserName::parse(call.path_value()).map_err(|fault| bad_name("user", fault))?;
    let members = call.gateway.courier.sockets.members(Group::User(user).key());
    let mut closed = 0;
    for socket in &members {
        closed += usize::from(call.gateway.courier.close(socket, close.clone()).await);
    }
    Ok(ok(&json!({ "status": "closed", "userId": call.path_value(), "closed": closed })))
}

/// `PUT /api/sockets/{id}/rooms/{room}`.
pub async fn join(call: Call) -> Answer {
    let room = room_of(&call)?;
    let socket = socket(&call).await?;
    let max = call.gateway.config.rooms_max;
    match session::join_room(&call.gateway.courier, &socket, &room, max).await {
        true => Ok(ok(&json!({ "status": "joined", "socketId": call.path_value(), "room": room.as_str() }))),
        false => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Too many rooms",
            format!("a socket is in {max} rooms at most; MAX_ROOMS sets it"),
        )),
    }
}

/// `DELETE /api/sockets/{id}/rooms/{room}`.
pub async fn leave(call: Call) -> Answer {
    let room = room_of(&call)?;
    let socket = socket(&call).await?;
    session::leave_room(&call.gateway.courier, &socket, &room).await;
    Ok(ok(&json!({ "status": "left", "socketId": call.path_value(), "room": room.as_str() })))
}

fn room_of(call: &Call) -> Result<RoomName, Problem> {
    let name = call.path_values.get(1).map_or("", String::as_str);
    RoomName::parse(name).map_err(|fault| bad_name("room", fault))
}

/// `GET /api/users/{name}`.
pub async fn user(call: Call) -> Answer {
    let user = UserName::parse(call.path_value()).map_err(|fault| bad_name("user", fault))?;
    Ok(members(&call, &Group::User(user)))
}

/// `GET /api/stores/{name}`.
pub async fn store(call: Call) -> Answer {
    let store = StoreName::parse(call.path_value()).map_err(|fault| bad_name("store", fault))?;
    Ok(members(&call, &Group::Store(store)))
}

/// `GET /api/rooms/{name}`.
pub async fn room(call: Call) -> Answer {
    let room = RoomName::parse(call.path_value()).map_err(|fault| bad_name("room", fault))?;
    Ok(members(&call, &Group::Room(room)))
}

fn members(call: &Call, group: &Group) -> Response<Body> {
    let members = call.gateway.courier.sockets.members(group.key());
    let sockets: Vec<_> = members.iter().map(|socket| shown(socket)).collect();
    ok(&json!({
        "kind": group.kind(),
        "name": group.name(),
        "connected": !sockets.is_empty(),
        "count": sockets.len(),
        "sockets": sockets,
        "missing": [],
    }))
}

/// `GET /api/instances`.
pub async fn instances(call: Call) -> Answer {
    let leases = call.gateway.courier.registry.instances().await;
    let shown: Vec<_> = leases
        .iter()
        .map(|lease| {
            json!({
                "instance": lease.incarnation.instance(),
                "incarnation": lease.incarnation.to_string(),
                "state": lease.serving.as_str(),
                "version": lease.version,
                "pid": lease.pid,
                "startedAt": lease.started_at,
                "sockets": lease.sockets,
                "canary": lease.canary,
            })
        })
        .collect();
    Ok(ok(&json!({ "instances": shown })))
}
