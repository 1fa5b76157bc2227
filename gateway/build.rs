//! Tells the binary what it was built from: the commit, where git knows it, and the compiler. Neither is needed.
#![allow(clippy::print_stdout, reason = "this is how a build script speaks to Cargo")]

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=HOLDFAST_COMMIT");
    // Whoever builds from an archive, as images do, can say it.
    let commit = env::var("HOLDFAST_COMMIT").ok().filter(|commit| !commit.is_empty()).or_else(commit);
    if let Some(commit) = commit {
        println!("cargo:rustc-env=HOLDFAST_COMMIT={commit}");
    }
    if let Some(rustc) = env::var("RUSTC").ok().and_then(|rustc| said(&rustc, &["--version"])) {
        println!("cargo:rustc-env=HOLDFAST_RUSTC={rustc}");
    }
}

/// The commit that is checked out. It is asked for again when another one is.
fn commit() -> Option<String> {
    let head = said("git", &["symbolic-ref", "-q", "HEAD"]);
    for name in ["HEAD"].into_iter().chain(head.as_deref()).chain(["packed-refs"]) {
        // A file that is not there would have this run at every build.
        if let Some(path) = said("git", &["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    said("git", &["rev-parse", "--short=12", "HEAD"])
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}
