//! Messages of consensus: see [`quorate_consensus::fuzzing::message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_consensus::fuzzing::message(data));
