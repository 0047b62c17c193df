//! What a running node measures of its devices and queues, as plain data.

use quorate_types::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A node's devices and queues at one moment; counts since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeMetrics {
    /// Syncs of log files: how many, how long.
    pub log_sync: Histogram,
    /// Bytes written to log files.
    pub log_written_size: u64,
    /// Syncs of the engine: how many, how long.
    pub engine_sync: Histogram,
    /// Calls of the state machine's apply: how many, how long.
    pub apply: Histogram,
    /// Entries applied.
    pub applied_count: u64,
    /// Rounds of the node's thread; one handles all that waits.
    pub round_count: u64,
    /// Inputs handled in these rounds.
    pub input_count: u64,
    /// Frames handed to streams.
    pub sent_count: u64,
    /// Bytes of these frames.
    pub sent_size: u64,
    /// Write calls that carried them.
    pub send_call_count: u64,
    /// Frames received.
    pub received_count: u64,
    /// Bytes of these frames.
    pub received_size: u64,
    /// Frames dropped because a stream's queue was full.
    pub dropped_count: u64,
    /// Streams closed because what came was no frame of ours.
    pub malformed_count: u64,
    /// Requests whose answer clients of this node wait for.
    pub waiting_count: u64,
    /// Inputs that wait for the node's thread.
    pub input_queue_count: u64,
    /// Requests that wait for the state machine's thread.
    pub apply_queue_count: u64,
    /// Bytes that wait to be sent to peers.
    pub send_queue_size: u64,
}

/// The counters behind [`RuntimeMetrics`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) log_sync: Timer,
    pub(crate) engine_sync: Timer,
    pub(crate) apply: Timer,
    pub(crate) log_written_size: Counter,
    pub(crate) applied_count: Counter,
    pub(crate) round_count: Counter,
    pub(crate) input_count: Counter,
    pub(crate) sent_count: Counter,
    pub(crate) sent_size: Counter,
    pub(crate) send_call_count: Counter,
    pub(crate) received_count: Counter,
    pub(crate) received_size: Counter,
    pub(crate) dropped_count: Counter,
    pub(crate) malformed_count: Counter,
    /// A gauge: rises with each byte queued for a peer, falls with each byte sent or given up.
    pub(crate) send_queue_size: Counter,
}

impl Counters {
    /// All but the depths of queues that others hold.
    pub(crate) fn read(&self) -> RuntimeMetrics {
        RuntimeMetrics {
            log_sync: self.log_sync.read(),
            log_written_size: self.log_written_size.read(),
            engine_sync: self.engine_sync.read(),
            apply: self.apply.read(),
            applied_count: self.applied_count.read(),
            round_count: self.round_count.read(),
            input_count: self.input_count.read(),
            sent_count: self.sent_count.read(),
            sent_size: self.sent_size.read(),
            send_call_count: self.send_call_count.read(),
            received_count: self.received_count.read(),
            received_size: self.received_size.read(),
            dropped_count: self.dropped_count.read(),
            malformed_count: self.malformed_count.read(),
            send_queue_size: self.send_queue_size.read(),
            waiting_count: 0,
            input_queue_count: 0,
            apply_queue_count: 0,
        }
    }
}

/// A histogram that several threads share. Its lock is held for a few instructions, a few thousand times
/// a second.
#[derive(Debug, Default)]
pub(crate) struct Timer(Mutex<Histogram>);

impl Timer {
    pub(crate) fn observe(&self, duration: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).observe(duration);
    }

    pub(crate) fn read(&self) -> Histogram {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A number that several threads change; nothing is ordered by it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, amount: usize) {
        self.0.fetch_sub(amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
