//! `holdfast keys`: adds, lists, revokes and rotates API keys, where the gateway looks for them: in API_KEYS_FILE, or in
//! Redis.

use super::{
    asking::{Failure, ended, printable},
    exit,
    given::Given,
    runtime,
    words::{json as as_json, only},
};
use crate::{
    auth::{
        self,
        book::{self, Source},
        key::{self, ApiKey, Digest, Scope},
    },
    config::{Config, value},
    gateway,
};
use clap::{Arg, ArgAction, Command, builder::NonEmptyStringValueParser};
use registry::{About, Registry, RoomName, StoreName, epoch_ms};
use serde_json::{Value, json};
use std::{
    io::Read,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

/// How long a key that is rotated counts beside the new one, unless it is said.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The first millisecond of the year 10000.
const FAR: u64 = 253_402_300_800_000;
/// What is read of a key from standard input.
const KEY_BYTES_MAX: u64 = 4096;

/// The settings that matter to whoever writes keys.
const TO_WRITE_KEYS_WITH: &[&str] = &["REDIS_URL", "NAMESPACE", "API_KEYS_FILE"];

pub fn command() -> Command {
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
                .arg(as_json()),
        )
        .subcommand(verb("list", "The keys that there are, by their ids").arg(as_json()))
        .subcommand(verb("revoke", "Take a key back; its sockets are closed within a second").arg(id.clone()))
        .subcommand(
            verb("rotate", "Make a successor of a key, and let the old one count a while longer")
                .arg(id)
                .arg(span("grace", "How long the old one counts still [default: 1d]"))
                .arg(as_json()),
        )
}

pub fn run(given: &Given<'_>) -> ExitCode {
    let Some((verb, behind)) = given.behind.subcommand() else { return ExitCode::from(exit::USAGE) };
    ended(go(verb, &Given { before: given.behind, behind, ..*given }))
}

fn go(verb: &str, given: &Given<'_>) -> Result<(), Failure> {
    let config = given.reading().config.map_err(|faults| Failure {
        code: exit::CONFIGURATION,
        sentences: faults.iter().map(ToString::to_string).collect(),
    })?;
    runtime::run(async {
        let source = source(&config).await?;
        let (id, as_json) = (given.text("id").unwrap_or_default(), given.as_json());
        match verb {
            "add" => add(&source, given).await,
            "revoke" => revoke(&source, id).await,
            "rotate" => rotate(&source, id, given.span("grace").unwrap_or(GRACE), as_json).await,
            _ => list(&source, as_json).await,
        }
    })
}

async fn source(config: &Config) -> Result<Source, Failure> {
    if let Some(path) = &config.api_keys_file {
        return Ok(Source::File(path.clone()));
    }
    let Some(url) = config.redis.clone() else {
        return Err(Failure::new(
            exit::CONFIGURATION,
            "there is no place for keys: set API_KEYS_FILE or REDIS_URL to what the gateway has",
        ));
    };
    let about = About {
        instance: "keys".to_owned(),
        version: gateway::VERSION.to_owned(),
        pid: std::process::id(),
        started_at: epoch_ms(),
        ..About::default()
    };
    let settings = registry::Settings {
        url,
        namespace: config.namespace.clone(),
        why_ttl: config.why_ttl,
        secrets: config.resume_secrets.clone(),
    };
    let (registry, _) = Registry::on_redis(settings, about);
    registry.open().await.map_err(|unusable| Failure::new(exit::FAILED, unusable.to_string()))?;
    Ok(Source::Registry(registry))
}

fn failure(why: String) -> Failure {
    Failure::new(exit::FAILED, why)
}

async fn add(source: &Source, given: &Given<'_>) -> Result<(), Failure> {
    let usage = |name: &str, why: String| Failure::new(exit::USAGE, format!("--{name}: {why}"));
    let user = auth::somebody(given.text("user").unwrap_or_default()).map_err(|fault| usage("user", fault))?;
    let stores = given.all("store").into_iter().map(StoreName::parse).collect::<Result<Vec<_>, _>>();
    let rooms = given.all("room").into_iter().map(RoomName::parse).collect::<Result<Vec<_>, _>>();
    let rooms = rooms.map_err(|fault| usage("room", fault.to_string()))?;
    let mut scopes: Vec<_> = given.all("scope").into_iter().filter_map(Scope::parse).collect();
    if scopes.is_empty() {
        scopes.push(Scope::Connect);
    }
    let now = epoch_ms();
    let written = ApiKey {
        user,
        stores: stores.map_err(|fault| usage("store", fault.to_string()))?,
        rooms: Some(rooms).filter(|rooms| !rooms.is_empty()),
        scopes,
        created_at: now,
        expires_at: given.span("expires").map(|after| later(now, after)),
    };
    let is_imported = given.is_set("import");
    let shown = if is_imported { imported()? } else { key::fresh() };
    let digest = Digest::of(&shown);
    let known = source.list().await.map_err(failure)?;
    if known.iter().any(|(other, _)| *other == digest) {
        return Err(failure(format!("this key is there already, as {}; revoke it first", digest.id())));
    }
    source.write(digest, None, Some(&written)).await.map_err(failure)?;
    let new = Some(shown.as_str()).filter(|_| !is_imported);
    show(digest, &written, new, given.as_json());
    Ok(())
}

