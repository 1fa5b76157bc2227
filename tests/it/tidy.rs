//! The repository looks at itself: a few bans, each with what to do instead.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Text that may stand only in some files, and what to do elsewhere.
struct Ban {
    text: &'static str,
    allowed: &'static [&'static str],
    instead: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        text: "env::var",
        allowed: &["gateway/src/main.rs"],
        instead: "take it from Config; main.rs reads the environment",
    },
    Ban {
        text: "tungstenite::",
        allowed: &["gateway/src/wire.rs", "gateway/src/admission/upgrade.rs"],
        instead: "go through wire.rs",
    },
    Ban {
        text: "tokio::spawn",
        allowed: &["gateway/src/gateway.rs"],
        instead: "give the task an owner: a TaskTracker of the gateway",
    },
    Ban {
        text: "signal::",
        allowed: &["gateway/src/client/serve.rs", "gateway/src/client/demo.rs", "gateway/src/client/interrupt.rs"],
        instead: "take a CancellationToken",
    },
    Ban { text: "unsafe {", allowed: &["gateway/src/manager.rs"], instead: "find a crate that wraps it" },
    Ban {
        text: "redis::",
        allowed: &["registry/src/redis", "registry/src/all.rs", "registry/src/lib.rs"],
        instead: "go through the verbs of Registry; only registry/src/redis speaks Redis",
    },
    Ban { text: "hyper::", allowed: HTTP, instead: "HTTP stays in http/, admission/ and upstream/" },
    Ban { text: "TODO", allowed: &[], instead: "do it, or open an issue" },
    Ban { text: "println!", allowed: &["gateway/src/client/"], instead: "log it" },
];

const HTTP: &[&str] = &[
    "gateway/src/http",
    "gateway/src/admission",
    "gateway/src/upstream",
    "gateway/src/arrival.rs",
    "gateway/src/problem.rs",
    "gateway/src/client/asking.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let mut folders = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The part of a source that is no test and no comment.
fn code(source: &str) -> impl Iterator<Item = &str> {
    let end = source.find("#[cfg(test)]").unwrap_or(source.len());
    source[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn what_is_absent_stays_absent() {
    let mut found = Vec::new();
    for (name, source) in sources("gateway/src").iter().chain(&sources("registry/src")) {
        if name.ends_with("/tests.rs") {
            continue;
        }
        for ban in BANS.iter().filter(|ban| !ban.allowed.iter().any(|allowed| name.starts_with(allowed))) {
            let lines = code(source).filter(|line| line.contains(ban.text));
            found.extend(lines.map(|line| format!("{name}: {} — {}", line.trim(), ban.instead)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_stay_small_enough_to_be_read() {
    for (name, source) in sources("gateway/src").iter().chain(&sources("registry/src")) {
        let lines = source.lines().count();
        assert!(lines <= 520, "{name} has {lines} lines: it holds a second idea, give that a file of its own");
    }
}

#[test]
fn the_map_names_every_room() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rooms = sources("gateway/src").into_iter().chain(sources("registry/src"));
    for (name, _) in rooms.filter(|(name, _)| name.matches('/').count() == 2) {
        let file = name.rsplit('/').next().unwrap();
        let known = ["lib.rs", "main.rs"].contains(&file) || map.contains(&format!("`{file}`"));
        assert!(known, "ARCHITECTURE.md does not say what {name} is for");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages = ["README.md", "deploy/redis/README.md", "tests/load/README.md"].map(|page| root().join(page));
    let docs = fs::read_dir(root().join("docs")).unwrap().flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    for page in pages.into_iter().chain(docs) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = page.parent().unwrap().join(link.split('#').next().unwrap());
            // What has a blank in it is code.
            let is_there = link.contains([' ', ':']) || target.exists();
            found.extend((!is_there).then(|| format!("{}: {link}", page.display())));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// By its ecosystem file pm2 gives every running instance the first port, and all but one die of it.
#[test]
fn no_page_restarts_under_pm2_by_the_file() {
    let folders = ["", "docs", "nginx", "deploy/pm2", "deploy/systemd", "deploy/prometheus", "tests/load"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap().flatten());
    let mut found = Vec::new();
    for path in files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(&path).unwrap();
        let wrong =
            |line: &&str| ["reload", "restart"].iter().any(|verb| line.contains(&format!("pm2 {verb} ecosystem")));
        found.extend(text.lines().filter(wrong).map(|line| format!("{}: {line}", path.display())));
    }
    assert!(found.is_empty(), "say `pm2 reload holdfast --parallel 1` instead:\n{}", found.join("\n"));
}
