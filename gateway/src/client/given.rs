//! What the command line says to a command.

use super::{address::Address, words::TARGETS};
use crate::config::{self, Reading, settings::SETTINGS, sources::Environment};
use clap::ArgMatches;
use std::{collections::BTreeMap, time::Duration};

/// What stands in front of a command, what behind it, and what is around it.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub before: &'a ArgMatches,
    pub behind: &'a ArgMatches,
    pub env: &'a Environment,
}

impl<'a> Given<'a> {
    /// The configuration. Flags may stand before or behind the command; the nearer one counts.
    pub fn reading(&self) -> Reading {
        let flag = |name: &str| {
            let of = |matches: &ArgMatches| matches.try_get_one::<String>(name).ok().flatten().cloned();
            of(self.behind).or_else(|| of(self.before))
        };
        let flags: BTreeMap<_, _> =
            SETTINGS.iter().filter_map(|setting| Some((setting.name.to_owned(), flag(setting.name)?))).collect();
        config::read(&flags, flag("CONFIG").as_deref(), self.env)
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.one::<String>(name).map(String::as_str)
    }

    pub fn all(&self, name: &str) -> Vec<&'a str> {
        self.behind.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect()
    }

    pub fn span(&self, name: &str) -> Option<Duration> {
        self.one(name).copied()
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.one(name).copied().unwrap_or_default()
    }

    pub fn url(&self) -> Option<&'a Address> {
        self.one("url")
    }

    pub fn as_json(&self) -> bool {
        self.is_set("json")
    }

    /// The targets that are given, as the gateway reads them.
    pub fn targets(&self) -> Vec<(&'static str, &'a str)> {
        TARGETS.iter().filter_map(|(flag, member, _)| Some((*member, self.text(flag)?))).collect()
    }

    /// Nothing, too, where a command does not know the word.
    pub fn one<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<&'a T> {
        self.behind.try_get_one(name).ok().flatten()
    }
}
