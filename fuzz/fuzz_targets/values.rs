//! Values of the engine: see [`quorate_store::fuzzing::values`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_store::fuzzing::values(data));
