//! What a JSON body has to look like. One declaration serves twice: it checks the bodies that
//! come in, and `/openapi.json` shows it to those who write them.

use crate::{
    json::{self, Fault, Members},
    problem::Problem,
};
use hyper::StatusCode;
use registry::NameFault;
use serde_json::{Value, json, value::RawValue};
use std::borrow::Cow;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Name,
    Flag,
    /// Milliseconds, from 1 to the maximum.
    Millis(u64),
    Object,
    List,
    Any,
}

/// One field. Read in camelCase and snake_case, shown in the spelling given here.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub meaning: &'static str,
}

/// A body.
#[derive(Debug)]
pub struct Shape {
    pub fields: &'static [Field],
}

impl Shape {
    /// As JSON Schema.
    pub fn schema(&self) -> Value {
        let properties: serde_json::Map<_, _> =
            self.fields.iter().map(|field| (field.name.to_owned(), field.schema())).collect();
        let required: Vec<_> = self.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }
}

impl Field {
    fn schema(&self) -> Value {
        let mut schema = match self.kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Name => json!({"type": "string", "minLength": 1, "maxLength": 256}),
            Kind::Flag => json!({"type": "boolean"}),
            Kind::Millis(max) => json!({"type": "integer", "minimum": 1, "maximum": max}),
            Kind::Object => json!({"type": "object"}),
            Kind::List => json!({"type": "array"}),
            Kind::Any => json!({}),
        };
        schema["description"] = self.meaning.into();
        schema
    }
}

/// Where in a body something is wrong, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub pointer: String,
    pub detail: String,
}

/// A body being read: asks for field after field and collects what is wrong with them.
pub struct Reader<'a> {
    shape: &'static Shape,
    members: Members<'a>,
    at: String,
    wrong: Vec<Wrong>,
}

impl<'a> Reader<'a> {
    /// Begins to read. 400 if this is no JSON, 422 if it is something else than an object.
    pub fn new(shape: &'static Shape, body: &'a [u8]) -> Result<Self, Problem> {
        Self::at(shape, body, String::new()).map_err(|fault| match fault {
            Fault::Unreadable(_) | Fault::TooDeep => unreadable(&fault),
            Fault::NotAnObject => unfit(&[Wrong { pointer: String::new(), detail: fault.to_string() }]),
            Fault::Duplicate(ref name) => {
                unfit(&[Wrong { pointer: format!("/{}", escaped(name)), detail: fault.to_string() }])
            }
        })
    }

    /// Begins to read an object that stands at a place inside a body.
    pub fn at(shape: &'static Shape, body: &'a [u8], at: String) -> Result<Self, Fault> {
        let members = Members::read(body)?;
        let mut reader = Self { shape, members, at, wrong: Vec::new() };
        reader.refuse_strangers();
        Ok(reader)
    }

    /// The field's value; `null` is no value.
    pub fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let mut values = self.members.iter().filter(|(key, _)| same_name(key, name));
        let value = values.next().map(|(_, value)| value);
        let twice = values.next().is_some();
        drop(values);
        if twice {
            self.wrong::<()>(name, "stands there in both spellings");
        }
        let value = value.filter(|value| !json::is_null(value));
        let required = self.shape.fields.iter().any(|field| field.name == name && field.required);
        if value.is_none() && required {
            self.wrong::<()>(name, "is required");
        }
        value
    }

    pub fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let text = json::text(self.raw(name)?);
        if text.is_none() {
            self.wrong::<()>(name, "a text is wanted");
        }
        text
    }

    /// A name, parsed by the type that it becomes.
    pub fn name<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, NameFault>) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(fault) => self.wrong(name, &fault.to_string()),
        }
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        match self.raw(name)?.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => self.wrong(name, "true or false is wanted"),
        }
    }

    /// Milliseconds from 1 to what the shape says.
    pub fn millis(&mut self, name: &str) -> Option<u64> {
        let max = self.shape.fields.iter().find_map(|field| match field.kind {
            Kind::Millis(max) if field.name == name => Some(max),
            _ => None,
        })?;
        match self.raw(name)?.get().parse::<u64>().ok().filter(|ms| (1..=max).contains(ms)) {
            Some(ms) => Some(ms),
            None => self.wrong(name, &format!("a whole number from 1 to {max} is wanted")),
        }
    }

    /// Notes a fault at a field.
    pub fn wrong<T>(&mut self, name: &str, detail: &str) -> Option<T> {
        let pointer = if name.is_empty() { self.at.clone() } else { format!("{}/{name}", self.at) };
        self.wrong.push(Wrong { pointer, detail: detail.to_owned() });
        None
    }

    /// Takes over what was found wrong inside.
    pub fn include(&mut self, wrong: Vec<Wrong>) {
        self.wrong.extend(wrong);
    }

    /// What was wrong.
    pub fn finish(self) -> Result<(), Vec<Wrong>> {
        if self.wrong.is_empty() { Ok(()) } else { Err(self.wrong) }
    }

    fn refuse_strangers(&mut self) {
        let known = |key: &str| self.shape.fields.iter().any(|field| same_name(key, field.name));
        let strangers: Vec<_> = self.members.iter().map(|(key, _)| key.to_owned()).filter(|key| !known(key)).collect();
        for stranger in strangers {
            let detail = format!("is unknown here; known are {}", self.known());
            self.wrong::<()>(&escaped(&stranger), &detail);
        }
    }

    fn known(&self) -> String {
        self.shape.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
    }
}

