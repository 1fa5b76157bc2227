//! Sessions of the application: it is asked whose one is, by the cookie or the token that holds it.

mod recent;

use super::{
    Blind, Proof, Refused,
    grants::{By, Grants},
    key, name_in, somebody,
};
use crate::{
    config::{SessionRules, value::Secret},
    metrics::Metrics,
    upstream::{Answer, Bounds, Question, Upstream, sign::Signer},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, ready},
};
use recent::Recent;
use registry::{Hashed, RoomName, StoreName, epoch_ms, names::mark};
use serde_json::{Map, Value};
use std::{fmt, sync::Arc, time::Duration};

/// Whoever says more of a session says something else.
const ANSWER_BYTES_MAX: usize = 64 << 10;

type Found = Result<Arc<Grants>, Refused>;
type Finding = BoxFuture<'static, Found>;

/// Whose sessions are.
pub struct Sessions {
    /// The cookie that is sent on; without it all of them.
    pub cookie: Option<String>,
    upstream: Arc<Upstream>,
    signer: Signer,
    recent: Recent,
}

impl Sessions {
    /// The error is a sentence for whoever set them.
    pub fn new(
        rules: &SessionRules,
        secrets: &[Secret],
        within: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, &'static str> {
        let bounds = Bounds { within, answer_bytes_max: ANSWER_BYTES_MAX };
        Ok(Self {
            cookie: rules.cookie.clone(),
            upstream: Arc::new(Upstream::new("session", rules.endpoint.clone(), bounds, metrics)?),
            signer: Signer::new(secrets),
            recent: Recent::default(),
        })
    }

    /// What the session grants that is shown; `parent` is the trace that the question belongs to.
    pub async fn find(&self, proof: Proof, shown: &Secret, parent: Option<&str>) -> Found {
        let kind = if proof == Proof::Cookie { "session cookie" } else { "session token" };
        let by = Hashed::of(&[kind.as_bytes(), shown.expose().as_bytes()]);
        let found = self.recent.find(by, || self.ask(proof, shown, parent)).await?;
        // What counts for a while may be over sooner.
        match found.until {
            Some(until) if until <= epoch_ms() => Err(Refused::Session(proof)),
            _ => Ok(found),
        }
    }

    fn ask(&self, proof: Proof, shown: &Secret, parent: Option<&str>) -> Finding {
        let bears = match proof {
            Proof::Cookie => Question::get().bearing("cookie", shown.expose()),
            Proof::Token => Question::get().bearing("authorization", &format!("Bearer {}", shown.expose())),
        };
        // What fits no header is nobody's, and nobody is asked in its stead.
        let Some(question) = bears else { return ready(Err(Refused::Session(proof))).boxed() };
        let question = question.signed(&self.signer, &format!("session.{}", mark()), parent);
        let upstream = self.upstream.clone();
        async move {
            let answer = upstream.ask(question).await;
            let said = match &answer {
                Ok(answer) => understood(answer).map_err(|odd| (odd.to_string(), 1)),
                Err(fault) => Err((fault.to_string(), fault.retry_after())),
            };
            upstream.fares(said.as_ref().map(drop).map_err(|(why, _)| why as &dyn fmt::Display));
            match said {
                Ok(Some(grants)) => Ok(Arc::new(grants)),
                Ok(None) => Err(Refused::Session(proof)),
                Err((_, retry_after)) => Err(Refused::Blind(Blind::Application { retry_after })),
            }
        }
        .boxed()
    }

    pub fn forget_the_old(&self) {
        self.recent.forget_the_old();
    }
}

/// An answer that says neither yes nor no: it may be another in a moment.
#[derive(Debug, PartialEq, Eq)]
enum Odd {
    Status(u16),
    /// A member of it, or all of it, is not as it has to be.
    Unfit(&'static str),
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => {
                write!(f, "status {status} says neither whose a session is nor that it is nobody's")
            }
            Self::Unfit(what) => write!(f, "an answer whose {what}"),
        }
    }
}

