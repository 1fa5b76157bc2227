//! `holdfast man`: the manual, made from the same words as the help.

use super::{
    asking::{Failure, ended},
    exit,
    given::Given,
};
use clap::{Arg, Command, value_parser};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

pub fn command() -> Command {
    Command::new("man").about("Print the manual page: holdfast man | man -l -").arg(
        Arg::new("dir")
            .long("dir")
            .value_name("FOLDER")
            .value_parser(value_parser!(PathBuf))
            .help("Write a page for each command into this folder instead"),
    )
}

/// Prints the page of `holdfast`, or writes all.
pub fn run(given: &Given<'_>) -> ExitCode {
    let outcome = match given.one::<PathBuf>("dir") {
        None => print(),
        Some(folder) => write(folder).map_err(|error| format!("{} cannot be written to: {error}", folder.display())),
    };
    ended(outcome.map_err(|sentence| Failure::new(exit::FAILED, sentence)))
}

fn print() -> Result<(), String> {
    let mut page = Vec::new();
    let made = clap_mangen::Man::new(super::command()).render(&mut page);
    made.map_err(|error| format!("the page cannot be made: {error}"))?;
    // Whoever reads it may have left.
    let _ = io::stdout().lock().write_all(&page);
    Ok(())
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(super::command().disable_help_subcommand(true), folder)
}
