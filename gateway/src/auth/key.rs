//! API keys: what is written of one, and never the key itself.

use registry::{RoomName, StoreName, UserName};
use serde_json::{Map, Value, json};
use std::{
    fmt,
    hash::{Hash, Hasher},
};
use subtle::ConstantTimeEq;

/// What keys of ours begin with, and those that came from elsewhere.
const OURS: &str = "hf_";
const THEIRS: &str = "nk_";
/// Characters of a digest by which people name a key.
const ID_CHARS: usize = 12;
/// Shorter ones could be guessed.
const KEY_BYTES_MIN: usize = 16;
const KEY_BYTES_MAX: usize = 512;

/// Whether a text is a key by its form, ours or not.
pub fn is_key(text: &str) -> bool {
    text.starts_with(OURS) || text.starts_with(THEIRS)
}

/// A new key: 256 bits that nobody can guess.
pub fn fresh() -> String {
    let secret = registry::Secret::fresh().to_text();
    format!("{OURS}{secret}")
}

/// Whether a key that was made elsewhere may count here.
pub fn check(text: &str) -> Result<(), String> {
    match text.len() {
        KEY_BYTES_MIN..=KEY_BYTES_MAX if is_key(text) && text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(()),
        _ => Err(format!("a key begins with {OURS} or {THEIRS} and has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} characters")),
    }
}

/// The SHA-256 of a key, which is all that is kept of it.
#[derive(Clone, Copy, Eq)]
pub struct Digest([u8; 32]);

/// How long it takes says nothing of how much of two digests is the same.
impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Digest {
    pub fn of(key: &str) -> Self {
        Self::of_bytes(key.as_bytes())
    }

    /// Of anything else that is known again by it.
    pub fn of_bytes(text: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text).as_ref());
        Self(bytes)
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// By what people name it.
    pub fn id(&self) -> String {
        let mut text = self.to_string();
        text.truncate(ID_CHARS);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Opening sockets.
    Connect,
    /// The server plane.
    Call,
    /// What changes or reveals the fleet.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Connect, Self::Call, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Call => "call",
            Self::Admin => "admin",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// What is written of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub user: UserName,
    pub stores: Vec<StoreName>,
    /// `None`: any room.
    pub rooms: Option<Vec<RoomName>>,
    pub scopes: Vec<Scope>,
    /// Epoch milliseconds.
    pub created_at: u64,
    pub expires_at: Option<u64>,
}

/// Times below it are seconds: as milliseconds they would lie in the year 1973.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

impl ApiKey {
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    pub fn is_over(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|until| until <= now)
    }

    pub fn write(&self) -> Value {
        let names = |names: &[StoreName]| names.iter().map(StoreName::to_string).collect::<Vec<_>>();
        let mut written = json!({
            "user": self.user.as_str(),
            "stores": names(&self.stores),
            "scopes": self.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
            "created_at": self.created_at,
        });
        if let Some(rooms) = &self.rooms {
            written["rooms"] = rooms.iter().map(RoomName::to_string).collect();
        }
        if let Some(until) = self.expires_at {
            written["expires_at"] = until.into();
        }
        written
    }

    /// Reads what [`ApiKey::write`] writes, and what people write by hand; or says what is wrong with it.
    pub fn read(written: &Value) -> Result<Self, String> {
        let Value::Object(members) = written else { return Err("an object is wanted".into()) };
        let known = ["user", "stores", "rooms", "scopes", "created_at", "expires_at"];
        if let Some(odd) = members.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("{odd:?} is unknown; {} are", known.join(", ")));
        }
        let user = match members.get("user") {
            Some(Value::String(user)) => super::somebody(user).map_err(|fault| format!("user: {fault}"))?,
            _ => return Err("user is missing".into()),
        };
        let scopes = list(members, "scopes", |word| Scope::parse(word).ok_or("connect, call or admin is wanted"))?;
        Ok(Self {
            user,
            stores: list(members, "stores", StoreName::parse)?.unwrap_or_default(),
            rooms: list(members, "rooms", RoomName::parse)?,
            scopes: scopes.unwrap_or_else(|| vec![Scope::Connect]),
            created_at: time(members, "created_at")?.unwrap_or(0),
            expires_at: time(members, "expires_at")?,
        })
    }
}

fn list<T, F: fmt::Display>(
    members: &Map<String, Value>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, F>,
) -> Result<Option<Vec<T>>, String> {
    // Null is no list: whoever writes it for an empty one would be granted everything.
    let Some(value) = members.get(name) else { return Ok(None) };
    let Value::Array(values) = value else { return Err(format!("{name}: a list is wanted")) };
    let read = values.iter().map(|value| match value {
        Value::String(text) => parse(text).map_err(|fault| format!("{name}: {fault}")),
        other => Err(format!("{name}: a text is wanted, not {other}")),
    });
    read.collect::<Result<_, _>>().map(Some)
}

/// A time in milliseconds, or in seconds.
pub fn as_ms(at: u64) -> u64 {
    if at < MILLISECONDS_FROM { at * 1000 } else { at }
}

/// Epoch milliseconds; seconds are taken, too.
fn time(members: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    match members.get(name).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(at) => Ok(Some(as_ms(at))),
            None => Err(format!("{name}: milliseconds since 1970 are wanted")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_form_and_by_nothing_else_of_it() {
        let (one, other) = (fresh(), fresh());
        assert!(is_key(&one) && check(&one).is_ok() && one != other);
        assert!(is_key("nk_xxx") && !is_key("eyJ.x.y") && !is_key("HF_x"));
        for odd in ["nk_short", "xx_0123456789abcdef", "nk_0123456789 abcdef", "nk_0123456789abcdé"] {
            assert!(check(odd).is_err(), "{odd}");
        }
        let digest = Digest::of(&one);
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!((Digest::parse("ab"), Digest::parse(&"zz".repeat(32))), (None, None));
        assert_eq!(format!("{digest:?}"), digest.id());
        // A fact of SHA-256.
        assert_eq!(Digest::of("abc").id(), "ba7816bf8f01");
    }

    #[test]
    fn what_is_written_of_a_key_is_read_again() {
        let key = ApiKey {
            user: UserName::parse("ann").unwrap(),
            stores: vec![StoreName::parse("s").unwrap()],
            rooms: Some(Vec::new()),
            scopes: vec![Scope::Call, Scope::Admin],
            created_at: 1_700_000_000_000,
            expires_at: Some(1_800_000_000_000),
        };
        assert_eq!(ApiKey::read(&key.write()).unwrap(), key);
        let little = ApiKey::read(&json!({"user": "ann", "expires_at": 1_800_000_000})).unwrap();
        assert_eq!((little.expires_at, little.rooms.as_ref()), (key.expires_at, None));
        assert!(little.may(Scope::Connect) && !little.may(Scope::Call));
        assert!(little.is_over(1_800_000_000_000) && !little.is_over(1_799_999_999_999));
        for (odd, said) in [
            (json!([]), "object"),
            (json!({}), "user"),
            (json!({"user": ""}), "user"),
            (json!({"user": "u", "stores": "s"}), "list"),
            (json!({"user": "u", "rooms": null}), "list"),
            (json!({"user": "anonymous"}), "nobody"),
            (json!({"user": "u", "stores": [1]}), "text"),
            (json!({"user": "u", "scopes": ["root"]}), "connect"),
            (json!({"user": "u", "expires_at": "soon"}), "milliseconds"),
            (json!({"user": "u", "expires": 1}), "unknown"),
        ] {
            let why = ApiKey::read(&odd).unwrap_err();
            assert!(why.contains(said), "{odd}: {why}");
        }
    }
}
