//! Tells the binary which commit it was built from.

#![expect(clippy::disallowed_methods, reason = "a build script is told by its environment")]

use std::process::Command;

fn main() {
    // Set by cargo-fuzz, for what only fuzzers and tests call.
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    println!("cargo::rerun-if-env-changed=QUORATE_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let given = std::env::var("QUORATE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=QUORATE_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// The answer of git; none outside a repository or where git is not installed.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
