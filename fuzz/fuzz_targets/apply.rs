//! Commands applied to a store: see [`quorate_store::fuzzing::apply`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_store::fuzzing::apply(data));
