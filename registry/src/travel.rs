//! How ids and names travel: as the text that people read, and in letters as few bytes. Whatever arrives is parsed.

use serde::de::{Error, Unexpected, Visitor};
use std::fmt;

/// Reads a type from its text or from its bytes, whichever was written.
pub struct Reading<T> {
    pub of: &'static str,
    pub text: fn(&str) -> Option<T>,
    pub bytes: fn(&[u8]) -> Option<T>,
}

impl<T> Visitor<'_> for Reading<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        (self.bytes)(bytes).ok_or_else(|| E::invalid_value(Unexpected::Bytes(bytes), &self))
    }
}

/// Types that are text everywhere: each with how it is parsed.
macro_rules! travel_as_text {
    ($($name:ident: $parse:expr;)*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(crate::travel::Reading { of: stringify!($name), text: $parse, bytes: |_| None })
            }
        }
    )*};
}

/// Types that are text where people read, and an array of bytes in letters: each with how its text is parsed, how it
/// becomes bytes, and how those are read.
macro_rules! travel_as_bytes {
    ($($name:ident: $parse:expr, $write:expr, $read:expr;)*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() {
                    return to.collect_str(self);
                }
                let write: fn(&$name) -> _ = $write;
                to.serialize_bytes(&write(self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let bytes = |bytes: &[u8]| bytes.try_into().ok().and_then($read);
                let reading = crate::travel::Reading { of: stringify!($name), text: $parse, bytes };
                if from.is_human_readable() { from.deserialize_str(reading) } else { from.deserialize_bytes(reading) }
            }
        }
    )*};
}

pub(crate) use {travel_as_bytes, travel_as_text};
