//! `holdfast why`: where a socket is, or what became of it.

use super::{
    asking::{Address, Failure, Remote, encoded, ended, printable},
    exit,
    table::{age, moment, names, word},
};
use crate::config::Reading;
use serde_json::Value;
use std::process::ExitCode;

/// Exit 0 when it is connected, 3 when it is not.
pub fn run(reading: &Reading, url: Option<&Address>, id: &str, as_json: bool) -> ExitCode {
    ended(look(reading, url, id, as_json))
}

fn look(reading: &Reading, url: Option<&Address>, id: &str, as_json: bool) -> Result<(), Failure> {
    let gateway = Remote::of(reading, url)?;
    let answer = gateway.get(&format!("/api/sockets/{}", encoded(id)))?;
    let body = &answer.body;
    let sentence = body["verdict"]["sentence"].as_str();
    match (answer.status, sentence) {
        (200, _) if body["socketId"].is_string() => {
            match as_json {
                true => say!("{body}"),
                false => describe(body),
            }
            Ok(())
        }
        (404 | 410, Some(sentence)) => {
            match as_json {
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
