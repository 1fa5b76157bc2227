//! Who may call: the client plane is open, the server plane wants a token or, without one, a
//! caller on this machine, and the admin plane wants the stronger token where there is one.

use crate::{
    admission::{
        self,
        address::Peer,
        credentials,
        origin::{self, is_local_host},
    },
    auth::key::{ApiKey, Scope},
    config::{Live, value::Secret},
    problem::Problem,
};
use hyper::{
    HeaderMap, Version,
    header::{AUTHORIZATION, FORWARDED, HOST, HeaderName, UPGRADE, VIA},
};
use subtle::ConstantTimeEq;

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Who a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Browsers and load balancers.
    Client,
    /// The application's servers.
    Server,
    /// Whoever runs the fleet.
    Admin,
}

/// A request, as far as this question goes.
pub struct Caller<'a> {
    pub peer: Peer,
    pub version: Version,
    pub headers: &'a HeaderMap,
    /// The API key that it shows.
    pub key: Option<&'a ApiKey>,
}

/// Lets a caller through, or says why not.
pub fn check(plane: Plane, caller: &Caller<'_>, live: &Live) -> Result<(), Problem> {
    origin::check_page(caller.headers, &live.origins)?;
    let (api, admin) = (live.api_token.as_ref(), live.admin_token.as_ref());
    let (tokens, guarded) = match plane {
        Plane::Client => return Ok(()),
        // Whoever may change the fleet may also use it.
        Plane::Server => ([api, admin], api.is_some()),
        Plane::Admin => ([admin.or(api), None], admin.or(api).is_some()),
    };
    let scopes: &[Scope] = if plane == Plane::Server { &[Scope::Call, Scope::Admin] } else { &[Scope::Admin] };
    let may = |key: &ApiKey| scopes.iter().any(|scope| key.may(*scope));
    if tokens.into_iter().flatten().any(|token| bears(caller.headers, token)) || caller.key.is_some_and(may) {
        return Ok(());
    }
    match guarded {
        false => check_protected(plane, caller),
        true => Err(Problem::unauthorized(
            "Invalid API token",
            "send Authorization: Bearer with the value of API_TOKEN (ADMIN_TOKEN where the fleet is revealed or changed), or an API key of scope call (admin)",
        )),
    }
}

/// Whether this plane is shut for want of a token, and a proxy asked for somebody: then the setting is missing, not the
/// right.
pub fn wants_a_token(plane: Plane, caller: &Caller<'_>, live: &Live) -> bool {
    let guarded = match plane {
        Plane::Client => true,
        Plane::Server => live.api_token.is_some(),
        Plane::Admin => live.api_token.is_some() || live.admin_token.is_some(),
    };
    !guarded && is_proxied(caller)
}

/// The token that opens it.
pub fn token_of(plane: Plane) -> &'static str {
    if plane == Plane::Admin { "ADMIN_TOKEN or API_TOKEN" } else { "API_TOKEN" }
}

fn is_proxied(caller: &Caller<'_>) -> bool {
    // nginx with the usual two lines says Connection: upgrade on every request, also without an upgrade.
    let half_upgrade = !caller.headers.contains_key(UPGRADE) && admission::says_upgrade(caller.headers);
    caller.version == Version::HTTP_10
        || half_upgrade
        || caller.headers.contains_key(VIA)
        || caller.headers.contains_key(X_REAL_IP)
        || caller.headers.keys().any(|name| *name == FORWARDED || name.as_str().starts_with("x-forwarded-"))
}

/// Without a token only this very machine may call, and only directly: behind a proxy every
/// stranger looks local.
fn check_protected(plane: Plane, caller: &Caller<'_>) -> Result<(), Problem> {
    let host = caller.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if caller.peer.is_local() && is_local_host(host) && !is_proxied(caller) {
        return Ok(());
    }
    let setting = token_of(plane);
    Err(Problem::unauthorized(
        "Protected mode",
        format!(
            "set {setting} and send it as Authorization: Bearer; without one only direct calls to localhost are answered"
        ),
    ))
}

fn bears(headers: &HeaderMap, token: &Secret) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(credentials::bearer);
    given.is_some_and(|given| given.ct_eq(token.expose().as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(api: Option<&str>, admin: Option<&str>) -> Live {
        Live {
            origins: origin::Origins::Local,
            api_token: api.map(Secret::new),
            admin_token: admin.map(Secret::new),
            log_filter: String::new(),
        }
    }

    fn status(plane: Plane, live: &Live, peer: &str, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let peer = Peer::itself(peer.parse().unwrap());
        let caller = Caller { peer, version: Version::HTTP_11, headers: &map, key: None };
        check(plane, &caller, live).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    const LOCAL: (&str, &str) = ("host", "localhost:8080");

    #[test]
    fn without_a_token_only_this_machine_calls_directly() {
        let open = live(None, None);
        let server = |peer, headers: &[_]| status(Plane::Server, &open, peer, headers);
        assert_eq!(server("127.0.0.1", &[LOCAL]), 200);
        assert_eq!(server("::ffff:127.0.0.1", &[("host", "[::1]")]), 200);
        assert_eq!(server("10.0.0.1", &[LOCAL]), 401);
        assert_eq!(server("127.0.0.1", &[]), 401);
        assert_eq!(server("127.0.0.1", &[("host", "gateway.example.com")]), 401);
        for sign in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "via"] {
            assert_eq!(server("127.0.0.1", &[LOCAL, (sign, "x")]), 401, "{sign}");
        }
        assert_eq!(status(Plane::Client, &open, "10.0.0.1", &[]), 200);
    }

    #[test]
    fn a_token_opens_the_plane_it_is_for() {
        let both = live(Some("api"), Some("admin"));
        let with = |plane, token: &str| status(plane, &both, "10.0.0.1", &[("authorization", token)]);
        assert_eq!(with(Plane::Server, "Bearer api"), 200);
        assert_eq!(with(Plane::Server, "bearer admin"), 200);
        assert_eq!(with(Plane::Admin, "Bearer admin"), 200);
        assert_eq!(with(Plane::Admin, "Bearer api"), 401);
        for wrong in ["Bearer ap", "Bearer apii", "api", "Basic api", "Bearer "] {
            assert_eq!(with(Plane::Server, wrong), 401, "{wrong}");
        }
        let api = live(Some("api"), None);
        assert_eq!(status(Plane::Admin, &api, "10.0.0.1", &[("authorization", "Bearer api")]), 200);
        let admin = live(None, Some("admin"));
        assert_eq!(status(Plane::Server, &admin, "127.0.0.1", &[LOCAL]), 200);
        assert_eq!(status(Plane::Admin, &admin, "127.0.0.1", &[LOCAL]), 401);
    }

    #[test]
    fn pages_of_strangers_get_nothing_on_any_plane() {
        let open = live(None, None);
        let page = |headers: &[_]| status(Plane::Client, &open, "127.0.0.1", headers);
        assert_eq!(page(&[LOCAL, ("origin", "http://localhost:3000")]), 200);
        assert_eq!(page(&[LOCAL, ("origin", "http://evil.com")]), 403);
        assert_eq!(page(&[("host", "evil.com:8080"), ("sec-fetch-site", "same-origin")]), 403);
        assert_eq!(page(&[LOCAL, ("sec-fetch-site", "same-origin")]), 200);
        assert_eq!(page(&[("host", "evil.com"), ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]), 200);
    }
}
