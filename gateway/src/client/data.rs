//! What `--data` gives: JSON on the command line, in a file or from standard input.

use super::{asking::Failure, exit};
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
};

/// As it was written: numbers keep all their digits.
pub fn read(given: Option<&str>) -> Result<Option<Box<RawValue>>, Failure> {
    let Some(given) = given else { return Ok(None) };
    let unreadable = |place: &str, error: io::Error| wrong(&format!("{place} cannot be read: {error}"));
    let (place, text) = match given.strip_prefix('@') {
        None if given == "-" => ("standard input", standard_input()),
        Some("-") => ("standard input", standard_input()),
        Some(file) => (file, fs::read_to_string(file)),
        None => ("", Ok(given.to_owned())),
    };
    let text = text.map_err(|error| unreadable(place, error))?;
    match serde_json::from_str::<Box<RawValue>>(text.trim()) {
        Ok(data) => Ok(Some(data)),
        Err(error) if place.is_empty() => {
            // Who forgets the quotes of JSON means a text more often than anything else.
            let quoted = serde_json::Value::from(given);
            Err(wrong(&format!("it is no JSON ({error}); a text is written as '{quoted}', a file as @name")))
        }
        Err(error) => Err(wrong(&format!("{place} holds no JSON ({error})"))),
    }
}

/// The members of an object.
pub fn members(data: &RawValue) -> Result<BTreeMap<String, Box<RawValue>>, Failure> {
    serde_json::from_str(data.get()).map_err(|_| wrong("an object is wanted, as '{\"since\":5}'"))
}

pub fn wrong(fault: &str) -> Failure {
    Failure::new(exit::USAGE, format!("--data: {fault}"))
}

fn standard_input() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_it_was_written() {
        let shown = |given: &str| read(Some(given)).map(|data| data.map(|data| data.get().to_owned()));
        for json in [r#"{"n":12345678901234567890.10}"#, "[1, 2]", "null", "\"ü\"", "-1"] {
            assert_eq!(shown(json).unwrap().as_deref(), Some(json));
        }
        assert!(read(None).unwrap().is_none());
        for (given, said) in
            [("hello", "'\"hello\"'"), ("", "no JSON"), ("{a:1}", "no JSON"), ("@/no/such", "/no/such")]
        {
            let failure = shown(given).unwrap_err();
            assert!(failure.code == exit::USAGE && failure.sentences[0].contains(said), "{failure:?}");
        }
    }

    #[test]
    fn only_an_object_has_members() {
        let of = |json: &str| members(&RawValue::from_string(json.to_owned()).unwrap());
        assert_eq!(of(r#"{"a":1.10}"#).unwrap()["a"].get(), "1.10");
        assert!(of("[1]").is_err() && of("null").is_err());
    }
}
