//! Configurations: see [`quorate_types::fuzzing::configuration`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_types::fuzzing::configuration(data));
