//! Whether the machine itself stood still: what is late then says nothing of the product.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a beat takes.
const BEAT: Duration = Duration::from_millis(20);

/// A thread that does nothing but beat, and takes down by how much its latest beat came too late.
pub(crate) struct Pulse {
    stop: Arc<AtomicBool>,
    /// The latest so far, in milliseconds.
    lateness: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Begins to beat.
    pub(crate) fn begin() -> Pulse {
        let (stop, lateness) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, late) = (Arc::clone(&stop), Arc::clone(&lateness));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let begin = Instant::now();
                std::thread::sleep(BEAT);
                let by = begin.elapsed().saturating_sub(BEAT).as_millis();
                late.fetch_max(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Pulse { stop, lateness, thread: Some(thread) }
    }

    /// By how much the latest beat so far came too late.
    pub(crate) fn lateness(&self) -> Duration {
        Duration::from_millis(self.lateness.load(Ordering::Relaxed))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
