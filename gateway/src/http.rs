//! HTTP: the accept loop, the table of routes, and the one path that every request takes.

pub mod debug;
pub mod doors;
pub mod head;
pub mod health;
pub mod openapi;
pub mod paging;
pub mod plane;
pub mod pushes;
pub mod redact;
pub mod shape;
pub mod sockets;

use crate::{
    admission,
    gateway::Gateway,
    listener::{self, Listener},
    metrics::{Request as RequestLabel, Route as RouteLabel},
    problem::Problem,
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use head::{HeadTimed, IDLE, Turn};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use plane::{Caller, Plane};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, warn};

/// A whole body may take this long; whoever sends slower is cut off.
const BODY: Duration = Duration::from_secs(30);
/// A head may be this large; beyond it hyper answers 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What a refused connection is told when there are no open files left.
const NO_FILES_LEFT: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The bodies of all answers.
pub type Body = Full<Bytes>;
/// What a handler comes to.
pub type Answer = Result<Response<Body>, Problem>;

/// One door of the HTTP side.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub plane: Plane,
    pub summary: &'static str,
    pub body: Option<shape::Body>,
    handler: fn(Call) -> BoxFuture<'static, Answer>,
}

/// One request, as its handler gets it.
pub struct Call {
    pub gateway: Arc<Gateway>,
    pub head: Parts,
    pub body: Bytes,
    /// The values of `{…}` in the route's path, decoded.
    pub path_values: Vec<String>,
    pub peer: IpAddr,
    pub request_id: String,
    pub began: Instant,
    on_upgrade: Option<OnUpgrade>,
}

impl Call {
    /// The query string, or nothing.
    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// The path's only value.
    pub fn path_value(&self) -> &str {
        self.path_values.first().map_or("", String::as_str)
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $plane:ident $handler:path, $body:expr, $summary:literal;)*) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            plane: Plane::$plane,
            summary: $summary,
            body: $body,
            handler: |call| $handler(call).boxed(),
        }),*]
    };
}

/// Every route there is. Dispatch, 404, 405 and `/openapi.json` all read this table.
pub static ROUTES: &[Route] = routes! {
    GET "/" Client health::index, None, "What this is; with an upgrade, the same door as /ws";
    GET "/ws" Client doors::open, None, "Open a socket; WS_REQUIRE says what it must bring";
    GET "/ws/{code}" Client doors::open, None, "Open a socket in the room of a match code";
    GET "/websocket" Client doors::open, None, "Open a socket in a room: room_id is required";
    GET "/connect" Client doors::open, None, "Open a socket, as nobody unless a user is named";
    GET "/api/handshake" Client doors::rehearse, None, "Ask what a door would answer, where a browser can read it";
    GET "/api/auth/session" Client doors::session, None, "Who the gateway takes the caller for";
    GET "/health" Client health::health, None, "Is it well";
    GET "/health/live" Client health::live, None, "Does the process work";
    GET "/health/ready" Client health::ready, None, "May it be sent new sockets";
    GET "/metrics" Server health::metrics, None, "Prometheus text, or JSON when asked for";
    GET "/openapi.json" Client openapi::document, None, "This API, for programs";
    GET "/api/sockets" Server sockets::list, None, "Live sockets; store, user, room, instance, limit, cursor";
    GET "/api/sockets/{id}" Server sockets::show, None, "One socket, or the true reason why it is not there";
    DELETE "/api/sockets/{id}" Admin sockets::kick, None, "Close a socket; code, reason";
    PUT "/api/sockets/{id}/rooms/{room}" Server sockets::join, None, "Put a socket into a room";
    DELETE "/api/sockets/{id}/rooms/{room}" Server sockets::leave, None, "Take a socket out of a room";
    GET "/api/users/{name}" Server sockets::user, None, "A user's sockets";
    DELETE "/api/users/{name}" Admin sockets::kick_user, None, "Close all sockets of a user; code, reason";
    GET "/api/stores/{name}" Server sockets::store, None, "A store's sockets";
    GET "/api/rooms/{name}" Server sockets::room, None, "A room's sockets";
    POST "/api/rooms/{room}/send" Server pushes::to_room, Some(shape::Body::One(&pushes::ROOM_SEND)), "Send to everybody in a room";
    POST "/api/send" Server pushes::send, Some(shape::Body::One(&pushes::SEND)), "Send to a socket, user, store, room, or all";
    POST "/api/send/batch" Server pushes::batch, Some(shape::Body::One(&pushes::BATCH)), "Up to 1000 sends, each by itself";
    POST "/sse/push" Server pushes::push, Some(shape::Body::One(&pushes::PUSH)), "Send to a user, as SSE callers write it";
    POST "/sse/push/batch" Server pushes::push_batch, Some(shape::Body::ListOf(&pushes::PUSH)), "An array of pushes";
    GET "/api/instances" Server sockets::instances, None, "The instances that serve";
    GET "/api/debug/sockets" Admin debug::sockets, None, "Every socket of the fleet, in one object";
};

