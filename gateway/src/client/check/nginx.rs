//! `holdfast check --nginx FILE`: what is wrong for a gateway in a configuration of nginx, each with its place and its fix.
//!
//! | file | what it is |
//! |---|---|
//! | `nginx/syntax.rs` | directives, blocks and includes |
//! | `nginx/rules.rs` | what is wrong, and what mends it |
//! | `nginx/places.rs` | which location a path has, and what counts there |

mod places;
mod rules;
mod syntax;

use crate::config::Config;
use places::{At, servers, unreadable};
use rules::Look;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};
use syntax::Directive;

/// What every door of the gateway begins with.
const DOOR: &str = "/ws";

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// The directive that it is about.
    about: String,
    place: String,
    words: String,
    /// Sockets do not open with it.
    breaks: bool,
}

/// All that was found in a file.
#[derive(Debug, Default)]
pub struct Report {
    file: String,
    findings: Vec<Finding>,
}

impl Report {
    pub fn has_problems(&self) -> bool {
        self.findings.iter().any(|finding| finding.breaks)
    }

    pub fn warnings(&self) -> usize {
        self.findings.iter().filter(|finding| !finding.breaks).count()
    }

    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.findings.iter().map(|Finding { about, place, words, breaks }| {
            let kind = if *breaks { "problem" } else { "warning" };
            format!("{kind}: {place}: {about}: {words}")
        })
    }

    pub fn json(&self) -> Value {
        let of = |breaks| -> Vec<_> {
            let these = self.findings.iter().filter(|finding| finding.breaks == breaks);
            these.map(|one| json!({ "directive": one.about, "place": one.place, "fix": one.words })).collect()
        };
        json!({ "file": self.file, "problems": of(true), "warnings": of(false) })
    }

    fn says(&mut self, breaks: bool, about: &str, place: &(impl ToString + ?Sized), words: impl Into<String>) {
        let finding = Finding { about: about.into(), place: place.to_string(), words: words.into(), breaks };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn warns(&mut self, about: &str, place: &(impl ToString + ?Sized), words: impl Into<String>) {
        self.says(false, about, place, words);
    }
}

/// Reads it, and compares it with the settings if they are whole.
pub fn look(file: &str, config: Option<&Config>) -> Report {
    match syntax::read(Path::new(file)) {
        Ok(directives) => judge(file, &directives, config),
        Err(why) => {
            let mut report = Report { file: file.into(), findings: Vec::new() };
            report.says(true, "file", file, why);
            report
        }
    }
}

fn judge(file: &str, directives: &[Directive], config: Option<&Config>) -> Report {
    let mut report = Report { file: file.into(), findings: Vec::new() };
    for line in unreadable(directives) {
        report.warns(
            "location",
            &line.place,
            format!("{} is not understood here, and was left out", line.args.join(" ")),
        );
    }
    let found: Vec<_> = servers(directives).iter().filter_map(Found::of).collect();
    let look = Look { all: directives, config };
    // Of several, those that speak of sockets, and those that lead to the same place; others belong to something else.
    let sure: BTreeSet<_> =
        found.iter().filter(|found| found.is_sure()).flat_map(|sure| look.addresses(sure)).collect();
    let leads_there = |found: &Found<'_>| found.is_sure() || look.addresses(found).iter().any(|at| sure.contains(at));
    let found: Vec<_> = found.into_iter().filter(|found| sure.is_empty() || leads_there(found)).collect();
    if found.is_empty() {
        report.says(
            true,
            "proxy_pass",
            file,
            "no location here passes /ws on: add location / { proxy_pass http://…; }",
        );
    }
    for found in &found {
        look.at(found, &mut report);
    }
    look.at_workers(&mut report);
    if config.is_some_and(|config| config.live.api_token.is_none()) {
        report.warns(
            "API_TOKEN",
            "settings",
            "it is not set: through a proxy nothing of the server plane is answered, not even for your own servers",
        );
    }
    report
}

/// A gateway behind a server.
struct Found<'a> {
    server: At<'a>,
    /// What its paths begin with.
    prefix: &'a str,
    door: At<'a>,
    target: &'a str,
}

impl<'a> Found<'a> {
    fn of(server: &At<'a>) -> Option<Self> {
        let starts = [""].into_iter().chain(server.prefixes());
        starts.into_iter().find_map(|prefix| {
            let door = server.location(&format!("{prefix}{DOOR}"));
            let target = door.target()?;
            Some(Self { server: server.clone(), prefix, door, target })
        })
    }

    fn is_sure(&self) -> bool {
        self.door.all("proxy_set_header").iter().any(|line| line.first().eq_ignore_ascii_case("upgrade"))
            || [DOOR, "/sse"].iter().any(|word| self.door.name.contains(word))
    }

    /// The location of a path, if it leads to the same gateway.
    fn at(&self, path: &str) -> Option<At<'a>> {
        let at = self.server.location(&format!("{}{path}", self.prefix));
        (at.target() == Some(self.target)).then_some(at)
    }
}

#[cfg(test)]
mod tests;
