//! What stands around the program where the check runs: who manages it, in which container, how many files it may open.

use crate::{config::sources::Environment, listener, manager::Manager};
use serde_json::{Value, json};
use std::path::Path;

/// Files that a container engine leaves inside, and its name.
const MARKS: [(&str, &str); 2] = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];

/// As JSON has it; null where there is none.
pub fn json(env: &Environment, manager: &Manager) -> Value {
    json!({
        "manager": manager.kind.map(|kind| kind.as_str()),
        "container": container(env),
        "openFiles": listener::raise_open_files(),
    })
}

/// In one line.
pub fn line(env: &Environment, manager: &Manager) -> String {
    let host = json(env, manager);
    let name = |member: &str| host[member].as_str().unwrap_or("none").to_owned();
    format!("manager {}, container {}, open file limit {}", name("manager"), name("container"), host["openFiles"])
}

fn container(env: &Environment) -> Option<String> {
    if env.contains_key("KUBERNETES_SERVICE_HOST") {
        return Some("kubernetes".to_owned());
    }
    // podman, lxc and systemd-nspawn say it.
    let said = env.get("container").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    said.or_else(|| MARKS.into_iter().find(|(file, _)| Path::new(file).exists()).map(|(_, name)| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_more_to_say_than_the_engine_below() {
        let env = |pairs: &[(&str, &str)]| {
            container(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(env(&[("container", "podman"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap(), "kubernetes");
        assert_eq!(env(&[("container", "lxc")]).unwrap(), "lxc");
    }
}
