//! The batched read barrier: many waiting reads, one quorum round at a time.

use quorate_types::Index;

/// Reads that one round serves.
#[derive(Clone, Debug)]
struct Outstanding<W> {
    /// The round whose acknowledgement by a quorum ends the wait.
    round: u64,
    /// What was committed when the round began.
    index: Index,
    /// Who waits.
    waiters: Vec<W>,
}

/// Waits for a quorum to confirm leadership after a read came in (thesis 6.4). While a round is out, reads that
/// arrive gather for the next one: they may not ride on a round that began before them.
#[derive(Clone, Debug)]
pub(crate) struct Barrier<W> {
    /// Who came in since the last round began.
    gathering: Vec<W>,
    /// The round that is out.
    outstanding: Option<Outstanding<W>>,
}

impl<W> Barrier<W> {
    /// Nobody waits.
    pub(crate) fn new() -> Barrier<W> {
        Barrier { gathering: Vec::new(), outstanding: None }
    }

    /// Adds a read.
    pub(crate) fn wait(&mut self, waiter: W) {
        self.gathering.push(waiter);
    }

    /// Whether a round should begin.
    pub(crate) fn wants_round(&self) -> bool {
        self.outstanding.is_none() && !self.gathering.is_empty()
    }

    /// Begins `round` for all that gathered; `index` is what is committed now.
    pub(crate) fn begin(&mut self, round: u64, index: Index) {
        assert!(self.outstanding.is_none(), "round {round} begins while another is out");
        let waiters = std::mem::take(&mut self.gathering);
        self.outstanding = Some(Outstanding { round, index, waiters });
    }

    /// The round that is out.
    pub(crate) fn outstanding_round(&self) -> Option<u64> {
        self.outstanding.as_ref().map(|outstanding| outstanding.round)
    }

    /// Ends the round that is out: its index and whom it serves.
    pub(crate) fn end(&mut self) -> Option<(Index, Vec<W>)> {
        self.outstanding.take().map(|outstanding| (outstanding.index, outstanding.waiters))
    }

    /// Gives up: everybody who waits.
    pub(crate) fn abandon(&mut self) -> Vec<W> {
        let mut waiters = self.end().map(|(_, waiters)| waiters).unwrap_or_default();
        waiters.append(&mut self.gathering);
        waiters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_never_rides_on_a_round_that_began_before_it() {
        let mut barrier = Barrier::new();
        barrier.wait("a");
        assert!(barrier.wants_round());
        barrier.begin(7, Index(3));
        barrier.wait("b");
        assert!(!barrier.wants_round());
        assert_eq!(barrier.outstanding_round(), Some(7));
        assert_eq!(barrier.end(), Some((Index(3), vec!["a"])));
        assert!(barrier.wants_round());
        barrier.begin(8, Index(4));
        barrier.wait("c");
        assert_eq!(barrier.abandon(), ["b", "c"]);
    }
}
