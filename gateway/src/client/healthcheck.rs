//! `holdfast healthcheck`: for containers that have no curl.

use super::{
    address::Address,
    asking::{Failure, Remote, ended},
    exit,
    given::Given,
    words::{settings, url},
};
use clap::{Arg, Command};
use std::process::ExitCode;

pub fn command() -> Command {
    Command::new("healthcheck")
        .about("Ask a running gateway whether it lives; exit 0, or 69 when it cannot be reached")
        .arg(Arg::new("at").value_name("URL").value_parser(|text: &str| text.parse::<Address>()).help("As --url"))
        .arg(url().conflicts_with("at"))
        .args(settings())
}

/// Asks `/health/live`.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(look(given))
}

fn look(given: &Given<'_>) -> Result<(), Failure> {
    let gateway = Remote::without_token(&given.reading(), given.url().or_else(|| given.one("at")))?;
    match gateway.get("/health/live")?.status {
        200 => {
            say!("{} lives", gateway.address);
            Ok(())
        }
        status => Err(Failure::new(exit::FAILED, format!("{} answered {status}", gateway.address))),
    }
}
