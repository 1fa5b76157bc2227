//! Somebody at a terminal: commands that ask a running gateway.

use crate::{
    gateway::Gateway,
    holdfast::{Finished, Holdfast},
};

/// A socket that no gateway here ever saw.
pub const NEVER: &str = "ws_0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

/// A command with the port of a gateway.
pub fn command(gateway: &Gateway, args: &[&str]) -> Holdfast {
    Holdfast::command(args).env("PORT", &gateway.port().to_string())
}

pub async fn run(gateway: &Gateway, args: &[&str]) -> Finished {
    command(gateway, args).run().await
}
