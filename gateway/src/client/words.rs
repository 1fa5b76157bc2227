//! The words of the command line that several commands share.

use super::asking::Address;
use crate::config::{settings::SETTINGS, value};
use clap::{Arg, ArgAction, builder::NonEmptyStringValueParser};
use std::time::Duration;

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
        .help("http://host:port of a gateway; the configured listener unless given")
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
