//! Configuration files: the binary's own modules, which no library offers.
#![no_main]
#![expect(dead_code, reason = "the binary uses more of its modules than the fuzzer does")]

#[path = "../../crates/quorate/src/config.rs"]
mod config;
#[path = "../../crates/quorate/src/exit.rs"]
mod exit;
#[path = "../../crates/quorate/src/logging.rs"]
mod logging;
#[path = "../../crates/quorate/src/server_config.rs"]
mod server_config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::take(data));
