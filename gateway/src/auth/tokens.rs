//! JSON Web Tokens, held against the keys that were set here and those that somebody publishes.

use super::{
    Blind, Refused,
    jwks::{self, Jwks},
    jwt::{Claims, Rules, Unfit},
};
use crate::{metrics::Metrics, upstream::Upstream};
use registry::epoch_ms;

/// What decides whether a token is good.
pub struct Tokens {
    rules: Rules,
    /// The keys of `JWKS_URL`, and where they are read.
    published: Option<(Jwks, Upstream)>,
}

impl Tokens {
    pub fn new(rules: Rules, place: Option<Upstream>) -> Self {
        Self { rules, published: place.map(|place| (Jwks::default(), place)) }
    }

    /// What a token says. One by a key that is not known here may be by a new one.
    pub async fn read(&self, token: &str) -> Result<Claims, Refused> {
        let Some((jwks, _)) = &self.published else {
            return self.rules.read(token, None, epoch_ms()).map_err(Refused::Token);
        };
        let read = self.rules.read(token, Some(&jwks.keys()), epoch_ms());
        if read != Err(Unfit::UnknownKey) {
            return read.map_err(Refused::Token);
        }
        jwks.ask().await;
        match self.rules.read(token, Some(&jwks.keys()), epoch_ms()) {
            Err(Unfit::UnknownKey) if jwks.is_blind() => Err(Refused::Blind(Blind::Keys)),
            read => read.map_err(Refused::Token),
        }
    }

    /// Keeps the keys that somebody publishes, for as long as it is asked to.
    pub async fn keep(&self, metrics: &Metrics) {
        if let Some((jwks, place)) = &self.published {
            jwks.keep(metrics, || jwks::fetch(place)).await;
        }
    }

    /// Has them read now.
    pub fn hurry(&self) {
        if let Some((jwks, _)) = &self.published {
            jwks.hurry();
        }
    }
}
