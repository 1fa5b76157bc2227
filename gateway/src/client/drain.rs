//! `holdfast drain`: has an instance part with its sockets and stop, and waits until it has.

use super::{
    asking::{Address, Failure, Remote, encoded, ended, printable_json},
    exit,
    table::word,
};
use crate::config::Reading;
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

/// Which instance, and how.
pub struct Wanted<'a> {
    /// Without it the one that is asked.
    pub name: Option<&'a str>,
    pub waits: bool,
    pub is_forced: bool,
}

/// Exit 0 when it drains, or has left; 1 when it is the last, or has not left in time; 3 when there is none of the name.
pub fn run(reading: &Reading, url: Option<&Address>, wanted: &Wanted<'_>, as_json: bool) -> ExitCode {
    ended(drain(reading, url, wanted, as_json))
}

fn drain(reading: &Reading, url: Option<&Address>, wanted: &Wanted<'_>, as_json: bool) -> Result<(), Failure> {
    let gateway = Remote::for_admin(reading, url)?;
    let name = match wanted.name {
        Some(name) => name.to_owned(),
        None => own_name(&gateway)?,
    };
    let target = format!("/api/instances/{}/drain", encoded(&name));
    let answer = gateway.post(&target, json!({ "force": wanted.is_forced }).to_string(), BUDGET)?;
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
    if wanted.waits {
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
