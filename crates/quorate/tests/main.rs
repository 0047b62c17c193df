//! End to end: the real binary, real processes, real clients, on loopback.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "these tests watch processes from outside"
)]

mod common;

mod command_line;
mod data_folder;
mod dev;
mod failures;
mod formation;
mod operations;
mod power;
