//! The doors through which a client becomes a socket, and the two that only tell.

use super::{Answer, Body, Call, ok, redact, routes::Route};
use crate::{
    admission::{self, Door, Entry, Knock, Rules, address, names::Query, upgrade::Upgrade},
    arrival::{self, Arrival, Welcome},
    close::Close,
    problem::Problem,
};
use hyper::{
    Response, StatusCode,
    header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use registry::SocketId;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};

/// Whether this request knocks at a door: those look at origin and names in their own order.
pub fn is_door(route: &Route, call: &Call) -> bool {
    match route.path {
        "/" => admission::wants_upgrade(&call.head.headers),
        "/ws" | "/ws/{code}" | "/websocket" | "/connect" | "/api/handshake" => true,
        _ => false,
    }
}

/// Opens a socket, or says why not: as HTTP, or on the socket where `reject=close` asks for that.
pub async fn open(mut call: Call) -> Answer {
    call.gateway.metrics.handshakes.inc();
    let door = Door::of(call.head.uri.path()).unwrap_or(Door::Ws);
    let live = call.gateway.live.load_full();
    let place = call.gateway.place();
    let entry = {
        let knock = knock(&call, &door, call.query());
        let rules = rules(&call, &live);
        admission::admit(&knock, &rules, call.gateway.room(place.as_ref()))
    };
    match entry {
        Ok(Entry { names, upgrade }) => {
            let user = names.user.as_ref().map_or("anonymous", |user| user.as_str());
            let room = names.rooms.first().map_or("-", |room| room.as_str());
            info!(request_id = call.request_id, "WebSocket upgrade request for room: {room}, user: {user}");
            switch(&mut call, &upgrade, Welcome::Enter(names), place)
        }
        Err(problem) => refuse(&mut call, problem),
    }
}

fn refuse(call: &mut Call, problem: Problem) -> Answer {
    let code = problem.code.to_string();
    call.gateway.metrics.rejected(reason(&problem));
    warn!(
        request_id = call.request_id,
        peer = %call.peer,
        status = problem.status.as_u16(),
        code,
        uri = redact::uri(&call.head.uri),
        headers = redact::headers(&call.head.headers),
        "WebSocket upgrade failed: {}", problem.summary(),
    );
    let on_socket = admission::close_code(&problem)
        .filter(|_| admission::names::wants_close(call.head.uri.query().unwrap_or_default()))
        .zip(admission::upgrade::read(&call.head.headers).ok());
    match on_socket {
        Some((code, upgrade)) => {
            switch(call, &upgrade, Welcome::Refuse(Close::Refused { code, title: problem.title }), None)
        }
        None => Err(problem),
    }
}

/// Every refusal's code is one of ours, but for the names that the settings add to some of them.
fn reason(problem: &Problem) -> &'static str {
    match problem.status.as_u16() {
        400 if problem.code.starts_with("missing_or_empty") => "name_blank",
        400 if problem.code.starts_with("missing") => "name_missing",
        400 if problem.code == "invalid_match_code" => "match_code",
        400 if problem.code.ends_with("query_parameter") => "name_invalid",
        400 => "upgrade_headers",
        401 => "credentials",
        403 => "forbidden",
        426 => "no_upgrade",
        429 => "too_fast",
        503 if problem.code == "full" => "full",
        503 => "draining",
        _ => "other",
    }
}

/// 101, and the task that takes over when hyper lets go of the connection.
fn switch(call: &mut Call, upgrade: &Upgrade, welcome: Welcome, place: Option<OwnedSemaphorePermit>) -> Answer {
    let Some(on_upgrade) = call.on_upgrade.take() else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Invalid Upgrade header", "WebSocket needs HTTP/1.1")
            .detail("this connection cannot be upgraded"));
    };
    let arrival = Arrival {
        gateway: call.gateway.clone(),
        id: SocketId::fresh(),
        address: address::of_client(call.peer, &call.head.headers, &call.gateway.config.trusted_proxies),
        request_id: call.request_id.clone(),
        began: call.began,
        place,
    };
    call.gateway.socket_tasks.spawn(arrival::run(arrival, on_upgrade, welcome));
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&upgrade.accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(subprotocol) = upgrade.subprotocol.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok(response)
}

/// `GET /api/handshake?path=/ws&…`: the same stages, but for the upgrade headers.
pub async fn rehearse(call: Call) -> Answer {
    call.gateway.metrics.handshakes.inc();
    let path = Query::of(call.query()).one("path")?.unwrap_or_else(|| "/ws".into());
    let Some(door) = Door::of(&path) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "Not found",
            "path is one of /ws /ws/{code} /websocket /connect",
        )
        .detail(format!("{path} is no door")));
    };
    let live = call.gateway.live.load_full();
    let names = admission::identify(&knock(&call, &door, call.query()), &rules(&call, &live))
        .and_then(|names| admission::check_room(call.gateway.room(call.gateway.place().as_ref())).map(|()| names))
        .inspect_err(|problem| call.gateway.metrics.rejected(reason(problem)))?;
    Ok(ok(&json!({
        "ok": true,
        "userId": names.user.map(|user| user.to_string()),
        "storeId": names.store.map(|store| store.to_string()),
        "rooms": names.rooms.iter().map(|room| room.as_str()).collect::<Vec<_>>(),
    })))
}

/// `GET /api/auth/session`: with `AUTH=none` nobody is authenticated, and whoever is named is believed.
pub async fn session(call: Call) -> Answer {
    let live = call.gateway.live.load_full();
    let rules = Rules { required: Default::default(), ..rules(&call, &live) };
    let names = admission::names::read(&knock(&call, &Door::Ws, call.query()), &rules)?;
    Ok(ok(&json!({
        "authenticated": false,
        "auth": "none",
        "userId": names.user.map(|user| user.to_string()),
    })))
}

fn knock<'a>(call: &'a Call, door: &'a Door, query: &'a str) -> Knock<'a> {
    let proxies = &call.gateway.config.trusted_proxies;
    Knock {
        door,
        query,
        headers: &call.head.headers,
        trusted: address::is_trusted(call.peer, proxies),
        address: address::of_client(call.peer, &call.head.headers, proxies),
    }
}

fn rules<'a>(call: &'a Call, live: &'a crate::config::Live) -> Rules<'a> {
    let config = &call.gateway.config;
    Rules {
        required: config.required,
        code_pattern: &config.code_pattern,
        rooms_max: config.rooms_max,
        origins: &live.origins,
        rate: &call.gateway.connect_rate,
    }
}
