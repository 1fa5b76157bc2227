//! JSON Web Tokens: whether one is good, and what it says of its bearer. Nothing here knows of HTTP.

mod backend;
pub mod keys;

use super::{key::Scope, name_in, somebody};
use crate::config::value::Secret;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, errors::ErrorKind};
use keys::Key;
use registry::{NameFault, RoomName, StoreName, UserName};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;

/// A longer token is no token but an attempt to keep us busy; nothing of it is decoded.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// A shorter secret can be found by trying, from a single token.
const SECRET_BYTES_MIN: usize = 32;

/// The last time that a JSON reader or a script of Redis still tells from the next.
const LATEST_MS: u64 = (1 << 53) - 1;

/// Keys that are tried for one token, where it does not say which is meant: a check costs more than all else here.
const TRIED_MAX: usize = 16;

/// What a token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub user: UserName,
    /// The stores it is bound to; `None` if it says nothing of stores.
    pub stores: Option<Vec<StoreName>>,
    /// The rooms it is bound to; `None` if it says nothing of rooms.
    pub rooms: Option<Vec<RoomName>>,
    /// Those of ours that it names; none: it says nothing of what it is for.
    pub scopes: Vec<Scope>,
    /// In epoch milliseconds: from then on it is not good.
    pub expires_at: u64,
}

impl Claims {
    /// A token that names a scope of ours is for what it names. The others are for other services, and bound nothing.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.is_empty() || self.scopes.contains(&scope)
    }
}

/// Why a token is not good. It says nothing of the token itself, so it may be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// More than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// No token at all, or a claim of the wrong kind.
    Malformed,
    /// Its header demands what is not known here.
    Critical,
    /// Not one that a key of ours is for.
    Algorithm,
    /// It may be by a key that is not known here yet.
    UnknownKey,
    Signature,
    NoExpiry,
    Expired,
    NotYet,
    Issuer,
    Audience,
    /// It is nobody's, or of somebody who cannot be one.
    NoUser,
    /// A store or room in it cannot be one.
    Names,
}

impl Unfit {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoUser => "no_user",
            Self::Names => "names",
        }
    }
}

/// By what tokens are judged, whatever else is known of keys.
#[derive(Debug, Clone)]
pub struct Rules {
    keys: Vec<Key>,
    issuer: Option<String>,
    audience: Option<String>,
    warnings: Vec<String>,
}

/// What stands in front of a token.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// What a token says, before it is understood.
#[derive(Deserialize)]
struct Said {
    exp: Option<Value>,
    nbf: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    sub: Option<Value>,
    stores: Option<Value>,
    // Null is what some write for an empty list: it must not mean any room.
    #[serde(default, deserialize_with = "even_null")]
    rooms: Option<Value>,
    scope: Option<Value>,
    scp: Option<Value>,
}

fn even_null<'a, D: Deserializer<'a>>(read: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(read).map(Some)
}

impl Rules {
    /// `public_key` is PEM. The error is a sentence for whoever set it.
    pub fn new(
        secret: Option<&Secret>,
        public_key: Option<&str>,
        issuer: Option<&str>,
        audience: Option<&str>,
    ) -> Result<Self, String> {
        backend::install();
        let (mut keys, mut warnings) = (Vec::new(), Vec::new());
        if let Some(secret) = secret {
            let bytes = secret.expose().as_bytes();
            if bytes.len() < SECRET_BYTES_MIN {
                warnings.push(format!(
                    "JWT_SECRET is shorter than {SECRET_BYTES_MIN} bytes: whoever has a token can find it by trying"
                ));
            }
            keys.push(Key::of_secret(bytes));
        }
        if let Some(pem) = public_key {
            keys.push(keys::read_pem(pem)?);
        }
        Ok(Self { keys, issuer: issuer.map(str::to_owned), audience: audience.map(str::to_owned), warnings })
    }

