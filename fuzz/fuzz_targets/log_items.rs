//! Directories of the log's batches: see [`quorate_log::fuzzing::items`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_log::fuzzing::items(data));
