//! Frames of the peer streams: see [`quorate_types::fuzzing::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_types::fuzzing::frame(data));
