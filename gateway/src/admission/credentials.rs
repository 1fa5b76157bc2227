//! What somebody shows to prove who they are: the first kind that is present decides, and a bad one never falls through
//! to the next.

use super::{Knock, names::Query};
use crate::{
    auth::{Blind, Modes, Proof, Refused, grants::NotYours},
    config::value::Secret,
    problem::Problem,
};
use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL},
};
use std::str;

/// In front of a token among the subprotocols, for browsers, which can set no other header.
const BEARER: &[u8] = b"bearer.";

/// What was shown.
#[derive(Debug)]
pub enum Shown {
    Nothing,
    /// An API key or a JWT, by its form.
    Token(Secret),
    Ticket(Secret),
    /// A session of the application.
    Session(Proof, Secret),
    /// What a trusted proxy says.
    Proxy {
        user: String,
        store: Option<String>,
    },
}

/// Reads it. The same token may stand in several places; different ones are refused, since nobody can say which counts.
pub fn read(knock: &Knock<'_>, modes: Modes, session_cookie: Option<&str>) -> Result<Shown, Problem> {
    let query = Query::of(knock.query);
    if modes.keys || modes.jwt {
        let mut tokens = in_headers(knock.headers);
        tokens.extend(query.all("key")?.into_iter().filter(|key| !key.is_empty()));
        tokens.dedup();
        match tokens.len() {
            0 => {}
            1 => return Ok(tokens.pop().map_or(Shown::Nothing, |token| Shown::Token(Secret::new(token)))),
            _ => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "Conflicting credentials",
                    "send one key or token; X-Nano-Key, X-API-Key, Authorization: Bearer, bearer.… and ?key= mean the same",
                ));
            }
        }
    }
    if let Some(ticket) = query.one("ticket")?.filter(|ticket| !ticket.is_empty()) {
        return Ok(Shown::Ticket(Secret::new(ticket)));
    }
    if modes.session {
        if let Some(cookie) = cookie(knock.headers, session_cookie) {
            return Ok(Shown::Session(Proof::Cookie, cookie));
        }
        if let Some(token) = query.one("session_token")?.filter(|token| !token.is_empty()) {
            return Ok(Shown::Session(Proof::Token, Secret::new(token)));
        }
    }
    if !modes.proxy || !knock.trusted {
        return Ok(Shown::Nothing);
    }
    match identity(knock.headers, "x-user-id")? {
        Some(user) => Ok(Shown::Proxy { user, store: identity(knock.headers, "x-store-id")? }),
        None => Ok(Shown::Nothing),
    }
}

/// The cookie of this name as the application is to get it, or all of them.
fn cookie(headers: &HeaderMap, name: Option<&str>) -> Option<Secret> {
    let lines = headers.get_all(COOKIE).into_iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let pairs = lines.flat_map(|line| line.split(';').map(|pair| pair.trim().to_owned()).collect::<Vec<_>>());
    let is_it = |pair: &String| match name {
        Some(name) => pair.split_once('=').is_some_and(|(key, _)| key.trim_end() == name),
        None => !pair.is_empty(),
    };
    let pairs: Vec<_> = pairs.filter(is_it).collect();
    (!pairs.is_empty()).then(|| Secret::new(pairs.join("; ")))
}

/// What a proxy says in a header. One that adds its own behind a client's says two things, and neither counts.
pub fn identity(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HeaderName::from_static(name)).into_iter();
    let (value, second) = (values.next(), values.next());
    if second.is_some() {
        let hint = "have the proxy replace what clients send, not add to it";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Conflicting credentials", hint)
            .detail(format!("{name} stands there twice")));
    }
    let text = value.map(|value| str::from_utf8(value.as_bytes())).transpose().map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "Invalid identity header", "have the proxy write it as UTF-8")
            .detail(format!("{name} is no UTF-8"))
    })?;
    Ok(text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned))
}

/// What a credential that opens nothing is told.
pub fn refusal(why: Refused) -> Problem {
    told(why).counted_as(why.as_str())
}

fn told(why: Refused) -> Problem {
    let refused = |title: &'static str, hint: &'static str| Problem::unauthorized(title, hint);
    let log_in = || {
        refused(
            "Unauthorized. Please log in.",
            "send what AUTH names: a key or token (X-Nano-Key, Authorization: Bearer, ?key=), the session's cookie or \
             ?session_token=, or a ?ticket= from POST /api/tickets",
        )
    };
    match why {
        Refused::Missing => log_in(),
        Refused::Ticket => log_in().detail("the ticket was used before, is older than 30 s, or never was one"),
        Refused::UnknownKey => refused("Invalid API key", "holdfast keys list shows those that count"),
        Refused::ExpiredKey => refused("API key expired", "make a new one: holdfast keys rotate"),
        Refused::Token(unfit) => {
            refused("Invalid session token", "the settings JWT_… say which tokens count").detail(unfit.as_str())
        }
        Refused::Session(Proof::Cookie) => log_in().detail("the application does not know whose session it is"),
        Refused::Session(Proof::Token) => {
            refused("Invalid session token", "log in again: the application does not know whose it is")
        }
        Refused::NoScope => Problem::new(
            StatusCode::FORBIDDEN,
            "Credential without scope connect",
            "show one that has it: holdfast keys add --scope connect, or a token whose scope names connect, or none of connect, call and admin",
        ),
        Refused::Blind(why) => {
            let (hint, retry_after) = match why {
                Blind::Redis => {
                    ("Redis does not answer, and what it holds of credentials cannot be known; try again", 1)
                }
                Blind::Keys => ("JWKS_URL cannot be read, and it may have the key of this token; try again", 1),
                Blind::Application { retry_after } => {
                    ("the application does not say whose session it is; SESSION_URL is asked again soon", retry_after)
                }
            };
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Credentials cannot be checked", hint)
                .retry_after(retry_after)
        }
    }
}

