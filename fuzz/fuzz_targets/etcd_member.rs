//! Requests of etcd clients to add or move a member: see [`quorate_etcd::fuzzing::member`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_etcd::fuzzing::member(data));
