//! Streams of snapshots: see [`quorate_store::fuzzing::snapshot`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_store::fuzzing::snapshot(data));
