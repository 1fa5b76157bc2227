//! The command line: one command serves, the others look, or reach a client.

/// A line to standard output. Whoever reads it may have left, as `head` does; that is no failure.
macro_rules! say {
    ($($words:tt)*) => { $crate::client::line(&mut std::io::stdout().lock(), format_args!($($words)*)) };
}

/// The same to standard error.
macro_rules! complain {
    ($($words:tt)*) => { $crate::client::line(&mut std::io::stderr().lock(), format_args!($($words)*)) };
}

mod asking;
mod call;
mod check;
mod data;
mod drain;
mod events;
mod healthcheck;
mod instances;
mod keys;
mod send;
pub mod serve;
mod sockets;
mod sync;
mod table;
mod version;
mod why;

use crate::config::{self, Reading, settings::SETTINGS, sources::Environment, value};
use asking::Address;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, builder::NonEmptyStringValueParser, value_parser};
use std::{collections::BTreeMap, fmt, io::Write, process::ExitCode, time::Duration};

/// Exit codes, as the README and the help list them.
pub mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
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
    let span = || given.get_one::<Duration>("timeout").copied();
    match name {
        "check" => check::run(&reading(), json()),
        "version" => version::run(json()),
        "healthcheck" => healthcheck::run(&reading(), url().or_else(|| given.get_one::<Address>("at"))),
        "why" => why::run(&reading(), url(), text("id").unwrap_or_default(), json()),
        "sockets" => {
            let narrowed = NARROWING.iter().filter_map(|(name, _)| Some((*name, text(name)?)));
            let limit = given.get_one::<u32>("limit").map_or(0, |limit| *limit as usize);
            sockets::run(&reading(), url(), &sockets::Wanted { narrowed: narrowed.collect(), limit }, json())
        }
        "instances" => instances::run(&reading(), url(), json()),
        "drain" => {
            let wanted = drain::Wanted {
                name: text("instance"),
                waits: given.get_flag("wait"),
                is_forced: given.get_flag("force"),
            };
            drain::run(&reading(), url(), &wanted, json())
        }
        "call" => {
            let wanted = call::Wanted {
                target: targets(given),
                event: text("event").unwrap_or_default(),
                data: text("data"),
                fallback: text("fallback"),
                when_offline: text("when-offline"),
                timeout: span(),
            };
            call::run(&reading(), url(), &wanted, json())
        }
        "sync" => {
            let kind = text("kind").unwrap_or_default();
            let wanted = sync::Wanted { kind, target: targets(given), data: text("data"), timeout: span() };
            sync::run(&reading(), url(), &wanted, json())
        }
        "send" => {
            let named = targets(given).into_iter().next().map(|(name, value)| (name, value.into()));
            let wanted = send::Wanted {
                target: named.unwrap_or(("all", true.into())),
                event: text("event"),
                data: text("data"),
                except: text("except"),
                timeout: span(),
            };
            send::run(&reading(), url(), &wanted, json())
        }
        "keys" => {
            let Some((verb, given)) = given.subcommand() else { return ExitCode::from(exit::USAGE) };
            let reading = read(&matches, given, env);
            let text = |name: &str| given.get_one::<String>(name).map_or("", String::as_str);
            let all = |name: &str| given.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect();
            let wanted = match verb {
                "add" => keys::Wanted::Add(keys::Added {
                    user: text("user"),
                    stores: all("store"),
                    rooms: all("room"),
                    scopes: all("scope"),
                    expires: given.get_one::<Duration>("expires").copied(),
                    is_imported: given.get_flag("import"),
                }),
                "revoke" => keys::Wanted::Revoke(text("id")),
                "rotate" => keys::Wanted::Rotate { id: text("id"), grace: given.get_one::<Duration>("grace").copied() },
                _ => keys::Wanted::List,
            };
            let as_json = given.try_get_one::<bool>("json").ok().flatten().copied().unwrap_or_default();
            keys::run(reading, &wanted, as_json)
        }
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

/// Who can be meant: flag, member of the body, what it means.
const TARGETS: [(&str, &str, &str); 4] = [
    ("socket", "socketId", "This socket, by its id, as ws_…"),
    ("user", "userId", "This user"),
    ("store", "storeId", "This store"),
    ("room", "roomId", "Who is in this room"),
];

/// The targets that are given, as the gateway reads them.
fn targets(given: &ArgMatches) -> Vec<(&'static str, &str)> {
    let value = |flag: &str| given.try_get_one::<String>(flag).ok().flatten();
    TARGETS.iter().filter_map(|(flag, member, _)| Some((*member, value(flag)?.as_str()))).collect()
}

/// The settings that matter to whoever asks a gateway.
const TO_ASK_WITH: &[&str] = &["HOST", "PORT", "PROXY_PROTOCOL", "API_TOKEN", "ADMIN_TOKEN"];

/// The settings that matter to whoever writes keys.
const TO_WRITE_KEYS_WITH: &[&str] = &["REDIS_URL", "NAMESPACE", "API_KEYS_FILE"];

const MORE_HELP: &str = "\
Every setting is also an environment variable (WS_PING_INTERVAL, or HOLDFAST_WS_PING_INTERVAL)
and a key of the file given by --config (ws_ping_interval).

Exit codes:
   0  stopped as asked, found, or answered
   1  failed while starting or running, refused by the gateway, or not answered
   2  wrong command line
   3  nothing was found: whoever is meant is not connected
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
                .args([url.clone(), json.clone()])
                .args(to_ask_with()),
        )
        .subcommand(
            Command::new("drain")
                .about("Have an instance part with its sockets one after the other, and stop")
                .after_help(DRAIN_HELP)
                .arg(
                    Arg::new("instance")
                        .value_name("NAME")
                        .value_parser(NonEmptyStringValueParser::new())
                        .help("The instance, as holdfast instances shows it; the one that is asked unless given"),
                )
                .arg(Arg::new("wait").long("wait").action(ArgAction::SetTrue).help("Return when it has left"))
                .arg(Arg::new("force").long("force").action(ArgAction::SetTrue).help("Also the last one that serves"))
                .args([url.clone(), json.clone()])
                .args(to_ask_with()),
        )
        .subcommand(
            Command::new("call")
                .about("Ask a client and show its answer; of a user or store its most recently active socket is asked")
                .after_help(CALL_HELP)
                .args(target_args(&["socket", "user", "store"]))
                .group(ArgGroup::new("target").args(["socket", "user", "store"]).required(true))
                .arg(event("What the page is asked to do: the type of its frame").required(true))
                .args([data("What is asked, as JSON, @FILE, or - for standard input"), timeout(CALL_TIME)])
                .arg(
                    Arg::new("fallback")
                        .long("fallback")
                        .value_name("WHO")
                        .value_parser(["none", "store", "user"])
                        .help("Who may be asked in place of a socket that is not reached [default: none]"),
                )
                .arg(
                    Arg::new("when-offline")
                        .long("when-offline")
                        .value_name("WHAT")
                        .value_parser(["fail", "wait", "queue"])
                        .help("Where nobody is there: say so, wait within the time for who comes, or keep the call [default: fail]"),
                )
                .args([url.clone(), json.clone()])
                .args(to_ask_with()),
        )
        .subcommand(
            Command::new("sync")
                .about("Ask a store's client to sync something and show its answer; if its socket is not there, another of the store")
                .after_help(SYNC_HELP)
                .arg(
                    Arg::new("kind")
                        .required(true)
                        .value_name("KIND")
                        .value_parser(NonEmptyStringValueParser::new())
                        .help("What to sync, such as orders: the page gets it as sync_orders"),
                )
                .args(target_args(&["socket", "store"]))
                .group(ArgGroup::new("target").args(["socket", "store"]).required(true).multiple(true))
                .args([data("More for the page: a JSON object, @FILE, or - for standard input"), timeout(CALL_TIME)])
                .args([url.clone(), json.clone()])
                .args(to_ask_with()),
        )
        .subcommand(
            Command::new("send")
                .about("Write to sockets, wherever they are, and say how many took it; exit 3 when nobody is there")
                .after_help(SEND_HELP)
                .args(target_args(&["socket", "user", "store", "room"]))
                .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("Every socket"))
                .group(ArgGroup::new("target").args(["socket", "user", "store", "room", "all"]).required(true))
                .arg(event("The type of the frame [default: message]"))
                .arg(data("What is sent, as JSON, @FILE, or - for standard input"))
                .arg(
                    Arg::new("except")
                        .long("except")
                        .value_name("SOCKET")
                        .value_parser(NonEmptyStringValueParser::new())
                        .help("A socket that does not get it"),
                )
                .arg(timeout("How long the instances have to say that it was taken [default: 5s]"))
                .args([url.clone(), json.clone()])
                .args(to_ask_with()),
        )
        .subcommand(keys(&json))
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