/// Accepts until the task is ended.
pub async fn accept(gateway: Arc<Gateway>, listener: Listener) {
    let most = listener::connections_max();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let open = gateway.http_tasks.len() + gateway.courier.sockets.len();
                if open >= most {
                    gateway.metrics.connections_refused.inc();
                    let _ = stream.try_write(NO_FILES_LEFT);
                    continue;
                }
                let task = serve(gateway.clone(), stream, peer);
                gateway.http_tasks.spawn(task);
            }
            Err(fault) => {
                // Out of files, or a connection that was gone before it was taken: neither ends the listener.
                warn!("cannot accept a connection: {fault}");
                gateway.metrics.connections_refused.inc();
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(gateway: Arc<Gateway>, stream: TcpStream, peer: SocketAddr) {
    let _open = gateway.metrics.http_connections.clone().counted();
    // Answers and frames are small and whole; waiting for more of them only adds delay.
    let _ = stream.set_nodelay(true);
    let turn = Turn::default();
    let io = TokioIo::new(HeadTimed::new(stream, turn.clone()));
    let stopping = gateway.stopping.clone();
    let service = service_fn(|request| {
        turn.change();
        let (gateway, turn) = (gateway.clone(), turn.clone());
        async move {
            let response = answer(gateway, peer.ip(), request).await;
            turn.change();
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(fault) = served {
        debug!("connection of {peer} ended: {fault}");
    }
}

/// A gauge that counts what lives.
trait Counted {
    fn counted(self) -> CountGuard;
}

struct CountGuard(prometheus_client::metrics::gauge::Gauge);

impl Counted for prometheus_client::metrics::gauge::Gauge {
    fn counted(self) -> CountGuard {
        self.inc();
        CountGuard(self)
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Every request's way: told apart, answered, dressed, counted. A panic costs this request alone.
async fn answer(gateway: Arc<Gateway>, peer: IpAddr, mut request: Request<Incoming>) -> Response<Body> {
    let began = Instant::now();
    let request_id = given_id(request.headers()).unwrap_or_else(request_id);
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (head, body) = request.into_parts();
    let asks = Asks::of(&head);
    debug!(request_id, peer = %peer, "Fetch request received: {} {}", head.method, redact::uri(&head.uri));

    let (label, call) = match find(&head) {
        Ok((route, path_values)) => {
            let call = Call {
                gateway: gateway.clone(),
                head,
                body: Bytes::new(),
                path_values,
                peer,
                request_id: request_id.clone(),
                began,
                on_upgrade,
            };
            (route.path, handle(route, call, body).boxed())
        }
        Err(problem) => ("none", std::future::ready(Err(problem)).boxed()),
    };
    let answer = caught(call, &request_id).await;
    let mut response = answer.unwrap_or_else(|problem| {
        let mut response = problem.response(&request_id, asks.problem_json);
        if asks.upgrade {
            // Whatever was sent behind a refused upgrade was not meant as HTTP.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    dress(&gateway, &asks, &request_id, response.status(), response.headers_mut());
    let status = response.status();
    gateway.metrics.requests.get_or_create(&RequestLabel { route: label, code: status.as_u16() }).inc();
    gateway.metrics.request_seconds.get_or_create(&RouteLabel { route: label }).observe(began.elapsed().as_secs_f64());
    response
}

/// A panic is a bug; it costs the one request that met it.
async fn caught(call: BoxFuture<'_, Answer>, request_id: &str) -> Answer {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| {
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

/// Finds the route and the values in its path; 400 for what smuggles, 404 and 405 else.
fn find(head: &Parts) -> Result<(&'static Route, Vec<String>), Problem> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) && head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Ambiguous body length",
            "send Content-Length or Transfer-Encoding, not both",
        )
        .header(header::CONNECTION, "close"));
    }
    check_host(head)?;
    let path = admission::without_dev_prefix(head.uri.path());
    let method = match head.method {
        // Nobody opens a socket without wanting to hear from it.
        Method::HEAD if !admission::wants_upgrade(&head.headers) => &Method::GET,
        ref method => method,
    };
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(values) = matches(route.path, path) else { continue };
        if route.method == *method || *method == Method::OPTIONS {
            return Ok((route, values));
        }
        allowed.push(route.method.as_str());
    }
    if allowed.is_empty() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        let paths = paths.join(" ");
        return Err(Problem::new(StatusCode::NOT_FOUND, "Not found", format!("there are: {paths}")));
    }
    let allow = allowed.join(", ");
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", format!("this path knows {allow}"))
        .header(header::ALLOW, allow))
}

/// Whom a request is for must be beyond doubt, since protected mode goes by it.
fn check_host(head: &Parts) -> Result<(), Problem> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let absent_rightly = host.is_none() && head.version < Version::HTTP_11;
    let named_elsewhere = head.uri.authority().is_some_and(|named| host.is_none_or(|host| host != named.as_str()));
    match second.is_some() || (host.is_none() && !absent_rightly) || named_elsewhere {
        false => Ok(()),
        true => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Invalid Host header",
            "send one Host header, and no other host in the request line",
        )
        .header(header::CONNECTION, "close")),
    }
}

/// The values of a pattern's `{…}` in a path, if it matches. A door's code stays as it was
/// written, since admission says what is wrong with it.
fn matches(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut values = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(values),
            (Some("{code}"), Some(part)) => values.push(part.to_owned()),
            (Some(name), Some(part)) if name.starts_with('{') => {
                values.push(admission::names::decode(part, false).filter(|value| !value.is_empty())?);
            }
            (Some(name), Some(part)) if name == part => {}
            _ => return None,
        }
    }
}

