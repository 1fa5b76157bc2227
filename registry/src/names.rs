//! Names, parsed into types at the door so that nobody behind it has to ask again.

use base64::{
    Engine,
    alphabet::Alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};
use uuid::Uuid;

/// Longer names would make keys, logs and answers that nobody can read.
pub const NAME_BYTES_MAX: usize = 256;

/// What a template engine leaves behind when its variable was not there. Such a name would put
/// strangers into one room, so it is refused by name.
const PLACEHOLDERS: [&str; 6] = ["undefined", "null", "[object Object]", "NaN", "None", "nil"];

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFault {
    /// Nothing, or nothing but white space.
    Blank,
    /// More than [`NAME_BYTES_MAX`] bytes.
    TooLong,
    /// Contains a control character.
    Control,
    /// An unexpanded template variable.
    Placeholder,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blank => "it is empty",
            Self::TooLong => "it is longer than 256 bytes",
            Self::Control => "it contains a control character",
            Self::Placeholder => "it is a placeholder that was never filled in",
        })
    }
}

/// Checks a text by the rules that every name obeys.
pub fn check(text: &str) -> Result<(), NameFault> {
    if text.chars().all(char::is_whitespace) {
        return Err(NameFault::Blank);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameFault::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(NameFault::Control);
    }
    if is_placeholder(text) {
        return Err(NameFault::Placeholder);
    }
    Ok(())
}

/// `:code`, `{code}`, `${code}`, `undefined` and their like.
pub fn is_placeholder(text: &str) -> bool {
    let braced = text.starts_with('{') || text.starts_with("${");
    let is_word = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    PLACEHOLDERS.contains(&text) || (braced && text.ends_with('}')) || text.strip_prefix(':').is_some_and(is_word)
}

/// URL-safe base64 whose text sorts as its bytes do, so that short ids page in order of connection.
const SORTED: GeneralPurpose = match Alphabet::new("-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz") {
    Ok(alphabet) => GeneralPurpose::new(&alphabet, NO_PAD),
    Err(_) => unreachable!(),
};

/// More bytes than any short form has, which a longer text would need.
const SHORT_MAX: usize = 24;

fn short<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; SHORT_MAX];
    let found = SORTED.decode_slice(text, &mut bytes).ok()?;
    bytes[..found].try_into().ok()
}

/// A type that travels as the text it is written as, and is parsed on arrival.
macro_rules! travels_as_text {
    ($($name:ident: $write:expr, $parse:expr;)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$name, S) -> Result<S::Ok, S::Error> = $write;
                write(self, to)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(from)?;
                let parse: fn(&str) -> Option<$name> = $parse;
                parse(&text).ok_or_else(|| D::Error::custom(concat!("not a ", stringify!($name))))
            }
        }
    )*};
}

travels_as_text! {
    StoreName: |name, to| to.serialize_str(&name.0), |text| StoreName::parse(text).ok();
    UserName: |name, to| to.serialize_str(&name.0), |text| UserName::parse(text).ok();
    RoomName: |name, to| to.serialize_str(&name.0), |text| RoomName::parse(text).ok();
    SocketId: |id, to| to.collect_str(id), SocketId::parse;
    Session: |session, to| to.collect_str(session), Session::parse;
    Incarnation: |life, to| to.serialize_str(&life.0), Incarnation::parse;
    CallId: |call, to| to.serialize_str(&call.0), CallId::parse;
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text that obeys the rules of names.
            pub fn parse(text: &str) -> Result<Self, NameFault> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

name! {
    /// A shop, tenant or account that a socket selected.
    StoreName
}
name! {
    /// A person. `anonymous` is nobody and never becomes one.
    UserName
}
name! {
    /// A place where sockets hear each other.
    RoomName
}

/// What a caller may address besides a single socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    Store(StoreName),
    User(UserName),
    Room(RoomName),
}

impl Group {
    /// The word for it in paths and answers.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::User(_) => "user",
            Self::Room(_) => "room",
        }
    }

    /// The name alone.
    pub fn name(&self) -> &str {
        match self {
            Self::Store(name) => name.as_str(),
            Self::User(name) => name.as_str(),
            Self::Room(name) => name.as_str(),
        }
    }

    /// The group's key. Hashed, because user text never enters a key as it is: a name could
    /// otherwise choose its neighbours.
    pub fn key(&self) -> GroupKey {
        GroupKey::of(self.kind(), self.name())
    }
}

