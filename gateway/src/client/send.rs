//! `holdfast send`: writes to sockets, and shows how many took it.

use super::{
    asking::{Answer, Failure, Remote, ended, printable_json},
    call::{self, millis, with_data},
    data, exit,
    given::Given,
    table::word,
    words::{self, event, target_args, timeout, to_ask_with, url},
};
use clap::{Arg, ArgAction, ArgGroup, Command, builder::NonEmptyStringValueParser};
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};

/// For the word of the instances that hold the sockets, unless another time is given.
const BUDGET: Duration = Duration::from_secs(5);

const SEND_HELP: &str = "\
Example:
  holdfast send --room lobby --event news --data '{\"hello\":\"world\"}'

Exit codes: 0 taken by all, 1 not by all, 3 nobody is there, 69 the gateway cannot be reached";

pub fn command() -> Command {
    Command::new("send")
        .about("Write to sockets, wherever they are, and say how many took it; exit 3 when nobody is there")
        .after_help(SEND_HELP)
        .args(target_args(&["socket", "user", "store", "room"]))
        .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("Every socket"))
        .group(ArgGroup::new("target").args(["socket", "user", "store", "room", "all"]).required(true))
        .arg(event("The type of the frame [default: message]"))
        .arg(words::data("What is sent, as JSON, @FILE, or - for standard input"))
        .arg(
            Arg::new("except")
                .long("except")
                .value_name("SOCKET")
                .value_parser(NonEmptyStringValueParser::new())
                .help("A socket that does not get it"),
        )
        .arg(timeout("How long the instances have to say that it was taken [default: 5s]"))
        .args([url(), words::json()])
        .args(to_ask_with())
}

/// Exit 0 when all that are meant took it, 3 when nobody is there, 1 when some did not take it.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(send(given))
}

fn send(given: &Given<'_>) -> Result<(), Failure> {
    let as_json = given.as_json();
    let data = data::read(given.text("data"))?;
    let gateway = Remote::of(&given.reading(), given.url())?;
    let budget = given.span("timeout").unwrap_or(BUDGET);
    let named = given.targets().into_iter().next().map(|(name, value)| (name, Value::from(value)));
    let (name, value) = named.unwrap_or(("all", true.into()));
    let mut body = json!({ name: value, "timeoutMs": millis(budget) });
    for (name, value) in [("event", given.text("event")), ("exceptSocketId", given.text("except"))] {
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
