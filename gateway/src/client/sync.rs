//! `holdfast sync`: asks a store's client to sync something, and shows what it answers.

use super::{
    asking::{Failure, Remote, encoded, ended},
    call::{self, millis},
    data,
    given::Given,
    words::{self, CALL_TIME, json, target_args, timeout, to_ask_with, url},
};
use clap::{Arg, ArgGroup, Command, builder::NonEmptyStringValueParser};
use serde_json::value::{RawValue, to_raw_value};
use std::{collections::BTreeMap, process::ExitCode, time::Duration};

/// What the gateway reads itself; given as data it would be no data.
const RESERVED: &[(&str, &[&str])] = &[
    ("--socket", &["socketId", "socket_id"]),
    ("--store", &["storeId", "store_id"]),
    ("--timeout", &["timeoutMs", "timeout_ms"]),
];

const SYNC_HELP: &str = "\
Example:
  holdfast sync orders --store meonutrition --data '{\"since\":\"2026-01-01\"}'

The result goes to standard output. What the client says on its way to it goes to standard error.

Exit codes: 0 answered, 1 not answered or failed, 3 nobody is there, 69 the gateway cannot be reached";

pub fn command() -> Command {
    Command::new("sync")
                .about("Ask a store's client to sync something and show its answer; if its socket is not there, another of the store")
                .after_help(SYNC_HELP)
                .arg(
                    Arg::new("kind")
                        .required(true)
                        .value_name("KIND")
                        .value_parser(NonEmptyStringValueParser::new())
                        .help("What to sync, such as orders: the page gets it as sync_orders"),
                )
                .args(target_args(&["socket", "store"]))
                .group(ArgGroup::new("target").args(["socket", "store"]).required(true).multiple(true))
                .args([words::data("More for the page: a JSON object, @FILE, or - for standard input"), timeout(CALL_TIME)])
                .args([url(), json()])
                .args(to_ask_with())
}

/// Exit 0 when it was answered, 3 when nobody is there.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(ask(given))
}

fn ask(given: &Given<'_>) -> Result<(), Failure> {
    let (reading, as_json) = (given.reading(), given.as_json());
    let body = data::read(given.text("data"))?.map(|data| data::members(&data)).transpose()?.unwrap_or_default();
    let gateway = Remote::of(&reading, given.url())?;
    let budget = call::budget(&reading, given.span("timeout"));
    let body = addressed(body, &given.targets(), budget)?;
    let target = format!("/api/sync/{}", encoded(given.text("kind").unwrap_or_default()));
    let answer = gateway.follow(&target, body, budget, &call::progress(as_json))?;
    call::finish(&gateway, &answer, budget, as_json)
}

/// The data's members, and beside them who is meant.
fn addressed(
    mut body: BTreeMap<String, Box<RawValue>>,
    target: &[(&str, &str)],
    budget: Duration,
) -> Result<String, Failure> {
    for (flag, names) in RESERVED {
        if let Some(name) = names.iter().find(|name| body.contains_key(**name)) {
            return Err(data::wrong(&format!("{name} is no data here; give it with {flag}")));
        }
    }
    let raw = |value: Result<Box<RawValue>, serde_json::Error>| value.map_err(|error| data::wrong(&error.to_string()));
    for (name, value) in target {
        body.insert((*name).to_owned(), raw(to_raw_value(value))?);
    }
    body.insert("timeoutMs".into(), raw(to_raw_value(&millis(budget)))?);
    serde_json::to_string(&body).map_err(|error| data::wrong(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stands_beside_the_target_and_never_in_its_place() {
        let body = |json: &str| {
            let data = RawValue::from_string(json.to_owned()).unwrap();
            addressed(data::members(&data).unwrap(), &[("storeId", "a\"b")], Duration::from_secs(1))
        };
        assert_eq!(body(r#"{"since":1.10}"#).unwrap(), r#"{"since":1.10,"storeId":"a\"b","timeoutMs":1000}"#);
        for (json, flag) in [(r#"{"storeId":"t"}"#, "--store"), (r#"{"timeout_ms":5}"#, "--timeout")] {
            let failure = body(json).unwrap_err();
            assert!(failure.sentences[0].contains(flag), "{failure:?}");
        }
    }
}
