//! A replica whose peers say whatever they like: see [`quorate_consensus::fuzzing::replica`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_consensus::fuzzing::replica(data));
