//! Commands in entries: see [`quorate_store::fuzzing::command`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_store::fuzzing::command(data));
