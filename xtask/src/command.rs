//! Running other commands.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// What went wrong, for the person who called.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_path_buf()
}

/// Runs `cargo` with these arguments in `folder`, shows what it prints, and fails when it fails.
pub(crate) fn cargo_in(
    folder: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let line = format!("cargo {}", arguments.join(" "));
    println!("==> {line}");
    let begin = Instant::now();
    let status = Command::new(cargo)
        .args(arguments)
        .current_dir(folder)
        .envs(variables.iter().copied())
        .status()
        .map_err(|error| format!("{line}: {error}"))?;
    println!("<== {line}: {:.1} s", begin.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed with {status}")) }
}

/// As [`cargo_in`], at the root and without variables.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    cargo_in(&root(), arguments, &[])
}