/// A short mark that no other has, for ids of requests and messages.
pub fn mark() -> String {
    Uuid::now_v7().simple().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

/// 128 bits of BLAKE3 over kind and name; small, of one size, and ordered for range scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey(u128);

impl GroupKey {
    pub(crate) fn of(kind: &str, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes()).update(&[0]).update(name.as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(u128::from_be_bytes(short))
    }

    /// 22 characters for keys.
    pub fn short(self) -> String {
        SORTED.encode(self.0.to_be_bytes())
    }
}

/// `ws_<uuid v7>`: made once per socket, so that ids sort in the order of connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(Uuid);

impl SocketId {
    /// Below every id there is; where a walk over all of them starts.
    pub const FIRST: Self = Self(Uuid::nil());

    /// A fresh id, later than every one this process made before.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// Reads the form that [`fmt::Display`] writes; any other text was never an id of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("ws_")?;
        let id = Uuid::try_parse(hex).ok()?;
        let ours = hex.len() == 36 && id.get_version_num() == 7 && hex.bytes().all(|b| !b.is_ascii_uppercase());
        ours.then_some(Self(id))
    }

    /// 22 characters for keys and fields, in the order of connection.
    pub fn short(self) -> String {
        SORTED.encode(self.0.as_bytes())
    }

    /// Reads [`SocketId::short`].
    pub fn from_short(text: &str) -> Option<Self> {
        let id = Uuid::from_bytes(short(text)?);
        (id.get_version_num() == 7).then_some(Self(id))
    }

    /// When the id was made, in epoch milliseconds.
    pub fn made_at(self) -> u64 {
        let bytes = self.0.as_bytes();
        bytes[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }

    /// Bits without order, to spread sockets evenly over time.
    pub fn spread(self) -> u64 {
        self.0.as_u64_pair().1
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ws_")?;
        f.write_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One TCP connection of a socket; compared for equality, never ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(u64);

impl Session {
    pub fn fresh() -> Self {
        Self(Uuid::new_v4().as_u64_pair().1)
    }

    /// Reads the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        short(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&SORTED.encode(self.0.to_be_bytes()))
    }
}

/// One life of one instance: its name, and a mark made fresh at every start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    pub fn fresh(instance: &str) -> Self {
        Self(format!("{instance}.{}", SORTED.encode(Uuid::now_v7().as_bytes())).into())
    }

    /// Reads the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (instance, mark) = text.rsplit_once('.')?;
        let ours = !instance.is_empty() && short::<16>(mark).is_some();
        ours.then(|| Self(text.into()))
    }

    /// The name that people gave the instance.
    pub fn instance(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(instance, _)| instance)
    }

    /// The mark alone: 22 characters that no other life has, for keys, which never hold a name.
    pub fn mark(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, mark)| mark)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `c_<mark of the asker>.<mark>`: one call. It says whom the answer goes to, wherever it comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(Arc<str>);

impl CallId {
    pub fn fresh(asker: &Incarnation) -> Self {
        Self(["c_", asker.mark(), ".", &SORTED.encode(Uuid::now_v7().as_bytes())].concat().into())
    }

