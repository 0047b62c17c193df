//! Hellos and their refusals: see [`quorate_node::fuzzing::hello`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_node::fuzzing::hello(data));