/// A key that was made elsewhere. It is not taken from the command line, where others could read it.
fn imported() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(KEY_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| failure(format!("the key could not be read from standard input: {error}")))?;
    let text = text.trim();
    key::check(text).map_err(|why| Failure::new(exit::USAGE, why))?;
    Ok(text.to_owned())
}

fn later(now: u64, after: Duration) -> u64 {
    now.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
}

async fn list(source: &Source, as_json: bool) -> Result<(), Failure> {
    let keys = source.list().await.map_err(failure)?;
    if as_json {
        let all: Vec<_> = keys.iter().map(|(digest, key)| described(*digest, key)).collect();
        say!("{}", json!({ "keys": all }));
        return Ok(());
    }
    if keys.is_empty() {
        return Err(Failure::new(exit::NOTHING, "there are no keys; holdfast keys add --user NAME makes one"));
    }
    for (digest, key) in &keys {
        say!("{}", line(*digest, key));
    }
    Ok(())
}

async fn revoke(source: &Source, id: &str) -> Result<(), Failure> {
    let keys = source.list().await.map_err(failure)?;
    let (digest, key) = book::named(&keys, id).map_err(|why| Failure::new(exit::NOTHING, why))?;
    source.write(*digest, Some(key), None).await.map_err(failure)?;
    say!(
        "{} of {} is revoked; its sockets are closed with 4401 within a second",
        digest.id(),
        printable(key.user.as_str())
    );
    Ok(())
}

async fn rotate(source: &Source, id: &str, grace: Duration, as_json: bool) -> Result<(), Failure> {
    let keys = source.list().await.map_err(failure)?;
    let (digest, key) = book::named(&keys, id).map_err(|why| Failure::new(exit::NOTHING, why))?;
    let now = epoch_ms();
    // The new one first: whatever happens in between, one of them counts.
    let fresh = key::fresh();
    // It lasts as long as the old one did; of one that was written by hand nobody knows how long that was.
    let lifetime = key.expires_at.map(|until| match key.created_at {
        0 => until,
        made => now.saturating_add(until.saturating_sub(made)),
    });
    let successor = ApiKey { created_at: now, expires_at: lifetime, ..key.clone() };
    source.write(Digest::of(&fresh), None, Some(&successor)).await.map_err(failure)?;
    let until = later(now, grace).min(key.expires_at.unwrap_or(u64::MAX));
    let ends = ApiKey { expires_at: Some(until), ..key.clone() };
    if let Err(why) = source.write(*digest, Some(key), Some(&ends)).await {
        // The new one is not left behind: nobody was told it.
        let _ = source.write(Digest::of(&fresh), Some(&successor), None).await;
        return Err(failure(why));
    }
    show(Digest::of(&fresh), &successor, Some(&fresh), as_json);
    if !as_json {
        say!("{} counts until {}", digest.id(), time(until));
    }
    Ok(())
}

/// A key that is new is shown once, and never again.
fn show(digest: Digest, key: &ApiKey, new: Option<&str>, as_json: bool) {
    if as_json {
        let mut said = described(digest, key);
        if let Some(new) = new {
            said["key"] = new.into();
        }
        return say!("{said}");
    }
    if let Some(new) = new {
        say!("{new}");
        complain!("this is the key; it is shown this once, and only its hash is kept");
    }
    complain!("{}", line(digest, key));
}

fn described(digest: Digest, key: &ApiKey) -> Value {
    let mut said = key.write();
    said["id"] = digest.id().into();
    said
}

fn line(digest: Digest, key: &ApiKey) -> String {
    let list = |names: Vec<&str>| names.join(",");
    let stores = list(key.stores.iter().map(StoreName::as_str).collect());
    let rooms = key.rooms.as_ref().map_or("any".into(), |rooms| list(rooms.iter().map(RoomName::as_str).collect()));
    let scopes = list(key.scopes.iter().map(|scope| scope.as_str()).collect());
    let until = key.expires_at.map_or("never".to_owned(), time);
    let stores = if stores.is_empty() { "none" } else { &stores };
    printable(&format!(
        "{}  user {}  stores {stores}  rooms {rooms}  scopes {scopes}  expires {until}",
        digest.id(),
        key.user
    ))
}

fn time(ms: u64) -> String {
    // Beyond the year 9999 it has no form that people read.
    match ms {
        0..FAR => humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
        _ => "never".to_owned(),
    }
}
