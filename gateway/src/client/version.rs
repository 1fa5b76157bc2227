//! `holdfast version`.

use super::{given::Given, words::json as as_json};
use crate::{frame, gateway::VERSION};
use clap::Command;
use serde_json::json;
use std::process::ExitCode;

pub fn command() -> Command {
    Command::new("version").about("Show the version").arg(as_json())
}

/// Says what this is.
pub fn run(given: &Given<'_>) -> ExitCode {
    match given.as_json() {
        false => say!("holdfast {VERSION}"),
        true => say!(
            "{}",
            json!({
                "name": "holdfast",
                "version": VERSION,
                "commit": option_env!("HOLDFAST_COMMIT"),
                "protocol": frame::VERSION,
                "platform": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
                "registries": ["memory", "redis"],
            })
        ),
    }
    ExitCode::SUCCESS
}
