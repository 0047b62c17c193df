//! The engine's manifest: see [`quorate_runtime::fuzzing::manifest`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_runtime::fuzzing::manifest(data));
