//! Raft (Ongaro, "Consensus: Bridging Theory and Practice", 2014).

mod message;

pub use message::Message;
