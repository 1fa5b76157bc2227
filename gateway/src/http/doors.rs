//! The doors through which a client becomes a socket, and the two that only tell.

use super::{
    Answer, Body, Request,
    events::{self, Event},
    ok, redact,
    routes::Route,
};
use crate::{
    admission::{
        self, Door, Knock, Rules, address,
        credentials::{self, Shown},
        names::{self, Dropped, Names, Query},
        origin,
        upgrade::{self, Upgrade},
    },
    arrival::{self, Arrival, Welcome},
    close::Close,
    complaints::Topic,
    config::Required,
    gateway::Gateway,
    hooks::{
        Hook,
        connect::{self, Bounds, Denied, Visitor},
    },
    problem::Problem,
};
use futures_util::{StreamExt, stream};
use hyper::{
    Method, Response, StatusCode,
    header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use registry::SocketId;
use serde_json::json;
use std::net::IpAddr;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{info, warn};

/// Whether this request knocks at a door: those look at origin and names in their own order.
pub fn is_door(route: &Route, request: &Request) -> bool {
    match route.path {
        "/" => admission::wants_upgrade(&request.head.headers),
        "/ws" | "/ws/{code}" | "/websocket" | "/connect" | "/api/handshake" | "/sse/stream" => true,
        _ => false,
    }
}

/// Opens a socket, or says why not: as HTTP, or on the socket where `reject=close` asks for that.
pub async fn open(mut request: Request) -> Answer {
    request.gateway.metrics.handshakes.inc();
    let door = Door::of(request.head.uri.path()).unwrap_or(Door::Ws);
    let live = request.gateway.live.load_full();
    let id = SocketId::fresh();
    let asked = admission::identify(&knock(&request, &door, request.query()), &rules(&request, &live));
    let entry = async {
        let (names, shown) = identified(&request, asked).await?;
        let upgrade = upgrade::read(&request.head.headers)?;
        let (names, place) = comes_in(&request, id, names, &shown).await?;
        Ok((names, upgrade, place))
    };
    match entry.await {
        Ok((names, upgrade, place)) => {
            let user = names.user.as_ref().map_or("anonymous", |user| user.as_str());
            let room = names.rooms.first().map_or("-", |room| room.as_str());
            info!(request_id = request.request_id, "WebSocket upgrade request for room: {room}, user: {user}");
            switch(&mut request, id, &upgrade, Welcome::Enter(names), place)
        }
        Err(problem) => refuse(&mut request, problem),
    }
}

/// The names of somebody whose credential is good, as far as it grants them.
async fn identified(request: &Request, asked: Result<(Names, Shown), Problem>) -> Result<(Names, Shown), Problem> {
    let (names, shown) = asked?;
    let Gateway { auth, connect_rate, trials, .. } = &*request.gateway;
    if auth.modes.is_none() {
        return Ok((names, shown));
    }
    let trial = trials.begin(address(request))?;
    match auth.identify(&shown, trace(request)).await {
        Ok(grants) => {
            trial.is_no_refusal();
            grants.key.map_or(Ok(()), |key| connect_rate.check_key(key))?;
            let mut bound = grants.bound(names);
            if request.gateway.desk.hooks.connect.is_none() {
                bound = bound.and_then(|names| grants.check_store(&names).map(|()| names));
            }
            let names = bound.map_err(|name| credentials::not_yours(&name))?;
            Ok((Names { grants: Some(grants), ..names }, shown))
        }
        Err(why) => {
            let problem = credentials::refusal(why);
            if problem.status != StatusCode::UNAUTHORIZED {
                trial.is_no_refusal();
            } else {
                let room = names.rooms.first().map_or("-", |room| room.as_str());
                warn!(
                    request_id = request.request_id,
                    reason = why.as_str(),
                    "Unauthorized access attempt to room: {room}"
                );
            }
            Err(problem)
        }
    }
}

/// All else is well: the application is asked, a place is taken, and what counts once is used up.
async fn comes_in(
    request: &Request,
    id: SocketId,
    mut names: Names,
    shown: &Shown,
) -> Result<(Names, Option<OwnedSemaphorePermit>), Problem> {
    let gateway = &request.gateway;
    if let Some(hook) = &gateway.desk.hooks.connect {
        admission::check_room(gateway.room(gateway.place().as_ref()))?;
        names = allowed(request, hook, id, &names).await?;
    }
    // Taken only now: whoever waits for an answer about a credential keeps nobody out.
    let place = gateway.place();
    admission::check_room(gateway.room(place.as_ref()))?;
    gateway.auth.admit(shown).await.map_err(credentials::refusal)?;
    Ok((names, place))
}

/// What the application makes of the names.
async fn allowed(request: &Request, hook: &Hook, id: SocketId, names: &Names) -> Result<Names, Problem> {
    let gateway = &request.gateway;
    let header = |name| request.head.headers.get(name).and_then(|value| value.to_str().ok());
    let visitor = Visitor {
        socket: id,
        names,
        address: address(request),
        agent: header("user-agent"),
        query: redact::members(request.query()),
        traceparent: trace(request),
    };
    let bounds = Bounds { state_bytes_max: gateway.config.queue_bytes_max / 2, rooms_max: gateway.config.rooms_max };
    let trial = gateway.trials.begin(visitor.address)?;
    let asked = connect::ask(hook, &visitor, bounds).await;
    trial.is_no_refusal();
    asked.map_err(|denied| match denied {
        Denied::Refused => {
            let hint = "the application's connect hook (CONNECT_URL) does not let this client in";
            Problem::new(StatusCode::FORBIDDEN, "Refused by the application", hint).counted_as("hook_refused")
        }
        Denied::NotYours(name) => credentials::not_yours(&name),
        Denied::Failed { retry_after } => {
            let hint = "try again; if it goes on, look at the application behind CONNECT_URL, and at the log here";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Connect hook failed", hint)
                .counted_as("hook_failed")
                .retry_after(retry_after)
        }
    })
}

fn refuse(request: &mut Request, problem: Problem) -> Answer {
    let code = problem.code.to_string();
    request.gateway.metrics.rejected(reason(&problem));
    warn!(
        request_id = request.request_id,
        peer = %request.peer.address,
        status = problem.status.as_u16(),
        code,
        uri = redact::uri(&request.head.uri),
        headers = redact::headers(&request.head.headers),
        "WebSocket upgrade failed: {}", problem.summary(),
    );
    let on_socket = admission::close_code(&problem)
        .filter(|_| names::wants_close(request.head.uri.query().unwrap_or_default()))
        .zip(upgrade::read(&request.head.headers).ok());
    match on_socket {
        Some((code, upgrade)) => {
            let welcome = Welcome::Refuse(Close::Refused { code, title: problem.title });
            switch(request, SocketId::fresh(), &upgrade, welcome, None)
        }
        None => Err(problem),
    }
}

/// Every refusal's code is one of ours, but for the names that the settings add to some of them.
fn reason(problem: &Problem) -> &'static str {
    if let Some(word) = problem.counted() {
        return word;
    }
    match problem.status.as_u16() {
        400 if problem.code.starts_with("missing_or_empty") => "name_blank",
        400 if problem.code.starts_with("missing") => "name_missing",
        400 if problem.code == "invalid_match_code" => "match_code",
        400 if problem.code.ends_with("query_parameter") => "name_invalid",
        400 => "upgrade_headers",
        401 => "no_credentials",
        403 => "forbidden",
        426 => "no_upgrade",
        429 => "too_fast",
        503 if problem.code == "full" => "full",
        503 => "draining",
        _ => "other",
    }
}