const DRAIN_HELP: &str = "\
Example:
  holdfast drain web1 --wait --url http://web2:8080

Any instance can be asked. One that watches its own drain can say only that it does not listen any more; ask another
one to hear that it is gone. What happens on the way goes to standard error.

Exit codes: 0 it drains, or has left, 1 it is the last or has not left in time, 3 there is none of that name,
69 the gateway cannot be reached";

const CALL_TIME: &str = "How long the client has, up to 10m [default: CALL_TIMEOUT]";

const CALL_HELP: &str = "\
Example:
  holdfast call --user test123 --event ask --data '{\"question\":\"ready?\"}'

The result goes to standard output. What the client says on its way to it goes to standard error.

Exit codes: 0 answered, 1 not answered or failed, 3 nobody is there, 69 the gateway cannot be reached";

const SYNC_HELP: &str = "\
Example:
  holdfast sync orders --store meonutrition --data '{\"since\":\"2026-01-01\"}'

The result goes to standard output. What the client says on its way to it goes to standard error.

Exit codes: 0 answered, 1 not answered or failed, 3 nobody is there, 69 the gateway cannot be reached";

const SEND_HELP: &str = "\
Example:
  holdfast send --room lobby --event news --data '{\"hello\":\"world\"}'

Exit codes: 0 taken by all, 1 not by all, 3 nobody is there, 69 the gateway cannot be reached";

