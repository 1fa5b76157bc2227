//! `holdfast version`.

use super::{given::Given, words::json as as_json};
use crate::{frame, gateway::VERSION};
use clap::Command;
use serde_json::json;
use std::process::ExitCode;

/// What this was built from, where the build could tell.
const COMMIT: Option<&str> = option_env!("HOLDFAST_COMMIT");
const RUSTC: Option<&str> = option_env!("HOLDFAST_RUSTC");

pub fn command() -> Command {
    Command::new("version").about("Show the version").arg(as_json())
}

/// Says what this is.
pub fn run(given: &Given<'_>) -> ExitCode {
    match (given.as_json(), COMMIT) {
        (false, None) => say!("holdfast {VERSION}"),
        (false, Some(commit)) => say!("holdfast {VERSION} ({commit})"),
        (true, _) => say!(
            "{}",
            json!({
                "name": "holdfast",
                "version": VERSION,
                "commit": COMMIT,
                "rustc": RUSTC,
                "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
                "protocol": frame::VERSION,
                "platform": format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
                "registries": ["memory", "redis"],
                "features": ["tls", "resume", "durable", "proxy-protocol"],
            })
        ),
    }
    ExitCode::SUCCESS
}
