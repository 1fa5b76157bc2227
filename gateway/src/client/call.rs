//! `holdfast call`: asks a client, and shows what it answers.

use super::{
    asking::{Answer, Failure, Remote, ended, printable, printable_json},
    data, exit,
    given::Given,
    table::word,
    words::{self, CALL_TIME, TARGETS, WAIT_MAX, event, target_args, timeout, to_ask_with, url},
};
use crate::config::Reading;
use clap::{Arg, ArgGroup, Command};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{process::ExitCode, time::Duration};

const CALL_HELP: &str = "\
Example:
  holdfast call --user test123 --event ask --data '{\"question\":\"ready?\"}'

The result goes to standard output. What the client says on its way to it goes to standard error.

Exit codes: 0 answered, 1 not answered or failed, 3 nobody is there, 69 the gateway cannot be reached";

pub fn command() -> Command {
    Command::new("call")
                .about("Ask a client and show its answer; of a user or store its most recently active socket is asked")
                .after_help(CALL_HELP)
                .args(target_args(&["socket", "user", "store"]))
                .group(ArgGroup::new("target").args(["socket", "user", "store"]).required(true))
                .arg(event("What the page is asked to do: the type of its frame").required(true))
                .args([words::data("What is asked, as JSON, @FILE, or - for standard input"), timeout(CALL_TIME)])
                .arg(
                    Arg::new("bare-data")
                        .value_name("JSON")
                        .conflicts_with("data")
                        .help("The same as --data, for whoever leaves the word out"),
                )
                .arg(
                    Arg::new("fallback")
                        .long("fallback")
                        .value_name("WHO")
                        .value_parser(["none", "store", "user"])
                        .help("Who may be asked in place of a socket that is not reached [default: none]"),
                )
                .arg(
                    Arg::new("when-offline")
                        .long("when-offline")
                        .value_name("WHAT")
                        .value_parser(["fail", "wait", "queue"])
                        .help("Where nobody is there: say so, wait within the time for who comes, or keep the call [default: fail]"),
                )
                .args([url(), words::json()])
                .args(to_ask_with())
}

/// Exit 0 when it was answered or is kept, 3 when nobody is there.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(ask(given))
}

fn ask(given: &Given<'_>) -> Result<(), Failure> {
    let (reading, as_json) = (given.reading(), given.as_json());
    let data = data::read(given.text("data").or_else(|| given.text("bare-data")))?;
    let gateway = Remote::of(&reading, given.url())?;
    let budget = budget(&reading, given.span("timeout"));
    let mut body = json!({ "event": given.text("event"), "timeoutMs": millis(budget) });
    let more = [("fallback", "fallback"), ("when-offline", "whenOffline")];
    let more = more.into_iter().filter_map(|(flag, member)| Some((member, given.text(flag)?)));
    for (member, value) in given.targets().into_iter().chain(more) {
        body[member] = value.into();
    }
    let body = with_data(&body, data.as_deref());
    let answer = gateway.follow("/api/call", body, budget, &progress(as_json))?;
    finish(&gateway, &answer, budget, as_json)
}

/// Shows what a client says on its way. Standard output is the result's alone, so that a program can read it.
pub fn progress(as_json: bool) -> impl Fn(&str) {
    move |data| {
        let data = printable_json(data);
        if as_json { complain!("{{\"progress\":{data}}}") } else { complain!("progress: {data}") }
    }
}

/// How long the gateway waits for the client.
pub fn budget(reading: &Reading, given: Option<Duration>) -> Duration {
    let configured = || reading.config.as_ref().ok().map(|config| config.call_timeout);
    given.or_else(configured).unwrap_or_default().min(WAIT_MAX)
}

pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The body with the data as it was written.
pub fn with_data(body: &Value, data: Option<&RawValue>) -> String {
    let body = body.to_string();
    match data {
        Some(data) => format!("{},\"data\":{data}}}", body.strip_suffix('}').unwrap_or(&body)),
        None => body,
    }
}

#[derive(Deserialize)]
struct Replied<'a> {
    #[serde(borrow)]
    result: &'a RawValue,
}

