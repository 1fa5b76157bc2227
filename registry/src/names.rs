//! Names, parsed into types at the door so that nobody behind it has to ask again.

use crate::{
    short::{self, Short8, Short16},
    travel::{travel_as_bytes, travel_as_text},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str, sync::Arc};
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

travel_as_text! {
    StoreName: |text| StoreName::parse(text).ok();
    UserName: |text| UserName::parse(text).ok();
    RoomName: |text| RoomName::parse(text).ok();
    Incarnation: Incarnation::parse;
}

travel_as_bytes! {
    CallId: CallId::parse, |call| call.0, CallId::from_bytes;
    SocketId: SocketId::parse, |id| id.0.into_bytes(), SocketId::from_bytes;
    Session: Session::parse, |session| session.0.to_be_bytes(), |bytes| Some(Session(u64::from_be_bytes(bytes)));
    GroupKey: GroupKey::parse, |key| key.0.to_be_bytes(), |bytes| Some(GroupKey(u128::from_be_bytes(bytes)));
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

    /// Of one socket, for those who wait until it comes again.
    pub fn of_socket(id: SocketId) -> Self {
        Self::of("socket", &id.short())
    }

    /// 22 characters for keys.
    pub fn short(self) -> String {
        String::from(&*Short16::from(self.0.to_be_bytes()))
    }

    /// Reads them.
    pub fn parse(text: &str) -> Option<Self> {
        short::read(text).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Short16::from(self.0.to_be_bytes()))
    }
}

/// A UUID with its hyphens.
const HEX_CHARS: usize = 36;

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
        let hex = text.strip_prefix("ws_").filter(|hex| hex.len() == HEX_CHARS)?;
        // Not one after the other, so that the compiler looks at many at once.
        let is_upper = hex.bytes().fold(false, |any, byte| any | byte.is_ascii_uppercase());
        let id = Uuid::try_parse(hex).ok().filter(|_| !is_upper)?;
        Self::from_bytes(id.into_bytes())
    }

    /// 22 characters for keys and fields, in the order of connection.
    pub fn short(self) -> String {
        String::from(&*Short16::from(self.0.into_bytes()))
    }

    /// Reads [`SocketId::short`].
    pub fn from_short(text: &str) -> Option<Self> {
        Self::from_bytes(short::read(text)?)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let id = Uuid::from_bytes(bytes);
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
        let mut text = *b"ws_------------------------------------";
        self.0.hyphenated().encode_lower(&mut text[3..]);
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One TCP connection of a socket; its order means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(u64);

impl Session {
    pub fn fresh() -> Self {
        Self(Uuid::new_v4().as_u64_pair().1)
    }

    /// Reads the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        short::read(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }

    /// 32 of its bits, which are all equally good.
    pub fn fold(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Short8::from(self.0))
    }
}

/// The characters of a mark.
const MARK_CHARS: usize = 22;

fn fresh_mark() -> Short16 {
    Uuid::now_v7().into_bytes().into()
}

/// A name and the mark behind it.
fn apart(text: &str) -> Option<(&str, &str)> {
    let (name, mark) = text.split_at_checked(text.len().checked_sub(MARK_CHARS)?)?;
    Some((name.strip_suffix('.')?, mark))
}

/// One life of one instance: its name, and a mark made fresh at every start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    pub fn fresh(instance: &str) -> Self {
        Self(format!("{instance}.{}", fresh_mark()).into())
    }

    /// Reads the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (instance, mark) = apart(text)?;
        let ours = !instance.is_empty() && short::is_short_of(16, mark.as_bytes());
        ours.then(|| Self(text.into()))
    }

    /// The name that people gave the instance.
    pub fn instance(&self) -> &str {
        apart(&self.0).map_or(&self.0, |(instance, _)| instance)
    }

    /// The mark alone: 22 characters that no other life has, for keys, which never hold a name.
    pub fn mark(&self) -> &str {
        apart(&self.0).map_or("", |(_, mark)| mark)
    }

    pub fn as_str(&self) -> &str {
        &self.0
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId([u8; CALL_CHARS]);

const CALL_CHARS: usize = "c_".len() + MARK_CHARS + ".".len() + MARK_CHARS;

impl CallId {
    pub fn fresh(asker: &Incarnation) -> Self {
        let mut text = *b"c_----------------------.----------------------";
        let (head, own) = text.split_at_mut(CALL_CHARS - MARK_CHARS);
        own.copy_from_slice(fresh_mark().as_bytes());
        // Every life has a mark of this length.
        if let Some(mark) = asker.mark().as_bytes().first_chunk::<MARK_CHARS>() {
            head[2..2 + MARK_CHARS].copy_from_slice(mark);
        }
        Self(text)
    }

    /// One that nobody waits for: the registry keeps what becomes of it, in the place of an asker.
    pub fn queued() -> Self {
        let mut text = *b"c_----------------------.----------------------";
        text[CALL_CHARS - MARK_CHARS..].copy_from_slice(fresh_mark().as_bytes());
        Self(text)
    }

    pub fn is_queued(&self) -> bool {
        self.0.starts_with(b"c_----------------------.")
    }

    /// Reads the form that [`fmt::Display`] writes; any other text was never a call of ours.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes().try_into().ok()?)
    }

    fn from_bytes(text: [u8; CALL_CHARS]) -> Option<Self> {
        let (asker, own) = text.strip_prefix(b"c_")?.split_at(MARK_CHARS);
        let ours = [asker, own.strip_prefix(b".")?].iter().all(|mark| short::is_short_of(16, mark));
        ours.then_some(Self(text))
    }

    /// Whom its answers go to. The name of that instance stands nowhere in it; the mark is enough for a letter.
    pub fn asker(&self) -> Option<Incarnation> {
        let mark = str::from_utf8(self.0.get(2..2 + MARK_CHARS)?).ok()?;
        Incarnation::parse(&format!("?.{mark}")).filter(|_| !self.is_queued())
    }

    /// Whether its answers go to this life of an instance.
    pub fn is_of(&self, asker: &Incarnation) -> bool {
        self.0.get(2..2 + MARK_CHARS) == Some(asker.mark().as_bytes())
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
