//! Who somebody is, by what they show. `admission/credentials.rs` reads it, here it is believed or not, and what it grants
//! goes with the socket for as long as it is good.

pub mod book;
pub mod ends;
pub mod grants;
pub mod jwt;
pub mod key;
pub mod ticket;

use crate::admission::{credentials::Shown, names::ANONYMOUS};
use book::{Book, Found};
use grants::{By, Grants};
use jwt::Unfit;
use key::{ApiKey, Scope};
use registry::{Registry, StoreName, UserName, epoch_ms};
use std::{fmt, sync::Arc};

/// Why a credential opens no door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// None was shown, or what a proxy says is no name.
    Missing,
    UnknownKey,
    ExpiredKey,
    /// A key that is for something else.
    NoScope,
    Token(Unfit),
    /// A ticket that was used, or is over, or never was one.
    Ticket,
    /// Whether it is good cannot be known now.
    Blind,
}

/// How clients prove who they are; none: whoever is named is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    pub keys: bool,
    pub jwt: bool,
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
        let all = [(self.keys, "keys"), (self.jwt, "jwt"), (self.proxy, "proxy")];
        let some: Vec<_> = all.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| *name).collect();
        f.write_str(if some.is_empty() { "none" } else { "" })?;
        f.write_str(&some.join(", "))
    }
}

/// Everything that decides it.
pub struct Auth {
    pub modes: Modes,
    pub book: Option<Book>,
    jwt: Option<jwt::Rules>,
    registry: Registry,
}

impl Auth {
    pub fn new(modes: Modes, book: Option<Book>, jwt: Option<jwt::Rules>, registry: Registry) -> Self {
        Self { modes, book, jwt, registry }
    }

    /// What somebody is granted; nothing is bounded where nobody has to prove anything. A ticket is not used up by it.
    pub async fn identify(&self, shown: &Shown) -> Result<Option<Arc<Grants>>, Refused> {
        if self.modes.is_none() {
            return Ok(None);
        }
        let grants = match shown {
            Shown::Nothing => return Err(Refused::Missing),
            Shown::Ticket(ticket) => ticket::look(&self.registry, ticket.expose()).await?,
            Shown::Token(token) => self.by_token(token.expose()).await?,
            Shown::Proxy { user, store } => by_proxy(user, store.as_deref())?,
        };
        Ok(Some(Arc::new(grants)))
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
        match (&self.book, &self.jwt) {
            (Some(book), jwt) if key::is_key(token) || jwt.is_none() => match book.find(token, now).await {
                Found::Key(digest, key) if key.may(Scope::Connect) => Ok(Grants::of_key(digest, &key)),
                Found::Key(..) => Err(Refused::NoScope),
                Found::Expired => Err(Refused::ExpiredKey),
                Found::Unknown => Err(Refused::UnknownKey),
                Found::Blind => Err(Refused::Blind),
            },
            (_, Some(rules)) if !key::is_key(token) => {
                let claims = rules.read(token, now).map_err(Refused::Token)?;
                Ok(Grants {
                    user: claims.user,
                    stores: claims.stores.unwrap_or_default(),
                    rooms: claims.rooms,
                    until: Some(claims.expires_at),
                    key: None,
                    by: By::Jwt,
                })
            }
            _ => Err(Refused::UnknownKey),
        }
    }

    /// The key among what a caller shows, as far as it is known already.
    pub fn key_of(&self, shown: &[String]) -> Option<Arc<ApiKey>> {
        let book = self.book.as_ref()?;
        shown.iter().filter(|token| key::is_key(token)).find_map(|token| book.knows(token, epoch_ms()))
    }
}

fn by_proxy(user: &str, store: Option<&str>) -> Result<Grants, Refused> {
    let user = somebody(user).map_err(|_| Refused::Missing)?;
    let stores = match store {
        Some(store) => vec![StoreName::parse(store).map_err(|_| Refused::Missing)?],
        None => Vec::new(),
    };
    Ok(Grants { user, stores, rooms: None, until: None, key: None, by: By::Proxy })
}

/// A user whom a credential may name: anybody but nobody.
pub fn somebody(text: &str) -> Result<UserName, String> {
    match UserName::parse(text) {
        Ok(_) if text == ANONYMOUS => Err(format!("{ANONYMOUS} is nobody's name")),
        parsed => parsed.map_err(|fault| fault.to_string()),
    }
}
