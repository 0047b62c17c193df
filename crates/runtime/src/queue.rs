//! A queue from many threads to one, made for batches.
//!
//! The consumer takes everything that waits with one swap, and is woken only when it sleeps: under load
//! a push costs one uncontended lock and no system call. The queue itself has no limit; who pushes says in
//! its own module what bounds it.
//!
//! Most consumers wait for nothing but their queue. The node's thread also waits for its streams: it looks into
//! its queue with [`Queue::take`] and sleeps elsewhere, where a [`mio::Waker`] finds it.

use crate::spin::Spin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How a look into a queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There is something to do.
    Items,
    /// There is nothing to do yet.
    Nothing,
    /// The queue is closed and empty.
    Closed,
}

/// What the consumer does when nothing waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It goes to sleep: the next push wakes it.
    Sleep,
    /// It goes to sleep and wants to hear of nothing that can wait: see [`Queue::push_quietly`].
    SleepDeeply,
    /// It comes back by itself.
    GoOn,
}

/// Whether the consumer sleeps and nobody has woken it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asleep {
    No,
    Lightly,
    Deeply,
}

/// Wakes a consumer that sleeps.
pub(crate) trait Wake {
    /// Wakes the consumer, or keeps it from falling asleep.
    fn wake(&self);
}

impl Wake for Condvar {
    fn wake(&self) {
        self.notify_one();
    }
}

impl Wake for mio::Waker {
    fn wake(&self) {
        if let Err(error) = mio::Waker::wake(self) {
            // It wakes at its next deadline.
            tracing::error!(%error, "cannot wake the node's thread");
        }
    }
}

/// A queue from many threads to one.
#[derive(Debug)]
pub(crate) struct Queue<T, W = Condvar> {
    state: Mutex<State<T>>,
    /// Wakes the consumer.
    wake: W,
}

#[derive(Debug)]
struct State<T> {
    /// What waits, oldest first.
    items: Vec<T>,
    asleep: Asleep,
    /// Whether anything pushed from now on is dropped.
    closed: bool,
}

impl<T, W: Wake> Queue<T, W> {
    pub(crate) fn with(wake: W) -> Queue<T, W> {
        let state = State { items: Vec::new(), asleep: Asleep::No, closed: false };
        Queue { state: Mutex::new(state), wake }
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

    /// Appends one item that can wait until the consumer wakes for something else, if that is how it sleeps; false
    /// when the queue is closed.
    pub(crate) fn push_quietly(&self, item: T) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.items.push(item);
        if state.asleep == Asleep::Lightly {
            self.wake_after(state);
        }
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
        let asleep = std::mem::replace(&mut state.asleep, Asleep::No);
        drop(state);
        if asleep != Asleep::No {
            self.wake.wake();
        }
    }

    /// Takes all that waits into `into`, which must be empty.
    pub(crate) fn take(&self, into: &mut Vec<T>, then: Then) -> Drained {
        assert!(into.is_empty(), "what was taken before is dealt with first");
        let mut state = self.lock();
        let taken = state.take(into);
        state.asleep = match then {
            Then::Sleep if taken == Drained::Nothing => Asleep::Lightly,
            Then::SleepDeeply if taken == Drained::Nothing => Asleep::Deeply,
            Then::Sleep | Then::SleepDeeply | Then::GoOn => Asleep::No,
        };
        taken
    }

    /// Drops what is pushed from now on. What waits is still given out.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake_after(state);
    }

    /// Whether something waits, or never will again.
    pub(crate) fn has_news(&self) -> bool {
        let state = self.lock();
        !state.items.is_empty() || state.closed
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }
}

impl<T> State<T> {
    fn take(&mut self, into: &mut Vec<T>) -> Drained {
        if !self.items.is_empty() {
            std::mem::swap(&mut self.items, into);
            Drained::Items
        } else if self.closed {
            Drained::Closed
        } else {
            Drained::Nothing
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Queue<T> {
        Queue::with(Condvar::new())
    }

    /// Takes all that waits into `into`, which must be empty; waits for something, at first awake, and is false when the
    /// queue is closed and empty.
    pub(crate) fn drain(&self, into: &mut Vec<T>, spin: &mut Spin) -> bool {
        assert!(into.is_empty(), "what was drained before is dealt with first");
        spin.until(|| self.has_news());
        let mut state = self.lock();
        loop {
            match state.take(into) {
                Drained::Items => return true,
                Drained::Closed => return false,
                Drained::Nothing => {
                    state.asleep = Asleep::Lightly;
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_sleeping_consumer_is_woken_and_takes_all() {
        let queue = Arc::new(Queue::new());
        let producer = Arc::clone(&queue);
        let thread = std::thread::spawn(move || producer.push_all(&mut vec![1, 2, 3]));
        let mut items = Vec::new();
        assert!(queue.drain(&mut items, &mut Spin::never()));
        assert_eq!(items, [1, 2, 3]);
        assert!(thread.join().expect("no panic"));
    }

    #[test]
    fn only_a_consumer_that_sleeps_is_woken() {
        #[derive(Default)]
        struct Woken(Mutex<usize>);
        impl Wake for Woken {
            fn wake(&self) {
                *self.0.lock().expect("no panic") += 1;
            }
        }
        let queue = Queue::with(Woken::default());
        let woken = || *queue.wake.0.lock().expect("no panic");
        let mut items = Vec::new();
        assert_eq!(queue.take(&mut items, Then::GoOn), Drained::Nothing);
        queue.push(1);
        assert_eq!(woken(), 0);
        assert_eq!(queue.take(&mut items, Then::Sleep), Drained::Items);
        assert_eq!(std::mem::take(&mut items), [1]);
        queue.push(2);
        assert_eq!(woken(), 0, "it has not been told that nothing waits");
        assert_eq!(queue.take(&mut items, Then::Sleep), Drained::Items);
        assert_eq!(std::mem::take(&mut items), [2]);
        assert_eq!(queue.take(&mut items, Then::Sleep), Drained::Nothing);
        queue.push(3);
        queue.push(4);
        assert_eq!(woken(), 1, "once is enough");

        assert_eq!(queue.take(&mut items, Then::GoOn), Drained::Items);
        items.clear();
        assert_eq!(queue.take(&mut items, Then::SleepDeeply), Drained::Nothing);
        queue.push_quietly(5);
        assert_eq!(woken(), 1, "that can wait");
        queue.push(6);
        assert_eq!(woken(), 2);
        assert_eq!(queue.take(&mut items, Then::GoOn), Drained::Items);
        assert_eq!(std::mem::take(&mut items), [5, 6]);
        assert_eq!(queue.take(&mut items, Then::Sleep), Drained::Nothing);
        queue.push_quietly(7);
        assert_eq!(woken(), 3, "it waits for that");
    }

    #[test]
    fn a_closed_queue_gives_out_the_rest() {
        let queue = Queue::new();
        let mut items = Vec::new();
        queue.push(1);
        queue.close();
        assert!(!queue.push(2));
        assert!(queue.drain(&mut items, &mut Spin::never()));
        assert_eq!(std::mem::take(&mut items), [1]);
        assert!(!queue.drain(&mut items, &mut Spin::never()));
    }
}
