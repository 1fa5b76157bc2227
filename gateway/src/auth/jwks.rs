//! The keys of `JWKS_URL`: a document elsewhere, which is fetched beside the requests, stays in force while its place does
//! not answer, and is asked for anew when a token names a key that it did not have.

use super::{
    jwt::keys::{Key, KeySet, read_set},
    key::Digest,
};
use crate::{
    metrics::Metrics,
    upstream::{Bounds, Endpoint, Question, Upstream},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{error, info, warn};

/// How long a document is good for that does not say it.
const AGE: Duration = Duration::from_secs(600);
/// Whatever it says: not so short that its place is asked all the time, nor so long that a key which was withdrawn counts
/// for more than a day.
const AGE_MIN: Duration = Duration::from_secs(60);
const AGE_MAX: Duration = Duration::from_secs(86_400);
/// It is fetched again when so much of its age is over, or a little earlier.
const REFRESH: f64 = 0.9;

/// Between two fetches that tokens ask for. A storm of keys that nobody knows costs its place one in this time.
const FLOOR: Duration = Duration::from_secs(30);
/// Until a fetch that failed is tried again: first, and at most.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = FLOOR;

/// One fetch, at most.
const FETCH: Duration = Duration::from_secs(5);
/// How long whoever needs it waits for its end.
const WAIT: Duration = Duration::from_secs(6);
/// A hundred keys, each with a chain of certificates, which nobody looks at.
const DOCUMENT_BYTES_MAX: usize = 512 << 10;

/// How long keys count beyond the age of their document while its place does not answer. An outage must not lock
/// everybody out; but a key that was withdrawn, since it was stolen, must not count for ever because we cannot hear of it.
const BEYOND: Duration = Duration::from_secs(86_400);

type Keys = Arc<Vec<Key>>;

/// A document, as it came.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub body: Vec<u8>,
    /// How long it is good for, as its place says it.
    pub max_age: Option<Duration>,
}

/// Where the set is published.
pub fn place(endpoint: Endpoint, metrics: Arc<Metrics>) -> Result<Upstream, &'static str> {
    let bounds = Bounds { within: FETCH, answer_bytes_max: DOCUMENT_BYTES_MAX };
    Upstream::new("jwks", endpoint, bounds, metrics)
}

/// Reads it there; the error is for the log.
pub async fn fetch(place: &Upstream) -> Result<Fetched, String> {
    let answer = place.ask(Question::get()).await.map_err(|fault| fault.to_string())?;
    match answer.status {
        200 => Ok(Fetched { max_age: answer.header("cache-control").and_then(max_age), body: answer.body.into() }),
        300..=399 => Err("it points elsewhere, where nobody looks; set JWKS_URL to the new address".into()),
        status => Err(format!("it answered {status}")),
    }
}

/// Of `Cache-Control`.
fn max_age(text: &str) -> Option<Duration> {
    let seconds = text.split(',').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| value.trim().trim_matches('"').parse().ok())
    });
    seconds.flatten().map(Duration::from_secs)
}

/// The set, as far as it is known.
pub struct Jwks {
    standing: watch::Sender<Standing>,
}

/// What those who hold tokens against the set look at.
struct Standing {
    keys: Keys,
    /// Nobody can say what the set holds now: its place did not answer, or has not yet.
    is_blind: bool,
    /// A fetch is under way, or about to be.
    is_running: bool,
    /// Fetches that have come to their end, of either kind.
    ended: u64,
    /// From then on a token may ask for another.
    ask_from: Instant,
}

impl Default for Jwks {
    /// Nothing is known, and the first fetch is about to be: whoever comes before its end waits for it.
    fn default() -> Self {
        let ask_from = Instant::now();
        let standing = Standing { keys: Arc::default(), is_blind: true, is_running: true, ended: 0, ask_from };
        Self { standing: watch::Sender::new(standing) }
    }
}

impl Jwks {
    pub fn keys(&self) -> Keys {
        self.standing.borrow().keys.clone()
    }

    pub fn is_blind(&self) -> bool {
        self.standing.borrow().is_blind
    }

    /// Has the set fetched for a token whose key is not known, and waits for the end. All who come meanwhile wait for the
    /// same one; who comes when that was done a moment ago waits for nothing.
    pub async fn ask(&self) {
        let mut watched = self.standing.subscribe();
        let (now, mut seen) = (Instant::now(), None);
        self.standing.send_if_modified(|standing| {
            let begins = !standing.is_running && standing.ask_from <= now;
            if begins {
                standing.is_running = true;
                standing.ask_from = now + FLOOR;
            }
            seen = standing.is_running.then_some(standing.ended);
            begins
        });
        if let Some(seen) = seen {
            // In time or not: the token is held against what is known then.
            let _ = timeout(WAIT, watched.wait_for(|standing| standing.ended != seen)).await;
        }
    }

