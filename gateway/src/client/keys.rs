//! `holdfast keys`: adds, lists, revokes and rotates API keys, where the gateway looks for them: in API_KEYS_FILE, or in
//! Redis.

use super::{
    asking::{Failure, ended, printable},
    exit,
};
use crate::{
    auth::{
        self,
        book::{self, Source},
        key::{self, ApiKey, Digest, Scope},
    },
    config::{Config, Reading},
    gateway,
};
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

/// What is to be done.
pub enum Wanted<'a> {
    Add(Added<'a>),
    List,
    Revoke(&'a str),
    Rotate { id: &'a str, grace: Option<Duration> },
}

/// A new key.
pub struct Added<'a> {
    pub user: &'a str,
    pub stores: Vec<&'a str>,
    pub rooms: Vec<&'a str>,
    pub scopes: Vec<&'a str>,
    pub expires: Option<Duration>,
    /// It was made elsewhere, and is read from standard input.
    pub is_imported: bool,
}

pub fn run(reading: Reading, wanted: &Wanted<'_>, as_json: bool) -> ExitCode {
    ended(go(reading, wanted, as_json))
}

fn go(reading: Reading, wanted: &Wanted<'_>, as_json: bool) -> Result<(), Failure> {
    let config = reading.config.map_err(|faults| Failure {
        code: exit::CONFIGURATION,
        sentences: faults.iter().map(ToString::to_string).collect(),
    })?;
    let failed = |error: std::io::Error| Failure::new(exit::FAILED, error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let source = source(&config).await?;
        match wanted {
            Wanted::Add(added) => add(&source, added, as_json).await,
            Wanted::List => list(&source, as_json).await,
            Wanted::Revoke(id) => revoke(&source, id).await,
            Wanted::Rotate { id, grace } => rotate(&source, id, grace.unwrap_or(GRACE), as_json).await,
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
        canary: false,
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

async fn add(source: &Source, added: &Added<'_>, as_json: bool) -> Result<(), Failure> {
    let usage = |name: &str, why: String| Failure::new(exit::USAGE, format!("--{name}: {why}"));
    let user = auth::somebody(added.user).map_err(|fault| usage("user", fault))?;
    let stores = added.stores.iter().map(|store| StoreName::parse(store)).collect::<Result<Vec<_>, _>>();
    let rooms = added.rooms.iter().map(|room| RoomName::parse(room)).collect::<Result<Vec<_>, _>>();
    let rooms = rooms.map_err(|fault| usage("room", fault.to_string()))?;
    let mut scopes: Vec<_> = added.scopes.iter().filter_map(|word| Scope::parse(word)).collect();
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
        expires_at: added.expires.map(|after| later(now, after)),
    };
    let shown = if added.is_imported { given()? } else { key::fresh() };
    let digest = Digest::of(&shown);
    let known = source.list().await.map_err(failure)?;
    if known.iter().any(|(other, _)| *other == digest) {
        return Err(failure(format!("this key is there already, as {}; revoke it first", digest.id())));
    }
    source.write(digest, None, Some(&written)).await.map_err(failure)?;
    let new = Some(shown.as_str()).filter(|_| !added.is_imported);
    show(digest, &written, new, as_json);
    Ok(())
}

/// A key that was made elsewhere. It is not taken from the command line, where others could read it.
fn given() -> Result<String, Failure> {
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
