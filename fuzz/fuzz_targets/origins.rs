//! Tables of origins: see [`quorate_types::fuzzing::origins`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_types::fuzzing::origins(data));
