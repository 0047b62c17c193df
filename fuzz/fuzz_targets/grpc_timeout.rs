//! The deadline that a gRPC client sends: see [`quorate_etcd::fuzzing::timeout`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_etcd::fuzzing::timeout(data));
