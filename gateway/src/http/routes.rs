//! The table of routes. Dispatch, 404, 405 and `/openapi.json` all read it.

use super::{
    Answer, Request, calls, debug, doors, drains, health, lists, openapi, plane::Plane, problems, pushes, queued,
    sends, shape::Body, sockets, streams, tickets,
};
use crate::{admission, problem::Problem};
use futures_util::future::BoxFuture;
use hyper::{Method, StatusCode, Version, header, http::request::Parts};

/// One door of the HTTP side.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    /// How much of the path is not a value.
    fixed: usize,
    pub plane: Plane,
    pub summary: &'static str,
    pub body: Option<Body>,
    pub repeats: Repeats,
    pub handler: fn(Request) -> BoxFuture<'static, Answer>,
}

impl Route {
    /// The values in a path, if it is one of this route.
    fn values(&self, path: &str) -> Option<Vec<Option<String>>> {
        // Nearly all of them are ruled out by this alone.
        match self.fixed == self.path.len() {
            true => (path == self.path).then(Vec::new),
            false => {
                path.as_bytes().starts_with(&self.path.as_bytes()[..self.fixed]).then(|| matches(self.path, path))?
            }
        }
    }
}

/// What a request with an Idempotency-Key is that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// Another one: a second time does no harm, or keys mean nothing here.
    Anew,
    /// The same: it is acted upon once.
    Once,
    /// The same, and whoever asks for events gets them.
    OnceAsEvents,
}

macro_rules! routes {
    (repeats) => { Repeats::Anew };
    (repeats once) => { Repeats::Once };
    (repeats once_as_events) => { Repeats::OnceAsEvents };
    ($($method:ident $path:literal $plane:ident $handler:path, $body:expr, $summary:literal $(, $repeats:ident)?;)*) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            fixed: fixed($path),
            plane: Plane::$plane,
            summary: $summary,
            body: $body,
            repeats: routes!(repeats $($repeats)?),
            handler: |request| Box::pin($handler(request)),
        }),*]
    };
}

/// The length of what stands before the first value of a pattern.
const fn fixed(pattern: &str) -> usize {
    let mut at = 0;
    while at < pattern.len() && pattern.as_bytes()[at] != b'{' {
        at += 1;
    }
    at
}

/// Every route there is.
pub static ROUTES: &[Route] = routes! {
    GET "/" Client health::index, None, "What this is; with an upgrade, the same door as /ws";
    GET "/ws" Client doors::open, None, "Open a socket; WS_REQUIRE says what it must bring";
    GET "/ws/{code}" Client doors::open, None, "Open a socket in the room of a match code";
    GET "/websocket" Client doors::open, None, "Open a socket in a room: room_id is required";
    GET "/connect" Client doors::open, None, "Open a socket, as nobody unless a user is named";
    GET "/api/handshake" Client doors::rehearse, None, "Ask what a door would answer, where a browser can read it";
    GET "/api/auth/session" Client doors::session, None, "Who the gateway takes the caller for";
    POST "/api/tickets" Server tickets::issue, Some(Body::One(&tickets::TICKET)), "A ticket with which a client opens one socket within 30 s";
    GET "/health" Client health::health, None, "Is it well";
    GET "/health/live" Client health::live, None, "Does the process work";
    GET "/health/ready" Client health::ready, None, "May it be sent new sockets";
    GET "/metrics" Server health::metrics, None, "Prometheus text, or JSON when asked for";
    GET "/openapi.json" Client openapi::document, None, "This API, for programs";
    GET "/problems" Client problems::all, None, "What every code means, and what to do";
    GET "/problems/{code}" Client problems::show, None, "What one code means: of a refusal, a close, an error frame or a verdict";
    GET "/api/sockets" Server lists::list, None, "Live sockets; store, user, room, instance, limit, cursor";
    GET "/api/sockets/{id}" Server sockets::show, None, "One socket, or the true reason why it is not there";
    DELETE "/api/sockets/{id}" Admin sockets::kick, None, "Close a socket; code, reason";
    PUT "/api/sockets/{id}/rooms/{room}" Server sockets::join, None, "Put a socket into a room";
    DELETE "/api/sockets/{id}/rooms/{room}" Server sockets::leave, None, "Take a socket out of a room";
    GET "/api/users/{name}" Server lists::user, None, "A user's sockets";
    DELETE "/api/users/{name}" Admin sockets::kick_user, None, "Close all sockets of a user; code, reason";
    GET "/api/stores/{name}" Server lists::store, None, "A store's sockets";
    GET "/api/rooms/{name}" Server lists::room, None, "A room's sockets";
    POST "/api/rooms/{room}/send" Server sends::to_room, Some(Body::One(&sends::ROOM_SEND)), "Send to everybody in a room", once;
    POST "/api/send" Server sends::send, Some(Body::One(&sends::SEND)), "Send to a socket, user, store, room, or all", once;
    POST "/api/call" Server calls::call, Some(Body::One(&calls::CALL)), "Ask a client, and get its answer", once_as_events;
    POST "/api/sync/{kind}" Server calls::sync, Some(Body::One(&calls::SYNC)), "Ask a store's client to synchronize; other members are its data", once_as_events;
    POST "/api/shopify/sync-{kind}" Server calls::sync, Some(Body::One(&calls::SYNC)), "The same, as Shopify's apps write it", once_as_events;
    GET "/api/calls/{id}" Server queued::show, None, "How a queued call stands, or what came of it";
    DELETE "/api/calls/{id}" Server queued::cancel, None, "Take a queued call back";
    POST "/api/send/batch" Server sends::batch, Some(Body::One(&sends::BATCH)), "Up to 1000 sends, each by itself";
    GET "/sse/stream" Client doors::listen, None, "A socket for who only listens: everything sent to it, as events";
    POST "/sse/push" Server pushes::push, Some(Body::One(&pushes::PUSH)), "Send to a user, as SSE callers write it", once;
    POST "/sse/send" Server pushes::send, Some(Body::One(&pushes::PUSH)), "Send to a user, and get all that it answers as events";
    POST "/sse/push/batch" Server pushes::push_batch, Some(Body::ListOf(&pushes::PUSH)), "An array of pushes";
    GET "/api/instances" Server lists::instances, None, "The instances that serve";
    POST "/api/instances/{name}/drain" Admin drains::drain, Some(Body::Optional(&drains::DRAIN)), "Have an instance part with its sockets and stop; the last that serves only with force";
    GET "/api/events" Admin streams::feed, None, "What happens on all instances, as events; scope=local for the one that is asked";
    GET "/api/debug/sockets" Admin debug::sockets, None, "Every socket of the fleet, in one object";
};

