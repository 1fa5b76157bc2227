//! @mentions: a message that names a public account goes to that account.

use crate::{clock, json, json::Members};
use registry::UserName;
use serde_json::value::RawValue;

/// Where a message's words stand, in the order in which they are looked at.
const PLACES: [&str; 5] = ["message", "text", "data", "content", "body"];

/// The first public account that the message mentions. `data` may be the text itself.
pub fn mentioned<'a>(data: &RawValue, accounts: &'a [String]) -> Option<&'a str> {
    if accounts.is_empty() {
        return None;
    }
    if let Some(words) = json::text(data) {
        return find(&words, accounts);
    }
    let members = Members::read(data.get().as_bytes()).ok()?;
    PLACES.iter().find_map(|place| find(&members.text(place)?, accounts))
}

/// Who wrote it, for the account that gets it.
pub fn original_sender(user: &UserName) -> Option<Box<RawValue>> {
    let sender = serde_json::json!({
        "user_id": user.as_str(),
        "timestamp": clock::timestamp(),
    });
    serde_json::value::to_raw_value(&sender).ok()
}

fn find<'a>(words: &str, accounts: &'a [String]) -> Option<&'a str> {
    let starts = words.match_indices('@').filter(|(at, _)| {
        // An address such as a@b.c mentions nobody.
        !words[..*at].ends_with(|c: char| c.is_alphanumeric())
    });
    starts.map(|(at, _)| &words[at + 1..]).find_map(|rest| {
        accounts.iter().map(String::as_str).find(|account| {
            let follows = rest.strip_prefix(account);
            follows.is_some_and(|follows| !follows.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '-'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mention(data: &str) -> Option<&'static str> {
        static ACCOUNTS: std::sync::LazyLock<Vec<String>> =
            std::sync::LazyLock::new(|| vec!["help".into(), "help_desk".into()]);
        let data = serde_json::from_str::<Box<RawValue>>(data).unwrap();
        mentioned(&data, &ACCOUNTS)
    }

    /// Checklist 267.
    #[test]
    fn the_first_mention_of_a_public_account_counts() {
        assert_eq!(mention(r#"{"message":"hi @help, please"}"#), Some("help"));
        assert_eq!(mention(r#"{"content":"ask @help_desk or @help"}"#), Some("help_desk"));
        assert_eq!(mention(r#""@help""#), Some("help"));
        assert_eq!(mention(r#"{"message":"@nobody","body":"@help!"}"#), Some("help"));
        for nobody in [r#"{"message":"@helper"}"#, r#"{"message":"me@help"}"#, r#"{"other":"@help"}"#, "3", "[]"] {
            assert_eq!(mention(nobody), None, "{nobody}");
        }
    }
}
