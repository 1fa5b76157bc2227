//! Whether a request may become a socket. A row of stages; each looks at one thing and returns a
//! value. Nothing here writes to a socket, changes a table or logs.
//!
//! The order is the contract's, and the first stage that fails answers:
//!
//! | stage | answers | file |
//! |---|---|---|
//! | path and method | 404, 405 | `http/routes.rs`, before admission |
//! | names | 400 | `names.rs` |
//! | origin | 403 | `origin.rs` |
//! | too fast | 429 | `rate.rs` |
//! | credentials | 401, 403 | `credentials.rs` reads them, `auth.rs` believes them or not |
//! | upgrade headers | 426, 400 | `upgrade.rs` |
//! | draining, full | 503 | here |
//! | connect hook | 403, 503 | `hooks/connect.rs` asks the application |

pub mod address;
pub mod credentials;
pub mod names;
pub mod origin;
pub mod rate;
pub mod trials;
pub mod upgrade;

use crate::{auth::Modes, config::Required, problem::Problem};
use credentials::Shown;
use hyper::{
    HeaderMap, StatusCode,
    header::{CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, UPGRADE},
};
use names::Names;
use origin::Origins;
use rate::ConnectRate;
use regex_lite::Regex;
use std::net::IpAddr;

/// The doors. All read the same names; they differ in what they require.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// `/ws`, and `/` with an upgrade.
    Ws,
    /// `/websocket`.
    Websocket,
    /// `/ws/{code}`, with the code as it stood in the path, still encoded.
    Code(String),
    /// `/connect`.
    Connect,
    /// `/sse/stream`, which opens no WebSocket.
    Stream,
}

impl Door {
    /// The door that a path leads to; `/__ws` in front of it, which dev servers add, is ignored.
    pub fn of(path: &str) -> Option<Self> {
        let path = without_dev_prefix(path);
        match path {
            "/" | "/ws" => Some(Self::Ws),
            "/websocket" => Some(Self::Websocket),
            "/connect" => Some(Self::Connect),
            _ => {
                let code = path.strip_prefix("/ws/")?;
                (!code.contains('/')).then(|| Self::Code(code.to_owned()))
            }
        }
    }
}

/// The path behind `/__ws`, if that is what it begins with.
pub fn without_dev_prefix(path: &str) -> &str {
    match path.strip_prefix("/__ws") {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

/// Somebody at a door.
pub struct Knock<'a> {
    pub door: &'a Door,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// The TCP peer is a trusted proxy: its identity headers count.
    pub trusted: bool,
    /// The client's own address.
    pub address: IpAddr,
}

/// What admission goes by.
pub struct Rules<'a> {
    pub required: Required,
    pub code_pattern: &'a Regex,
    pub rooms_max: usize,
    pub origins: &'a Origins,
    pub rate: &'a ConnectRate,
    pub modes: Modes,
    /// The cookie that holds a session, where only one does.
    pub session_cookie: Option<&'a str>,
}

/// How much room there is.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub draining: bool,
    pub full: bool,
}

/// The stages before the credentials; what is shown is looked at by `auth.rs`, and may take a while.
pub fn identify(knock: &Knock<'_>, rules: &Rules<'_>) -> Result<(Names, Shown), Problem> {
    let names = names::read(knock, rules)?;
    origin::check_page(knock.headers, rules.origins)?;
    rules.rate.check(knock.address)?;
    Ok((names, credentials::read(knock, rules.modes, rules.session_cookie)?))
}

/// Whether there is a place.
pub fn check_room(room: Room) -> Result<(), Problem> {
    if room.draining {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Draining",
            "this instance is about to stop; connect again, and a load balancer takes you to another",
        )
        .retry_after(1));
    }
    if room.full {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many sockets",
            "raise MAX_SOCKETS and the open-file limit, or add instances",
        )
        .code("full")
        .retry_after(5));
    }
    Ok(())
}

/// How a refusal is told on an accepted socket (`?reject=close`), if it may be told there at all.
pub fn close_code(problem: &Problem) -> Option<u16> {
    match problem.status {
        StatusCode::FORBIDDEN if problem.code == "origin_not_allowed" => None,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(1008),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(1013),
        _ => None,
    }
}

/// The tokens of a header that is a list, over all its lines, in lower case.
fn tokens<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = String> + 'a {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|token| token.trim().to_ascii_lowercase())
}

/// Whether the client means to leave HTTP on this connection. A key without an `Upgrade` is a
/// handshake whose header got lost on the way; `Connection: upgrade` alone is only a proxy's habit.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) || headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Whether `Connection` lists `upgrade`.
pub fn says_upgrade(headers: &HeaderMap) -> bool {
    tokens(headers, &CONNECTION).any(|token| token == "upgrade")
}
