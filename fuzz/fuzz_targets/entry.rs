//! Entries of the log: see [`quorate_types::fuzzing::entry`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_types::fuzzing::entry(data));
