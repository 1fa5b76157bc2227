//! The command line: one command serves, the others look.

/// A line to standard output. Whoever reads it may have left, as `head` does; that is no failure.
macro_rules! say {
    ($($words:tt)*) => { $crate::client::line(&mut std::io::stdout().lock(), format_args!($($words)*)) };
}

/// The same to standard error.
macro_rules! complain {
    ($($words:tt)*) => { $crate::client::line(&mut std::io::stderr().lock(), format_args!($($words)*)) };
}

mod check;
mod healthcheck;
pub mod serve;
mod version;

use crate::config::{self, Reading, settings::SETTINGS, sources::Environment};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::{collections::BTreeMap, fmt, io::Write, process::ExitCode};

/// Exit codes, as the README lists them.
pub mod exit {
    pub const FAILED: u8 = 1;
    pub const UNREACHABLE: u8 = 69;
    pub const CONFIGURATION: u8 = 78;
}

fn line(to: &mut dyn Write, words: fmt::Arguments<'_>) {
    let _ = writeln!(to, "{words}");
}

/// Runs what the command line says.
pub fn run(arguments: impl IntoIterator<Item = String>, env: &Environment) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => error.exit(),
    };
    let (name, given) = matches.subcommand().unwrap_or(("serve", &matches));
    let reading = || read(&matches, given, env);
    match name {
        "check" => check::run(&reading(), given.get_flag("json")),
        "version" => version::run(given.get_flag("json")),
        "healthcheck" => healthcheck::run(&reading(), given.get_one::<String>("url").map(String::as_str)),
        _ => serve::run(reading(), || read(&matches, given, env), env),
    }
}

fn command() -> Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON, for programs");
    Command::new("holdfast")
        .about("A WebSocket gateway whose sockets can be reached by HTTP, and that says why when they cannot")
        .version(crate::gateway::VERSION)
        .after_help("Every setting is also an environment variable (WS_PING_INTERVAL, or HOLDFAST_WS_PING_INTERVAL)\nand a key of the file given by --config (ws_ping_interval).")
        .args(settings())
        .subcommand(Command::new("serve").about("Serve; what holdfast does without a command").args(settings()))
        .subcommand(
            Command::new("check")
                .about("Show the configuration in force, where each value comes from, and every problem")
                .arg(json.clone())
                .args(settings()),
        )
        .subcommand(Command::new("version").about("Show the version").arg(json))
        .subcommand(
            Command::new("healthcheck")
                .about("Ask a running gateway whether it lives; exit 0, or 69 when it cannot be reached")
                .arg(Arg::new("url").help("http://host:port; the configured listener unless given"))
                .args(settings()),
        )
}

fn settings() -> Vec<Arg> {
    let flags = SETTINGS.iter().map(|setting| {
        let shown = setting.default_shown();
        Arg::new(setting.name)
            .long(setting.flag())
            .value_name(setting.kind.word())
            .help(format!("{} [default: {shown}]", setting.meaning))
            .hide_default_value(true)
    });
    let file = Arg::new("CONFIG").long("config").value_name("FILE").help("A TOML file with settings");
    std::iter::once(file).chain(flags).collect()
}

/// Flags may stand before or behind the command; the nearer one counts.
fn read(outer: &ArgMatches, inner: &ArgMatches, env: &Environment) -> Reading {
    let flag = |name: &str| {
        let of = |matches: &ArgMatches| matches.try_get_one::<String>(name).ok().flatten().cloned();
        of(inner).or_else(|| of(outer))
    };
    let flags: BTreeMap<_, _> =
        SETTINGS.iter().filter_map(|setting| Some((setting.name.to_owned(), flag(setting.name)?))).collect();
    config::read(&flags, flag("CONFIG").as_deref(), env)
}
