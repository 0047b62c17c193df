//! Bounded: queues and windows stay within what they were given.
//!
//! C11 of the common invariants. Read off a node's status: what is on its way to a peer, and who waits for an answer.

use super::Violation;
use quorate_consensus::{Limits, Status};

/// A window is never so full that one more append, or one entry of any size, may not be sent.
const ENTRY_SIZE_MAX: usize = 16 * 1024;

/// Checks what a node says of its queues; `caller_count` clients may call it, each with one request at a time.
///
/// # Errors
/// When one of them is above its bound.
pub fn check(
    status: &Status,
    waiting_count: usize,
    limits: &Limits,
    caller_count: usize,
) -> Result<(), Violation> {
    let window = limits.window_size_max + limits.append_size_max.max(ENTRY_SIZE_MAX);
    for (peer, state) in &status.peers {
        if state.in_flight_size > window {
            let (size, node) = (state.in_flight_size, status.node);
            return Err(violation(format!(
                "{node} has {size} bytes under way to {peer} of {window}"
            )));
        }
    }
    if waiting_count > caller_count {
        let seen = format!("{waiting_count} requests of {caller_count} clients wait");
        return Err(violation(seen));
    }
    Ok(())
}

fn violation(seen: String) -> Violation {
    Violation { promise: "bounded", seen }
}
