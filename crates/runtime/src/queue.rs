//! A queue from many threads to one, made for batches.
//!
//! The consumer takes everything that waits with one swap, and is woken only when it sleeps: under load
//! a push costs one uncontended lock and no system call. The queue itself has no limit; who pushes says in
//! its own module what bounds it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There is something to do.
    Items,
    /// The moment came and nothing else did.
    TimedOut,
    /// The queue is closed and empty.
    Closed,
}

/// A queue from many threads to one.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Wakes the consumer.
    wake: Condvar,
}

#[derive(Debug)]
struct State<T> {
    /// What waits, oldest first.
    items: Vec<T>,
    /// Whether the consumer sleeps and nobody has woken it yet.
    asleep: bool,
    /// Whether anything pushed from now on is dropped.
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Queue<T> {
        let state = State { items: Vec::new(), asleep: false, closed: false };
        Queue { state: Mutex::new(state), wake: Condvar::new() }
    }

    /// A thread that panicked while it held the lock left the list whole: every change is one call.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one item; false when the queue is closed.
    pub(crate) fn push(&self, item: T) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.items.push(item);
        self.wake_after(state);
        true
    }

    /// Appends all items and leaves the list empty; false when the queue is closed.
    pub(crate) fn push_all(&self, items: &mut Vec<T>) -> bool {
        if items.is_empty() {
            return true;
        }
        let mut state = self.lock();
        if state.closed {
            items.clear();
            return false;
        }
        state.items.append(items);
        self.wake_after(state);
        true
    }

    fn wake_after(&self, mut state: MutexGuard<'_, State<T>>) {
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Takes all that waits into `into`, which must be empty; waits for something until `until`, or for
    /// ever without it.
    pub(crate) fn drain(&self, into: &mut Vec<T>, until: Option<Instant>) -> Drained {
        assert!(into.is_empty(), "what was drained before is dealt with first");
        let mut state = self.lock();
        loop {
            if !state.items.is_empty() {
                std::mem::swap(&mut state.items, into);
                return Drained::Items;
            }
            if state.closed {
                return Drained::Closed;
            }
            state.asleep = true;
            state = match until {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let now = Instant::now();
                    if until <= now {
                        state.asleep = false;
                        return Drained::TimedOut;
                    }
                    self.wake
                        .wait_timeout(state, until - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    /// Drops what is pushed from now on. What waits is still given out.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake_after(state);
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_sleeping_consumer_is_woken_and_takes_all() {
        let queue = Arc::new(Queue::new());
        let producer = Arc::clone(&queue);
        let thread = std::thread::spawn(move || producer.push_all(&mut vec![1, 2, 3]));
        let mut items = Vec::new();
        assert_eq!(queue.drain(&mut items, None), Drained::Items);
        assert_eq!(items, [1, 2, 3]);
        assert!(thread.join().expect("no panic"));
    }

    #[test]
    fn a_wait_ends_at_its_moment_and_a_closed_queue_gives_out_the_rest() {
        let queue = Queue::new();
        let mut items = Vec::new();
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(queue.drain(&mut items, Some(soon)), Drained::TimedOut);
        queue.push(1);
        queue.close();
        assert!(!queue.push(2));
        assert_eq!(queue.drain(&mut items, None), Drained::Items);
        assert_eq!(std::mem::take(&mut items), [1]);
        assert_eq!(queue.drain(&mut items, None), Drained::Closed);
    }
}
