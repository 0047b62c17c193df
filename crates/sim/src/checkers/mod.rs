//! What must hold, one promise a file. Each takes what it sees in and gives a [`Violation`] when the promise is broken;
//! none looks into a node further than its outputs, its disk and its status.

pub mod agreement;
pub mod bounded;
pub mod claims;
pub mod configuration;
pub mod damage;
pub mod election;
pub mod fates;
pub mod linearizable;
pub mod logs;
pub mod matches;
pub mod order;
pub mod stalls;
pub mod witness;

use std::fmt;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise, as its file is named.
    pub promise: &'static str,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.seen)
    }
}
