//! The command line: one command serves, the others look, or reach a client.

/// A line to standard output. Whoever reads it may have left, as `head` does; that is no failure.
macro_rules! say {
    ($($words:tt)*) => { $crate::client::line(&mut std::io::stdout().lock(), format_args!($($words)*)) };
}

/// The same to standard error.
macro_rules! complain {
    ($($words:tt)*) => { $crate::client::line(&mut std::io::stderr().lock(), format_args!($($words)*)) };
}

mod address;
mod asking;
mod bench;
mod call;
mod check;
mod completions;
mod connect;
mod data;
mod demo;
mod dial;
mod diff;
mod doctor;
mod drain;
mod events;
mod explain;
mod given;
mod healthcheck;
mod init;
mod instances;
mod interrupt;
mod keys;
mod man;
mod plane;
mod runtime;
mod send;
pub mod serve;
mod socket;
mod sockets;
mod sync;
mod table;
mod tail;
mod talk;
mod version;
mod why;
mod words;

use crate::config::sources::Environment;
use clap::Command;
use given::Given;
use std::{fmt, io::Write, process::ExitCode};

/// Exit codes, as the README and the help list them.
pub mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NOTHING: u8 = 3;
    pub const UNREACHABLE: u8 = 69;
    pub const CONFIGURATION: u8 = 78;
    /// pm2 takes 0 for what was killed, too, and would start again whom somebody has sent away.
    pub const LEFT: u8 = 79;
}

fn line(to: &mut dyn Write, words: fmt::Arguments<'_>) {
    let _ = writeln!(to, "{words}");
}

/// What a command is called and takes, and what it does.
struct Verb {
    words: fn() -> Command,
    run: fn(&Given<'_>) -> ExitCode,
}

/// In the order of the help.
const VERBS: &[Verb] = &[
    Verb { words: serve::command, run: serve::run },
    Verb { words: check::command, run: check::run },
    Verb { words: diff::command, run: diff::run },
    Verb { words: doctor::command, run: doctor::run },
    Verb { words: version::command, run: version::run },
    Verb { words: why::command, run: why::run },
    Verb { words: explain::command, run: explain::run },
    Verb { words: sockets::command, run: sockets::run },
    Verb { words: instances::command, run: instances::run },
    Verb { words: drain::command, run: drain::run },
    Verb { words: call::command, run: call::run },
    Verb { words: sync::command, run: sync::run },
    Verb { words: send::command, run: send::run },
    Verb { words: connect::command, run: connect::run },
    Verb { words: tail::command, run: tail::run },
    Verb { words: keys::command, run: keys::run },
    Verb { words: healthcheck::command, run: healthcheck::run },
    Verb { words: bench::command, run: bench::run },
    Verb { words: demo::command, run: demo::run },
    Verb { words: init::command, run: init::run },
    Verb { words: man::command, run: man::run },
    Verb { words: completions::command, run: completions::run },
];

/// Runs what the command line says.
pub fn run(arguments: impl IntoIterator<Item = String>, env: &Environment) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => error.exit(),
    };
    let (name, behind) = matches.subcommand().unwrap_or(("serve", &matches));
    let given = Given { before: &matches, behind, env };
    let verb = VERBS.iter().find(|verb| (verb.words)().get_name() == name);
    verb.map_or(ExitCode::from(exit::USAGE), |verb| (verb.run)(&given))
}

const MORE_HELP: &str = "\
Every setting is also an environment variable (WS_PING_INTERVAL, or HOLDFAST_WS_PING_INTERVAL) \
and a key of the file given by --config (ws_ping_interval).

Exit codes:
   0  stopped as asked, found, or answered
   1  failed while starting or running, refused by the gateway, or not answered
   2  wrong command line
   3  nothing was found: whoever is meant is not connected
  69  the gateway cannot be reached
  78  a setting is wrong
  79  drained by a command under pm2, which leaves it stopped (stop_exit_codes)";

fn command() -> Command {
    Command::new("holdfast")
        .about("A WebSocket gateway whose sockets can be reached by HTTP, and that says why when they cannot")
        .version(crate::gateway::VERSION)
        .after_help(MORE_HELP)
        .args(words::settings())
        .subcommands(VERBS.iter().map(|verb| (verb.words)()))
}
