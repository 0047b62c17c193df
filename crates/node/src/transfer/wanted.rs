//! The snapshot that a replica cannot go on without, because its state machine is lost: whom to ask for it, and when.
//!
//! Everything applied anywhere is committed, so any replica with state can give one. The leader is asked where one is
//! known: it is sure to have applied enough, or will soon. While there is none the others are asked in turn, because the
//! replica that asks may be the one whose vote or log an election needs, and it stands for none before it has its state.

use quorate_types::{Index, Instant, NodeId};
use std::time::Duration;

/// How long to wait between two askings.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// What is wanted, and when it is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The least that it must cover: where the log begins.
    at_least: Index,
    /// When to ask next.
    ask_at: Instant,
    /// How often it was asked for.
    asked_count: usize,
}

impl Wanted {
    /// A snapshot that reaches `at_least`; to be asked for at once.
    pub(crate) fn new(now: Instant, at_least: Index) -> Wanted {
        Wanted { at_least, ask_at: now, asked_count: 0 }
    }

    /// Time has passed. Gives whom to ask, if it is time to, and for what; nobody while one is coming.
    pub(crate) fn on_time(
        &mut self,
        now: Instant,
        is_coming: bool,
        leader: Option<NodeId>,
        reachable: &[NodeId],
    ) -> Option<(NodeId, Index)> {
        if self.ask_at > now {
            return None;
        }
        self.ask_at = now + ASK_INTERVAL;
        if is_coming || reachable.is_empty() {
            return None;
        }
        let in_turn = reachable[self.asked_count % reachable.len()];
        self.asked_count += 1;
        let peer = leader.filter(|leader| reachable.contains(leader)).unwrap_or(in_turn);
        Some((peer, self.at_least))
    }

    /// When something is due.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.ask_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_asked_or_else_everybody_in_turn_and_nobody_while_one_is_coming() {
        let mut wanted = Wanted::new(Instant(0), Index(9));
        let mut ask = |is_coming, leader: Option<u64>, reachable: &[u64]| {
            let reachable: Vec<NodeId> = reachable.iter().copied().map(NodeId).collect();
            let due = wanted.next_deadline();
            let early = Instant(due.0.saturating_sub(1));
            if early < due {
                assert_eq!(wanted.on_time(early, false, None, &reachable), None);
            }
            let asked = wanted.on_time(due, is_coming, leader.map(NodeId), &reachable);
            asked.map(|(peer, at_least)| (peer.0, at_least.0))
        };
        assert_eq!(ask(false, None, &[]), None);
        assert_eq!(ask(true, Some(2), &[2, 3]), None);
        assert_eq!(ask(false, Some(2), &[2, 3]), Some((2, 9)));
        assert_eq!(ask(false, Some(4), &[2, 3]), Some((3, 9)), "the leader cannot be reached");
        assert_eq!(ask(false, None, &[2, 3]), Some((2, 9)));
        assert_eq!(ask(false, None, &[2, 3]), Some((3, 9)));
    }
}