    /// Has it fetched now, whatever was done before.
    pub fn hurry(&self) {
        self.standing.send_if_modified(|standing| !std::mem::replace(&mut standing.is_running, true));
    }

    /// Keeps the set, for as long as it is asked to.
    pub async fn keep<F>(&self, metrics: &Metrics, fetch: impl Fn() -> F)
    where
        F: Future<Output = Result<Fetched, String>>,
    {
        let (mut watched, mut record) = (self.standing.subscribe(), Record::default());
        loop {
            self.standing.send_if_modified(|standing| {
                standing.is_running = true;
                false
            });
            let fetched = match timeout(FETCH, fetch()).await {
                Ok(fetched) => fetched,
                Err(_) => Err(format!("it has not answered within {} s", FETCH.as_secs())),
            };
            let (changed, rest) = record.take(fetched, Instant::now());
            let is_blind = record.failures > 0;
            metrics.jwks_fetched(if is_blind { "failed" } else { "answered" });
            self.standing.send_modify(|standing| {
                standing.keys = changed.unwrap_or_else(|| standing.keys.clone());
                standing.is_blind = is_blind;
                standing.is_running = false;
                standing.ended += 1;
            });
            // Whichever comes first: its time, or a token that asks.
            let _ = timeout(rest, watched.wait_for(|standing| standing.is_running)).await;
        }
    }
}

/// What is remembered from fetch to fetch.
#[derive(Default)]
struct Record {
    /// The document whose keys are in force, and from when on they are no more.
    held: Option<(Digest, Instant)>,
    /// Since the last fetch that did not fail.
    failures: u32,
}

impl Record {
    /// What a fetch brought: the keys, if they are others now, and when the next is due.
    fn take(&mut self, fetched: Result<Fetched, String>, now: Instant) -> (Option<Keys>, Duration) {
        // Instances that were started together do not ask together.
        let early = fastrand::f64() / 10.0;
        match fetched.and_then(|fetched| self.read(&fetched, now)) {
            Ok((changed, age)) => {
                if self.failures > 0 {
                    info!("JWKS_URL answers again");
                }
                self.failures = 0;
                (changed, age.mul_f64(REFRESH - early))
            }
            Err(why) => {
                let doubled = AGAIN_MIN * 2_u32.saturating_pow(self.failures);
                (self.fail(&why, now), doubled.min(AGAIN_MAX).mul_f64(1.0 - early))
            }
        }
    }

    /// A key that the new document does not have opens nothing any more.
    fn read(&mut self, fetched: &Fetched, now: Instant) -> Result<(Option<Keys>, Duration), String> {
        let age = fetched.max_age.unwrap_or(AGE).clamp(AGE_MIN, AGE_MAX);
        let document = Digest::of_bytes(&fetched.body);
        let is_known = self.held.is_some_and(|(held, _)| held == document);
        let set = if is_known { None } else { Some(read_set(&fetched.body)?) };
        self.held = Some((document, now + age + BEYOND));
        Ok((set.map(announce), age))
    }

    /// Told once when it begins, and once when what was known counts no more.
    fn fail(&mut self, why: &str, now: Instant) -> Option<Keys> {
        self.failures = self.failures.saturating_add(1);
        match self.held {
            Some((_, until)) if until <= now => {
                error!(
                    "JWKS_URL could not be read for too long: its keys count no more, and its tokens get 503: {why}"
                );
                self.held = None;
                return Some(Arc::default());
            }
            Some((_, until)) if self.failures == 1 => {
                let hours = (until - now).as_secs() / 3600;
                warn!("JWKS_URL cannot be read, and its keys stay in force for {hours} hours: {why}");
            }
            None if self.failures == 1 => error!("JWKS_URL cannot be read, and until then its tokens get 503: {why}"),
            _ => {}
        }
        None
    }
}

fn announce(set: KeySet) -> Keys {
    let KeySet { keys, skipped, given_away } = set;
    match keys.len() {
        0 => error!("JWKS_URL has no key that counts here, and {skipped} that do not: no token by it is good"),
        count => info!("{count} keys of JWKS_URL count, {skipped} others do not"),
    }
    if given_away > 0 {
        error!(
            "JWKS_URL shows the private half of {given_away} keys, with which everybody can sign: they do not count; have them replaced"
        );
    }
    Arc::new(keys)
}

#[cfg(test)]
mod tests;
