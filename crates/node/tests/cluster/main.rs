//! Nodes among themselves: formation, requests, snapshots, bad input.

mod counter;
mod formation;
mod requests;
mod world;
