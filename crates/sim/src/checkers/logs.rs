//! Logs: an entry stands after the same entries wherever it stands, a leader replaces nothing, and holds all that is committed.
//!
//! R2, R3 and R4 of Raft's invariants (Ongaro 2014, figure 3.2: log matching, leader append-only, leader completeness). Read
//! off the appends that leaders send and off what state machines apply. By induction over the index it is enough that an
//! entry of one index and epoch is the same, and stands after the same epoch, whoever sends it.

use super::Violation;
use quorate_consensus::Message;
use quorate_consensus::raft::Message as Raft;
use quorate_types::{ContentHash, Entry, Epoch, Index, Position};
use std::collections::BTreeMap;

/// What was sent as the entry of one index and epoch.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Its content.
    hash: ContentHash,
    /// The epoch of the entry before it.
    before: Epoch,
}

/// What is committed at an index.
#[derive(Clone, Copy, Debug)]
struct Decided {
    /// The entry's epoch.
    created: Epoch,
    /// Its content.
    hash: ContentHash,
    /// The highest epoch in which anybody had led when somebody applied it. It was committed in this or an earlier one: who
    /// leads in a later one holds it.
    by: u64,
}

/// What leaders have sent and state machines have applied, by all nodes for the whole run.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    /// Every entry that was sent.
    sent: BTreeMap<(Index, Epoch), Sent>,
    /// The epoch of each entry that the leader of an epoch has sent, or named as what stands before.
    reigns: BTreeMap<Epoch, BTreeMap<Index, Epoch>>,
    /// What is committed.
    decided: BTreeMap<Index, Decided>,
    /// The highest epoch of a leader that has sent anything.
    highest: u64,
}

impl Logs {
    /// A state machine is given an entry, which is committed therefore.
    pub fn on_apply(&mut self, index: Index, entry: &Entry) {
        let (created, hash, by) = (entry.created(), entry.hash(), self.highest);
        self.decided.entry(index).or_insert(Decided { created, hash, by });
    }

    /// A node says something.
    ///
    /// # Errors
    /// When it is an append that shows another log than was shown before.
    pub fn on_send(&mut self, message: &Message) -> Result<(), Violation> {
        let Message::Raft(Raft::Append { epoch, previous, entries, committed: _ }) = message else {
            return Ok(());
        };
        self.highest = self.highest.max(epoch.number);
        self.check_append_only(*epoch, *previous)?;
        if let Some(decided) = self.decided_before(*epoch, previous.index)
            && previous.epoch != decided.created
        {
            return Err(incomplete(*epoch, *previous, decided));
        }
        let mut before = previous.epoch;
        for (number, entry) in (1..).zip(entries) {
            let position = Position::new(Index(previous.index.0 + number), entry.created());
            let sent = Sent { hash: entry.hash(), before };
            self.check_matching(position, sent)?;
            self.check_append_only(*epoch, position)?;
            if let Some(decided) = self.decided_before(*epoch, position.index)
                && entry.hash() != decided.hash
            {
                return Err(incomplete(*epoch, position, decided));
            }
            before = entry.created();
        }
        Ok(())
    }

    fn check_matching(&mut self, position: Position, sent: Sent) -> Result<(), Violation> {
        let known = *self.sent.entry((position.index, position.epoch)).or_insert(sent);
        if known.hash != sent.hash {
            let (one, other) = (known.hash, sent.hash);
            return Err(violation(format!("{position} is {one} in one log, {other} in another")));
        }
        if known.before != sent.before {
            let (one, other) = (known.before, sent.before);
            return Err(violation(format!(
                "{position} stands after an entry of {one} in one log, of {other} in another"
            )));
        }
        Ok(())
    }

    fn check_append_only(&mut self, reign: Epoch, position: Position) -> Result<(), Violation> {
        let log = self.reigns.entry(reign).or_default();
        let known = *log.entry(position.index).or_insert(position.epoch);
        if known == position.epoch {
            return Ok(());
        }
        let index = position.index;
        Err(violation(format!(
            "the leader of {reign} held an entry of {known} at {index}, and now {position}"
        )))
    }

    /// What is committed at an index, where it was before this epoch began.
    fn decided_before(&self, reign: Epoch, index: Index) -> Option<Decided> {
        self.decided.get(&index).copied().filter(|decided| decided.by < reign.number)
    }
}

fn incomplete(reign: Epoch, position: Position, decided: Decided) -> Violation {
    let Decided { created, by, .. } = decided;
    violation(format!(
        "the leader of {reign} holds {position}, where an entry of {created} was committed by epoch {by}"
    ))
}

fn violation(seen: String) -> Violation {
    Violation { promise: "logs", seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_types::{EntryKind, NodeId, Origin, TransactionId};

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number, NodeId(number % 3 + 1))
    }

    fn entry(number: u64, body: &'static str) -> Entry {
        let body = Bytes::from_static(body.as_bytes());
        Entry::new(epoch(number), EntryKind::Command, Origin::NONE, TransactionId(0), body)
    }

    fn append(reign: u64, previous: (u64, u64), entries: &[Entry]) -> Message {
        let previous = Position::new(Index(previous.0), epoch(previous.1));
        let (epoch, committed, entries) = (epoch(reign), Index::ZERO, entries.to_vec());
        Message::Raft(Raft::Append { epoch, previous, committed, entries })
    }

    /// What a first message and then each of some others leave.
    fn check(first: &Message, second: &Message, legal: bool) {
        let mut logs = Logs::default();
        assert_eq!(logs.on_send(first), Ok(()));
        assert_eq!(logs.on_send(first), Ok(()), "sent again");
        assert_eq!(logs.on_send(second).is_ok(), legal, "{second}");
    }

    #[test]
    fn an_entry_is_one_and_stands_after_one_in_every_log() {
        let first = append(2, (4, 1), &[entry(2, "a"), entry(2, "b")]);
        check(&first, &append(3, (4, 1), &[entry(2, "a"), entry(2, "b"), entry(3, "")]), true);
        check(&first, &append(3, (5, 2), &[entry(3, "c")]), true);
        check(&first, &append(3, (4, 1), &[entry(2, "other")]), false);
        check(&first, &append(3, (4, 2), &[entry(2, "a")]), false);
    }

    #[test]
    fn a_leader_replaces_nothing() {
        let first = append(2, (4, 1), &[entry(2, "a"), entry(2, "b")]);
        check(&first, &append(2, (5, 2), &[entry(2, "b"), entry(2, "c")]), true);
        check(&first, &append(2, (5, 1), &[]), false);
        check(&first, &append(2, (4, 1), &[entry(1, "a")]), false);
        check(&first, &append(3, (4, 1), &[entry(1, "a")]), true);
    }

    #[test]
    fn a_later_leader_holds_all_that_is_committed() {
        let mut logs = Logs::default();
        assert_eq!(logs.on_send(&append(3, (4, 1), &[entry(2, "a")])), Ok(()));
        logs.on_apply(Index(5), &entry(2, "a"));
        let check = |message: Message, legal: bool| {
            assert_eq!(logs.clone().on_send(&message).is_ok(), legal, "{message}");
        };
        check(append(2, (4, 1), &[entry(1, "old")]), true);
        check(append(4, (4, 1), &[entry(2, "a"), entry(4, "")]), true);
        check(append(4, (4, 1), &[entry(4, "")]), false);
        check(append(4, (5, 1), &[entry(4, "")]), false);
        check(append(4, (5, 2), &[entry(4, "")]), true);
    }
}
