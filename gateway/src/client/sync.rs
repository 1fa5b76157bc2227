//! `holdfast sync`: asks a store's client to sync something, and shows what it answers.

use super::{
    asking::{Address, Failure, Remote, encoded, ended},
    call::{self, millis},
    data,
};
use crate::config::Reading;
use serde_json::value::{RawValue, to_raw_value};
use std::{collections::BTreeMap, process::ExitCode, time::Duration};

/// What the gateway reads itself; given as data it would be no data.
const RESERVED: &[(&str, &[&str])] = &[
    ("--socket", &["socketId", "socket_id"]),
    ("--store", &["storeId", "store_id"]),
    ("--timeout", &["timeoutMs", "timeout_ms"]),
];

/// What is to be synced, and by whom.
pub struct Wanted<'a> {
    pub kind: &'a str,
    pub target: Vec<(&'static str, &'a str)>,
    pub data: Option<&'a str>,
    pub timeout: Option<Duration>,
}

/// Exit 0 when it was answered, 3 when nobody is there.
pub fn run(reading: &Reading, url: Option<&Address>, wanted: &Wanted<'_>, as_json: bool) -> ExitCode {
    ended(ask(reading, url, wanted, as_json))
}

fn ask(reading: &Reading, url: Option<&Address>, wanted: &Wanted<'_>, as_json: bool) -> Result<(), Failure> {
    let body = data::read(wanted.data)?.map(|data| data::members(&data)).transpose()?.unwrap_or_default();
    let gateway = Remote::of(reading, url)?;
    let budget = call::budget(reading, wanted.timeout);
    let body = addressed(body, &wanted.target, budget)?;
    let target = format!("/api/sync/{}", encoded(wanted.kind));
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
