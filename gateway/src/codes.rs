//! Every code that the gateway says, and the page that tells what each means and what to do. The page is part of the
//! binary, so that a refusal can point at it wherever the gateway runs.

use crate::{close, frame};
use registry::Cause;

/// All entries, each under a heading that names its codes.
pub const PAGE: &str = include_str!("../../docs/codes.md");

/// Where an instance answers an entry; what `type` of a refusal begins with.
pub const ADDRESS: &str = "/problems/";

const HEADING: &str = "\n### ";

/// In a code below, what a refusal fills in: a parameter, or what a name is of.
const BLANK: &str = "{name}";

/// The codes of refusals over HTTP.
const PROBLEMS: &[&str] = &[
    "already_connected",
    "ambiguous_body_length",
    "api_key_expired",
    "body_too_large",
    "body_too_slow",
    "call_done",
    "call_failed",
    "call_unknown",
    "conflicting_credentials",
    "connect_hook_failed",
    "cooling_down",
    "credential_without_scope_connect",
    "credentials_cannot_be_checked",
    "deaf",
    "draining",
    "expected_upgrade_websocket",
    "full",
    "idempotency_key_reused",
    "incomplete_body",
    "instance_ended",
    "internal_error",
    "invalid_api_key",
    "invalid_api_token",
    "invalid_body",
    "invalid_connection_header",
    "invalid_host_header",
    "invalid_idempotency_key",
    "invalid_identity_header",
    "invalid_kind",
    "invalid_match_code",
    "invalid_path",
    "invalid_sec_websocket_key",
    "invalid_sec_websocket_version",
    "invalid_session_token",
    "invalid_upgrade_header",
    "invalid_{name}_name",
    "invalid_{name}_query_parameter",
    "last_instance",
    "log_full",
    "method_not_allowed",
    "missing_or_empty_{name}_query_parameter",
    "missing_{name}_query_parameter",
    "no_live_socket",
    "no_reply",
    "no_such_instance",
    "no_such_scope",
    "nobody_wants_a_ticket",
    "not_found",
    "not_your_room",
    "not_your_store",
    "not_your_user_id",
    "origin_not_allowed",
    "outcome_unreadable",
    "owner_lost",
    "owner_unreachable",
    "protected_mode",
    "queue_full",
    "refused_by_the_application",
    "registry_rebuilding",
    "registry_silent",
    "registry_unavailable",
    "several_instances_of_that_name",
    "socket_busy",
    "socket_forgotten",
    "socket_gone",
    "socket_lost",
    "socket_never_seen",
    "too_fast",
    "too_many_calls_wait",
    "too_many_rooms",
    "too_many_sockets",
    "unauthorized_please_log_in",
    "unknown_code",
    "unreadable_json",
    "unsupported_media_type",
];

/// Whether a refusal may say it. Each one is asked about while it is written, outside releases, so that none is forgotten here.
pub fn is_problem(code: &str) -> bool {
    PROBLEMS.iter().any(|known| means(known, code))
}

/// Everything there is to look up: refusals, closes, error frames, causes.
pub fn all() -> impl Iterator<Item = String> {
    let problems = PROBLEMS.iter().map(|code| (*code).to_owned());
    let closes = close::CODES.iter().map(u16::to_string);
    let frames = frame::Code::ALL.iter().map(|code| code.name().to_owned());
    problems.chain(closes).chain(frames).chain(Cause::ALL.iter().map(|cause| cause.as_str().to_owned()))
}

/// The entry of a code, with its heading.
pub fn entry(code: &str) -> Option<&'static str> {
    let entries = PAGE.match_indices(HEADING).map(|(at, _)| &PAGE[at + 1..]);
    // The longest is the nearest, since a blank takes in everything.
    let nearest = |entry: &str| names(entry).filter(|name| means(name, code)).map(str::len).max();
    let (_, found) = entries.filter_map(|entry| Some((nearest(entry)?, entry))).max_by_key(|(length, _)| *length)?;
    let end = found[1..].find("\n#").map_or(found.len(), |end| end + 1);
    Some(found[..end].trim_end())
}

/// The codes in the heading of an entry.
fn names(entry: &str) -> impl Iterator<Item = &str> {
    entry.lines().next().unwrap_or_default().split('`').skip(1).step_by(2)
}

/// Whether a code is the one that is known, or one that it stands for.
fn means(known: &str, code: &str) -> bool {
    match known.split_once(BLANK) {
        None => known == code,
        Some((head, tail)) => {
            let filled = code.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
            filled.is_some_and(|name| !name.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_an_entry_and_every_entry_a_code() {
        let said: BTreeSet<_> = all().collect();
        let explained: Vec<_> =
            PAGE.match_indices(HEADING).flat_map(|(at, _)| names(&PAGE[at + 1..])).map(str::to_owned).collect();
        let once: BTreeSet<_> = explained.iter().cloned().collect();
        assert_eq!(once.len(), explained.len(), "a code stands there twice");
        // What no gateway sends and every browser shows.
        let missing: Vec<_> = said.difference(&once).collect();
        assert!(missing.is_empty(), "docs/codes.md has no entry for {missing:?}");
        let stale: Vec<_> = once.difference(&said).filter(|code| *code != "1006").collect();
        assert!(stale.is_empty(), "docs/codes.md explains what nobody says: {stale:?}");
    }

    #[test]
    fn an_entry_says_something_and_ends_where_the_next_begins() {
        for code in all() {
            let entry = entry(&code).unwrap_or_else(|| panic!("{code}"));
            assert!(entry.contains(&code) && entry.lines().count() >= 3, "{entry}");
            assert_eq!(entry.matches("\n#").count(), 0, "{entry}");
        }
        assert_eq!(entry("1005"), None);
        assert_eq!(entry("missing__query"), None);
    }

    #[test]
    fn a_code_with_a_name_in_it_finds_the_nearest_entry() {
        let starts = |code: &str, name: &str| entry(code).is_some_and(|entry| entry.contains(name));
        assert!(starts("missing_room_id_query_parameter", "### `missing_{name}_query_parameter`"));
        assert!(starts("missing_or_empty_room_id_query_parameter", "### `missing_or_empty_"));
        assert!(starts("invalid_user_name", "`invalid_{name}_name`"));
        assert!(is_problem("invalid_limit_query_parameter") && !is_problem("invalid__query_parameter"));
        assert!(!is_problem("bad_json"));
    }
}
