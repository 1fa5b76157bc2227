//! `holdfast version`.

use crate::{frame, gateway::VERSION};
use serde_json::json;
use std::process::ExitCode;

/// Says what this is.
pub fn run(as_json: bool) -> ExitCode {
    match as_json {
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
