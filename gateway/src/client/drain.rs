//! `holdfast drain`: has an instance part with its sockets and stop, and waits until it has.

use super::{
    asking::{Failure, Remote, encoded, ended, printable_json},
    exit,
    given::Given,
    table::word,
    words::{json as as_json, to_ask_with, url},
};
use clap::{Arg, ArgAction, Command, builder::NonEmptyStringValueParser};
use serde_json::{Value, json};
use std::{
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

/// For the word of the instance that is meant, if another one is asked.
const BUDGET: Duration = Duration::from_secs(3);
/// Between two looks whether it has left.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How much longer than it says an instance may take: it gives up its lease at the end.
const LATE: Duration = Duration::from_secs(10);
/// Looks in vain by which it is known that the asked one does not listen any more, and is not only about to answer.
const UNREACHED: u32 = 2;

const DRAIN_HELP: &str = "\
Example:
  holdfast drain web1 --wait --url http://web2:8080

Any instance can be asked. One that watches its own drain can say only that it does not listen any more; ask another \
one to hear that it is gone. What happens on the way goes to standard error.

Exit codes: 0 it drains, or has left, 1 it is the last or has not left in time, 3 there is none of that name, \
69 the gateway cannot be reached";

pub fn command() -> Command {
    Command::new("drain")
        .about("Have an instance part with its sockets one after the other, and stop")
        .after_help(DRAIN_HELP)
        .arg(
            Arg::new("instance")
                .value_name("NAME")
                .value_parser(NonEmptyStringValueParser::new())
                .help("The instance, as holdfast instances shows it; the one that is asked unless given"),
        )
        .arg(Arg::new("wait").long("wait").action(ArgAction::SetTrue).help("Return when it has left"))
        .arg(Arg::new("force").long("force").action(ArgAction::SetTrue).help("Also the last one that serves"))
        .args([url(), as_json()])
        .args(to_ask_with())
}

/// Exit 0 when it drains, or has left; 1 when it is the last, or has not left in time; 3 when there is none of the name.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(drain(given))
}

fn drain(given: &Given<'_>) -> Result<(), Failure> {
    let as_json = given.as_json();
    let gateway = Remote::for_admin(&given.reading(), given.url())?;
    // Without a name the one that is asked.
    let name = match given.text("instance") {
        Some(name) => name.to_owned(),
        None => own_name(&gateway)?,
    };
    let target = format!("/api/instances/{}/drain", encoded(&name));
    let answer = gateway.post(&target, json!({ "force": given.is_set("force") }).to_string(), BUDGET)?;
    let said = |name: &str| answer.body[name].as_str().unwrap_or_default();
    match (answer.status, said("code")) {
        (202, _) => {}
        (404, "no_such_instance") => return Err(Failure::new(exit::NOTHING, said("detail"))),
        (409, "last_instance") => {
            let sentence = format!("{}; start another one first, or say --force", said("detail"));
            return Err(Failure::new(exit::FAILED, sentence));
        }
        _ => return Err(gateway.failure(&answer)),
    }
    let mut drains = answer.body;
    if !as_json {
        let within = Duration::from_millis(drains["withinMs"].as_u64().unwrap_or_default()).as_secs_f32();
        say!("{} drains {}, and is gone within {within} s", word(&drains["instance"]), sockets(&drains["sockets"]));
    }
    if given.is_set("wait") {
        let began = Instant::now();
        watch(&gateway, &drains, began)?;
        drains["left"] = true.into();
        if !as_json {
            say!("{} has left after {:.1} s", word(&drains["instance"]), began.elapsed().as_secs_f32());
        }
    }
    if as_json {
        say!("{}", printable_json(&drains.to_string()));
    }
    Ok(())
}

fn own_name(gateway: &Remote) -> Result<String, Failure> {
    let answer = gateway.get("/health")?;
    let name = answer.body["instance"].as_str().map(str::to_owned);
    name.ok_or_else(|| gateway.failure(&answer))
}

/// Until its lease is gone. An instance that watches its own drain closes its port at the end, and then nobody can say
/// more of it.
fn watch(gateway: &Remote, drains: &Value, began: Instant) -> Result<(), Failure> {
    let patience = Duration::from_millis(drains["withinMs"].as_u64().unwrap_or_default()) + LATE;
    let (mut left, mut unreached) = (drains["sockets"].clone(), 0);
    loop {
        sleep(LOOK_AGAIN);
        let failure = match gateway.get("/api/instances") {
            Ok(answer) => {
                unreached = 0;
                let Some(instances) = answer.body["instances"].as_array().filter(|_| answer.status == 200) else {
                    give_up(began, patience, || gateway.failure(&answer))?;
                    continue;
                };
                let is_meant = |instance: &&Value| instance["incarnation"] == drains["incarnation"];
                let Some(instance) = instances.iter().find(is_meant) else { return Ok(()) };
                if instance["sockets"] != left {
                    left = instance["sockets"].clone();
                    complain!("{}: {} left", word(&drains["instance"]), sockets(&left));
                }
                let sentence = format!("{} is still there: {} left", word(&drains["instance"]), sockets(&left));
                Failure::new(exit::FAILED, sentence)
            }
            Err(failure) => {
                unreached += 1;
                if drains["hop"] == "local" && unreached == UNREACHED {
                    return Ok(());
                }
                failure
            }
        };
        give_up(began, patience, || failure)?;
    }
}

fn give_up(began: Instant, patience: Duration, failure: impl FnOnce() -> Failure) -> Result<(), Failure> {
    if began.elapsed() < patience { Ok(()) } else { Err(failure()) }
}

fn sockets(count: &Value) -> String {
    if *count == 1 { "1 socket".into() } else { format!("{} sockets", word(count)) }
}
