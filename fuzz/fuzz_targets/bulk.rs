//! Messages of the bulk stream: see [`quorate_node::fuzzing::bulk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_node::fuzzing::bulk(data));
