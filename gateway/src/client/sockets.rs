//! `holdfast sockets`: who is connected, in the whole fleet.

use super::{
    asking::{Failure, Remote, encoded, ended},
    exit,
    given::Given,
    table::{self, age, names, word},
    words::{self, to_ask_with, url},
};
use clap::{Arg, Command, value_parser};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Sockets on a page: what the gateway gives to those who do not ask for another number.
const PAGE: usize = 1000;

/// What `holdfast sockets` can be narrowed to: flag and query parameter alike.
const NARROWING: &[(&str, &str)] = &[
    ("store", "Only those of this store"),
    ("user", "Only those of this user"),
    ("room", "Only those in this room"),
    ("instance", "Only those on this instance"),
];

pub fn command() -> Command {
    Command::new("sockets")
        .about("Show who is connected, in the whole fleet; exit 3 when nobody is")
        .args(NARROWING.iter().map(|(name, help)| Arg::new(*name).long(*name).value_name("NAME").help(*help)))
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("NUMBER")
                .default_value("1000")
                .value_parser(value_parser!(u32).range(1..))
                .help("How many at most"),
        )
        .args([url(), words::json()])
        .args(to_ask_with())
}

/// Exit 3 when there are none.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(look(given))
}

fn look(given: &Given<'_>) -> Result<(), Failure> {
    let gateway = Remote::of(&given.reading(), given.url())?;
    let found = collect(&gateway, given)?;
    match given.as_json() {
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
fn collect(gateway: &Remote, given: &Given<'_>) -> Result<Found, Failure> {
    let narrowed = NARROWING.iter().filter_map(|(name, _)| Some(format!("&{name}={}", encoded(given.text(name)?))));
    let narrowed: String = narrowed.collect();
    let limit = given.one::<u32>("limit").map_or(PAGE, |limit| *limit as usize);
    // One more than is shown, so that it is known whether there are more.
    let page = if narrowed.is_empty() { PAGE.min(limit.saturating_add(1)) } else { PAGE };
    let mut next = Some(format!("/api/sockets?limit={page}{narrowed}"));
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
        next = answer.next.filter(|next| found.sockets.len() <= limit && *next != target);
    }
    found.more = found.sockets.len() > limit;
    found.sockets.truncate(limit);
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
