//! Nodes among themselves: formation, requests, snapshots, bad input.

mod counter;
mod formation;
mod membership;
mod promises;
mod requests;
mod snapshots;
mod streams;
mod world;
