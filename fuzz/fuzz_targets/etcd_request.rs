//! Requests of etcd clients: see [`quorate_etcd::fuzzing::request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_etcd::fuzzing::request(data));
