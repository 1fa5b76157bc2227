//! The words of the command line that several commands share.

use super::{address::Address, asking::Failure, exit, given::Given};
use crate::config::{settings::SETTINGS, value};
use clap::{Arg, ArgAction, builder::NonEmptyStringValueParser};
use std::{fs, time::Duration};

/// Who can be meant: flag, member of the body, what it means.
pub const TARGETS: [(&str, &str, &str); 4] = [
    ("socket", "socketId", "This socket, by its id, as ws_…"),
    ("user", "userId", "This user"),
    ("store", "storeId", "This store"),
    ("room", "roomId", "Who is in this room"),
];

/// The settings that matter to whoever asks a gateway.
const TO_ASK_WITH: &[&str] = &["HOST", "PORT", "PROXY_PROTOCOL", "API_TOKEN", "ADMIN_TOKEN"];

pub const CALL_TIME: &str = "How long the client has, up to 10m [default: CALL_TIMEOUT]";

/// The longest that a gateway waits for anybody.
pub const WAIT_MAX: Duration = Duration::from_secs(600);

pub fn url() -> Arg {
    Arg::new("url")
        .long("url")
        .value_name("URL")
        .value_parser(|text: &str| text.parse::<Address>())
        .help("http://host:port of a gateway, or https://; the configured listener unless given")
}

pub fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON, for programs")
}

pub fn target_args<'a>(flags: &'a [&'a str]) -> impl Iterator<Item = Arg> + 'a {
    let named = TARGETS.iter().filter(|(flag, ..)| flags.contains(flag));
    named.map(|(flag, _, help)| {
        let word = if *flag == "socket" { "SOCKET" } else { "NAME" };
        Arg::new(*flag).long(*flag).value_name(word).value_parser(NonEmptyStringValueParser::new()).help(*help)
    })
}

pub fn event(help: &'static str) -> Arg {
    Arg::new("event").long("event").value_name("NAME").value_parser(NonEmptyStringValueParser::new()).help(help)
}

pub fn data(help: &'static str) -> Arg {
    Arg::new("data").long("data").value_name("JSON").allow_hyphen_values(true).help(help)
}

pub fn timeout(help: &'static str) -> Arg {
    let span = |text: &str| match value::duration(text) {
        Ok(span) if span.is_zero() || span > WAIT_MAX => Err("1ms to 10m can be waited".to_owned()),
        span => span,
    };
    Arg::new("timeout").long("timeout").value_name("DURATION").value_parser(span).help(help)
}

/// What a client shows of himself.
pub fn credentials() -> [Arg; 3] {
    let one = |name: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).value_name("SECRET");
        arg.value_parser(NonEmptyStringValueParser::new()).help(help)
    };
    [
        one("key", "An API key, or @FILE, which keeps it out of the history"),
        one("token", "A bearer token, such as a JSON Web Token, or @FILE"),
        one("cookie", "The application's session cookie, as name=value, or @FILE"),
    ]
}

/// A header, and what stands in it.
type Header = (&'static str, String);

/// What was given of them, each with the flag's name and the header that shows it. What is wrong with one is told
/// without it.
pub fn shown(given: &Given<'_>) -> Result<Vec<(&'static str, Header)>, Failure> {
    let mut shown = Vec::new();
    for (name, header, scheme) in
        [("key", "X-API-Key", ""), ("token", "Authorization", "Bearer "), ("cookie", "Cookie", "")]
    {
        let wrong = |why: String| Failure::new(exit::USAGE, format!("--{name}: {why}"));
        let Some(text) = given.text(name) else { continue };
        let text = match text.strip_prefix('@') {
            Some(file) => fs::read_to_string(file).map_err(|error| wrong(format!("{file} cannot be read: {error}")))?,
            None => text.to_owned(),
        };
        let text = text.trim();
        if text.is_empty() || text.contains(|c: char| c.is_control() || !c.is_ascii()) {
            return Err(wrong("it is empty, or holds what no header can carry".into()));
        }
        shown.push((name, (header, format!("{scheme}{text}"))));
    }
    Ok(shown)
}

pub fn origin() -> Arg {
    let one = |text: &str| match text.split_once("://") {
        Some(("http" | "https", host)) if !host.is_empty() && !host.contains(['/', ' ']) && text.is_ascii() => {
            Ok(text.to_owned())
        }
        _ => Err("write it as browsers do: https://app.example.com, without a path".to_owned()),
    };
    let help = "The page that will connect, as https://app.example.com";
    Arg::new("origin").long("origin").value_name("ORIGIN").value_parser(one).help(help)
}

pub fn insecure() -> Arg {
    let help = "Believe any certificate, also one that nobody has signed";
    Arg::new("insecure").long("insecure").action(ArgAction::SetTrue).help(help)
}

pub fn to_ask_with() -> impl Iterator<Item = Arg> {
    only(TO_ASK_WITH)
}

pub fn only(names: &'static [&'static str]) -> impl Iterator<Item = Arg> {
    settings().into_iter().filter(|arg| arg.get_id() == "CONFIG" || names.contains(&arg.get_id().as_str()))
}

pub fn settings() -> Vec<Arg> {
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