    /// What is allowed but unwise.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// What the token says, if it is good at this time. `more`: the keys of a set that may change, if there is one.
    pub fn read(&self, token: &str, more: Option<&[Key]>, now_ms: u64) -> Result<Claims, Unfit> {
        let said = self.open(token, more)?;
        let expires_at = ms(&said.exp.ok_or(Unfit::NoExpiry)?)?;
        if expires_at <= now_ms {
            return Err(Unfit::Expired);
        }
        if let Some(from) = said.nbf
            && now_ms < ms(&from)?
        {
            return Err(Unfit::NotYet);
        }
        if let Some(issuer) = &self.issuer
            && !is_text(said.iss.as_ref(), issuer)
        {
            return Err(Unfit::Issuer);
        }
        if let Some(audience) = &self.audience {
            let is_meant = match &said.aud {
                Some(Value::Array(all)) => all.iter().any(|one| is_text(Some(one), audience)),
                one => is_text(one.as_ref(), audience),
            };
            if !is_meant {
                return Err(Unfit::Audience);
            }
        }
        Ok(Claims {
            user: user(said.sub)?,
            stores: names(said.stores, StoreName::parse)?,
            rooms: names(said.rooms, RoomName::parse)?,
            scopes: [said.scope, said.scp].iter().flatten().try_fold(Vec::new(), scopes)?,
            expires_at,
        })
    }

    /// Finds the keys by the header, checks the signature, and only then reads what was signed.
    fn open(&self, token: &str, more: Option<&[Key]>) -> Result<Said, Unfit> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Unfit::TooLong);
        }
        let head = token.split('.').next().and_then(|head| URL_SAFE_NO_PAD.decode(head).ok());
        let head: Head = head.and_then(|head| serde_json::from_slice(&head).ok()).ok_or(Unfit::Malformed)?;
        let algorithm: Algorithm = head.alg.parse().map_err(|_| Unfit::Algorithm)?;
        if head.crit.is_some() {
            return Err(Unfit::Critical);
        }
        let (set, id) = (more.unwrap_or_default(), head.kid.as_deref());
        let tried: Vec<_> =
            self.keys.iter().chain(set).filter(|key| key.may_be(algorithm, id)).take(TRIED_MAX).collect();
        for key in &tried {
            match jsonwebtoken::decode::<Said>(token, &key.key, &key.validation) {
                Ok(read) => return Ok(read.claims),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
                Err(_) => return Err(Unfit::Malformed),
            }
        }
        let is_named = id.is_some() && set.iter().any(|key| key.id.as_deref() == id);
        Err(match more {
            Some(_) if !is_named && keys::is_in_sets(algorithm) => Unfit::UnknownKey,
            _ if tried.is_empty() => Unfit::Algorithm,
            _ => Unfit::Signature,
        })
    }
}

/// Seconds since the epoch, maybe with a fraction.
fn ms(seconds: &Value) -> Result<u64, Unfit> {
    let ms = seconds.as_f64().ok_or(Unfit::Malformed)? * 1000.0;
    // What is below zero becomes zero, and what is too large the largest.
    Ok((ms.round() as u64).min(LATEST_MS))
}

fn is_text(value: Option<&Value>, text: &str) -> bool {
    value.and_then(Value::as_str) == Some(text)
}

fn user(sub: Option<Value>) -> Result<UserName, Unfit> {
    let text = name_in(&sub.ok_or(Unfit::NoUser)?).ok_or(Unfit::Malformed)?;
    somebody(&text).map_err(|_| Unfit::NoUser)
}

fn names<T>(value: Option<Value>, parse: fn(&str) -> Result<T, NameFault>) -> Result<Option<Vec<T>>, Unfit> {
    let one = |value: &Value| value.as_str().and_then(|text| parse(text).ok()).ok_or(Unfit::Names);
    match value {
        None => Ok(None),
        Some(Value::Array(all)) => all.iter().map(one).collect::<Result<_, _>>().map(Some),
        Some(value) => Ok(Some(vec![one(&value)?])),
    }
}

/// Those of ours in a claim: a text with blanks, or a list.
fn scopes(mut ours: Vec<Scope>, claim: &Value) -> Result<Vec<Scope>, Unfit> {
    let words: Option<Vec<_>> = match claim {
        Value::String(text) => Some(text.split_whitespace().collect()),
        Value::Array(all) => all.iter().map(Value::as_str).collect(),
        _ => None,
    };
    ours.extend(words.ok_or(Unfit::Malformed)?.into_iter().filter_map(Scope::parse));
    Ok(ours)
}

#[cfg(test)]
pub mod tests;
