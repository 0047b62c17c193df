//! Files of the engine's runs: see [`quorate_runtime::fuzzing::run`]. The file lies in a temporary folder of this process.
#![no_main]

use std::sync::LazyLock;

static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_runtime::fuzzing::run(FOLDER.path(), data));