/// Finds the route and the values in its path; 400 for what smuggles, 404 and 405 else.
pub fn find(head: &Parts) -> Result<(&'static Route, Vec<String>), Problem> {
    check_length(head)?;
    check_host(head)?;
    let path = admission::without_dev_prefix(head.uri.path());
    let method = match head.method {
        // Nobody opens a socket without wanting to hear from it.
        Method::HEAD if !admission::wants_upgrade(&head.headers) => &Method::GET,
        ref method => method,
    };
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(values) = route.values(path) else { continue };
        if route.method == *method || *method == Method::OPTIONS {
            let values = values.into_iter().collect::<Option<_>>();
            return values.map(|values| (route, values)).ok_or_else(bad_encoding);
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

fn bad_encoding() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "Invalid path", "percent-encode names in a path as UTF-8")
}

/// A body ends where every proxy in front agrees that it does.
fn check_length(head: &Parts) -> Result<(), Problem> {
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let hint = if head.headers.contains_key(header::CONTENT_LENGTH) {
        "send Content-Length or Transfer-Encoding, not both"
    } else if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        "send Content-Length, or Transfer-Encoding: chunked and no other coding"
    } else {
        return Ok(());
    };
    Err(Problem::new(StatusCode::BAD_REQUEST, "Ambiguous body length", hint).header(header::CONNECTION, "close"))
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

/// The values of a pattern's `{…}` in a path, if it matches; `None` for one that is badly encoded.
/// A door's code stays as it was written, since admission says what is wrong with it.
fn matches(pattern: &str, path: &str) -> Option<Vec<Option<String>>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut values = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(values),
            (Some("{code}"), Some(part)) => values.push(Some(part.to_owned())),
            (Some(name), Some(part)) if name == part => {}
            (Some(name), Some(part)) => {
                // A value may have a word in front of it, as in sync-{kind}.
                let (word, _) = name.split_once('{')?;
                let value = part.strip_prefix(word).filter(|value| !value.is_empty())?;
                values.push(admission::names::decode(value, false));
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths_and_decode_their_values() {
        let values = |pattern, path| {
            matches(pattern, path).map(|values| values.into_iter().map(Option::unwrap).collect::<Vec<_>>())
        };
        assert_eq!(values("/api/sockets/{id}", "/api/sockets/ws_1"), Some(vec!["ws_1".into()]));
        assert_eq!(
            values("/api/sockets/{id}/rooms/{room}", "/api/sockets/a/rooms/b%2Fc"),
            Some(vec!["a".into(), "b/c".into()])
        );
        for other in ["/api/sockets", "/api/sockets/", "/api/sockets/a/b"] {
            assert_eq!(matches("/api/sockets/{id}", other), None, "{other}");
        }
        assert_eq!(matches("/api/sockets/{id}", "/api/sockets/%zz"), Some(vec![None]));
        assert_eq!(values("/ws/{code}", "/ws/"), Some(vec![String::new()]));
    }

    #[test]
    fn every_path_and_method_stands_once_in_the_table() {
        let mut seen = std::collections::HashSet::new();
        assert!(ROUTES.iter().all(|route| seen.insert((route.method.clone(), route.path))));
    }
}
