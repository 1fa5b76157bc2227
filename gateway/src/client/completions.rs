//! `holdfast completions`: for shells that complete what is typed.

use super::given::Given;
use clap::{Arg, Command, value_parser};
use clap_complete::{Shell, generate};
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub fn command() -> Command {
    Command::new("completions").about("Print what makes a shell complete this command line").arg(
        Arg::new("shell").required(true).value_name("SHELL").value_parser(value_parser!(Shell)).help("Which shell"),
    )
}

/// Prints the script of the shell.
pub fn run(given: &Given<'_>) -> ExitCode {
    if let Some(shell) = given.one::<Shell>("shell").copied() {
        let mut script = Vec::new();
        generate(shell, &mut super::command(), "holdfast", &mut script);
        // Whoever reads it may have left.
        let _ = io::stdout().lock().write_all(&script);
    }
    ExitCode::SUCCESS
}
