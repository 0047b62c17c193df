//! What no compiler checks: that arrows between crates go down, that files say what they are, that none outgrows
//! its idea, and that nothing is left half done.

use crate::command::{Result, root};
use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The layer of each package (DESIGN in ARCHITECTURE.md). A normal or build dependency must lie strictly lower;
/// `quorate-types` is allowed everywhere.
const LAYERS: &[(&str, u32)] = &[
    ("quorate-types", 0),
    ("quorate-consensus", 1),
    ("quorate-log", 1),
    ("quorate-store", 1),
    ("quorate-model", 2),
    ("quorate-node", 2),
    ("quorate-runtime", 3),
    ("quorate-sql", 3),
    ("quorate-insight", 3),
    ("quorate-sim", 4),
    ("quorate-etcd", 4),
    ("quorate-pg", 4),
    ("quorate-exchange", 4),
    ("quorate", 5),
    ("quorate-torture", 5),
    ("xtask", 6),
];

/// The most lines of a source file.
const FILE_LINES_MAX: usize = 800;

/// What no committed line may hold, and why.
const BANNED: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "build it, or leave it out and say so in the docs"),
    (concat!("FIX", "ME"), "mend it"),
    (concat!("todo", "!("), "build it"),
    (concat!("unimplemented", "!("), "build it"),
    (concat!("#[all", "ow("), "use #[expect(.., reason = \"..\")]"),
    (concat!("#![all", "ow("), "use #![expect(.., reason = \"..\")]"),
    (concat!("#[ign", "ore"), "a test runs or does not exist"),
];

/// Runs every check and lists every breach.
pub(crate) fn tidy() -> Result<()> {
    let mut breaches = layers()?;
    let sources = sources(&root(), "rs");
    if sources.len() < 10 {
        return Err(format!(
            "only {} source files found: the check itself is broken",
            sources.len()
        ));
    }
    for path in &sources {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        breaches.extend(
            source_breaches(&text)
                .into_iter()
                .map(|breach| format!("{}: {breach}", path.display())),
        );
    }
    breaches.extend(manifest_breaches()?);
    breaches.extend(named_tests(&sources)?);
    if breaches.is_empty() {
        println!("tidy: {} source files, no breach", sources.len());
        return Ok(());
    }
    Err(format!("tidy found {}:\n  {}", breaches.len(), breaches.join("\n  ")))
}

fn layer_of(package: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == package).map(|(_, layer)| *layer)
}

/// Every arrow goes to a strictly lower layer.
fn layers() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let mut breaches = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        breaches.extend(mutant_breaches(package));
        let Some(layer) = layer_of(name) else {
            breaches.push(format!(
                "{name} has no layer: add it to xtask/src/tidy.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let below = layer_of(&dependency.name);
            let tests_only = dependency.kind == DependencyKind::Development;
            if let Some(below) = below
                && below >= layer
                && !tests_only
            {
                breaches.push(format!(
                    "{name} (layer {layer}) may not depend on {} (layer {below})",
                    dependency.name
                ));
            }
        }
    }
    Ok(breaches)
}

/// Production code makes mistakes in builds that ask for it by name, never by default.
fn mutant_breaches(package: &cargo_metadata::Package) -> Vec<String> {
    /// The feature that lets it.
    const FEATURE: &str = "mutants";
    let name = package.name.as_str();
    let mut breaches = Vec::new();
    let defaults = package.features.get("default").into_iter().flatten();
    if defaults.into_iter().any(|feature| feature.ends_with(FEATURE)) {
        breaches.push(format!("{name} makes mistakes by default: `{FEATURE}` is only asked for"));
    }
    let asks = |dependency: &&cargo_metadata::Dependency| {
        dependency.features.iter().any(|feature| feature == FEATURE)
    };
    if let Some(dependency) = package.dependencies.iter().find(asks) {
        let below = &dependency.name;
        breaches.push(format!("{name} builds {below} with `{FEATURE}` whether asked to or not"));
    }
    breaches
}

/// What is wrong with one source file.
fn source_breaches(text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    if !text.starts_with("//!") {
        breaches.push("the first line must be a `//!` that says what the file is".into());
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        breaches.push(format!("{lines} lines: above {FILE_LINES_MAX}, so two ideas live in it"));
    }
    for (number, line) in text.lines().enumerate() {
        for (word, remedy) in BANNED {
            if line.contains(word) {
                breaches.push(format!("line {}: {word}: {remedy}", number + 1));
            }
        }
    }
    breaches
}

/// Each dependency of the workspace has a comment that says why it is there.
fn manifest_breaches() -> Result<Vec<String>> {
    let path = root().join("Cargo.toml");
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let section = text.split("[workspace.dependencies]").nth(1).unwrap_or_default();
    let mut explained = false;
    let mut breaches = Vec::new();
    for line in section.lines().take_while(|line| !line.starts_with('[')) {
        if line.starts_with('#') {
            explained = true;
        } else if line.trim().is_empty() {
            explained = false;
        } else if !explained && line.contains('=') && !line.starts_with(' ') {
            let name = line.split('=').next().unwrap_or_default().trim();
            breaches.push(format!("Cargo.toml: {name} needs a comment that says why it is there"));
        }
    }
    Ok(breaches)
}

/// The page that says which test shows what.
const RELIABILITY: &str = "docs/reliability.md";

/// What that page names is there: a path, a function, a golden script, or a fuzz target. It is the names in backticks that
/// have the form of one.
fn named_tests(sources: &[PathBuf]) -> Result<Vec<String>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let page = read(&root().join(RELIABILITY))?;
    let mut known: BTreeSet<String> = BTreeSet::new();
    for path in sources {
        let text = read(path)?;
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
        known.extend(names.map(str::to_owned));
    }
    let scripts = self::sources(&root().join("crates"), "txt");
    known.extend(scripts.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())));
    let mut breaches = Vec::new();
    for name in page.split('`').skip(1).step_by(2) {
        let is_path = name.contains('/');
        let is_name = name.matches('_').count() >= 2 && !name.contains([' ', '*']);
        let is_there = if is_path { root().join(name).exists() } else { known.contains(name) };
        if (is_path || is_name) && !is_there {
            breaches.push(format!("{RELIABILITY}: {name} is not there"));
        }
    }
    Ok(breaches)
}

/// All files with this ending that belong to the tree.
fn sources(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                found.extend(sources(&path, ending));
            }
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_breach_of_a_source_file_is_found() {
        let check = |text: &str, count: usize| {
            assert_eq!(source_breaches(text).len(), count, "{:?}", source_breaches(text));
        };
        check("//! Fine.\n", 0);
        check("fn main() {}\n", 1);
        check(concat!("//! Fine.\n// TO", "DO later\n"), 1);
        check(concat!("//! Fine.\n#[all", "ow(dead_code)]\n"), 1);
        check(&format!("//! Long.\n{}", "\n".repeat(FILE_LINES_MAX)), 1);
    }

    #[test]
    fn layers_only_rise() {
        assert!(LAYERS.is_sorted_by_key(|(_, layer)| *layer));
        assert_eq!(layer_of("quorate-node"), Some(2));
        assert_eq!(layer_of("serde"), None);
    }
}
