//! JSON Web Tokens: whether one is good, and what it says of its bearer. Nothing here knows of HTTP.

mod backend;

use crate::{admission::names::ANONYMOUS, config::value::Secret};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use registry::{NameFault, RoomName, StoreName, UserName};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;

/// A longer token is no token but an attempt to keep us busy; nothing of it is decoded.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// A shorter secret can be found by trying, from a single token.
const SECRET_BYTES_MIN: usize = 32;

/// The last time that a JSON reader or a script of Redis still tells from the next.
const LATEST_MS: u64 = (1 << 53) - 1;

/// A modulus of 2048 bits alone has as many; with a shorter one every token would be refused.
const RSA_BYTES_MIN: usize = 256;
/// One of 8192 bits, and what is around it.
const RSA_BYTES_MAX: usize = 1024 + 32;
/// A key for Ed25519.
const ED_BYTES: usize = 32;

/// What a token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub user: UserName,
    /// The stores it is bound to; `None` if it says nothing of stores.
    pub stores: Option<Vec<StoreName>>,
    /// The rooms it is bound to; `None` if it says nothing of rooms.
    pub rooms: Option<Vec<RoomName>>,
    /// In epoch milliseconds: from then on it is not good.
    pub expires_at: u64,
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
    Signature,
    NoExpiry,
    Expired,
    NotYet,
    Issuer,
    Audience,
    /// It is nobody's.
    NoUser,
    /// A user, store or room in it cannot be one.
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

/// A key, and the one algorithm that it is for: a token cannot choose another.
#[derive(Debug, Clone)]
struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

impl Key {
    fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        // The library goes by the system's clock, in whole seconds, and lets a missing claim pass;
        // so the claims are looked at here.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { algorithm, key, validation }
    }
}

/// By what tokens are judged.
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
            keys.push(Key::new(Algorithm::HS256, DecodingKey::from_secret(bytes)));
        }
        if let Some(pem) = public_key {
            keys.push(read_pem(pem)?);
        }
        match keys.is_empty() {
            true => Err("set JWT_SECRET or JWT_PUBLIC_KEY; without a key no token can be checked".into()),
            false => {
                Ok(Self { keys, issuer: issuer.map(str::to_owned), audience: audience.map(str::to_owned), warnings })
            }
        }
    }

    /// What is allowed but unwise.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// What the token says, if it is good at this time.
    pub fn read(&self, token: &str, now_ms: u64) -> Result<Claims, Unfit> {
        let said = self.open(token)?;
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
            expires_at,
        })
    }

    /// Finds the key by the header, checks the signature, and only then reads what was signed.
    fn open(&self, token: &str) -> Result<Said, Unfit> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Unfit::TooLong);
        }
        let head = token.split('.').next().and_then(|head| URL_SAFE_NO_PAD.decode(head).ok());
        let head: Head = head.and_then(|head| serde_json::from_slice(&head).ok()).ok_or(Unfit::Malformed)?;
        let algorithm: Algorithm = head.alg.parse().map_err(|_| Unfit::Algorithm)?;
        let key = self.keys.iter().find(|key| key.algorithm == algorithm).ok_or(Unfit::Algorithm)?;
        if head.crit.is_some() {
            return Err(Unfit::Critical);
        }
        match jsonwebtoken::decode::<Said>(token, &key.key, &key.validation) {
            Ok(read) => Ok(read.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => Unfit::Signature,
                ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Unfit::Algorithm,
                _ => Unfit::Malformed,
            }),
        }
    }
}

/// The PEM tells which algorithm the key is for.
fn read_pem(pem: &str) -> Result<Key, String> {
    let refused = |sentence: &str| Err(sentence.to_owned());
    if pem.contains("PRIVATE KEY-----") {
        return refused(
            "this is a private key, which only whoever signs should have; put its public half here \
             (openssl pkey -in key.pem -pubout), and make a new pair if this one was seen by others",
        );
    }
    if pem.contains("CERTIFICATE-----") {
        return refused(
            "this is a certificate; put the public key in it here (openssl x509 -in cert.pem -pubkey -noout)",
        );
    }
    if pem.matches("-----BEGIN ").count() > 1 {
        return refused("there are several keys in it; one is wanted");
    }
    let length = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
    let bytes = pem.as_bytes();
    if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
        return match length(&key) {
            RSA_BYTES_MIN..=RSA_BYTES_MAX => Ok(Key::new(Algorithm::RS256, key)),
            _ => refused("an RSA key of 2048 to 8192 bits is wanted"),
        };
    }
    if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
        return match key.try_get_as_bytes().is_ok_and(backend::is_p256) {
            true => Ok(Key::new(Algorithm::ES256, key)),
            false => refused("this is a key of another curve; ES256 wants one of P-256 (prime256v1)"),
        };
    }
    match DecodingKey::from_ed_pem(bytes) {
        Ok(key) if length(&key) == ED_BYTES => Ok(Key::new(Algorithm::EdDSA, key)),
        _ => refused(
            "this is no public key in PEM (-----BEGIN PUBLIC KEY-----) of RSA, P-256 or Ed25519; \
             in an env file write its line ends as \\n",
        ),
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
    let text = match sub {
        None => return Err(Unfit::NoUser),
        Some(Value::String(text)) => text,
        // A number that is no longer what was written could make one user of two.
        Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
        Some(_) => return Err(Unfit::Malformed),
    };
    match UserName::parse(&text) {
        Ok(user) if user.as_str() != ANONYMOUS => Ok(user),
        Ok(_) | Err(NameFault::Blank) => Err(Unfit::NoUser),
        Err(_) => Err(Unfit::Names),
    }
}

fn names<T>(value: Option<Value>, parse: fn(&str) -> Result<T, NameFault>) -> Result<Option<Vec<T>>, Unfit> {
    let one = |value: &Value| value.as_str().and_then(|text| parse(text).ok()).ok_or(Unfit::Names);
    match value {
        None => Ok(None),
        Some(Value::Array(all)) => all.iter().map(one).collect::<Result<_, _>>().map(Some),
        Some(value) => Ok(Some(vec![one(&value)?])),
    }
}

#[cfg(test)]
mod tests;
