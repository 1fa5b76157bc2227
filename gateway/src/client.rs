//! The command line: one command serves, the others look.

/// A line to standard output. Whoever reads it may have left, as `head` does; that is no failure.
macro_rules! say {
    ($($words:tt)*) => { $crate::client::line(&mut std::io::stdout().lock(), format_args!($($words)*)) };
}

/// The same to standard error.
macro_rules! complain {
    ($($words:tt)*) => { $crate::client::line(&mut std::io::stderr().lock(), format_args!($($words)*)) };
}

mod asking;
mod check;
mod healthcheck;
mod instances;
pub mod serve;
mod sockets;
mod table;
mod version;
mod why;

use crate::config::{self, Reading, settings::SETTINGS, sources::Environment};
use asking::Address;
use clap::{Arg, ArgAction, ArgMatches, Command, builder::NonEmptyStringValueParser, value_parser};
use sockets::Wanted;
use std::{collections::BTreeMap, fmt, io::Write, process::ExitCode};

/// Exit codes, as the README and the help list them; 2 for a wrong command line is clap's.
pub mod exit {
    pub const FAILED: u8 = 1;
    pub const NOTHING: u8 = 3;
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
    let url = || given.get_one::<Address>("url");
    let text = |name: &str| given.get_one::<String>(name).map(String::as_str);
    let json = || given.get_flag("json");
    match name {
        "check" => check::run(&reading(), json()),
        "version" => version::run(json()),
        "healthcheck" => healthcheck::run(&reading(), url().or_else(|| given.get_one::<Address>("at"))),
        "why" => why::run(&reading(), url(), text("id").unwrap_or_default(), json()),
        "sockets" => {
            let narrowed = NARROWING.iter().filter_map(|(name, _)| Some((*name, text(name)?)));
            let limit = given.get_one::<u32>("limit").map_or(0, |limit| *limit as usize);
            sockets::run(&reading(), url(), &Wanted { narrowed: narrowed.collect(), limit }, json())
        }
        "instances" => instances::run(&reading(), url(), json()),
        _ => serve::run(reading(), || read(&matches, given, env), env),
    }
}

/// What `holdfast sockets` can be narrowed to: flag and query parameter alike.
const NARROWING: &[(&str, &str)] = &[
    ("store", "Only those of this store"),
    ("user", "Only those of this user"),
    ("room", "Only those in this room"),
    ("instance", "Only those on this instance"),
];

/// The settings that matter to whoever asks a gateway.
const TO_ASK_WITH: &[&str] = &["HOST", "PORT", "API_TOKEN", "ADMIN_TOKEN"];

const MORE_HELP: &str = "\
Every setting is also an environment variable (WS_PING_INTERVAL, or HOLDFAST_WS_PING_INTERVAL)
and a key of the file given by --config (ws_ping_interval).

Exit codes:
   0  stopped as asked, or found
   1  failed while starting or running, or refused by the gateway
   2  wrong command line
   3  nothing was found: the socket is not connected
  69  the gateway cannot be reached
  78  a setting is wrong";

fn command() -> Command {
    let url = Arg::new("url")
        .long("url")
        .value_name("URL")
        .value_parser(|text: &str| text.parse::<Address>())
        .help("http://host:port of a gateway; the configured listener unless given");
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON, for programs");
    Command::new("holdfast")
        .about("A WebSocket gateway whose sockets can be reached by HTTP, and that says why when they cannot")
        .version(crate::gateway::VERSION)
        .after_help(MORE_HELP)
        .args(settings())
        .subcommand(Command::new("serve").about("Serve; what holdfast does without a command").args(settings()))
        .subcommand(
            Command::new("check")
                .about("Show the configuration in force, where each value comes from, and every problem")
                .arg(json.clone())
                .args(settings()),
        )
        .subcommand(Command::new("version").about("Show the version").arg(json.clone()))
        .subcommand(
            Command::new("why")
                .about("Say where a socket is, or what became of it; exit 3 when it is not connected")
                .arg(
                    Arg::new("id")
                        .required(true)
                        .value_name("SOCKET")
                        .value_parser(NonEmptyStringValueParser::new())
                        .help("Its id, as ws_…; any text may be asked about"),
                )
                .args([url.clone(), json.clone()])
                .args(to_ask_with()),
        )
        .subcommand(
            Command::new("sockets")
                .about("Show who is connected, in the whole fleet; exit 3 when nobody is")
                .args(NARROWING.iter().map(|(name, help)| Arg::new(*name).long(*name).value_name("NAME").help(*help)))
                .arg(
                    Arg::new("limit")
                        .long("limit")
                        .value_name("NUMBER")
                        .default_value("1000")
                        .value_parser(value_parser!(u32).range(1..))
                        .help("How many at most"),
                )
                .args([url.clone(), json.clone()])
                .args(to_ask_with()),
        )
        .subcommand(
            Command::new("instances")
                .about("Show the instances of the fleet")
                .args([url.clone(), json])
                .args(to_ask_with()),
        )
        .subcommand(
            Command::new("healthcheck")
                .about("Ask a running gateway whether it lives; exit 0, or 69 when it cannot be reached")
                .arg(
                    Arg::new("at")
                        .value_name("URL")
                        .value_parser(|text: &str| text.parse::<Address>())
                        .help("As --url"),
                )
                .arg(url.conflicts_with("at"))
                .args(settings()),
        )
}

fn to_ask_with() -> impl Iterator<Item = Arg> {
    settings().into_iter().filter(|arg| arg.get_id() == "CONFIG" || TO_ASK_WITH.contains(&arg.get_id().as_str()))
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
