//! Real processes under real faults: builds the binary and the tool that torments it, and runs that.

use crate::command::{Result, cargo, root};
use cargo_metadata::MetadataCommand;
use std::process::Command;

/// What the gate runs: half a minute of every kind that is possible here, from a fixed seed.
const SMOKE: [&str; 4] = ["--minutes", "0.5", "--seed", "1"];

/// Builds both and runs the tool with these arguments.
pub(crate) fn torture(arguments: &[String]) -> Result<()> {
    cargo(&["build", "--release", "--quiet", "-p", "quorate", "-p", "quorate-torture"])?;
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let program = metadata.target_directory.join("release/quorate-torture");
    let status = Command::new(&program)
        .args(arguments)
        .current_dir(root())
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("torture ended with {status}")) }
}

/// A short run.
pub(crate) fn smoke() -> Result<()> {
    torture(&SMOKE.map(str::to_owned))
}
