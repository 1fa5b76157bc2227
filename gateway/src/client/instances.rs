//! `holdfast instances`: who serves.

use super::{
    asking::{Failure, Remote, ended},
    given::Given,
    table::{self, moment, word},
    words::{json, to_ask_with, url},
};
use clap::Command;
use serde_json::Value;
use std::{collections::BTreeMap, process::ExitCode};

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
    table::print(["name", "state", "address", "sockets", "version", "pid", "restarts", "up since", "canary"], &rows);
    for member in answer.body["drift"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        complain!("{}", difference(member, instances));
    }
    if let Some(twice) = instances.iter().find(|instance| is_shared(&instance["instance"], instances)) {
        complain!(
            "several instances are called {}: one of them was killed and leaves this list within 20 s; or give each an \
             INSTANCE of its own",
            word(&twice["instance"])
        );
    }
    Ok(())
}

fn is_shared(name: &Value, instances: &[Value]) -> bool {
    instances.iter().filter(|instance| instance["instance"] == *name).count() > 1
}

/// Who says what, and what to do about it.
fn difference(member: &str, all: &[Value]) -> String {
    // A canary is compared with canaries.
    let [usual, canaries] = [false, true].map(|canary| {
        let mut sides: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for instance in all.iter().filter(|one| one["state"] == "serving" && (one["canary"] == true) == canary) {
            sides.entry(word(&instance[member])).or_default().push(row(instance, all)[0].clone());
        }
        sides
    });
    let sides = if usual.len() > 1 { usual } else { canaries };
    let sides: Vec<_> = sides.into_iter().map(|(value, names)| format!("{value} on {}", names.join(", "))).collect();
    let mend = match member {
        "configuration" => "; compare `holdfast check --json` of both, and restart those that should change",
        "version" => "; an upgrade is not over yet, or has left some out",
        _ => "",
    };
    format!("the instances that serve differ in {member}: {}{mend}", sides.join("; "))
}

fn row(instance: &Value, all: &[Value]) -> [String; 9] {
    // A name that several have says nothing, so there the mark stands with it.
    let name = if is_shared(&instance["instance"], all) { "incarnation" } else { "instance" };
    [
        word(&instance[name]),
        word(&instance["state"]),
        word(&instance["address"]),
        word(&instance["sockets"]),
        word(&instance["version"]),
        word(&instance["pid"]),
        word(&instance["restarts"]),
        moment(&instance["startedAt"]),
        if instance["canary"] == true { "yes".into() } else { "-".into() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_differs_is_said_by_name() {
        let instance =
            |name: &str, state: &str, hash: &str| json!({ "instance": name, "state": state, "configuration": hash });
        let canary = json!({ "instance": "web4", "state": "serving", "configuration": "dd", "canary": true });
        let all = [
            instance("web1", "serving", "aa"),
            instance("web2", "serving", "bb"),
            instance("web3", "draining", "cc"),
            canary,
        ];
        let said = difference("configuration", &all);
        assert!(
            said.starts_with("the instances that serve differ in configuration: aa on web1; bb on web2; compare"),
            "{said}"
        );
    }

    #[test]
    fn a_name_that_two_have_is_shown_with_its_marks() {
        let instance = |name: &str, mark: &str| json!({ "instance": name, "incarnation": format!("{name}.{mark}") });
        let all = [instance("web1", "a"), instance("web2", "b"), instance("web1", "c")];
        let names: Vec<_> = all.iter().map(|instance| row(instance, &all)[0].clone()).collect();
        assert_eq!(names, ["web1.a", "web2", "web1.c"]);
    }
}