/// What a name that is not granted is told.
pub fn not_yours(NotYours { what, name }: &NotYours) -> Problem {
    let hint = match *what {
        "user_id" => "leave user_id out: the credential says who you are",
        "store" => {
            "have the credential grant it, or the application: stores of the key, token, session or connect hook"
        }
        _ => "have the credential grant it: rooms of the key, token or session",
    };
    Problem::new(StatusCode::FORBIDDEN, format!("Not your {what}"), hint)
        .detail(format!("{name} is not granted to this credential, and with AUTH only what is granted counts"))
}

/// The token in an `Authorization` that bears one.
pub fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

/// The tokens that the headers hold. What is no text is a credential all the same, and no good one.
pub fn in_headers(headers: &HeaderMap) -> Vec<String> {
    let all = |name: HeaderName| headers.get_all(name).into_iter();
    let keys = ["x-nano-key", "x-api-key"].into_iter().flat_map(|name| all(HeaderName::from_static(name)));
    let offered = all(SEC_WEBSOCKET_PROTOCOL).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let tokens = keys
        .map(HeaderValue::as_bytes)
        .chain(all(AUTHORIZATION).filter_map(bearer))
        .chain(offered.filter_map(|token| token.trim_ascii().strip_prefix(BEARER)))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty());
    let mut tokens: Vec<_> = tokens.map(|token| String::from_utf8_lossy(token).into_owned()).collect();
    tokens.dedup();
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Door;

    const BOTH: Modes = Modes { keys: true, jwt: true, session: true, proxy: true };

    fn shown(headers: &[(&'static str, &str)], query: &str, trusted: bool, modes: Modes) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let knock = Knock { door: &Door::Ws, query, headers: &map, trusted, address: [127, 0, 0, 1].into() };
        match read(&knock, modes, Some("sid")) {
            Ok(Shown::Nothing) => "nothing".into(),
            Ok(Shown::Token(token)) => format!("token {}", token.expose()),
            Ok(Shown::Ticket(ticket)) => format!("ticket {}", ticket.expose()),
            Ok(Shown::Session(proof, text)) => format!("{proof:?} {}", text.expose()).to_lowercase(),
            Ok(Shown::Proxy { user, .. }) => format!("proxy {user}"),
            Err(problem) => problem.status.as_u16().to_string(),
        }
    }

    /// Checklist 62.
    #[test]
    fn a_key_is_read_wherever_it_may_stand() {
        for place in ["x-nano-key", "x-api-key"] {
            assert_eq!(shown(&[(place, "nk_1")], "", false, BOTH), "token nk_1");
        }
        assert_eq!(shown(&[("authorization", "bearer nk_1")], "", false, BOTH), "token nk_1");
        assert_eq!(shown(&[("authorization", "Basic nk_1")], "", false, BOTH), "nothing");
        assert_eq!(shown(&[("sec-websocket-protocol", "chat, bearer.nk_1")], "", false, BOTH), "token nk_1");
        assert_eq!(shown(&[], "room_id=r&key=nk%5f1", false, BOTH), "token nk_1");
        assert_eq!(shown(&[("x-nano-key", "")], "key=", false, BOTH), "nothing");
    }

    #[test]
    fn the_same_in_several_places_is_one_and_different_ones_are_refused() {
        let twice = [("x-nano-key", "nk_1"), ("authorization", "Bearer nk_1")];
        assert_eq!(shown(&twice, "key=nk_1", false, BOTH), "token nk_1");
        assert_eq!(shown(&twice, "key=nk_2", false, BOTH), "400");
        assert_eq!(shown(&[("x-api-key", "nk_1"), ("x-api-key", "nk_2")], "", false, BOTH), "400");
    }

    /// Checklist 65.
    #[test]
    fn the_first_kind_that_is_present_decides() {
        let user = [("x-user-id", "ann")];
        assert_eq!(shown(&user, "key=nk_1&ticket=t", true, BOTH), "token nk_1");
        assert_eq!(shown(&user, "ticket=t", true, BOTH), "ticket t");
        let cookies = [("x-user-id", "ann"), ("cookie", "a=1; sid=s;b=2"), ("cookie", "sid=t")];
        assert_eq!(shown(&cookies, "key=nk_1&session_token=t", true, BOTH), "token nk_1");
        assert_eq!(shown(&cookies, "session_token=t", true, BOTH), "cookie sid=s; sid=t");
        assert_eq!(shown(&[("cookie", "a=1; xsid=s")], "session_token=t", true, BOTH), "token t");
        assert_eq!(shown(&user, "", true, BOTH), "proxy ann");
        assert_eq!(shown(&user, "", false, BOTH), "nothing");
        let keys = Modes { keys: true, ..Modes::default() };
        assert_eq!(shown(&user, "", true, keys), "nothing");
        let proxy = Modes { proxy: true, ..Modes::default() };
        assert_eq!(shown(&user, "key=nk_1", true, proxy), "proxy ann");
    }
}