/// 101, and the task that takes over when hyper lets go of the connection.
fn switch(
    request: &mut Request,
    id: SocketId,
    upgrade: &Upgrade,
    welcome: Welcome,
    place: Option<OwnedSemaphorePermit>,
) -> Answer {
    let Some(on_upgrade) = request.on_upgrade.take() else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Invalid Upgrade header", "WebSocket needs HTTP/1.1")
            .detail("this connection cannot be upgraded"));
    };
    let arrival = arrival(request, id, place);
    request.gateway.socket_tasks.spawn(arrival::run(arrival, on_upgrade, welcome));
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

/// `GET /sse/stream?user_id=`: a socket for somebody who only listens. It has the same stages as the others, but for
/// the upgrade; what is wrong is told as HTTP, since a reader of events gives up on any other answer than 200.
pub async fn listen(request: Request) -> Answer {
    let gateway = &request.gateway;
    gateway.metrics.handshakes.inc();
    let live = gateway.live.load_full();
    let asked = admission::identify(&knock(&request, &Door::Stream, request.query()), &rules(&request, &live))
        .and_then(|asked| origin::check_reader(&request.head.headers, &live.origins).map(|()| asked));
    let rejected = |problem: &Problem| gateway.metrics.rejected(reason(problem));
    let (names, shown) = identified(&request, asked).await.inspect_err(rejected)?;
    if request.head.method == Method::HEAD {
        admission::check_room(gateway.room(gateway.place().as_ref())).inspect_err(rejected)?;
        return Ok(events::head());
    }
    let id = SocketId::fresh();
    let (names, place) = comes_in(&request, id, names, &shown).await.inspect_err(rejected)?;
    let turn = request.turn.clone();
    let (listener, words) = mpsc::channel(1);
    let (welcome, welcomed) = oneshot::channel();
    let arrival = arrival(&request, id, place);
    // A task of its own, so that whoever hangs up in the middle is still parted with as it should be.
    gateway.socket_tasks.spawn(arrival.listen(names, listener, welcome, turn));
    match welcomed.await {
        Ok(Ok(())) => {
            let words = stream::unfold(words, async |mut words| Some((words.recv().await?, words)));
            Ok(events::answer(words.filter_map(async |word| Event::word(&word)).boxed()))
        }
        Ok(Err(close)) => Err(turned_away(&close)),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", "report it with the log")),
    }
}