/// Whose session it is, or that it is nobody's.
fn understood(answer: &Answer) -> Result<Option<Grants>, Odd> {
    match answer.status {
        200 => {}
        401 | 403 | 404 => return Ok(None),
        status => return Err(Odd::Status(status)),
    }
    let header = answer.header("x-user-id").map(str::trim).filter(|user| !user.is_empty());
    let mut said = match serde_json::from_slice(&answer.body) {
        Ok(Value::Object(said)) => said,
        // A page to log in at, or a word such as null: nobody, unless the header has a name.
        Ok(_) => Map::new(),
        Err(_) if answer.body.trim_ascii().starts_with(b"{") => return Err(Odd::Unfit("JSON is cut off, or none")),
        Err(_) => Map::new(),
    };
    let mut take = |name: &str, other: &str| said.remove(name).or_else(|| said.remove(other));
    let user = take("userId", "user_id").filter(|user| !user.is_null());
    let user = match (user, header) {
        (Some(user), _) => name_in(&user).ok_or(Odd::Unfit("userId is no name"))?,
        (None, Some(user)) => user.to_owned(),
        (None, None) => return Ok(None),
    };
    let stores = take("stores", "stores").map(|stores| list(&stores, StoreName::parse));
    let rooms = take("rooms", "rooms").map(|rooms| list(&rooms, RoomName::parse));
    let until = match take("expiresAt", "expires_at").filter(|until| !until.is_null()) {
        Some(until) => Some(until.as_u64().map(key::as_ms).ok_or(Odd::Unfit("expiresAt is no time in milliseconds"))?),
        None => None,
    };
    let Ok(user) = somebody(&user) else { return Ok(None) };
    Ok(Some(Grants {
        user,
        stores: stores.transpose().map_err(|()| Odd::Unfit("stores are no list of names"))?.unwrap_or_default(),
        rooms: rooms.transpose().map_err(|()| Odd::Unfit("rooms are no list of names"))?,
        until,
        key: None,
        by: By::Session,
        more: None,
    }))
}

/// Null is what some write for an empty list: it must not mean any room.
fn list<T, E>(value: &Value, parse: fn(&str) -> Result<T, E>) -> Result<Vec<T>, ()> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(all) => all.iter().map(|one| parse(one.as_str().ok_or(())?).map_err(|_| ())).collect(),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(user: Option<&'static str>, body: &str) -> Result<Option<String>, Odd> {
        let grants = understood(&Answer::of(200, user.map(|user| ("x-user-id", user)), body))?;
        Ok(grants.map(|grants| {
            let stores: Vec<_> = grants.stores.iter().map(|store| store.as_str()).collect();
            let rooms = grants.rooms.map(|rooms| rooms.iter().map(|room| room.to_string()).collect::<Vec<_>>());
            format!("{} {stores:?} {rooms:?} {:?}", grants.user, grants.until)
        }))
    }

    #[test]
    fn what_an_application_says_is_taken_as_a_whole_or_not_at_all() {
        let ann = |rest: &str| Ok(Some(format!("ann {rest}")));
        assert_eq!(said(None, r#"{"userId":"ann"}"#), ann("[] None None"));
        assert_eq!(said(None, r#"{"user_id":7,"user":{"name":"Ann"},"store":1}"#), Ok(Some("7 [] None None".into())));
        assert_eq!(said(Some("bob"), r#"{"userId":"ann","rooms":null,"stores":null}"#), ann("[] Some([]) None"));
        assert_eq!(said(Some(" ann "), "<html>"), ann("[] None None"));
        assert_eq!(said(Some("ann"), "null"), ann("[] None None"));
        let whole = r#"{"userId":"ann","stores":["s"],"rooms":["r"],"expiresAt":1900000000}"#;
        assert_eq!(said(None, whole), ann(r#"["s"] Some(["r"]) Some(1900000000000)"#));
        for nobody in ["", "{}", "null", "[]", "false", "\"ann\"", "<html>", r#"{"userId":null}"#, r#"{"userId":""}"#] {
            assert_eq!(said(None, nobody), Ok(None), "{nobody}");
        }
        for odd in [
            r#"{"userId":"ann""#,
            r#"{"userId":["ann"]}"#,
            r#"{"userId":"ann","rooms":["r",7]}"#,
            r#"{"userId":"ann","rooms":"r"}"#,
            r#"{"userId":"ann","stores":[""]}"#,
            r#"{"userId":"ann","expiresAt":"2030-01-01"}"#,
        ] {
            assert!(said(None, odd).is_err() && said(Some("root"), odd).is_err(), "{odd}");
        }
    }
}
