//! What `holdfast doctor` finds, read from its `--json`.

use crate::holdfast::{Finished, Holdfast};
use serde_json::{Value, json};
use std::fmt;

/// What a doctor found.
pub struct Found {
    pub finished: Finished,
    pub report: Value,
}

impl Found {
    pub fn of(finished: Finished) -> Self {
        let report = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
        Self { finished, report }
    }

    pub fn named(&self, ok: &Value) -> Vec<&str> {
        let checks = self.report["checks"].as_array().unwrap().iter();
        checks.filter(|check| check["ok"] == *ok).filter_map(|check| check["name"].as_str()).collect()
    }

    pub fn ill(&self) -> Vec<&str> {
        self.named(&json!(false))
    }

    pub fn unseen(&self) -> Vec<&str> {
        self.named(&Value::Null)
    }

    /// What was seen of it, and what mends it.
    pub fn check(&self, name: &str) -> (&str, &str) {
        let check = self.one(name);
        (check["seen"].as_str().unwrap(), check["fix"].as_str().unwrap_or_default())
    }

    /// Whether it is well; nobody knows where it was not looked at.
    pub fn ok(&self, name: &str) -> Option<bool> {
        self.one(name)["ok"].as_bool()
    }

    fn one(&self, name: &str) -> &Value {
        let mut checks = self.report["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {self:?}"))
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}: {:#}\n{}", self.finished.code, self.report, self.finished.stderr)
    }
}

pub async fn doctor(args: &[&str]) -> Found {
    Found::of(Holdfast::command(&[&["doctor", "--json"], args].concat()).run().await)
}