/// What a WebSocket would have been told with its close.
fn turned_away(close: &Close) -> Problem {
    let problem = |status, hint| Problem::new(status, close.reason().into_owned(), hint);
    match close {
        Close::AlreadyConnected => {
            problem(StatusCode::CONFLICT, "its other connection is alive; end that, or raise MAX_SOCKETS_PER_USER")
                .code("already_connected")
        }
        _ => problem(StatusCode::TOO_MANY_REQUESTS, "it was evicted a moment ago; wait, or raise MAX_SOCKETS_PER_USER")
            .code("cooling_down")
            .retry_after(10),
    }
}

/// `GET /api/handshake?path=/ws&…`: the same stages, but for the upgrade headers.
pub async fn rehearse(request: Request) -> Answer {
    request.gateway.metrics.handshakes.inc();
    let path = Query::of(request.query()).one("path")?.unwrap_or_else(|| "/ws".into());
    let Some(door) = Door::of(&path) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "Not found",
            "path is one of /ws /ws/{code} /websocket /connect",
        )
        .detail(format!("{path} is no door")));
    };
    let live = request.gateway.live.load_full();
    let asked = admission::identify(&knock(&request, &door, request.query()), &rules(&request, &live));
    let names = identified(&request, asked)
        .await
        .and_then(|(names, _)| {
            admission::check_room(request.gateway.room(request.gateway.place().as_ref())).map(|()| names)
        })
        .inspect_err(|problem| request.gateway.metrics.rejected(reason(problem)))?;
    Ok(ok(&json!({
        "ok": true,
        "userId": names.user.map(|user| user.to_string()),
        "storeId": names.store.map(|store| store.to_string()),
        "rooms": names.rooms.iter().map(|room| room.as_str()).collect::<Vec<_>>(),
    })))
}

/// `GET /api/auth/session`: what the doors make of the caller. With `AUTH=none` nobody is authenticated, and whoever is
/// named is believed.
pub async fn session(request: Request) -> Answer {
    let live = request.gateway.live.load_full();
    let rules = Rules { required: Default::default(), ..rules(&request, &live) };
    let asked = admission::identify(&knock(&request, &Door::Ws, request.query()), &rules);
    let (names, _) = identified(&request, asked).await?;
    let mut said = json!({
        "authenticated": names.grants.is_some(),
        "auth": "none",
        "userId": names.user.map(|user| user.to_string()),
    });
    if let Some(grants) = &names.grants {
        said["auth"] = grants.by.as_str().into();
        said["stores"] = grants.stores.iter().map(|store| store.to_string()).collect();
        said["rooms"] =
            grants.rooms.as_ref().map(|rooms| rooms.iter().map(|room| room.to_string()).collect::<Vec<_>>()).into();
        said["expiresAt"] = grants.until.into();
    }
    Ok(ok(&said))
}

fn arrival(request: &Request, id: SocketId, place: Option<OwnedSemaphorePermit>) -> Arrival {
    Arrival {
        gateway: request.gateway.clone(),
        id,
        address: address(request),
        request_id: request.request_id.clone(),
        began: request.began,
        place,
    }
}

/// The trace that the client is in.
fn trace(request: &Request) -> Option<&str> {
    request.head.headers.get("traceparent")?.to_str().ok()
}

/// The client's own address.
fn address(request: &Request) -> IpAddr {
    address::of_client(request.peer, &request.head.headers, &request.gateway.config.trusted_proxies)
}

fn knock<'a>(request: &'a Request, door: &'a Door, query: &'a str) -> Knock<'a> {
    let Gateway { config, auth, .. } = &*request.gateway;
    let proxies = &config.trusted_proxies;
    let is_trusted = address::is_trusted(request.peer, proxies);
    if let Some((name, why)) = names::dropped(&request.head.headers, is_trusted, auth.modes) {
        complain(request, name, why);
    }
    Knock {
        door,
        query,
        headers: &request.head.headers,
        trusted: is_trusted && auth.modes.hears_proxies(),
        address: address(request),
    }
}

/// Once for each peer: a proxy that is not trusted sends them with every request, and so does whoever tries.
fn complain(request: &Request, name: &str, why: Dropped) {
    let peer = request.peer.address;
    if !request.gateway.complaints.is_first(Topic::Identity, peer) {
        return;
    }
    let why = match why {
        Dropped::Untrusted => "it comes from none of TRUSTED_PROXIES; if that is your proxy, add it there",
        Dropped::Unheard => "with this AUTH the credential says who comes; add proxy to it if your proxy is to say it",
        Dropped::StoreAlone => "with AUTH=none it has no meaning; name the store with store_id in the query",
    };
    warn!(request_id = request.request_id, peer = %peer, "{name} is dropped: {why} (said once for each peer)");
}

fn rules<'a>(request: &'a Request, live: &'a crate::config::Live) -> Rules<'a> {
    let Gateway { config, auth, .. } = &*request.gateway;
    // Where a credential is wanted, it says who comes.
    let required = Required { user: config.required.user && auth.modes.is_none(), ..config.required };
    Rules {
        required,
        modes: auth.modes,
        session_cookie: auth.session_cookie(),
        code_pattern: &config.code_pattern,
        rooms_max: config.rooms_max,
        origins: &live.origins,
        rate: &request.gateway.connect_rate,
    }
}
