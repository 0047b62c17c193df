//! What a state machine keeps of itself: see [`quorate_types::fuzzing::machine_state`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_types::fuzzing::machine_state(data));
