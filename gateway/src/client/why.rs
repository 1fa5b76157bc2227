//! `holdfast why`: where a socket is, or what became of it.

use super::{
    asking::{Failure, Remote, encoded, ended, printable},
    exit,
    given::Given,
    table::{age, moment, names, word},
    words::{json, to_ask_with, url},
};
use clap::{Arg, Command, builder::NonEmptyStringValueParser};
use serde_json::Value;
use std::process::ExitCode;

pub fn command() -> Command {
    Command::new("why")
        .about("Say where a socket is, or what became of it; exit 3 when it is not connected")
        .arg(
            Arg::new("id")
                .required(true)
                .value_name("SOCKET")
                .value_parser(NonEmptyStringValueParser::new())
                .help("Its id, as ws_…; any text may be asked about"),
        )
        .args([url(), json()])
        .args(to_ask_with())
}

/// Exit 0 when it is connected, 3 when it is not.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(look(given))
}

fn look(given: &Given<'_>) -> Result<(), Failure> {
    let gateway = Remote::of(&given.reading(), given.url())?;
    let answer = gateway.get(&format!("/api/sockets/{}", encoded(given.text("id").unwrap_or_default())))?;
    let body = &answer.body;
    let sentence = body["verdict"]["sentence"].as_str();
    match (answer.status, sentence) {
        (200, _) if body["socketId"].is_string() => {
            match given.as_json() {
                true => say!("{body}"),
                false => describe(body),
            }
            Ok(())
        }
        (404 | 410, Some(sentence)) => {
            match given.as_json() {
                true => say!("{body}"),
                false => say!("{}", printable(sentence)),
            }
            Err(Failure { code: exit::NOTHING, sentences: Vec::new() })
        }
        _ => Err(gateway.failure(&answer)),
    }
}

fn describe(socket: &Value) {
    let (id, instance, since) = (word(&socket["socketId"]), word(&socket["instance"]), &socket["connectedAt"]);
    say!("{id} is connected to {instance}, for {} (since {})", age(since), moment(since));
    say!("  store  {}", word(&socket["storeId"]));
    say!("  user   {}", word(&socket["userId"]));
    say!("  rooms  {}", names(&socket["rooms"]));
}
