//! The names a client brings: read from the query, checked, turned into types.

use super::{Door, Knock, Rules, credentials::identity};
use crate::{
    auth::{Modes, grants::Grants},
    problem::Problem,
};
use hyper::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use registry::{NameFault, RoomName, StoreName, UserName, names::is_placeholder};
use std::sync::Arc;

/// Nobody's user id: not counted, not addressable, not claimable.
pub const ANONYMOUS: &str = "anonymous";

/// Who comes in, under which names.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub user: Option<UserName>,
    pub store: Option<StoreName>,
    pub rooms: Vec<RoomName>,
    pub client: Option<Arc<str>>,
    /// `greeting=none`: neither `hi` nor `reset`.
    pub silent: bool,
    /// It wants to be able to come back.
    pub comeback: Option<Comeback>,
    /// What its credential grants, where one is wanted.
    pub grants: Option<Arc<Grants>>,
    /// What the application greets it with: a JSON object.
    pub state: Option<Arc<str>>,
}

/// That a client wants to come back, or does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comeback {
    /// What it was given for that, if it was here before.
    pub token: Option<String>,
    /// The last delivery that it has.
    pub last_seq: u64,
}

/// Reads all of them; the first fault answers.
pub fn read(knock: &Knock<'_>, rules: &Rules<'_>) -> Result<Names, Problem> {
    let code = match knock.door {
        Door::Code(code) => Some(match_code(code, rules)?),
        _ => None,
    };
    let query = Query::of(knock.query);
    let header = |name| if knock.trusted { identity(knock.headers, name) } else { Ok(None) };

    let required = match knock.door {
        Door::Ws => rules.required,
        Door::Websocket => crate::config::Required { room: true, ..Default::default() },
        // Where a credential is wanted, it says who listens.
        Door::Stream => crate::config::Required { user: rules.modes.is_none(), ..rules.required },
        Door::Code(_) | Door::Connect => Default::default(),
    };
    let user = match header("x-user-id")? {
        Some(user) => Some(user),
        None => query.one("user_id")?,
    };
    let user = user.filter(|user| user != ANONYMOUS);
    let user = parse("user_id", user, UserName::parse, required.user)?;
    let store = parse("store_id", query.one("store_id")?, StoreName::parse, required.store)?;

    let mut rooms: Vec<RoomName> = code.into_iter().collect();
    for text in query.all("room_id")?.into_iter().chain(header("x-room-id")?) {
        let room = RoomName::parse(&text).map_err(|fault| refusal("room_id", fault))?;
        if !rooms.contains(&room) {
            rooms.push(room);
        }
    }
    if required.room && rooms.is_empty() {
        return Err(missing("room_id"));
    }
    if rooms.len() > rules.rooms_max {
        return Err(invalid("room_id").detail(format!("a socket is in {} rooms at most", rules.rooms_max)));
    }
    let client = query.one("client_id")?;
    let client = parse("client_id", client, |text| registry::names::check(text).map(|()| Arc::from(text)), false)?;
    let silent = query.one("greeting")?.as_deref() == Some("none");
    // Without a greeting nobody would hear the next token.
    let comeback = comeback(&query)?.filter(|_| !silent);
    Ok(Names { user, store, rooms, client, silent, comeback, grants: None, state: None })
}

/// Whatever the token is, it is no reason to keep a client out.
fn comeback(query: &Query<'_>) -> Result<Option<Comeback>, Problem> {
    let last_seq = match query.one("last_seq")?.filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map_err(|_| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "Invalid last_seq query parameter",
                "give the seq of the last delivery that the client has, or 0",
            )
            .detail(format!("last_seq: {text:.40} is no whole number from 0 on"))
        })?,
        None => 0,
    };
    let token = query.one("resume")?;
    Ok(token.map(|token| Comeback { token: Some(token).filter(|token| !token.is_empty()), last_seq }))
}

/// Whether the client wants refusals on the socket, where browsers can see them.
pub fn wants_close(query: &str) -> bool {
    matches!(Query::of(query).one("reject"), Ok(Some(how)) if how == "close")
}

fn match_code(encoded: &str, rules: &Rules<'_>) -> Result<RoomName, Problem> {
    let refused = |hint: String| Problem::new(StatusCode::BAD_REQUEST, "Invalid match code", hint);
    let pattern = rules.code_pattern;
    let code = decode(encoded, false).ok_or_else(|| refused("the code is not valid percent-encoded UTF-8".into()))?;
    if is_placeholder(&code) {
        return Err(refused(format!("{code} was never filled in: put the match's code there")));
    }
    match RoomName::parse(&code) {
        Ok(room) if pattern.is_match(&code) => Ok(room),
        _ => Err(refused(format!("a code must match {pattern}"))),
    }
}

fn parse<T>(
    name: &str,
    text: Option<String>,
    parse: impl Fn(&str) -> Result<T, NameFault>,
    required: bool,
) -> Result<Option<T>, Problem> {
    match text {
        Some(text) => parse(&text).map(Some).map_err(|fault| refusal(name, fault)),
        None if required => Err(missing(name)),
        None => Ok(None),
    }
}

