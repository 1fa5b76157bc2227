//! HTTP: the one path that every request takes. In reading order: `accept` lets connections in (`preamble` reads
//! whose they are, behind a balancer), `routes` has the table, `plane` says who may call, `body` reads, `events` streams, and then a family of handlers each.

pub mod accept;
pub mod body;
pub mod calls;
pub mod debug;
pub mod doors;
pub mod drains;
pub mod events;
pub mod head;
pub mod health;
pub mod lists;
pub mod openapi;
pub mod paging;
pub mod plane;
pub mod preamble;
mod problems;
pub mod pushes;
mod queued;
pub mod redact;
pub mod repeats;
pub mod routes;
pub mod sends;
pub mod shape;
pub mod sockets;
pub mod streams;
mod tickets;

use crate::{
    admission::{self, address::Peer},
    complaints::Topic,
    gateway::Gateway,
    metrics::{Request as RequestLabel, Route as RouteLabel},
    problem::Problem,
};
use bytes::Bytes;
use events::Events;
use futures_util::{FutureExt, future::BoxFuture};
use head::Turn;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::{Frame, Incoming, SizeHint},
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
    upgrade::OnUpgrade,
};
use plane::Caller;
use registry::Ticket;
use routes::Route;
use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_HOLDFAST_INSTANCE: HeaderName = HeaderName::from_static("x-holdfast-instance");
/// As many as an answer has; a map that grows header by header is rebuilt twice.
const HEADERS: usize = 12;

static APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What every answer wears.
static WORN: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; connect-src 'self'; frame-ancestors 'none'"),
    ),
    (header::VARY, HeaderValue::from_static("Origin")),
];

