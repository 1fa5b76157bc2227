//! `holdfast explain`: what a code means, and what to do about it. Asks nobody.

use super::{exit, given::Given};
use crate::{codes, config::sources::distance};
use clap::{Arg, Command, builder::NonEmptyStringValueParser};
use std::process::ExitCode;

/// With so many changes it is another word.
const TYPING_ERRORS: usize = 4;

pub fn command() -> Command {
    Command::new("explain")
        .about("Say what a code means and what to do about it, such as 4410 or socket_gone; exit 3 for none of ours")
        .arg(
            Arg::new("code")
                .value_name("CODE")
                .value_parser(NonEmptyStringValueParser::new())
                .help("Of a refusal, a close, an error frame or a verdict; all of them unless given"),
        )
}

/// Exit 0 when there is such a code, 3 when there is not.
pub fn run(given: &Given<'_>) -> ExitCode {
    let Some(asked) = given.text("code") else {
        say!("{}", codes::PAGE.trim_end());
        return ExitCode::SUCCESS;
    };
    // As it is copied out of an answer: quoted, or at the end of its address.
    let code = asked.trim_matches(['"', '`', '\'', ' ']).rsplit('/').next().unwrap_or_default();
    if let Some(entry) = codes::entry(code) {
        say!("{entry}");
        let mut others: Vec<_> = referred(entry).filter_map(codes::entry).collect();
        others.dedup();
        for other in others {
            say!("\n{other}");
        }
        return ExitCode::SUCCESS;
    }
    let near = codes::all().map(|known| (distance(&known, code), known)).min();
    let near =
        near.filter(|(changes, _)| *changes < TYPING_ERRORS).map(|(_, near)| format!(" {near} is the nearest, and"));
    complain!("no code is called {code:?};{} holdfast explain shows all that there are", near.unwrap_or_default());
    ExitCode::from(exit::NOTHING)
}

/// The close codes that an entry leaves the explanation to, as in "As close 4100.".
fn referred(entry: &str) -> impl Iterator<Item = &str> {
    let lines = entry.lines().filter(|line| line.starts_with("As close"));
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_digit()));
    words.filter(|word| word.len() == 4)
}