/// Shows what became of a call. The result alone goes to standard output, so that a program can read it.
pub fn finish(gateway: &Remote, answer: &Answer, budget: Duration, as_json: bool) -> Result<(), Failure> {
    if as_json && answer.body.is_object() {
        say!("{}", printable_json(&String::from_utf8_lossy(&answer.text)));
    }
    if answer.status == 202 {
        let call = word(&answer.body["callId"]);
        if !as_json {
            say!("{call}");
        }
        complain!(
            "nobody is there; the call is kept for the first who comes, and GET /api/calls/{call} says what came of it"
        );
        return Ok(());
    }
    let replied = serde_json::from_slice::<Replied<'_>>(&answer.text).ok().filter(|_| answer.status == 200);
    let Some(replied) = replied else { return Err(failure(gateway, answer, budget)) };
    if !as_json {
        say!("{}", printable_json(replied.result.get()));
        let name = |name: &str| word(&answer.body[name]);
        let instead = if answer.body["fallback"] == true { ", in place of the one that was asked" } else { "" };
        complain!("{} on {} answered after {} ms{instead}", name("socketId"), name("instance"), name("elapsedMs"));
    }
    Ok(())
}

fn failure(gateway: &Remote, answer: &Answer, budget: Duration) -> Failure {
    let body = &answer.body;
    let said = |name: &str| body[name].as_str().unwrap_or_default();
    let (detail, hint) = (said("detail"), said("hint"));
    match said("code") {
        "socket_never_seen" | "socket_forgotten" | "socket_gone" | "no_live_socket" => nobody(answer),
        "call_failed" => {
            Failure::new(exit::FAILED, format!("{detail}: {}", printable_json(&body["failure"].to_string())))
        }
        "no_reply" => {
            let mend = match &body["delivered"] {
                Value::Bool(true) => {
                    "give it longer with --timeout, or see that the page answers this event (README, Answering a call)"
                }
                Value::Bool(false) => "nothing was done; ask again, or give it longer with --timeout",
                _ => "it may have been done all the same, so repeat it only if a second time does no harm",
            };
            Failure::new(exit::FAILED, format!("{detail}, which was {}; {mend}", humantime::format_duration(budget)))
        }
        "socket_lost" | "owner_lost" | "instance_ended" | "socket_busy" => {
            Failure::new(exit::FAILED, format!("{detail}; {hint}"))
        }
        _ => refused(gateway, answer),
    }
}

/// What the gateway has to object, told of the flags from which the body was made.
pub fn refused(gateway: &Remote, answer: &Answer) -> Failure {
    let Some(errors) = answer.body["errors"].as_array().filter(|_| answer.status == 422) else {
        return gateway.failure(answer);
    };
    let fault = |error: &Value| {
        let pointer = error["pointer"].as_str().unwrap_or_default().trim_start_matches('/');
        let flag = TARGETS.iter().find(|(_, member, _)| *member == pointer).map_or(pointer, |(flag, ..)| flag);
        let detail = word(&error["detail"]);
        printable(&if flag.is_empty() { detail } else { format!("--{flag}: {detail}") })
    };
    Failure { code: exit::FAILED, sentences: errors.iter().map(fault).collect() }
}

/// Who is meant is not there.
pub fn nobody(answer: &Answer) -> Failure {
    let body = &answer.body;
    let (detail, hint) = (body["detail"].as_str().unwrap_or_default(), body["hint"].as_str().unwrap_or_default());
    let mut sentences = vec![format!("{detail}; {hint}")];
    let verdict = &body["verdict"];
    match verdict["storeSockets"].as_u64().unwrap_or_default() {
        0 => sentences.push("holdfast sockets shows who is connected".to_owned()),
        others => sentences.push(format!(
            "sockets of its store {store} that are connected: {others}; --store {store} reaches them",
            store = word(&verdict["storeId"]),
        )),
    }
    Failure { code: exit::NOTHING, sentences: sentences.iter().map(|sentence| printable(sentence)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_into_the_body_as_it_was_written() {
        let data = RawValue::from_string("{\"n\":1.10}".into()).unwrap();
        let body = json!({ "userId": "}", "event": "x" });
        assert_eq!(with_data(&body, Some(&data)), r#"{"userId":"}","event":"x","data":{"n":1.10}}"#);
        assert_eq!(with_data(&body, None), body.to_string());
    }
}
