//! What a JSON body has to look like. One declaration serves twice: it checks the bodies that
//! come in, and `/openapi.json` shows it to those who write them.

use crate::{
    json::{self, Fault, Members},
    problem::Problem,
};
use hyper::StatusCode;
use registry::NameFault;
use serde_json::{Value, json, value::RawValue};
use std::{borrow::Cow, collections::BTreeMap};

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

/// What a route's body is.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    One(&'static Shape),
    /// Or nothing.
    Optional(&'static Shape),
    ListOf(&'static Shape),
}

impl Body {
    /// As JSON Schema.
    pub fn schema(&self) -> Value {
        match self {
            Self::One(shape) | Self::Optional(shape) => shape.schema(),
            Self::ListOf(shape) => json!({"type": "array", "items": shape.schema()}),
        }
    }
}

/// An object with these fields, and no others unless it is open.
#[derive(Debug)]
pub struct Shape {
    pub fields: &'static [Field],
    pub open: bool,
}

impl Shape {
    fn schema(&self) -> Value {
        let properties: serde_json::Map<_, _> =
            self.fields.iter().map(|field| (field.name.to_owned(), field.schema())).collect();
        let required: Vec<_> = self.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": self.open})
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

/// Unknown members named in one answer; a body can hold a hundred thousand.
const STRANGERS_TOLD: usize = 20;
/// Faults in the one sentence that is for those who read only that.
const FAULTS_TOLD: usize = 3;

/// Where in a body something is wrong, and what. The detail is a sentence about that place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub pointer: String,
    pub detail: String,
}

/// A body being read: asks for field after field and collects what is wrong with them.
pub struct Reader<'a> {
    shape: &'static Shape,
    members: Vec<Member<'a>>,
    at: String,
    wrong: Vec<Wrong>,
}

/// A member of a body, and the name of the field that it is.
struct Member<'a> {
    key: Cow<'a, str>,
    field: Option<&'static str>,
    value: &'a RawValue,
}

impl<'a> Reader<'a> {
    /// Begins to read a body, or an object that stands at a place inside one.
    pub fn new(shape: &'static Shape, body: &'a [u8], at: &str) -> Result<Self, Fault> {
        let field = |key: &str| shape.fields.iter().map(|field| field.name).find(|name| same_name(key, name));
        let members = Members::read(body)?.all().into_iter();
        let members = members.map(|(key, value)| Member { field: field(&key), key, value }).collect();
        let mut reader = Self { shape, members, at: at.into(), wrong: Vec::new() };
        reader.refuse_strangers();
        Ok(reader)
    }

    /// The members that an open shape does not know, as an object.
    pub fn strangers(&self) -> Box<RawValue> {
        let strangers = self.members.iter().filter(|member| member.field.is_none());
        let strangers: BTreeMap<_, _> = strangers.map(|member| (&member.key, member.value)).collect();
        // What was read as JSON can be written.
        serde_json::value::to_raw_value(&strangers).unwrap_or_default()
    }

    /// Reads an object that stands in a field, and notes what is wrong in it.
    pub fn inside<T>(
        &mut self,
        shape: &'static Shape,
        name: &str,
        value: &'a RawValue,
        read: impl FnOnce(&mut Reader<'a>) -> T,
    ) -> Option<T> {
        let at = format!("{}/{name}", self.at);
        let inside = Reader::new(shape, value.get().as_bytes(), &at).map_err(|fault| vec![Wrong::of(&fault, &at)]);
        let found = inside.and_then(|mut inside| {
            let found = read(&mut inside);
            inside.finish().map(|()| found)
        });
        found.map_err(|wrong| self.wrong.extend(wrong)).ok()
    }

    /// The field's value; `null` is no value.
    pub fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let mut values = self.members.iter().filter(|member| member.field == Some(name)).map(|member| member.value);
        let (value, second) = (values.next(), values.next());
        if second.is_some() {
            return self.wrong(name, "it stands there in both spellings; keep one");
        }
        let value = value.filter(|value| !json::is_null(value));
        let required = || self.shape.fields.iter().any(|field| field.required && field.name == name);
        if value.is_none() && required() {
            self.wrong::<()>(name, "it is required");
        }
        value
    }

