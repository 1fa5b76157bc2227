//! `holdfast diff`: two configurations held against each other; and of what a binary was made.

use crate::holdfast::{Finished, Holdfast, TempFile};
use serde_json::{Value, json};

async fn checked(settings: &[(&str, &str)]) -> TempFile {
    let check =
        settings.iter().fold(Holdfast::command(&["check", "--json"]), |check, (name, value)| check.env(name, value));
    TempFile::holding(&check.run().await.stdout)
}

async fn diff(args: &[&str]) -> Finished {
    Holdfast::command(&[&["diff"], args].concat()).run().await
}

/// Checklist 45, 293.
#[tokio::test]
async fn staging_and_production_are_held_against_each_other() {
    let staging = checked(&[("PORT", "8080"), ("API_TOKEN", "hush-one"), ("WS_PING_INTERVAL", "30")]).await;
    let production = checked(&[
        ("PORT", "80"),
        ("API_TOKEN", "hush-two"),
        ("WS_PING_INTERVAL", "30s"),
        ("LOG_FORMAT", "xml"),
        ("DEBUG", "express:*"),
    ])
    .await;
    let same = diff(&[staging.path(), staging.path()]).await;
    assert_eq!(same.code, 0, "{same:?}");
    assert!(same.stdout.contains("the same"), "{same:?}");
    let found = diff(&[staging.path(), production.path()]).await;
    assert_eq!(found.code, 1, "{found:?}");
    for part in ["PORT: 8080 | 80", "valid: true | false", "LOG_FORMAT", "xml", "DEBUG"] {
        assert!(found.stdout.contains(part), "{part} in {found:?}");
    }
    assert!(!found.said().contains("hush"), "{found:?}");
    let told = diff(&[staging.path(), production.path(), "--json"]).await;
    let shown: Value = serde_json::from_str(&told.stdout).expect(&told.stdout);
    assert_eq!((told.code, &shown["same"]), (1, &json!(false)));
    let port = shown["differences"].as_array().unwrap().iter().find(|found| found["name"] == "PORT").unwrap();
    assert_eq!(port, &json!({ "kind": "setting", "name": "PORT", "one": "8080", "other": "80" }));
}

#[tokio::test]
async fn one_of_them_may_come_from_standard_input_and_both_must_be_readable() {
    let one = checked(&[]).await;
    let text = std::fs::read_to_string(one.path()).unwrap();
    let piped = Holdfast::command(&["diff", "-", one.path()]).typing(&text).await;
    assert_eq!(piped.code, 0, "{piped:?}");
    let (no_json, other_json) = (TempFile::holding("PORT=80"), TempFile::holding("{\"a\":1}"));
    for (args, part) in [
        ([one.path(), "/no/such/file"], "/no/such/file"),
        ([no_json.path(), one.path()], "holdfast check --json"),
        ([one.path(), other_json.path()], "no settings"),
        (["-", "-"], "standard input"),
    ] {
        let finished = diff(&args).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{finished:?}");
        assert!(finished.stderr.contains(part), "{part} in {finished:?}");
    }
}

/// Checklist 296.
#[tokio::test]
async fn a_binary_says_what_it_was_made_of() {
    let version = Holdfast::command(&["version", "--json"]).run().await;
    let shown: Value = serde_json::from_str(&version.stdout).expect(&version.stdout);
    // Whoever builds without git has no commit to name.
    let commit = shown["commit"].as_str().unwrap_or("000000000000");
    assert!(commit.len() >= 7 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{shown}");
    assert!(shown["rustc"].as_str().is_some_and(|rustc| rustc.starts_with("rustc 1.")), "{shown}");
    assert!(shown["features"].as_array().is_some_and(|features| !features.is_empty()), "{shown}");
}
