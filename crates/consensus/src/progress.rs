//! How far a peer has come, as its leader sees it.

use quorate_types::{Index, Instant, Position};
use std::collections::VecDeque;
use std::time::Duration;

/// What a leader does for a peer at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgressState {
    /// Looks for the index where the logs agree, one message at a time.
    Probe {
        /// A message is out; wait for its answer, or for the next heartbeat.
        paused: bool,
        /// A probe at this `next` went unanswered: repeat it without entries.
        repeated: bool,
    },
    /// The logs agree: sends optimistically, as far as the window allows.
    Replicate,
    /// What the peer lacks is purged here.
    Snapshot {
        /// What the peer has staged and since when, once the transfer is over.
        delivered: Option<(Position, Instant)>,
    },
}

/// A message with entries that was not acknowledged yet.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// The last index in it.
    last: Index,
    /// Its entries' encoded size in bytes.
    size: usize,
    /// When it was sent.
    sent: Instant,
}

/// How far one peer has come.
///
/// # Invariants
/// 1. `matched < next`.
/// 2. `in_flight` rises in `last`, all above `matched` and below `next`; it is empty outside
///    `Replicate`.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The highest index known durable there and equal to ours.
    pub(crate) matched: Index,
    /// The next index to send.
    pub(crate) next: Index,
    /// What is being done.
    pub(crate) state: ProgressState,
    /// Messages on their way.
    in_flight: VecDeque<InFlight>,
    /// The sum of their sizes in bytes.
    in_flight_size: usize,
}

impl Progress {
    /// Nothing is known of the peer; try after `last` first.
    pub(crate) fn new(last: Index) -> Progress {
        Progress {
            matched: Index::ZERO,
            next: last.next(),
            state: ProgressState::Probe { paused: false, repeated: false },
            in_flight: VecDeque::new(),
            in_flight_size: 0,
        }
    }

    /// Entry bytes on their way.
    pub(crate) fn in_flight_size(&self) -> usize {
        self.in_flight_size
    }

    /// How many more entry bytes may be sent; a message may go over it once the window is not full.
    pub(crate) fn room(&self, window_size_max: usize) -> usize {
        window_size_max.saturating_sub(self.in_flight_size)
    }

    /// Takes in that entries up to `last` were sent, or a message without entries.
    pub(crate) fn sent(&mut self, last: Index, size: usize, now: Instant) {
        match &mut self.state {
            ProgressState::Probe { paused, .. } => *paused = true,
            ProgressState::Replicate => {
                if last >= self.next {
                    self.in_flight.push_back(InFlight { last, size, sent: now });
                    self.in_flight_size += size;
                    self.next = last.next();
                }
            }
            ProgressState::Snapshot { .. } => {}
        }
    }

    /// Takes in that the peer holds everything up to `index`; gives the age of the oldest message that this
    /// answers.
    pub(crate) fn acknowledged(&mut self, index: Index, now: Instant) -> Option<Duration> {
        self.matched = self.matched.max(index);
        self.next = self.next.max(self.matched.next());
        let mut oldest = None;
        while self.in_flight.front().is_some_and(|message| message.last <= self.matched) {
            let message = self.in_flight.pop_front().expect("was just seen");
            self.in_flight_size -= message.size;
            oldest.get_or_insert(now.since(message.sent));
        }
        match self.state {
            ProgressState::Probe { .. } => self.state = ProgressState::Replicate,
            ProgressState::Snapshot { delivered: Some((position, _)) }
                if index >= position.index =>
            {
                self.state = ProgressState::Replicate;
            }
            ProgressState::Replicate | ProgressState::Snapshot { .. } => {}
        }
        oldest
    }

    /// Looks for agreement again, from the index after `previous` on.
    pub(crate) fn probe(&mut self, previous: Index) {
        self.forget_in_flight();
        self.next = previous.max(self.matched).next();
        self.state = ProgressState::Probe { paused: false, repeated: false };
    }

    /// The peer lost slots: it holds nothing above `index` any more.
    pub(crate) fn lost(&mut self, index: Index) {
        self.matched = self.matched.min(index);
        self.probe(index);
    }

    /// Lets an unanswered probe be sent again.
    pub(crate) fn repeat_probe(&mut self) {
        if let ProgressState::Probe { paused, repeated } = &mut self.state {
            *repeated |= *paused;
            *paused = false;
        }
    }

    /// Begins a snapshot.
    pub(crate) fn begin_snapshot(&mut self) {
        self.forget_in_flight();
        self.state = ProgressState::Snapshot { delivered: None };
    }

    fn forget_in_flight(&mut self) {
        self.in_flight.clear();
        self.in_flight_size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Epoch;

    #[test]
    fn the_window_fills_and_empties_by_message() {
        let mut progress = Progress::new(Index(4));
        progress.acknowledged(Index(4), Instant(0));
        progress.sent(Index(6), 60, Instant(10));
        progress.sent(Index(9), 30, Instant(20));
        assert_eq!((progress.next, progress.room(100)), (Index(10), 10));
        assert_eq!(progress.acknowledged(Index(5), Instant(30)), None);
        assert_eq!(progress.in_flight_size(), 90);
        assert_eq!(progress.acknowledged(Index(9), Instant(50)), Some(Duration::from_nanos(40)));
        assert_eq!(progress.room(100), 100);
        assert_eq!(progress.acknowledged(Index(3), Instant(60)), None);
        assert_eq!(progress.matched, Index(9));
    }

    #[test]
    fn a_probe_waits_for_its_answer_and_moves_nothing() {
        let mut progress = Progress::new(Index(4));
        progress.sent(Index(7), 10, Instant(0));
        assert_eq!(progress.state, ProgressState::Probe { paused: true, repeated: false });
        assert_eq!(progress.next, Index(5));
        progress.repeat_probe();
        assert_eq!(progress.state, ProgressState::Probe { paused: false, repeated: true });
    }

    #[test]
    fn a_delivered_snapshot_ends_when_the_peer_holds_it() {
        let mut progress = Progress::new(Index(4));
        progress.begin_snapshot();
        let position = Position::new(Index(8), Epoch::ZERO);
        progress.state = ProgressState::Snapshot { delivered: Some((position, Instant(0))) };
        progress.acknowledged(Index(7), Instant(1));
        assert!(matches!(progress.state, ProgressState::Snapshot { .. }));
        progress.acknowledged(Index(8), Instant(2));
        assert_eq!(progress.state, ProgressState::Replicate);
        assert_eq!(progress.next, Index(9));
    }
}
