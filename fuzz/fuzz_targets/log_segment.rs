//! Segments of the log: see [`quorate_log::fuzzing::segment`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_log::fuzzing::segment(data));