/// 400: this is no JSON.
pub fn unreadable(fault: &Fault) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "Unreadable JSON",
        "send a JSON body; quotes are often lost in a shell, so put it into single quotes",
    )
    .detail(fault.to_string())
}

/// 422: it is JSON, but not what is wanted. One line per fault.
pub fn unfit(wrong: &[Wrong]) -> Problem {
    let errors: Vec<_> = wrong.iter().map(|wrong| json!({"pointer": wrong.pointer, "detail": wrong.detail})).collect();
    let first = wrong.first().map(|wrong| format!("{} {}", wrong.pointer, wrong.detail)).unwrap_or_default();
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Invalid body",
        "see errors: each has a JSON pointer and what is wanted there; /openapi.json has the whole shape",
    )
    .detail(first.trim().to_owned())
    .member("errors", errors)
}

/// `userId`, `user_id` and `event_type`, `eventType` are the same names.
fn same_name(key: &str, name: &str) -> bool {
    let letters = |text: &str| text.bytes().filter(|b| *b != b'_').map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
    key == name || (key.contains('_') != name.contains('_') && letters(key) == letters(name))
}

/// As RFC 6901 writes it.
fn escaped(key: &str) -> String {
    key.chars().take(100).collect::<String>().replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::UserName;

    static SHAPE: Shape = Shape {
        fields: &[
            Field { name: "userId", kind: Kind::Name, required: true, meaning: "" },
            Field { name: "ms", kind: Kind::Millis(100), required: false, meaning: "" },
            Field { name: "flag", kind: Kind::Flag, required: false, meaning: "" },
        ],
    };

    fn pointers(body: &str) -> Vec<String> {
        let mut reader = Reader::new(&SHAPE, body.as_bytes()).unwrap_or_else(|_| panic!("{body}"));
        reader.name("userId", UserName::parse);
        reader.millis("ms");
        reader.flag("flag");
        reader.finish().err().unwrap_or_default().into_iter().map(|wrong| wrong.pointer).collect()
    }

    /// Checklist 271.
    #[test]
    fn every_fault_has_its_pointer() {
        assert!(pointers(r#"{"user_id":"u","ms":100,"flag":true}"#).is_empty());
        assert!(pointers(r#"{"userId":"u","ms":null}"#).is_empty());
        assert_eq!(pointers("{}"), ["/userId"]);
        assert_eq!(pointers(r#"{"userId":3,"ms":101,"flag":"yes","a/b":1}"#), ["/a~1b", "/userId", "/ms", "/flag"]);
        assert_eq!(pointers(r#"{"userId":"u","user_id":"v"}"#), ["/userId"]);
        for ms in ["0", "-1", "1.5", "\"5\"", "1e9", "true"] {
            assert_eq!(pointers(&format!(r#"{{"userId":"u","ms":{ms}}}"#)), ["/ms"], "{ms}");
        }
    }

    #[test]
    fn what_is_no_object_is_400_or_422() {
        let status = |body: &str| Reader::new(&SHAPE, body.as_bytes()).err().map(|problem| problem.status.as_u16());
        assert_eq!(status("{"), Some(400));
        assert_eq!(status("[]"), Some(422));
        assert_eq!(status(r#"{"userId":"a","userId":"b"}"#), Some(422));
    }
}
