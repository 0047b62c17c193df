//! End to end: the real binary, real processes, real clients, on loopback.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "these tests watch processes from outside"
)]

mod common;

mod bad_input;
mod bit_flips;
mod catch_up;
mod command_line;
mod corpora;
mod data_folder;
mod dev;
mod durable_replies;
mod engine_loss;
mod failures;
mod formation;
mod measurements;
mod membership;
mod operations;
mod power;
mod resize;
mod start_orders;
mod writer_gap;