    /// Reads the form that [`fmt::Display`] writes; any other text was never a call of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (asker, own) = text.strip_prefix("c_")?.split_once('.')?;
        let ours = short::<16>(asker).is_some() && short::<16>(own).is_some();
        ours.then(|| Self(text.into()))
    }

    /// Whether its answers go to this life of an instance.
    pub fn is_of(&self, asker: &Incarnation) -> bool {
        self.0.strip_prefix("c_").and_then(|rest| rest.split('.').next()) == Some(asker.mark())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Hash for CallId {
    /// By its end, which no other call has; what is before it is the same for all calls of one asker.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let text = self.0.as_bytes();
        state.write(text.last_chunk::<16>().map_or(text, |end| end));
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_1_to_256_bytes_without_control_characters() {
        assert_eq!(check(""), Err(NameFault::Blank));
        assert_eq!(check(" \u{3000}\t"), Err(NameFault::Blank));
        assert_eq!(check("a"), Ok(()));
        assert_eq!(check(&"a".repeat(256)), Ok(()));
        assert_eq!(check(&"a".repeat(257)), Err(NameFault::TooLong));
        assert_eq!(check(&"é".repeat(129)), Err(NameFault::TooLong));
        for control in ["a\0", "a\nb", "\u{7f}x", "x\u{85}"] {
            assert_eq!(check(control), Err(NameFault::Control), "{control:?}");
        }
    }

    /// Checklist 144.
    #[test]
    fn placeholders_are_no_names() {
        for text in [":code", "{code}", "${code}", "{{ code }}", "undefined", "null", "[object Object]"] {
            assert_eq!(check(text), Err(NameFault::Placeholder), "{text}");
        }
        for text in ["code:", "12:30", "a{b}", "nullable", ":", "::1"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn an_id_reads_back_and_others_do_not() {
        let id = SocketId::fresh();
        assert_eq!(SocketId::parse(&id.to_string()), Some(id));
        let upper = format!("ws_{}", id.to_string()["ws_".len()..].to_uppercase());
        for foreign in ["ws_123", "", "ws_", &upper, "ws_00000000-0000-4000-8000-000000000000"] {
            assert_eq!(SocketId::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn short_forms_read_back_and_sort_as_the_long_ones() {
        let ids: Vec<_> = (0..1000).map(|_| SocketId::fresh()).collect();
        assert!(ids.iter().map(|id| id.short()).is_sorted());
        assert_eq!(SocketId::from_short(&ids[7].short()), Some(ids[7]));
        assert_eq!(ids[0].short().len(), 22);
        let session = Session::fresh();
        assert_eq!(Session::parse(&session.to_string()), Some(session));
        let incarnation = Incarnation::fresh("web1.example.com:8080");
        assert_eq!(Incarnation::parse(&incarnation.to_string()), Some(incarnation.clone()));
        assert_eq!(incarnation.mark().len(), 22);
        for foreign in ["", "web1", "web1.", "web1.x", ".", &format!(".{}", incarnation.mark())] {
            assert_eq!(Incarnation::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_call_names_its_asker_and_reads_back() {
        let asker = Incarnation::fresh("web1");
        let call = CallId::fresh(&asker);
        assert!(call.as_str().contains(asker.mark()));
        assert_eq!(CallId::parse(call.as_str()), Some(call.clone()));
        for foreign in ["", "c_", "c_1", "c_1.2", &call.as_str()[2..], &format!("{call}x")] {
            assert_eq!(CallId::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn later_ids_are_greater_and_know_their_time() {
        let ids: Vec<_> = (0..1000).map(|_| SocketId::fresh()).collect();
        assert!(ids.is_sorted());
        let now = crate::all::epoch_ms();
        assert!(now - ids[0].made_at() < 60_000);
    }

    #[test]
    fn groups_of_one_name_and_another_kind_have_different_keys() {
        let store = Group::Store(StoreName::parse("x").unwrap());
        let user = Group::User(UserName::parse("x").unwrap());
        assert_ne!(store.key(), user.key());
        assert_eq!(store.key(), Group::Store(StoreName::parse("x").unwrap()).key());
    }

    #[test]
    fn an_incarnation_keeps_its_instance_name() {
        assert_eq!(Incarnation::fresh("web1.example.com:8080").instance(), "web1.example.com:8080");
        assert_ne!(Incarnation::fresh("a"), Incarnation::fresh("a"));
    }

    proptest! {
        #[test]
        fn whatever_is_parsed_obeys_the_rules(text in ".{0,300}") {
            if let Ok(name) = RoomName::parse(&text) {
                prop_assert!(!name.as_str().is_empty() && name.as_str().len() <= NAME_BYTES_MAX);
                prop_assert!(!name.as_str().chars().any(char::is_control));
                prop_assert_eq!(name.as_str(), &text);
            }
            let _ = SocketId::parse(&text);
        }
    }
}
