//! `holdfast instances`: who serves.

use super::{
    asking::{Failure, Remote, ended},
    given::Given,
    table::{self, moment, word},
    words::{json, to_ask_with, url},
};
use clap::Command;
use serde_json::Value;
use std::process::ExitCode;

pub fn command() -> Command {
    Command::new("instances").about("Show the instances of the fleet").args([url(), json()]).args(to_ask_with())
}

/// Shows every instance that holds a lease.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(look(given))
}

fn look(given: &Given<'_>) -> Result<(), Failure> {
    let gateway = Remote::of(&given.reading(), given.url())?;
    let answer = gateway.get("/api/instances")?;
    let (200, Some(instances)) = (answer.status, answer.body["instances"].as_array()) else {
        return Err(gateway.failure(&answer));
    };
    if given.as_json() {
        say!("{}", answer.body);
        return Ok(());
    }
    let rows: Vec<_> = instances.iter().map(|instance| row(instance, instances)).collect();
    table::print(["name", "state", "sockets", "version", "pid", "up since", "canary"], &rows);
    if let Some(twice) = instances.iter().find(|instance| is_shared(&instance["instance"], instances)) {
        complain!("several instances are called {}; give each an INSTANCE of its own", word(&twice["instance"]));
    }
    Ok(())
}

fn is_shared(name: &Value, instances: &[Value]) -> bool {
    instances.iter().filter(|instance| instance["instance"] == *name).count() > 1
}

fn row(instance: &Value, all: &[Value]) -> [String; 7] {
    // A name that several have says nothing, so there the mark stands with it.
    let name = if is_shared(&instance["instance"], all) { "incarnation" } else { "instance" };
    [
        word(&instance[name]),
        word(&instance["state"]),
        word(&instance["sockets"]),
        word(&instance["version"]),
        word(&instance["pid"]),
        moment(&instance["startedAt"]),
        if instance["canary"] == true { "yes".into() } else { "-".into() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_that_two_have_is_shown_with_its_marks() {
        let instance = |name: &str, mark: &str| json!({ "instance": name, "incarnation": format!("{name}.{mark}") });
        let all = [instance("web1", "a"), instance("web2", "b"), instance("web1", "c")];
        let names: Vec<_> = all.iter().map(|instance| row(instance, &all)[0].clone()).collect();
        assert_eq!(names, ["web1.a", "web2", "web1.c"]);
    }
}
