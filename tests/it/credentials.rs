//! All ways to prove who one is, side by side: the first that is shown decides, and a bad one never falls through.

use crate::{
    application::{Application, Manner},
    gateway::Gateway,
    holdfast::{Holdfast, TempFile},
    http::{Answer, Request},
    raw::Raw,
    tokens::signed,
};
use futures_util::future::join_all;
use serde_json::json;

const SECRET: &str = crate::tokens::SECRET;
const LOG_IN: &str = "Unauthorized. Please log in.";
const NOT_YOURS: &str = "Not your user_id";

/// What may be shown as the first of the three: nothing, or a key or a token of some quality.
const FIRST: [(Kind, Quality); 7] = [
    (Kind::Key, Quality::Absent),
    (Kind::Key, Quality::Good),
    (Kind::Key, Quality::Bad),
    (Kind::Key, Quality::Expired),
    (Kind::Jwt, Quality::Good),
    (Kind::Jwt, Quality::Bad),
    (Kind::Jwt, Quality::Expired),
];
const QUALITIES: [Quality; 3] = [Quality::Absent, Quality::Good, Quality::Bad];
/// A ticket is over when it was used.
const TICKETS: [Quality; 3] = [Quality::Absent, Quality::Good, Quality::Expired];
const MODES: [&str; 11] = [
    "none",
    "keys",
    "jwt",
    "session",
    "keys,jwt",
    "keys,session",
    "jwt,session",
    "keys,jwt,session",
    "proxy",
    "keys,proxy",
    "keys,jwt,session,proxy",
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Key,
    Jwt,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Quality {
    Absent,
    Good,
    Bad,
    Expired,
}

/// What somebody shows.
#[derive(Debug, Clone, Copy)]
struct Shown {
    first: (Kind, Quality),
    ticket: Quality,
    cookie: Quality,
    token: Quality,
    /// `X-User-ID`.
    header: bool,
}

impl Shown {
    fn every() -> Vec<Self> {
        let mut all = Vec::new();
        for first in FIRST {
            for ticket in TICKETS {
                for cookie in QUALITIES {
                    for token in QUALITIES {
                        all.extend([false, true].map(|header| Self { first, ticket, cookie, token, header }));
                    }
                }
            }
        }
        all
    }
}

/// What comes of it: whom the gateway takes somebody for, or the title of the refusal.
type Outcome = Result<Option<&'static str>, &'static str>;

/// As the contract has it: what a proxy says beside a credential that is good is a name like any other, which has to be
/// its owner's.
fn outcome(auth: &str, shown: Shown) -> Outcome {
    let proxy_counts = shown.header && auth.contains("proxy");
    match proven(auth, shown) {
        Ok(user) if proxy_counts && user != Some("by-proxy") => Err(NOT_YOURS),
        other => other,
    }
}

/// By what is proven. Kinds that `AUTH` does not name are not looked at.
fn proven(auth: &str, shown: Shown) -> Outcome {
    let has = |mode| auth.split(',').any(|known| known == mode);
    if auth == "none" {
        return Ok(shown.header.then_some("by-proxy"));
    }
    if (has("keys") || has("jwt")) && shown.first.1 != Quality::Absent {
        return match shown.first {
            (Kind::Key, Quality::Good) if has("keys") => Ok(Some("by-key")),
            (Kind::Key, Quality::Expired) if has("keys") => Err("API key expired"),
            (Kind::Jwt, Quality::Good) if has("jwt") => Ok(Some("by-jwt")),
            (Kind::Jwt, _) if has("jwt") => Err("Invalid session token"),
            _ => Err("Invalid API key"),
        };
    }
    if shown.ticket != Quality::Absent {
        return if shown.ticket == Quality::Good { Ok(Some("by-ticket")) } else { Err(LOG_IN) };
    }
    if has("session") && shown.cookie != Quality::Absent {
        return if shown.cookie == Quality::Good { Ok(Some("by-cookie")) } else { Err(LOG_IN) };
    }
    if has("session") && shown.token != Quality::Absent {
        return if shown.token == Quality::Good { Ok(Some("by-token")) } else { Err("Invalid session token") };
    }
    if has("proxy") && shown.header { Ok(Some("by-proxy")) } else { Err(LOG_IN) }
}

/// The credentials as they are written.
struct Wallet {
    keys: [String; 4],
    jwts: [String; 4],
}

impl Wallet {
    async fn new(file: &TempFile) -> Self {
        let add = async |args: &[&str]| {
            let args = [&["keys", "add", "--user", "by-key"], args].concat();
            Holdfast::command(&args).env("API_KEYS_FILE", file.path()).run().await.stdout.trim().to_owned()
        };
        let (good, old) = (add(&[]).await, add(&["--expires", "1ms"]).await);
        let now = registry::epoch_ms() / 1000;
        let jwt = |exp: u64| signed(&json!({"sub": "by-jwt", "exp": exp}));
        Self {
            keys: [String::new(), good, "hf_0123456789abcdefghijklmnopqrstuv".into(), old],
            jwts: [String::new(), jwt(now + 3600), "eyJhbGciOiJIUzI1NiJ9.e30.x".into(), jwt(now - 1)],
        }
    }

    fn put(&self, request: Request, shown: Shown) -> Request {
        let first = match shown.first {
            (Kind::Key, quality) => &self.keys[quality as usize],
            (Kind::Jwt, quality) => &self.jwts[quality as usize],
        };
        let request = if first.is_empty() { request } else { request.with("X-Nano-Key", first) };
        let request = if shown.header { request.with("X-User-ID", "by-proxy") } else { request };
        match shown.cookie {
            Quality::Absent => request,
            quality => request.with("Cookie", &format!("sid={quality:?}")),
        }
    }
}

/// A gateway with that `AUTH`, and everything that any could need.
async fn gateway(auth: &str, file: &TempFile, session: &str) -> Gateway {
    Gateway::with([
        ("AUTH", auth),
        ("API_KEYS_FILE", file.path()),
        ("JWT_SECRET", SECRET),
        ("SESSION_URL", session),
        ("SESSION_COOKIE", "sid"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("MAX_SOCKETS_PER_USER", "0"),
        ("LOG_LEVEL", "error"),
    ])
    .await
}

/// A fresh one; where everybody comes in there is none.
async fn ticket(gateway: &Gateway) -> String {
    let answer = gateway.post("/api/tickets", &json!({"userId": "by-ticket"})).await;
    if answer.status == 409 {
        return "ht_nobody_wants_one".into();
    }
    answer.json()["ticket"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
}

/// The place that tells and a real door are of one mind.
fn agree(told: &Answer, door: &Answer, expected: Outcome, what: &str) {
    match expected {
        Ok(user) => {
            assert_eq!((told.status, door.status), (200, 101), "{what} {} {}", told.text(), door.text());
            assert_eq!(told.json()["userId"], json!(user), "{what}");
        }
        Err(title) => {
            let status = if title == NOT_YOURS { 403 } else { 401 };
            assert_eq!((told.status, door.status), (status, status), "{what} {}", told.text());
            told.refuses(status, title);
            door.refuses(status, title);
        }
    }
}

/// Checklist 65, 86, 87. Each combination at a real door and at the place that tells; with each way to prove it switched on.
#[tokio::test]
async fn every_combination_is_judged_by_the_first_that_counts() {
    let application = Application::start().await;
    application.at("/session", Manner::Owner);
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let wallet = Wallet::new(&file).await;
    let session = application.url("/session");
    let all = Shown::every();
    assert_eq!(all.len(), 7 * 3 * 3 * 3 * 2);
    for auth in MODES {
        let gateway = gateway(auth, &file, &session).await;
        let used = ticket(&gateway).await;
        gateway.knock(&format!("/ws?ticket={used}")).await;
        for (k, some) in all.chunks(16).enumerate() {
            join_all(some.iter().enumerate().map(async |(n, shown)| {
                let mut query = match shown.token {
                    Quality::Absent => String::new(),
                    quality => format!("session_token={quality:?}&"),
                };
                match shown.ticket {
                    Quality::Absent => {}
                    Quality::Good => query.push_str(&format!("ticket={}", ticket(&gateway).await)),
                    _ => query.push_str(&format!("ticket={used}")),
                }
                // Each from elsewhere: whoever is refused too often is not looked at.
                let ask =
                    |request: Request| wallet.put(request.with("X-Forwarded-For", &format!("10.0.{k}.{n}")), *shown);
                let told = ask(gateway.get(&format!("/api/auth/session?{query}"))).await;
                let door = ask(gateway.knock(&format!("/ws?{query}"))).await;
                let expected = outcome(auth, *shown);
                agree(&told, &door, expected, &format!("{auth} {shown:?}"));
                if expected == Ok(Some("by-ticket")) {
                    ask(gateway.knock(&format!("/ws?{query}"))).await.refuses(401, LOG_IN);
                }
            }))
            .await;
        }
        gateway.is_unharmed().await;
    }
}

/// Whoever is no proxy of ours is nobody by that, and what else it shows decides.
#[tokio::test]
async fn what_a_stranger_says_of_itself_never_counts() {
    let application = Application::start().await;
    application.at("/session", Manner::Owner);
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let wallet = Wallet::new(&file).await;
    let session = application.url("/session");
    for auth in MODES {
        let gateway = gateway(auth, &file, &session).await;
        for (n, first) in FIRST.into_iter().enumerate() {
            for (m, cookie) in QUALITIES.into_iter().enumerate() {
                let shown = Shown { first, ticket: Quality::Absent, cookie, token: Quality::Absent, header: true };
                let ask = async |request| {
                    let mut raw = Raw::connect_from([127, 1, n as u8, m as u8 + 1], gateway.address()).await;
                    raw.write(&wallet.put(request, shown).bytes()).await;
                    raw.answer().await
                };
                let (told, door) = (ask(gateway.get("/api/auth/session")).await, ask(gateway.knock("/ws")).await);
                agree(&told, &door, outcome(auth, Shown { header: false, ..shown }), &format!("{auth} {shown:?}"));
            }
        }
    }
}
