//! Every decoder of bytes from outside against the corpora in `fuzz/corpus` and mutations of them: what libFuzzer found
//! or grew, on a stable toolchain, in seconds.

use quorate_types::fuzzing::mutated;
use std::path::Path;

/// How many mutations of each file are tried.
const MUTATIONS: u64 = 150;

/// The fewest files of a corpus: one that is not found must not pass.
const FILES_MIN: usize = 3;

/// A folder of `fuzz/corpus`, and what takes its files.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 24] = [
    ("frame", quorate_types::fuzzing::frame),
    ("entry", quorate_types::fuzzing::entry),
    ("configuration", quorate_types::fuzzing::configuration),
    ("origins", quorate_types::fuzzing::origins),
    ("machine_state", quorate_types::fuzzing::machine_state),
    ("message", quorate_consensus::fuzzing::message),
    ("replica", quorate_consensus::fuzzing::replica),
    ("damaged_replica", quorate_consensus::fuzzing::damaged_replica),
    ("log_items", quorate_log::fuzzing::items),
    ("log_segment", quorate_log::fuzzing::segment),
    ("hello", quorate_node::fuzzing::hello),
    ("formation", quorate_node::fuzzing::formation),
    ("bulk", quorate_node::fuzzing::bulk),
    ("identity", quorate_node::fuzzing::identity),
    ("install", quorate_node::fuzzing::install),
    ("command", quorate_store::fuzzing::command),
    ("apply", quorate_store::fuzzing::apply),
    ("values", quorate_store::fuzzing::values),
    ("snapshot", quorate_store::fuzzing::snapshot),
    ("engine_manifest", quorate_runtime::fuzzing::manifest),
    ("engine_live", quorate_runtime::fuzzing::live),
    ("etcd_request", quorate_etcd::fuzzing::request),
    ("etcd_member", quorate_etcd::fuzzing::member),
    ("grpc_timeout", quorate_etcd::fuzzing::timeout),
];

fn replay(name: &str, take: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("can be listed").path()).collect();
    paths.sort();
    assert!(paths.len() >= FILES_MIN, "{name}: only {} files", paths.len());
    let read = |path| std::fs::read(path).expect("can be read");
    let files: Vec<Vec<u8>> = paths.iter().map(read).collect();
    for (at, (path, file)) in paths.iter().zip(&files).enumerate() {
        let other = &files[(at + 1) % files.len()];
        for seed in 0..=MUTATIONS {
            let data = if seed == 0 { file.clone() } else { mutated(seed, file, other) };
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take(&data)));
            assert!(ran.is_ok(), "{} with mutation {seed} panics", path.display());
        }
    }
}

#[test]
fn every_corpus_and_mutations_of_it_are_taken_or_refused() {
    for (name, take) in TARGETS {
        replay(name, take);
    }
}

#[test]
fn runs_of_the_engine_are_read_or_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    replay("engine_run", |data| quorate_runtime::fuzzing::run(folder.path(), data));
}
