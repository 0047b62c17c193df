//! The name of the engine's live generation: see [`quorate_runtime::fuzzing::live`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_runtime::fuzzing::live(data));
