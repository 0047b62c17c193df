//! The file of an install under way: see [`quorate_node::fuzzing::install`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_node::fuzzing::install(data));
