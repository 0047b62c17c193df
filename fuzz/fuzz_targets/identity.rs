//! The identity file: see [`quorate_node::fuzzing::identity`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_node::fuzzing::identity(data));
