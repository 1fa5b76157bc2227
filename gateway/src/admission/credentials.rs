//! What somebody shows to prove who they are: the first kind that is present decides, and a bad one never falls through
//! to the next.

use super::{Knock, names::Query};
use crate::{
    auth::{Modes, Refused, grants::NotYours},
    config::value::Secret,
    problem::Problem,
};
use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderName, SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE},
};

/// In front of a token among the subprotocols, for browsers, which can set no other header.
const BEARER: &str = "bearer.";

/// What was shown.
#[derive(Debug)]
pub enum Shown {
    Nothing,
    /// An API key or a JWT, by its form.
    Token(Secret),
    Ticket(Secret),
    /// What a trusted proxy says.
    Proxy {
        user: String,
        store: Option<String>,
    },
}

/// Reads it. The same token may stand in several places; different ones are refused, since nobody can say which counts.
pub fn read(knock: &Knock<'_>, modes: Modes) -> Result<Shown, Problem> {
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
    if !modes.proxy || !knock.trusted {
        return Ok(Shown::Nothing);
    }
    match identity(knock.headers, "x-user-id")? {
        Some(user) => Ok(Shown::Proxy { user, store: identity(knock.headers, "x-store-id")? }),
        None => Ok(Shown::Nothing),
    }
}

/// What a proxy says in a header. One that adds its own behind a client's says two things, and neither counts.
fn identity(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HeaderName::from_static(name)).into_iter();
    let (value, second) = (values.next(), values.next());
    if second.is_some() {
        let hint = "have the proxy replace what clients send, not add to it";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "Conflicting credentials", hint)
            .detail(format!("{name} stands there twice")));
    }
    let text = value.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned());
    Ok(text.filter(|text| !text.is_empty()))
}

/// What a credential that opens nothing is told.
pub fn refusal(why: Refused) -> Problem {
    let refused = |title: &'static str, hint: &'static str| {
        Problem::new(StatusCode::UNAUTHORIZED, title, hint).header(WWW_AUTHENTICATE, "Bearer realm=\"holdfast\"")
    };
    let log_in = || {
        refused(
            "Unauthorized. Please log in.",
            "send an API key or a token: X-Nano-Key, Authorization: Bearer, ?key=, or a ?ticket= from POST /api/tickets",
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
        Refused::NoScope => Problem::new(
            StatusCode::FORBIDDEN,
            "API key without scope connect",
            "make one that has it: holdfast keys add --scope connect",
        ),
        Refused::Blind => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Credentials cannot be checked",
            "Redis does not answer, and what it holds of credentials cannot be known; try again",
        )
        .retry_after(1),
    }
}

/// What a name that is not granted is told.
pub fn not_yours(NotYours { what, name }: &NotYours) -> Problem {
    let hint = match *what {
        "user_id" => "leave user_id out: the credential says who you are",
        "store" => "have the credential grant it: stores of the key or token",
        _ => "have the credential grant it: rooms of the key or token",
    };
    Problem::new(StatusCode::FORBIDDEN, format!("Not your {what}"), hint)
        .detail(format!("{name} is not granted to this credential, and with AUTH only what is granted counts"))
}

/// The tokens that the headers hold.
pub fn in_headers(headers: &HeaderMap) -> Vec<String> {
    // What is no text is a credential all the same, and no good one.
    let text = |name: HeaderName| {
        let values = headers.get_all(name).into_iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect::<Vec<_>>()
    };
    let mut tokens = [text(HeaderName::from_static("x-nano-key")), text(HeaderName::from_static("x-api-key"))].concat();
    for value in text(AUTHORIZATION) {
        let parts = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        tokens.extend(parts.map(|(_, token)| token.to_owned()));
    }
    for value in text(SEC_WEBSOCKET_PROTOCOL) {
        tokens.extend(value.split(',').filter_map(|token| token.trim().strip_prefix(BEARER)).map(str::to_owned));
    }
    let mut tokens: Vec<_> = tokens.iter().map(|token| token.trim().to_owned()).collect();
    tokens.retain(|token| !token.is_empty());
    tokens.dedup();
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Door;

    const BOTH: Modes = Modes { keys: true, jwt: true, proxy: true };

    fn shown(headers: &[(&'static str, &str)], query: &str, trusted: bool, modes: Modes) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let knock = Knock { door: &Door::Ws, query, headers: &map, trusted, address: [127, 0, 0, 1].into() };
        match read(&knock, modes) {
            Ok(Shown::Nothing) => "nothing".into(),
            Ok(Shown::Token(token)) => format!("token {}", token.expose()),
            Ok(Shown::Ticket(ticket)) => format!("ticket {}", ticket.expose()),
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
        assert_eq!(shown(&user, "", true, BOTH), "proxy ann");
        assert_eq!(shown(&user, "", false, BOTH), "nothing");
        let keys = Modes { keys: true, ..Modes::default() };
        assert_eq!(shown(&user, "", true, keys), "nothing");
        let proxy = Modes { proxy: true, ..Modes::default() };
        assert_eq!(shown(&user, "key=nk_1", true, proxy), "proxy ann");
    }
}
