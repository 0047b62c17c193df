//! Messages of formation: see [`quorate_node::fuzzing::formation`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_node::fuzzing::formation(data));