/// The longest that a gateway waits for anybody.
const WAIT_MAX: Duration = Duration::from_secs(600);

fn target_args<'a>(flags: &'a [&'a str]) -> impl Iterator<Item = Arg> + 'a {
    let named = TARGETS.iter().filter(|(flag, ..)| flags.contains(flag));
    named.map(|(flag, _, help)| {
        let word = if *flag == "socket" { "SOCKET" } else { "NAME" };
        Arg::new(*flag).long(*flag).value_name(word).value_parser(NonEmptyStringValueParser::new()).help(*help)
    })
}

fn event(help: &'static str) -> Arg {
    Arg::new("event").long("event").value_name("NAME").value_parser(NonEmptyStringValueParser::new()).help(help)
}

fn data(help: &'static str) -> Arg {
    Arg::new("data").long("data").value_name("JSON").allow_hyphen_values(true).help(help)
}

fn timeout(help: &'static str) -> Arg {
    let span = |text: &str| match value::duration(text) {
        Ok(span) if span.is_zero() || span > WAIT_MAX => Err("1ms to 10m can be waited".to_owned()),
        span => span,
    };
    Arg::new("timeout").long("timeout").value_name("DURATION").value_parser(span).help(help)
}

fn to_ask_with() -> impl Iterator<Item = Arg> {
    only(TO_ASK_WITH)
}

fn only(names: &'static [&'static str]) -> impl Iterator<Item = Arg> {
    settings().into_iter().filter(|arg| arg.get_id() == "CONFIG" || names.contains(&arg.get_id().as_str()))
}

/// `holdfast keys`.
fn keys(json: &Arg) -> Command {
    let many = |name: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).value_name("NAME").action(ArgAction::Append);
        arg.value_parser(NonEmptyStringValueParser::new()).help(help)
    };
    let span = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("DURATION").value_parser(value::duration).help(help)
    };
    let id = Arg::new("id").value_name("ID").required(true).help("The key's id, or the beginning of it");
    let scopes = ["connect", "call", "admin"];
    let verb = |name: &'static str, about: &'static str| Command::new(name).about(about).args(only(TO_WRITE_KEYS_WITH));
    Command::new("keys")
        .about("Add, list, revoke and rotate API keys")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            verb("add", "Make a key; it is printed once, and only its hash is kept")
                .arg(many("user", "Who it stands for").required(true).action(ArgAction::Set))
                .arg(many("store", "A store that it may select; may repeat"))
                .arg(many("room", "A room that it may enter; may repeat; any if none is named"))
                .arg(
                    many("scope", "connect (unless said), call, admin; may repeat")
                        .value_name("SCOPE")
                        .value_parser(scopes),
                )
                .arg(span("expires", "How long it counts, such as 30d; for ever if it is not said"))
                .arg(
                    Arg::new("import")
                        .long("import")
                        .action(ArgAction::SetTrue)
                        .help("Take a key that was made elsewhere (hf_… or nk_…), from standard input"),
                )
                .arg(json.clone()),
        )
        .subcommand(verb("list", "The keys that there are, by their ids").arg(json.clone()))
        .subcommand(verb("revoke", "Take a key back; its sockets are closed within a second").arg(id.clone()))
        .subcommand(
            verb("rotate", "Make a successor of a key, and let the old one count a while longer")
                .arg(id)
                .arg(span("grace", "How long the old one counts still [default: 1d]"))
                .arg(json.clone()),
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
