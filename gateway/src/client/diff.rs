//! `holdfast diff`: holds two `holdfast check --json` against each other, as of staging and production.

use super::{
    asking::{Failure, ended, printable, printable_json},
    exit,
    given::Given,
    words::json as as_json,
};
use clap::{Arg, Command};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    process::ExitCode,
};

const DIFF_HELP: &str = "\
Example:
  holdfast check --json > production.json        (there)
  holdfast check --json > staging.json           (here)
  holdfast diff staging.json production.json

holdfast check shows of a secret only that it is set, so two that are both set are not told apart.

Exit codes: 0 the same, 1 they differ, 2 one of them cannot be read";

pub fn command() -> Command {
    let file = |name: &'static str| Arg::new(name).value_name("FILE").required(true);
    Command::new("diff")
        .about("Hold two holdfast check --json against each other: settings, versions, problems")
        .after_help(DIFF_HELP)
        .arg(file("one").help("What holdfast check --json wrote, or - for standard input"))
        .arg(file("other").help("The same from elsewhere"))
        .arg(as_json())
}

/// Exit 0 when they are the same, 1 when they differ, 2 when one cannot be read.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(compare(given))
}

fn compare(given: &Given<'_>) -> Result<(), Failure> {
    let [one, other] = ["one", "other"].map(|name| given.text(name).unwrap_or_default());
    if one == "-" && other == "-" {
        return Err(Failure::new(exit::USAGE, "only one of the two can be standard input"));
    }
    let found = differences(&read(one)?, &read(other)?);
    match given.as_json() {
        true => {
            let shown: Vec<_> = found.iter().map(Difference::json).collect();
            let text = json!({ "same": found.is_empty(), "one": one, "other": other, "differences": shown });
            say!("{}", printable_json(&format!("{text:#}")));
        }
        false if found.is_empty() => say!("the same (of secrets only whether they are set was compared)"),
        false => found.iter().for_each(|difference| say!("{}", printable(&difference.line(one, other)))),
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(Failure { code: exit::FAILED, sentences: Vec::new() }),
    }
}

fn read(place: &str) -> Result<Value, Failure> {
    let unreadable = |why: String| Failure::new(exit::USAGE, format!("{place}: {why}"));
    let text = match place {
        "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        file => fs::read_to_string(file),
    };
    let text = text.map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let read: Value = serde_json::from_str(&text)
        .map_err(|error| unreadable(format!("holds no JSON ({error}); write it with holdfast check --json")))?;
    match read["settings"].is_object() {
        true => Ok(read),
        false => Err(unreadable("is not what holdfast check --json writes: it has no settings".into())),
    }
}

/// What one says and the other does not.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    /// `version`, `valid`, `setting`, `problem` or `warning`.
    kind: &'static str,
    name: String,
    one: Value,
    other: Value,
}

impl Difference {
    fn json(&self) -> Value {
        json!({ "kind": self.kind, "name": self.name, "one": self.one, "other": self.other })
    }

    fn line(&self, one: &str, other: &str) -> String {
        let said = |value: &Value| match value {
            Value::String(text) if text.is_empty() => "(empty)".to_owned(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        match (self.kind, &self.one, &self.other) {
            ("problem" | "warning", Value::Null, _) => format!("{}: only {other}: {}", self.kind, self.name),
            ("problem" | "warning", ..) => format!("{}: only {one}: {}", self.kind, self.name),
            (_, Value::Null, value) => format!("{}: only {other} has it, {}", self.name, said(value)),
            (_, value, Value::Null) => format!("{}: only {one} has it, {}", self.name, said(value)),
            (_, left, right) => format!("{}: {} | {}", self.name, said(left), said(right)),
        }
    }
}

fn differences(one: &Value, other: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |kind, name: &str, left: &Value, right: &Value| {
        if left != right {
            found.push(Difference { kind, name: name.to_owned(), one: left.clone(), other: right.clone() });
        }
    };
    compare("version", "version", &one["version"], &other["version"]);
    compare("valid", "valid", &one["valid"], &other["valid"]);
    let nothing = Map::new();
    let of = |all: &Value| all["settings"].as_object().unwrap_or(&nothing).clone();
    let (left, right) = (of(one), of(other));
    let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for name in names {
        // Where a value comes from is no difference; what is not set says null, or nothing.
        let value = |all: &Map<String, Value>| all.get(name).map_or(Value::Null, |setting| setting["value"].clone());
        compare("setting", name, &value(&left), &value(&right));
    }
    for (kind, member) in [("problem", "problems"), ("warning", "warnings")] {
        let of = |all: &Value| all[member].as_array().cloned().unwrap_or_default().iter().map(sentence).collect();
        let (left, right): (BTreeSet<String>, BTreeSet<String>) = (of(one), of(other));
        for only in left.difference(&right) {
            compare(kind, only, &true.into(), &Value::Null);
        }
        for only in right.difference(&left) {
            compare(kind, only, &Value::Null, &true.into());
        }
    }
    found
}

/// A problem or a warning in words.
fn sentence(said: &Value) -> String {
    match (said["setting"].as_str(), said["fix"].as_str()) {
        (Some(setting), Some(fix)) => format!("{setting}={}: {fix}", said["value"].as_str().unwrap_or_default()),
        _ => said.as_str().map_or_else(|| said.to_string(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_nothing_else() {
        let check = |version: &str, settings: Value, warnings: Value| json!({ "valid": true, "version": version, "settings": settings, "problems": [], "warnings": warnings });
        let set = |value: &str, source: &str| json!({ "value": value, "source": source });
        let one = check(
            "1",
            json!({ "PORT": set("1", "file"), "HOST": set("h", "file"), "OLD": set("x", "file") }),
            json!(["w"]),
        );
        let other = check(
            "2",
            json!({ "PORT": set("2", "file"), "HOST": set("h", "environment"), "NEW": set("", "file") }),
            json!([]),
        );
        let lines: Vec<_> = differences(&one, &other).iter().map(|found| found.line("a", "b")).collect();
        assert_eq!(
            lines,
            [
                "version: 1 | 2",
                "NEW: only b has it, (empty)",
                "OLD: only a has it, x",
                "PORT: 1 | 2",
                "warning: only a: w"
            ]
        );
        assert_eq!(differences(&one, &one), []);
    }
}
