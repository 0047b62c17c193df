//! A replica with a damaged log whose peers say whatever they like: see [`quorate_consensus::fuzzing::damaged_replica`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_consensus::fuzzing::damaged_replica(data));
