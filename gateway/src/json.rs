//! JSON objects, read one level deep: their members stay text until somebody asks for one, so a
//! payload passes through untouched.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashSet, fmt};

/// Deeper than this is no message but an attack on whoever parses it next.
pub const DEPTH_MAX: usize = 128;

/// Up to so many names are compared with each other sooner than they are hashed.
const FEW: usize = 16;

/// Why a text is no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing at all.
    Empty,
    /// Not JSON, with what the parser says.
    Unreadable(String),
    TooDeep,
    /// JSON, but something else.
    NotAnObject,
    NotAList,
    /// Two members of one name: readers would disagree about which of them counts.
    Duplicate(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing was sent, and JSON is wanted"),
            Self::Unreadable(what) => write!(f, "not JSON: {what}"),
            Self::TooDeep => write!(f, "nested deeper than {DEPTH_MAX} levels"),
            Self::NotAnObject => f.write_str("a JSON object is wanted"),
            Self::NotAList => f.write_str("a list is wanted"),
            Self::Duplicate(name) => write!(f, "{name:?} stands there twice; keep one"),
        }
    }
}

/// The members of an object, in order.
#[derive(Debug, Clone, Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object.
    pub fn read(text: &'a [u8]) -> Result<Self, Fault> {
        check_depth(text)?;
        // What is known to be UTF-8 as a whole is not looked at again member by member.
        let members = match std::str::from_utf8(text) {
            Ok(text) => serde_json::from_str::<Self>(text),
            Err(_) => serde_json::from_slice(text),
        };
        let members = members.map_err(|error| unfit(text, &error, Fault::NotAnObject))?;
        match members.duplicate() {
            Some(name) => Err(Fault::Duplicate(name.to_owned())),
            None => Ok(members),
        }
    }

    /// The first member of that name.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The member, if it is a text.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// All of them, with their names.
    pub fn all(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.0
    }

    fn duplicate(&self) -> Option<&str> {
        if self.0.len() <= FEW {
            let mut names = self.0.iter().map(|(key, _)| key.as_ref()).enumerate();
            return names.find(|(nth, key)| self.0[..*nth].iter().any(|(other, _)| other == key)).map(|(_, key)| key);
        }
        let mut seen = HashSet::with_capacity(self.0.len());
        self.0.iter().map(|(key, _)| key.as_ref()).find(|key| !seen.insert(*key))
    }
}

/// Reads an array as its elements.
pub fn elements(text: &[u8]) -> Result<Vec<&RawValue>, Fault> {
    check_depth(text)?;
    serde_json::from_slice(text).map_err(|error| unfit(text, &error, Fault::NotAList))
}

/// What could not be read as wanted is either JSON of another kind, or none.
fn unfit(text: &[u8], error: &serde_json::Error, another_kind: Fault) -> Fault {
    match serde_json::from_slice::<&RawValue>(text) {
        Ok(_) => another_kind,
        Err(_) if first_byte(text).is_none() => Fault::Empty,
        Err(_) => Fault::Unreadable(plain(error)),
    }
}

/// The value as a text, if it is one.
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let written = value.get().strip_prefix('"')?.strip_suffix('"')?;
    match written.contains('\\') {
        false => Some(Cow::Borrowed(written)),
        true => serde_json::from_str::<Key<'_>>(value.get()).ok().map(|key| key.0),
    }
}

/// Writes a text as JSON does.
pub fn quote(into: &mut String, text: &str) {
    // Counted to the end, which goes by many bytes at a time.
    match text.bytes().filter(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')).count() {
        0 => ["\"", text, "\""].into_iter().for_each(|piece| into.push_str(piece)),
        // A text can always be written.
        _ => into.push_str(&serde_json::to_string(text).unwrap_or_default()),
    }
}

/// A text as JSON writes it.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quote(&mut quoted, text);
    quoted
}

/// Whether the value is JSON's `null`.
pub fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// The first byte that is no blank tells the kind of a JSON text.
pub fn first_byte(text: &[u8]) -> Option<u8> {
    text.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

/// The parser's sentence, without its Rust names.
fn plain(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.replace("invalid type: ", "unexpected ").replace("EOF while parsing", "it ends in the middle of")
}

/// Counts all brackets first, since few are never deep; then one pass looks at those outside of texts. The parser behind
/// it checks all else.
fn check_depth(text: &[u8]) -> Result<(), Fault> {
    if text.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= DEPTH_MAX {
        return Ok(());
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Fault::TooDeep);
                }
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::with_capacity(FEW / 2);
                while let Some(Key(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A text, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_payload_stays_as_it_was_written() {
        let text = br#"{ "type":"x", "data" : {"n": 1.0e3 , "s":"\u0041"} }"#;
        let members = Members::read(text).unwrap();
        assert_eq!(members.text("type").unwrap(), "x");
        assert_eq!(members.get("data").unwrap().get(), r#"{"n": 1.0e3 , "s":"\u0041"}"#);
    }

    #[test]
    fn what_is_no_object_is_told_apart() {
        let fault = |text: &str| Members::read(text.as_bytes()).unwrap_err();
        assert_eq!((fault(""), fault(" \n")), (Fault::Empty, Fault::Empty));
        assert!(matches!(fault("{"), Fault::Unreadable(_)));
        assert!(matches!(fault("nonsense"), Fault::Unreadable(_)));
        assert!(matches!(fault(r#"{"a":1} x"#), Fault::Unreadable(_)));
        for other in ["[1]", "1", "\"a\"", "null", " true "] {
            assert_eq!(fault(other), Fault::NotAnObject, "{other}");
        }
        assert_eq!(fault(r#"{"a":1,"\u0061":2}"#), Fault::Duplicate("a".into()));
        assert_eq!(fault(&format!("{{\"a\":{}", "[".repeat(200))), Fault::TooDeep);
        assert!(Members::read(format!(r#"{{"a":"{}"}}"#, "[".repeat(200)).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn a_text_is_quoted_and_read_as_it_was(text in r#"(\PC|[\x00-\x1f"\\]){0,40}"#) {
            let written = quoted(&text);
            prop_assert_eq!(&written, &serde_json::to_string(&text).unwrap());
            let raw = RawValue::from_string(written).unwrap();
            prop_assert_eq!(super::text(&raw).unwrap(), text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Members::read(&bytes);
            let _ = elements(&bytes);
        }
    }
}