async fn handle(route: &'static Route, mut call: Call, body: Incoming) -> Answer {
    if call.head.method == Method::OPTIONS {
        admission::origin::check_page(&call.head.headers, &call.gateway.live.load().origins)?;
        return Ok(preflight(route));
    }
    // The doors look at the origin in their own order.
    if !doors::is_door(route, &call) {
        let caller = Caller { peer: call.peer, version: call.head.version, headers: &call.head.headers };
        plane::check(route.plane, &caller, &call.gateway.live.load())?;
    }
    if matches!(route.method, Method::POST) {
        check_content_type(&call.head.headers)?;
        call.body = read(body, call.gateway.config.body_bytes_max).await?;
    }
    (route.handler)(call).await
}

fn preflight(route: &Route) -> Response<Body> {
    let methods = ROUTES.iter().filter(|other| other.path == route.path).map(|route| route.method.as_str());
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

/// JSON, or nothing said, or what `curl -d` says of itself when it sends JSON.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let media = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits = matches!(media.as_str(), "application/json" | "application/x-www-form-urlencoded" | "text/json")
        || media.ends_with("+json");
    match fits {
        true => Ok(()),
        false => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported media type",
            "send Content-Type: application/json",
        )),
    }
}

async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    match timeout(BODY, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Body too large",
            format!("a body has {bytes_max} bytes at most; MAX_BODY_BYTES sets it"),
        )
        .header(header::CONNECTION, "close")),
        Ok(Err(_)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "Incomplete body", "the body ended before its announced length")
                .header(header::CONNECTION, "close"))
        }
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Body too slow", "send the whole body within 30 s")
            .header(header::CONNECTION, "close")),
    }
}

/// Puts on what every answer wears. A 101 gets no more than the two names that help to find it.
fn dress(gateway: &Gateway, asks: &Asks, request_id: &str, status: StatusCode, headers: &mut HeaderMap) {
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(HeaderName::from_static("x-request-id"), request_id);
    put(HeaderName::from_static("x-holdfast-instance"), &gateway.instance);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::CACHE_CONTROL, "no-store");
    put(header::CONTENT_SECURITY_POLICY, "default-src 'none'; connect-src 'self'; frame-ancestors 'none'");
    put(header::VARY, "Origin");
    let live = gateway.live.load();
    let allowed =
        asks.origin.as_ref().and_then(|origin| origin.to_str().ok()).filter(|origin| live.origins.allow(origin));
    if let Some(origin) = allowed {
        match live.origins {
            admission::origin::Origins::Any => put(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            _ => {
                put(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                put(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
            }
        }
        put(header::ACCESS_CONTROL_EXPOSE_HEADERS, "X-Request-Id, X-Holdfast-Instance, Retry-After, Location, Link");
    }
}

/// A fresh request id.
pub fn request_id() -> String {
    format!("r_{}", registry::names::mark())
}

/// The id that a proxy or caller gave the request, if it is one that can be logged and echoed.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    ((1..=128).contains(&id.len()) && id.bytes().all(plain)).then(|| id.to_owned())
}

/// 200 with JSON.
pub fn ok(body: &serde_json::Value) -> Response<Body> {
    // With a newline, so that a shell's prompt stays at the beginning of its line.
    let mut response = Response::new(Body::from(format!("{body}\n")));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths_and_decode_their_values() {
        assert_eq!(matches("/api/sockets/{id}", "/api/sockets/ws_1"), Some(vec!["ws_1".into()]));
        assert_eq!(
            matches("/api/sockets/{id}/rooms/{room}", "/api/sockets/a/rooms/b%2Fc"),
            Some(vec!["a".into(), "b/c".into()])
        );
        for other in ["/api/sockets", "/api/sockets/", "/api/sockets/a/b", "/api/sockets/%zz"] {
            assert_eq!(matches("/api/sockets/{id}", other), None, "{other}");
        }
        assert_eq!(matches("/ws/{code}", "/ws/"), Some(vec![String::new()]));
    }

    /// Checklist 108, 143.
    #[tokio::test]
    async fn a_panic_is_a_500_with_its_request_id_and_no_more() {
        let answer = caught(async { panic!("as asked") }.boxed(), "r_1").await;
        let problem = answer.unwrap_err();
        assert_eq!((problem.status, &*problem.code), (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"));
        assert!(!problem.clone().json("r_1").to_string().contains("as asked"));
        assert_eq!(problem.json("r_1")["requestId"], "r_1");
    }

    #[test]
    fn every_path_and_method_stands_once_in_the_table() {
        let mut seen = std::collections::HashSet::new();
        assert!(ROUTES.iter().all(|route| seen.insert((route.method.clone(), route.path))));
    }
}