fn refusal(name: &str, fault: NameFault) -> Problem {
    match fault {
        NameFault::Blank => Problem::new(
            StatusCode::BAD_REQUEST,
            format!("Missing or empty {name} query parameter"),
            format!("give it a value, as in ?{name}=test-1, or leave it out where it is optional"),
        )
        .error(format!("{name} parameter is required and must not be empty")),
        fault => invalid(name).detail(format!("{name}: {fault}")),
    }
}

fn missing(name: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        format!("Missing {name} query parameter"),
        format!("add ?{name}=… to the address"),
    )
}

fn invalid(name: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        format!("Invalid {name} query parameter"),
        "1 to 256 bytes of UTF-8, percent-encoded, without control characters or unfilled placeholders",
    )
}

/// Why an identity header that somebody sends does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It does not come from a trusted proxy.
    Untrusted,
    /// With this `AUTH` the credential says who comes.
    Unheard,
    /// A store is named in the query, unless the proxy is what grants it.
    StoreAlone,
}

/// The first identity header that does not count, and why.
pub fn dropped(headers: &HeaderMap, is_trusted: bool, modes: Modes) -> Option<(&'static str, Dropped)> {
    let first = |names: &[&'static str]| names.iter().copied().find(|name| headers.contains_key(*name));
    let any = first(&["X-User-ID", "X-Room-ID", "X-Store-ID"])?;
    match (is_trusted, modes.hears_proxies()) {
        (false, _) => Some((any, Dropped::Untrusted)),
        (true, false) => Some((any, Dropped::Unheard)),
        (true, true) if modes.is_none() => first(&["X-Store-ID"]).map(|name| (name, Dropped::StoreAlone)),
        (true, true) => None,
    }
}

/// A query string, decoded as each parameter is asked for.
pub struct Query<'a> {
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Query<'a> {
    pub fn of(query: &'a str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self { pairs: pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect() }
    }

    /// Every value of a name, in snake_case or camelCase.
    pub fn all(&self, name: &str) -> Result<Vec<String>, Problem> {
        let camel = camel_case(name);
        let values = self.pairs.iter().filter(|(key, _)| {
            *key == name || *key == camel || decode(key, true).is_some_and(|key| key == name || key == camel)
        });
        values
            .map(|(_, value)| {
                decode(value, true)
                    .ok_or_else(|| invalid(name).detail(format!("{name}: it is not valid percent-encoded UTF-8")))
            })
            .collect()
    }

    /// The value of a name that cannot repeat with two meanings.
    pub fn one(&self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.all(name)?;
        values.dedup();
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(invalid(name).detail(format!("{name}: it stands there twice, with different values"))),
        }
    }
}

/// `user_id` → `userId`.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| {
        let (head, tail) = part.split_at(part.len().min(1));
        camel + &head.to_ascii_uppercase() + tail
    })
}

/// Percent-decoding that refuses what is no encoding, instead of letting it pass as it is.
/// In a query a plus is a blank.
pub fn decode(text: &str, in_query: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let broken = text.match_indices('%').any(|(at, _)| !hex(at + 1) || !hex(at + 2));
    if broken {
        return None;
    }
    let spaced = if in_query && text.contains('+') { text.replace('+', " ") } else { text.to_owned() };
    percent_decode_str(&spaced).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Checklist 53.
    #[test]
    fn values_are_decoded_and_broken_ones_are_not_let_through() {
        let one = |query: &str| Query::of(query).one("room_id").map_err(|problem| problem.title.to_string());
        assert_eq!(one("room_id=a%20b+c"), Ok(Some("a b c".into())));
        assert_eq!(one("roomId=%C3%BC&x=%zz"), Ok(Some("ü".into())));
        assert_eq!(one("room_id"), Ok(Some(String::new())));
        assert_eq!(one("other=1"), Ok(None));
        for bad in ["room_id=%zz", "room_id=%4", "room_id=%", "room_id=%ff", "room_id=a&room_id=b"] {
            assert_eq!(one(bad), Err("Invalid room_id query parameter".into()), "{bad}");
        }
    }

    #[test]
    fn identity_headers_that_do_not_count_are_named() {
        let none = Modes::default();
        let (keys, proxy) = (Modes { keys: true, ..none }, Modes { proxy: true, ..none });
        let of = |name: &'static str, is_trusted, modes| {
            let mut headers = HeaderMap::new();
            headers.insert(name, "x".parse().unwrap());
            dropped(&headers, is_trusted, modes).map(|(_, why)| why)
        };
        for name in ["x-user-id", "x-room-id", "x-store-id"] {
            for modes in [none, keys, proxy] {
                assert_eq!(of(name, false, modes), Some(Dropped::Untrusted), "{name}");
            }
            assert_eq!((of(name, true, keys), of(name, true, proxy)), (Some(Dropped::Unheard), None), "{name}");
        }
        assert_eq!((of("x-user-id", true, none), of("x-store-id", true, none)), (None, Some(Dropped::StoreAlone)));
        assert_eq!(of("x-socket-id", false, keys), None);
    }

    #[test]
    fn camel_case_has_no_underscores() {
        assert_eq!(camel_case("user_id"), "userId");
        assert_eq!(camel_case("greeting"), "greeting");
    }

    proptest! {
        #[test]
        fn no_query_makes_it_panic(query in ".{0,100}") {
            let _ = Query::of(&query).one("user_id");
            let _ = wants_close(&query);
        }
    }
}
