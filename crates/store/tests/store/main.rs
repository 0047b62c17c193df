//! The store from outside: what a client, an operator and a replica rely on.

mod harness;

mod apply;
mod compaction;
mod durability;
mod engine;
mod format;
mod model;
mod range;
mod readers;
mod snapshots;
mod txn;
