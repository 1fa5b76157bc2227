//! Where nginx sends a request: servers, the location of a path, and what is said there or around it.

use super::syntax::Directive;
use regex_lite::{Regex, RegexBuilder};

/// A place where a request arrives: the blocks around it, the innermost last.
#[derive(Clone)]
pub struct At<'a> {
    levels: Vec<&'a [Directive]>,
    /// The innermost, as it is written: `location /`, `server`.
    pub name: String,
}

impl<'a> At<'a> {
    /// All directives of a name at the innermost level that has any: that is how nginx inherits them.
    pub fn all(&self, name: &str) -> Vec<&'a Directive> {
        let of = |level: &&'a [Directive]| level.iter().filter(|line| line.name == name).collect::<Vec<_>>();
        self.levels.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    pub fn one(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).pop()
    }

    /// Whether outer levels have more of a name than count here.
    pub fn hides(&self, name: &str, first: &str) -> bool {
        let has = |level: &&&[Directive]| {
            level.iter().any(|line| line.name == name && line.first().eq_ignore_ascii_case(first))
        };
        !self.all(name).iter().any(|line| line.first().eq_ignore_ascii_case(first))
            && self.levels.iter().any(|level| has(&level))
    }

    /// What stands in the innermost block itself.
    pub fn own(&self, name: &str) -> Option<&'a Directive> {
        self.levels.last()?.iter().find(|line| line.name == name)
    }

    /// Where it is passed on to: the name between `://` and the next slash.
    pub fn target(&self) -> Option<&'a str> {
        let (_, rest) = self.own("proxy_pass")?.first().split_once("://")?;
        Some(rest.split('/').next().unwrap_or(rest))
    }

    pub fn is_same(&self, other: &Self) -> bool {
        let innermost = |at: &Self| at.levels.last().map(|level| level.as_ptr());
        innermost(self) == innermost(other)
    }

    /// The location of a path in here. Whatever decides it must be read: an expression that cannot be is left out.
    pub fn location(&self, path: &str) -> Self {
        let Some(&level) = self.levels.last() else { return self.clone() };
        let locations = level.iter().filter(|line| line.name == "location");
        let (mut prefix, mut expression): (Option<(&Directive, &str, bool)>, Option<&Directive>) = (None, None);
        for line in locations {
            match kind(line) {
                ("=", exact) if exact == path => return self.within(line),
                ("", start) | ("^~", start) if is_longer(path, start, prefix) => {
                    prefix = Some((line, start, kind(line).0 == "^~"));
                }
                (how @ ("~" | "~*"), pattern) if expression.is_none() && matches(pattern, how == "~*", path) => {
                    expression = Some(line);
                }
                _ => {}
            }
        }
        match (prefix, expression) {
            (Some((line, _, true)), _) => self.within(line).location(path),
            (_, Some(line)) | (Some((line, ..)), None) => self.within(line).location(path),
            (None, None) => self.clone(),
        }
    }

    /// Starts of paths that have a location of their own.
    pub fn prefixes(&self) -> Vec<&'a str> {
        let level = self.levels.last().copied().unwrap_or_default();
        let starts = level.iter().filter(|line| line.name == "location").filter_map(|line| line.args.last());
        starts.map(|start| start.trim_end_matches('/')).filter(|start| start.starts_with('/')).collect()
    }

    fn within(&self, line: &'a Directive) -> Self {
        let levels = self.levels.iter().copied().chain([line.block.as_slice()]).collect();
        Self { levels, name: [&["location".to_owned()][..], &line.args].concat().join(" ") }
    }
}

/// `=`, `^~`, `~`, `~*` or nothing, and what it is about; nginx lets both stand in one word, too.
fn kind(location: &Directive) -> (&str, &str) {
    let (how, what) = match &location.args[..] {
        [how, what] => return (how, what),
        [word] => word.split_at(word.find(|c| !matches!(c, '=' | '^' | '~' | '*')).unwrap_or(word.len())),
        _ => ("?", ""),
    };
    if matches!(how, "" | "=" | "^~" | "~" | "~*") && !what.starts_with('@') {
        return (how, what);
    }
    // An expression may begin with such a letter itself, as ~^/ws does.
    match location.first().strip_prefix("~*").map(|rest| ("~*", rest)) {
        Some(found) => found,
        None => location.first().strip_prefix('~').map_or(("?", ""), |rest| ("~", rest)),
    }
}

fn is_longer(path: &str, start: &str, than: Option<(&Directive, &str, bool)>) -> bool {
    path.starts_with(start) && than.is_none_or(|(_, before, _)| start.len() > before.len())
}

fn matches(pattern: &str, any_case: bool, path: &str) -> bool {
    expression(pattern, any_case).is_some_and(|expression| expression.is_match(path))
}

fn expression(pattern: &str, any_case: bool) -> Option<Regex> {
    RegexBuilder::new(pattern).case_insensitive(any_case).build().ok()
}

/// Expressions of locations that are not understood here.
pub fn unreadable(directives: &[Directive]) -> Vec<&Directive> {
    let mut found = Vec::new();
    for line in directives {
        if line.name == "location"
            && let ("~" | "~*", pattern) = kind(line)
            && expression(pattern, false).is_none()
        {
            found.push(line);
        }
        found.extend(unreadable(&line.block));
    }
    found
}

/// Every server, be the file a whole nginx.conf, a piece of conf.d, or what stands within a server.
pub fn servers(directives: &[Directive]) -> Vec<At<'_>> {
    let mut found = Vec::new();
    collect(directives, &[], &mut found);
    if found.is_empty() {
        found.push(At { levels: vec![directives], name: "the file".into() });
    }
    found
}

fn collect<'a>(level: &'a [Directive], around: &[&'a [Directive]], found: &mut Vec<At<'a>>) {
    let levels = [around, &[level]].concat();
    for line in level {
        match line.name.as_str() {
            "http" => collect(&line.block, &levels, found),
            "server" if line.args.is_empty() => {
                let levels = levels.iter().copied().chain([line.block.as_slice()]).collect();
                found.push(At { levels, name: "server".into() });
            }
            _ => {}
        }
    }
}

/// The block of a name, such as an upstream's, wherever it stands.
pub fn named<'a>(directives: &'a [Directive], kind: &str, name: &str) -> Option<&'a Directive> {
    directives.iter().find_map(|line| {
        let is_it = line.name == kind && line.first() == name;
        if is_it { Some(line) } else { (line.name == "http").then(|| named(&line.block, kind, name)).flatten() }
    })
}

/// What a variable may stand for, by `set`, `map` and `split_clients`; anything else stands for itself.
pub fn values<'a>(directives: &'a [Directive], server: &At<'a>, word: &'a str) -> Vec<&'a str> {
    if !word.starts_with('$') {
        return vec![word];
    }
    let mut found: Vec<_> = server.all("set").into_iter().filter(|line| line.first() == word).collect();
    let mut levels = vec![directives];
    while let Some(level) = levels.pop() {
        for line in level {
            match line.name.as_str() {
                "http" => levels.push(&line.block),
                "map" | "split_clients" if line.args.get(1).is_some_and(|name| name == word) => {
                    found.extend(&line.block);
                }
                _ => {}
            }
        }
    }
    found.into_iter().filter_map(|line| line.args.last()).map(String::as_str).collect()
}
