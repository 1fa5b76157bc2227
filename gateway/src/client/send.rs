//! `holdfast send`: writes to sockets, and shows how many took it.

use super::{
    asking::{Address, Answer, Failure, Remote, ended, printable_json},
    call::{self, millis, with_data},
    data, exit,
    table::word,
};
use crate::config::Reading;
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};

/// For the word of the instances that hold the sockets, unless another time is given.
const BUDGET: Duration = Duration::from_secs(5);

/// What is sent to whom.
pub struct Wanted<'a> {
    /// The member of the body that says who is meant.
    pub target: (&'static str, Value),
    pub event: Option<&'a str>,
    pub data: Option<&'a str>,
    pub except: Option<&'a str>,
    pub timeout: Option<Duration>,
}

/// Exit 0 when all that are meant took it, 3 when nobody is there, 1 when some did not take it.
pub fn run(reading: &Reading, url: Option<&Address>, wanted: &Wanted<'_>, as_json: bool) -> ExitCode {
    ended(send(reading, url, wanted, as_json))
}

fn send(reading: &Reading, url: Option<&Address>, wanted: &Wanted<'_>, as_json: bool) -> Result<(), Failure> {
    let data = data::read(wanted.data)?;
    let gateway = Remote::of(reading, url)?;
    let budget = wanted.timeout.unwrap_or(BUDGET);
    let (name, value) = &wanted.target;
    let mut body = json!({ *name: value, "timeoutMs": millis(budget) });
    for (name, value) in [("event", wanted.event), ("exceptSocketId", wanted.except)] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    let answer = gateway.post("/api/send", with_data(&body, data.as_deref()), budget)?;
    if as_json && answer.body.is_object() {
        say!("{}", printable_json(&String::from_utf8_lossy(&answer.text)));
    }
    finish(&gateway, &answer, as_json)
}

fn finish(gateway: &Remote, answer: &Answer, as_json: bool) -> Result<(), Failure> {
    let body = &answer.body;
    let said = |name: &str| body[name].as_str().unwrap_or_default();
    let count = |name: &str| body[name].as_u64().unwrap_or_default();
    match (answer.status, said("status"), said("code")) {
        (200, "delivered", _) => {
            if !as_json {
                say!(
                    "{} took it, on {} ({})",
                    sockets(count("delivered")),
                    instances(count("instances")),
                    word(&body["id"])
                );
            }
            Ok(())
        }
        (200, "undelivered", _) if count("matched") == 0 => {
            Err(Failure::new(exit::NOTHING, "nobody is there to take it; holdfast sockets shows who is connected"))
        }
        (200, "undelivered" | "partial", _) => {
            let (matched, delivered, unknown) = (count("matched"), count("delivered"), count("unknown"));
            let refused = matched.saturating_sub(delivered + unknown);
            let mut sentence = format!("{delivered} of {} took it", sockets(matched));
            if refused > 0 {
                sentence += &format!("; {refused} had no room left, since their clients read too slowly");
            }
            if unknown > 0 {
                sentence += &format!("; of {unknown} their instance did not say in time, so they may have it");
            }
            if body["registry"].is_string() {
                sentence += &format!("; who else is meant is not known now ({})", word(&body["registry"]));
            }
            Err(Failure::new(exit::FAILED, sentence))
        }
        (_, _, "socket_never_seen" | "socket_forgotten" | "socket_gone") => Err(call::nobody(answer)),
        (_, _, "socket_busy" | "no_reply") => {
            Err(Failure::new(exit::FAILED, format!("{}; {}", said("detail"), said("hint"))))
        }
        _ => Err(call::refused(gateway, answer)),
    }
}

fn sockets(count: u64) -> String {
    if count == 1 { "1 socket".into() } else { format!("{count} sockets") }
}

fn instances(count: u64) -> String {
    if count == 1 { "1 instance".into() } else { format!("{count} instances") }
}
