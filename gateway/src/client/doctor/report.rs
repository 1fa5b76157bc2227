//! What a doctor found: a line for each check, and under each that failed what mends it.

use crate::client::asking::{printable, printable_json};
use serde_json::{Value, json};

/// As wide as the longest name.
const NAME: usize = 11;

/// One check.
pub struct Check {
    name: &'static str,
    /// Nothing where it could not be looked at.
    ok: Option<bool>,
    /// What was seen; lines behind the first are what went over the wire.
    seen: String,
    fix: Option<String>,
}

impl Check {
    pub fn well(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, ok: Some(true), seen: on_one_line(seen), fix: None }
    }

    pub fn ill(name: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, ok: Some(false), seen: on_one_line(seen), fix: Some(fix.into()) }
    }

    /// It could not be looked at, and why.
    pub fn unseen(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, ok: None, seen: on_one_line(why), fix: None }
    }

    /// With lines that show what went over the wire.
    #[must_use]
    pub fn showing(mut self, lines: &[String]) -> Self {
        for line in lines {
            self.seen.push('\n');
            self.seen.push_str(line);
        }
        self
    }

    pub fn is_ill(&self) -> bool {
        self.ok == Some(false)
    }
}

/// All checks, told as they come.
pub struct Report {
    as_json: bool,
    checks: Vec<Check>,
}

impl Report {
    pub fn new(as_json: bool) -> Self {
        Self { as_json, checks: Vec::new() }
    }

    pub fn add(&mut self, check: Check) {
        if !self.as_json {
            lines(&check).iter().for_each(|line| say!("{line}"));
        }
        self.checks.push(check);
    }

    /// A remark about what takes its time, for whoever sits in front of it.
    pub fn remark(&self, words: &str) {
        if !self.as_json {
            complain!("{words}");
        }
    }

    pub fn is_well(&self) -> bool {
        !self.checks.iter().any(Check::is_ill)
    }

    /// The end: as JSON all of it, else how it went.
    pub fn finish(&self, url: &str) {
        if self.as_json {
            return say!("{}", printable_json(&format!("{:#}", self.json(url))));
        }
        let count = |ok| self.checks.iter().filter(|check| check.ok == ok).count();
        let (well, ill, unseen) = (count(Some(true)), count(Some(false)), count(None));
        say!("{well} well, {ill} not, {unseen} not looked at");
    }

    fn json(&self, url: &str) -> Value {
        let checks = self
            .checks
            .iter()
            .map(|check| json!({ "name": check.name, "ok": check.ok, "seen": check.seen, "fix": check.fix }));
        json!({ "url": url, "ok": self.is_well(), "checks": checks.collect::<Vec<_>>() })
    }
}

/// Much of it is what a server said, and that must not look like lines of the doctor.
fn on_one_line(seen: impl Into<String>) -> String {
    seen.into().replace('\n', " ")
}

fn lines(check: &Check) -> Vec<String> {
    let sign = match check.ok {
        Some(true) => '✓',
        Some(false) => '✗',
        None => '–',
    };
    let mut seen = check.seen.lines();
    let first = format!("{sign} {:<NAME$}  {}", check.name, printable(seen.next().unwrap_or_default()));
    let wire = seen.map(|line| format!("      {}", printable(line)));
    let fix = check.fix.iter().flat_map(|fix| fix.lines()).enumerate();
    let fix = fix.map(|(nth, line)| format!("  {} {}", if nth == 0 { "fix:" } else { "    " }, printable(line)));
    std::iter::once(first.trim_end().to_owned()).chain(wire).chain(fix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_told_with_what_mends_it() {
        let check = Check::ill("pages", "refused\n\u{1b}", "one\ntwo").showing(&["> GET /".into()]);
        assert_eq!(lines(&check), ["✗ pages        refused \\u{1b}", "      > GET /", "  fix: one", "       two"]);
        let mut report = Report::new(true);
        report.add(Check::well("a", "b"));
        report.add(Check::unseen("c", "d"));
        assert!(report.is_well());
        report.add(check);
        let told = report.json("http://x");
        assert_eq!((&told["ok"], &told["checks"][1]["ok"]), (&json!(false), &Value::Null));
    }
}
