//! Why something did not go well, and how often.

use crate::client::asking::printable;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt};

/// Others say them, so there is no end to how many there may be.
const DIFFERENT_MAX: usize = 20;
const WORDS_MAX: usize = 200;

/// What a server says of itself, as it may be kept and shown.
pub fn words(text: &str) -> String {
    printable(text.chars().take(WORDS_MAX).collect::<String>().trim())
}

/// A refusal, in two words.
pub fn refusal(status: u16, body: &Value) -> String {
    words(&format!("{status} {}", body["code"].as_str().unwrap_or_default()))
}

#[derive(Debug, Default)]
pub struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    pub fn add(&mut self, why: &str) {
        let why = words(why);
        let is_known = self.0.contains_key(&why) || self.0.len() < DIFFERENT_MAX;
        *self.0.entry(if is_known { why } else { "another reason".into() }).or_default() += 1;
    }

    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn json(&self) -> Value {
        json!(self.0)
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> = self.0.iter().map(|(why, count)| format!("{count} × {why}")).collect();
        f.write_str(&reasons.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_their_number_has_an_end() {
        let mut reasons = Reasons::default();
        for nth in 0..1000 {
            reasons.add(&format!("reason {}\u{1b}", nth % 100));
        }
        assert_eq!((reasons.count(), reasons.0.len()), (1000, DIFFERENT_MAX + 1));
        let mut few = Reasons::default();
        ["b", "a", "b"].into_iter().for_each(|why| few.add(why));
        assert_eq!(few.to_string(), "1 × a, 2 × b");
    }
}
