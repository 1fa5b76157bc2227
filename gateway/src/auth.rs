//! Who somebody is, by what they show. `admission/credentials.rs` reads it, here it is believed or not, and what it grants
//! goes with the socket for as long as it is good.

pub mod book;
pub mod ends;
pub mod grants;
pub mod jwks;
pub mod jwt;
pub mod key;
pub mod session;
pub mod ticket;
pub mod tokens;

use crate::admission::{credentials::Shown, names::ANONYMOUS};
use book::{Book, Found};
use grants::{By, Grants};
use jwt::Unfit;
use key::{ApiKey, Scope};
use registry::{Registry, StoreName, UserName, epoch_ms};
use serde_json::Value;
use session::Sessions;
use std::{fmt, sync::Arc};
use tokens::Tokens;

/// Why a credential opens no door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// None was shown, or what a proxy says is no name.
    Missing,
    UnknownKey,
    ExpiredKey,
    /// A key or token that is for something else.
    NoScope,
    Token(Unfit),
    /// A ticket that was used, or is over, or never was one.
    Ticket,
    /// A session that is nobody's: by its cookie, or by its token.
    Session(Proof),
    /// Whether it is good cannot be known now.
    Blind(Blind),
}

impl Refused {
    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "no_credentials",
            Self::UnknownKey => "key_invalid",
            Self::ExpiredKey => "key_expired",
            Self::NoScope => "scope",
            Self::Token(_) => "token_invalid",
            Self::Ticket => "ticket_invalid",
            Self::Session(_) => "session_unknown",
            Self::Blind(_) => "blind",
        }
    }
}

/// Why it cannot be known whether a credential is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blind {
    /// Redis holds it, and does not answer.
    Redis,
    /// Its key may be among those of `JWKS_URL`, which cannot be read.
    Keys,
    /// The application knows it, and gives no answer that says so.
    Application { retry_after: u64 },
}

/// By what somebody proves whose a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    Cookie,
    Token,
}

/// How clients prove who they are; none: whoever is named is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    pub keys: bool,
    pub jwt: bool,
    /// The application says it.
    pub session: bool,
    /// A trusted proxy says it.
    pub proxy: bool,
}

impl Modes {
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Whether what a trusted proxy says of its clients counts.
    pub fn hears_proxies(self) -> bool {
        self.is_none() || self.proxy
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.keys, "keys"), (self.jwt, "jwt"), (self.session, "session"), (self.proxy, "proxy")];
        let some: Vec<_> = all.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| *name).collect();
        f.write_str(if some.is_empty() { "none" } else { "" })?;
        f.write_str(&some.join(", "))
    }
}

/// Everything that decides it.
pub struct Auth {
    pub modes: Modes,
    pub book: Option<Book>,
    pub tokens: Option<Tokens>,
    session: Option<Sessions>,
    registry: Registry,
}

impl Auth {
    pub fn new(
        modes: Modes,
        book: Option<Book>,
        tokens: Option<Tokens>,
        session: Option<Sessions>,
        registry: Registry,
    ) -> Self {
        Self { modes, book, tokens, session, registry }
    }

    /// The cookie that holds a session, where one counts.
    pub fn session_cookie(&self) -> Option<&str> {
        self.session.as_ref()?.cookie.as_deref()
    }

    /// Answers of the application that are too old to count.
    pub fn forget_the_old(&self) {
        if let Some(sessions) = &self.session {
            sessions.forget_the_old();
        }
    }

    /// What somebody is granted, where credentials are wanted. A ticket is not used up by it.
    /// `parent` is the trace that a question to the application belongs to.
    pub async fn identify(&self, shown: &Shown, parent: Option<&str>) -> Result<Arc<Grants>, Refused> {
        let grants = match shown {
            Shown::Nothing => return Err(Refused::Missing),
            Shown::Session(proof, text) => {
                let Some(sessions) = &self.session else { return Err(Refused::Missing) };
                return sessions.find(*proof, text, parent).await;
            }
            Shown::Ticket(ticket) => ticket::look(&self.registry, ticket.expose()).await?,
            Shown::Token(token) => self.by_token(token.expose()).await?,
            Shown::Proxy { user, store } => by_proxy(user, store.as_deref())?,
        };
        Ok(Arc::new(grants))
    }

    /// Whoever was identified comes in: what counts once has been used.
    pub async fn admit(&self, shown: &Shown) -> Result<(), Refused> {
        match shown {
            Shown::Ticket(ticket) if !self.modes.is_none() => ticket::redeem(&self.registry, ticket.expose()).await,
            _ => Ok(()),
        }
    }

    async fn by_token(&self, token: &str) -> Result<Grants, Refused> {
        let now = epoch_ms();
        match (&self.book, &self.tokens) {
            (Some(book), tokens) if key::is_key(token) || tokens.is_none() => match book.find(token, now).await {
                Found::Key(digest, key) if key.may(Scope::Connect) => Ok(Grants::of_key(digest, &key)),
                Found::Key(..) => Err(Refused::NoScope),
                Found::Expired => Err(Refused::ExpiredKey),
                Found::Unknown => Err(Refused::UnknownKey),
                Found::Blind => Err(Refused::Blind(Blind::Redis)),
            },
            (_, Some(tokens)) if !key::is_key(token) => {
                let claims = tokens.read(token).await?;
                if !claims.may(Scope::Connect) {
                    return Err(Refused::NoScope);
                }
                Ok(Grants {
                    user: claims.user,
                    stores: claims.stores.unwrap_or_default(),
                    rooms: claims.rooms,
                    until: Some(claims.expires_at),
                    key: None,
                    by: By::Jwt,
                    more: None,
                })
            }
            _ => Err(Refused::UnknownKey),
        }
    }

    /// The key among what a caller shows, as far as it is known already. Where no key counts nobody looks what is shown.
    pub fn key_of(&self, shown: impl FnOnce() -> Vec<String>) -> Option<Arc<ApiKey>> {
        let book = self.book.as_ref()?;
        shown().iter().filter(|token| key::is_key(token)).find_map(|token| book.knows(token, epoch_ms()))
    }
}

fn by_proxy(user: &str, store: Option<&str>) -> Result<Grants, Refused> {
    let user = somebody(user).map_err(|_| Refused::Missing)?;
    let stores = match store {
        Some(store) => vec![StoreName::parse(store).map_err(|_| Refused::Missing)?],
        None => Vec::new(),
    };
    Ok(Grants { user, stores, rooms: None, until: None, key: None, by: By::Proxy, more: None })
}

/// A user whom a credential may name: anybody but nobody.
pub fn somebody(text: &str) -> Result<UserName, String> {
    match UserName::parse(text) {
        Ok(_) if text == ANONYMOUS => Err(format!("{ANONYMOUS} is nobody's name")),
        parsed => parsed.map_err(|fault| fault.to_string()),
    }
}

/// A name in JSON: many applications number their users.
pub fn name_in(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // A number that is no longer what was written could make one user of two.
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}
