//! The gate that a change must pass, and its writing counterpart.

use crate::command::{Result, cargo, cargo_in, root};
use crate::{tidy, torture};

/// The command that README names for the tests.
const TEST: &[&str] = &["test", "--workspace"];

/// Everything that must hold, in the order in which failure is most likely to teach something.
pub(crate) fn ci(seeds: u64) -> Result<()> {
    cargo(TEST)?;
    cargo(&["fmt", "--all", "--", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    tidy::tidy()?;
    cargo_in(&root(), &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    sim(&["--seeds".into(), seeds.to_string()])?;
    sim(&["--mutant".into(), "quick".into()])?;
    model(&["--mutant".into(), "all".into()])?;
    model(&["--size".into(), "normal".into()])?;
    torture::smoke()?;
    examples()
}

/// Formats and applies what clippy can apply by itself.
pub(crate) fn fix() -> Result<()> {
    cargo(&["fmt", "--all"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"])
}

/// Runs the simulator. Mutants need a build of their own, in which production code makes mistakes when it is told to.
pub(crate) fn sim(arguments: &[String]) -> Result<()> {
    let is_hunt = arguments.iter().any(|argument| argument.starts_with("--mutant"));
    let build: &[&str] = match is_hunt {
        true => &["--profile", "mutants", "--features", "mutants"],
        false => &["--release"],
    };
    let mut line = vec!["run", "--quiet", "-p", "quorate-sim", "--bin", "quorate-sim"];
    line.extend(build);
    line.push("--");
    line.extend(arguments.iter().map(String::as_str));
    cargo(&line)
}

/// Searches small configurations of the consensus code. Its build can make mistakes, and is told when to.
pub(crate) fn model(arguments: &[String]) -> Result<()> {
    let mut line = vec!["run", "--quiet", "-p", "quorate-model", "--profile", "mutants"];
    line.extend(["--features", "mutants", "--"]);
    line.extend(arguments.iter().map(String::as_str));
    cargo(&line)
}

/// Each example is a workspace of its own, run as a stranger would.
fn examples() -> Result<()> {
    let folder = root().join("examples");
    let entries =
        std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut examples: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    examples.retain(|path| path.join("Cargo.toml").exists());
    examples.sort();
    if examples.is_empty() {
        return Err(format!("{} holds no example", folder.display()));
    }
    for example in examples {
        cargo_in(&example, &["run"], &[])?;
    }
    Ok(())
}