/// The body of an answer: whole, or events as they come.
pub enum Body {
    Whole(Full<Bytes>),
    Events(Events),
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(whole: T) -> Self {
        Self::Whole(Full::new(whole.into()))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Events(events) => Pin::new(events).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// What a handler comes to.
pub type Answer = Result<Response<Body>, Problem>;

/// One request, as its handler gets it.
pub struct Request {
    pub gateway: Arc<Gateway>,
    pub head: Parts,
    pub body: Bytes,
    /// The values of `{…}` in the route's path, decoded.
    pub path_values: Vec<String>,
    pub peer: Peer,
    pub request_id: String,
    pub began: Instant,
    /// What came of it is kept for whoever asks again, and may be said with this.
    pub ticket: Option<Ticket>,
    /// Of the connection that it came by.
    pub turn: Turn,
    on_upgrade: Option<OnUpgrade>,
}

impl Request {
    /// The query string, or nothing.
    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// The path's only value.
    pub fn path_value(&self) -> &str {
        self.path_values.first().map_or("", String::as_str)
    }
}

/// Every request's way: told apart, answered, dressed, counted. A panic costs this request alone.
async fn answer(
    gateway: Arc<Gateway>,
    peer: Peer,
    turn: Turn,
    mut incoming: hyper::Request<Incoming>,
) -> Response<Body> {
    let began = Instant::now();
    let request_id = given_id(incoming.headers()).unwrap_or_else(request_id);
    let on_upgrade = incoming.extensions_mut().remove::<OnUpgrade>();
    let (head, body) = incoming.into_parts();
    let asks = Asks::of(&head);
    debug!(request_id, peer = %peer.address, "Fetch request received: {} {}", head.method, redact::uri(&head.uri));

    let (label, request) = match routes::find(&head) {
        Ok((route, path_values)) => {
            let request = Request {
                gateway: gateway.clone(),
                head,
                body: Bytes::new(),
                path_values,
                peer,
                request_id: request_id.clone(),
                began,
                ticket: None,
                turn,
                on_upgrade,
            };
            (route.path, handle(route, request, body).boxed())
        }
        Err(problem) => ("none", std::future::ready(Err(problem)).boxed()),
    };
    let answer = caught(request, &request_id).await;
    let mut response = answer.unwrap_or_else(|problem| {
        // Refused handshakes are told with more, and health is asked all the time.
        if !asks.upgrade && !label.starts_with("/health") {
            info!(request_id, route = label, status = problem.status.as_u16(), "refused: {}", problem.title);
        }
        problem.response(&request_id, asks.problem_json).map(Body::Whole)
    });
    if asks.upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // Whatever was sent behind an upgrade that did not come about was not meant as HTTP.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    dress(&gateway, &asks, &request_id, response.status(), response.headers_mut());
    let status = response.status();
    gateway.metrics.requests.of(RequestLabel { route: label, code: status.as_u16() }).inc();
    gateway.metrics.request_seconds.of(RouteLabel { route: label }).observe(began.elapsed().as_secs_f64());
    response
}

/// A panic is a bug; it costs the one request that met it.
async fn caught(request: BoxFuture<'_, Answer>, request_id: &str) -> Answer {
    AssertUnwindSafe(request).catch_unwind().await.unwrap_or_else(|_| {
        error!(request_id, "a request panicked; this is a bug of Holdfast");
        let hint = "this is a bug; report it with the request id and the log around it";
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", hint))
    })
}

/// What about a request matters for dressing its answer.
struct Asks {
    origin: Option<HeaderValue>,
    problem_json: bool,
    upgrade: bool,
}

impl Asks {
    fn of(head: &Parts) -> Self {
        let accept = head.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        Self {
            origin: head.headers.get(header::ORIGIN).cloned(),
            problem_json: accept.contains("application/problem+json"),
            upgrade: admission::wants_upgrade(&head.headers),
        }
    }
}

async fn handle(route: &'static Route, mut request: Request, body: Incoming) -> Answer {
    if request.head.method == Method::OPTIONS {
        admission::origin::check_page(&request.head.headers, &request.gateway.live.load().origins)?;
        return Ok(preflight(route));
    }
    // The doors look at the origin in their own order.
    if !doors::is_door(route, &request) {
        let headers = &request.head.headers;
        let key = request.gateway.auth.key_of(|| admission::credentials::in_headers(headers));
        let caller = Caller { peer: request.peer, version: request.head.version, headers, key: key.as_deref() };
        let live = request.gateway.live.load();
        if let Err(refused) = plane::check(route.plane, &caller, &live) {
            if plane::wants_a_token(route.plane, &caller, &live) {
                complain_of_a_missing_token(&request, route);
            }
            return Err(refused);
        }
    }
    if route.method == Method::POST {
        body::check_content_type(&request.head.headers)?;
        request.body = body::read(body, request.gateway.config.body_bytes_max).await?;
    }
    match repeats::key(route, &request.head.headers)? {
        None => (route.handler)(request).await,
        // In a box, since most requests have no key and no need of its room.
        Some(key) => repeats::once(route, request, &key).boxed().await,
    }
}

/// Whoever put a proxy in front finds every call refused, and looks at the log.
fn complain_of_a_missing_token(request: &Request, route: &Route) {
    let peer = request.peer.address;
    if request.gateway.complaints.is_first(Topic::Protected, peer) {
        warn!(
            request_id = request.request_id,
            %peer,
            "{} {} is refused, since it came through a proxy and no token is set (protected mode): set {} here, and have \
             callers send it as Authorization: Bearer (said once for each peer)",
            route.method,
            route.path,
            plane::token_of(route.plane),
        );
    }
}

fn preflight(route: &Route) -> Response<Body> {
    let methods = routes::ROUTES.iter().filter(|other| other.path == route.path).map(|route| route.method.as_str());
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = format!("{}, OPTIONS", methods.collect::<Vec<_>>().join(", "));
    if let Ok(methods) = HeaderValue::from_str(&methods) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        headers.insert(header::ALLOW, methods);
    }
    let allowed =
        "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Nano-Key, X-Request-Id, traceparent, Last-Event-ID";
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Puts on what every answer wears. A 101 gets no more than the two names that help to find it.
fn dress(gateway: &Gateway, asks: &Asks, request_id: &str, status: StatusCode, headers: &mut HeaderMap) {
    headers.reserve(HEADERS.saturating_sub(headers.len()));
    for (name, value) in [(X_REQUEST_ID, request_id), (X_HOLDFAST_INSTANCE, &gateway.instance)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    for (name, value) in &WORN {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    if gateway.draining.is_cancelled() {
        // A proxy that hears so sends its next request elsewhere, and not into a connection that is about to end.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let Some(origin) = &asks.origin else { return };
    let live = gateway.live.load();
    if !origin.to_str().is_ok_and(|origin| live.origins.allow(origin)) {
        return;
    }
    match live.origins {
        admission::origin::Origins::Any => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        _ => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
    let exposed = "X-Request-Id, X-Holdfast-Instance, Retry-After, Location, Link, Idempotency-Replayed";
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
}

/// A fresh request id.
pub fn request_id() -> String {
    ["r_", &registry::names::mark()].concat()
}

/// The id that a proxy or caller gave the request, if it is one that can be logged and echoed.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    ((1..=128).contains(&id.len()) && id.bytes().all(plain)).then(|| id.to_owned())
}

/// 200 with JSON.
pub fn ok(body: &serde_json::Value) -> Response<Body> {
    // With a newline, so that a shell's prompt stays at the beginning of its line.
    json(format!("{body}\n"))
}

/// 200 with JSON that is written already, and room for what every answer wears.
pub fn json(body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::CONTENT_TYPE, APPLICATION_JSON.clone());
    response
}

#[cfg(test)]
mod tests;
