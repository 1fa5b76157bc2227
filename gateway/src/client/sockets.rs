//! `holdfast sockets`: who is connected, in the whole fleet.

use super::{
    asking::{Address, Failure, Remote, encoded, ended},
    exit,
    table::{self, age, names, word},
};
use crate::config::Reading;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Sockets on a page: what the gateway gives to those who do not ask for another number.
const PAGE: usize = 1000;

/// What the list is narrowed to.
pub struct Wanted<'a> {
    /// Query parameters and their values.
    pub narrowed: Vec<(&'static str, &'a str)>,
    pub limit: usize,
}

/// Exit 3 when there are none.
pub fn run(reading: &Reading, url: Option<&Address>, wanted: &Wanted<'_>, as_json: bool) -> ExitCode {
    ended(look(reading, url, wanted, as_json))
}

fn look(reading: &Reading, url: Option<&Address>, wanted: &Wanted<'_>, as_json: bool) -> Result<(), Failure> {
    let gateway = Remote::of(reading, url)?;
    let found = collect(&gateway, wanted)?;
    match as_json {
        true => say!("{}", found.json()),
        false if found.sockets.is_empty() => {}
        false => table::print(
            ["socket", "instance", "store", "user", "rooms", "age"],
            &found.sockets.iter().map(row).collect::<Vec<_>>(),
        ),
    }
    if !found.missing.is_empty() {
        complain!("not all are shown, since these instances did not say: {}", names(&found.missing.clone().into()));
    }
    if found.more {
        complain!("there are more; --limit shows them");
    }
    match found.sockets.is_empty() {
        false => Ok(()),
        true => Err(Failure::new(exit::NOTHING, "no such socket is connected")),
    }
}

#[derive(Default)]
struct Found {
    sockets: Vec<Value>,
    /// Instances that did not say.
    missing: Vec<Value>,
    /// The limit came before the end.
    more: bool,
}

impl Found {
    fn json(&self) -> Value {
        let mut body = json!({ "count": self.sockets.len(), "sockets": self.sockets });
        if !self.missing.is_empty() {
            body["missing"] = self.missing.clone().into();
        }
        body
    }
}

/// Page after page, until there are enough.
fn collect(gateway: &Remote, wanted: &Wanted<'_>) -> Result<Found, Failure> {
    let narrowed = wanted.narrowed.iter().map(|(name, value)| format!("&{name}={}", encoded(value)));
    // One more than is shown, so that it is known whether there are more.
    let page = if wanted.narrowed.is_empty() { PAGE.min(wanted.limit.saturating_add(1)) } else { PAGE };
    let mut next = Some(format!("/api/sockets?limit={page}{}", narrowed.collect::<String>()));
    let mut found = Found::default();
    while let Some(target) = next.take() {
        let mut answer = gateway.get(&target)?;
        let (200, Some(sockets)) = (answer.status, answer.body["sockets"].as_array_mut()) else {
            return Err(gateway.failure(&answer));
        };
        found.sockets.append(sockets);
        for name in answer.body["missing"].as_array().into_iter().flatten() {
            if !found.missing.contains(name) {
                found.missing.push(name.clone());
            }
        }
        // A page that leads to itself would be read for ever.
        next = answer.next.filter(|next| found.sockets.len() <= wanted.limit && *next != target);
    }
    found.more = found.sockets.len() > wanted.limit;
    found.sockets.truncate(wanted.limit);
    Ok(found)
}

fn row(socket: &Value) -> [String; 6] {
    [
        word(&socket["socketId"]),
        word(&socket["instance"]),
        word(&socket["storeId"]),
        word(&socket["userId"]),
        cut(names(&socket["rooms"])),
        age(&socket["connectedAt"]),
    ]
}

/// A hundred rooms would push everything else out of sight; `--json` and `holdfast why` have them all.
const ROOMS_CHARS_MAX: usize = 40;

fn cut(text: String) -> String {
    match text.char_indices().nth(ROOMS_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