    /// Whether the field stands there, in any spelling and with any value but `null`.
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.field == Some(name) && !json::is_null(member.value))
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

    /// A list of names.
    pub fn names<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, NameFault>) -> Option<Vec<T>> {
        let written = self.raw(name)?;
        let Ok(texts) = serde_json::from_str::<Vec<String>>(written.get()) else {
            return self.wrong(name, "a list of texts is wanted");
        };
        match texts.iter().map(|text| parse(text)).collect() {
            Ok(names) => Some(names),
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

    /// Notes a fault at a field, under the name by which it stands in the body.
    pub fn wrong<T>(&mut self, name: &str, detail: &str) -> Option<T> {
        let written = self.members.iter().find(|member| member.field == Some(name)).map_or(name, |member| &member.key);
        let pointer = format!("{}/{}", self.at, escaped(written));
        self.wrong.push(Wrong { pointer, detail: detail.to_owned() });
        None
    }

    /// Notes a fault of the whole.
    pub fn wrong_as_a_whole<T>(&mut self, detail: &str) -> Option<T> {
        self.wrong.push(Wrong { pointer: self.at.clone(), detail: detail.to_owned() });
        None
    }

    /// What was wrong.
    pub fn finish(self) -> Result<(), Vec<Wrong>> {
        if self.wrong.is_empty() { Ok(()) } else { Err(self.wrong) }
    }

    fn refuse_strangers(&mut self) {
        if self.shape.open {
            return;
        }
        let strangers = self.members.iter().filter(|member| member.field.is_none());
        let strangers: Vec<_> = strangers.take(STRANGERS_TOLD).map(|member| member.key.to_string()).collect();
        for stranger in strangers {
            let detail = format!("it is not known here; known are {}", self.known());
            self.wrong::<()>(&stranger, &detail);
        }
    }

    fn known(&self) -> String {
        self.shape.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
    }
}

/// 400 for what is no JSON, 422 for JSON that is something else than what is wanted.
pub fn refused(fault: &Fault) -> Problem {
    match fault {
        Fault::Empty | Fault::Unreadable(_) => Problem::new(
            StatusCode::BAD_REQUEST,
            "Unreadable JSON",
            "send a JSON body; quotes are often lost in a shell, so put it into single quotes",
        )
        .detail(fault.to_string()),
        fault => unfit(&[Wrong::of(fault, "")]),
    }
}

impl Wrong {
    /// Where a fault of the JSON itself stands.
    pub fn of(fault: &Fault, at: &str) -> Self {
        let pointer = match fault {
            Fault::Duplicate(name) => format!("{at}/{}", escaped(name)),
            _ => at.to_owned(),
        };
        Self { pointer, detail: fault.to_string() }
    }

    /// For whoever reads it beside others: the place as the body's writer calls it, and what is wrong there.
    fn sentence(&self) -> String {
        match self.pointer.strip_prefix('/') {
            Some(place) => {
                let place = place.replace('/', ".").replace("~1", "/").replace("~0", "~");
                format!("{place}: {}", self.detail)
            }
            None => self.detail.clone(),
        }
    }
}

/// 422: it is JSON, but not what is wanted. One line per fault.
pub fn unfit(wrong: &[Wrong]) -> Problem {
    let errors = errors(wrong);
    let told: Vec<_> = wrong.iter().take(FAULTS_TOLD).map(Wrong::sentence).collect();
    let mut told = told.join("; ");
    if wrong.len() > FAULTS_TOLD {
        told += &format!("; and {} more", wrong.len() - FAULTS_TOLD);
    }
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Invalid body",
        "see errors: each has a JSON pointer and what is wanted there; /openapi.json has the whole shape",
    )
    .detail(told)
    .member("errors", errors)
}

/// The faults, as answers list them.
pub fn errors(wrong: &[Wrong]) -> Vec<Value> {
    wrong.iter().map(|wrong| json!({"pointer": wrong.pointer, "detail": wrong.detail})).collect()
}

/// `userId`, `user_id` and `event_type`, `eventType` are the same names.
fn same_name(key: &str, name: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = u8> {
        text.bytes().filter(|b| *b != b'_').map(|b| b.to_ascii_lowercase())
    }
    // Where the letters are the same, those of one spelling are fewer bytes.
    match key.len() == name.len() {
        true => key == name,
        false => letters(key).eq(letters(name)) && key.contains('_') != name.contains('_'),
    }
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
        open: false,
    };

    fn pointers(body: &str) -> Vec<String> {
        let mut reader = Reader::new(&SHAPE, body.as_bytes(), "").unwrap();
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
        assert_eq!(pointers(r#"{"user_id":3}"#), ["/user_id"]);
        for ms in ["0", "-1", "1.5", "\"5\"", "1e9", "true"] {
            assert_eq!(pointers(&format!(r#"{{"userId":"u","ms":{ms}}}"#)), ["/ms"], "{ms}");
        }
    }

    #[test]
    fn what_is_no_object_is_400_or_422() {
        let status =
            |body: &str| Reader::new(&SHAPE, body.as_bytes(), "").err().map(|fault| refused(&fault).status.as_u16());
        assert_eq!(status("{"), Some(400));
        assert_eq!(status("[]"), Some(422));
        assert_eq!(status(r#"{"userId":"a","userId":"b"}"#), Some(422));
    }
}
