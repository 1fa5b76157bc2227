//! `holdfast healthcheck`: for containers that have no curl.

use super::{
    asking::{Address, Failure, Remote, ended},
    exit,
};
use crate::config::Reading;
use std::process::ExitCode;

/// Asks `/health/live`.
pub fn run(reading: &Reading, url: Option<&Address>) -> ExitCode {
    ended(look(reading, url))
}

fn look(reading: &Reading, url: Option<&Address>) -> Result<(), Failure> {
    let gateway = Remote::without_token(reading, url)?;
    match gateway.get("/health/live")?.status {
        200 => {
            say!("{} lives", gateway.address);
            Ok(())
        }
        status => Err(Failure::new(exit::FAILED, format!("{} answered {status}", gateway.address))),
    }
}
