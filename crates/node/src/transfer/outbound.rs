//! A snapshot on its way out.

use super::{BulkMessage, Piece, SILENT_AFTER, TransferEffect, TransferId, WINDOW_PIECES, chained};
use crate::interface::MachineRequest;
use bytes::Bytes;
use quorate_consensus::{SnapshotInput, SnapshotOutcome};
use quorate_types::{
    Applied, ApplyFault, Configuration, Epoch, Instant, NodeId, Position, SnapshotName,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Send the oldest piece again when nothing was acknowledged for this long.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// Give up when nothing was acknowledged for this long. While others wait for their turn, a receiver that says nothing at
/// all for [`SILENT_AFTER`] loses its own.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// The snapshot that is being sent.
#[derive(Debug)]
struct Sending {
    /// To whom.
    to: NodeId,
    /// The epoch in which it was asked for.
    epoch: Epoch,
    /// Its name on the wire.
    transfer: TransferId,
    /// What it covers; known once the state machine has captured a view.
    position: Option<Position>,
    /// Pieces sent and not acknowledged, with their numbers.
    window: VecDeque<(u64, Piece)>,
    /// The number of the next piece.
    next: u64,
    /// The hash over the chunks so far.
    hash: u64,
    /// Whether a chunk is being read.
    is_reading: bool,
    /// Whether the last piece is in the window or beyond.
    is_complete: bool,
    /// When something was last acknowledged.
    progress_at: Instant,
    /// When the receiver last said anything, or was first owed an answer.
    heard_at: Instant,
    /// When to send again.
    resend_at: Instant,
}

/// Snapshots to be sent, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// The one under way.
    sending: Option<Sending>,
    /// Those that wait, and the epoch in which they were asked for.
    queue: BTreeMap<NodeId, Epoch>,
    /// Those who could not be reached when it was their turn, and when the protocol is told so: a snapshot taken now
    /// would be old by the time they can be.
    unreachable: BTreeMap<NodeId, Instant>,
    /// The next transfer's name.
    next_transfer: u64,
}

impl Outbound {
    /// Nothing to send; transfers are named from `first` on.
    pub(crate) fn new(first: u64) -> Outbound {
        Outbound {
            sending: None,
            queue: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            next_transfer: first,
        }
    }

    /// The protocol wants `to` to have a snapshot.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        to: NodeId,
        epoch: Epoch,
        is_reachable: bool,
    ) -> Vec<TransferEffect> {
        if !is_reachable {
            self.unreachable.insert(to, now + RESEND_AFTER);
            return Vec::new();
        }
        self.unreachable.remove(&to);
        self.queue.insert(to, epoch);
        self.maybe_begin(now)
    }

    /// A peer that can be reached asks for a snapshot. One that is under way to it, or waits for its turn, is the answer.
    pub(crate) fn on_wanted(
        &mut self,
        now: Instant,
        from: NodeId,
        epoch: Epoch,
    ) -> Vec<TransferEffect> {
        let is_sending = self.sending.as_ref().is_some_and(|sending| sending.to == from);
        if is_sending || self.queue.contains_key(&from) {
            return Vec::new();
        }
        self.send(now, from, epoch, true)
    }

    fn maybe_begin(&mut self, now: Instant) -> Vec<TransferEffect> {
        if self.sending.is_some() {
            return Vec::new();
        }
        let Some((to, epoch)) = self.queue.pop_first() else { return Vec::new() };
        let transfer = TransferId(self.next_transfer);
        self.next_transfer = self.next_transfer.wrapping_add(1);
        self.sending = Some(Sending {
            to,
            epoch,
            transfer,
            position: None,
            window: VecDeque::new(),
            next: 0,
            hash: 0,
            is_reading: false,
            is_complete: false,
            progress_at: now,
            heard_at: now,
            resend_at: now + RESEND_AFTER,
        });
        vec![TransferEffect::Machine(MachineRequest::Capture)]
    }

    /// The state machine has captured a view; `configuration` is the one in force there.
    pub(crate) fn on_captured(
        &mut self,
        now: Instant,
        captured: Result<Applied, ApplyFault>,
        configuration: impl FnOnce(Position) -> Option<Configuration>,
    ) -> Vec<TransferEffect> {
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.position.is_none())
        else {
            return vec![TransferEffect::Machine(MachineRequest::DropCapture)];
        };
        let Ok(applied) = captured else { return self.end(now, SnapshotOutcome::Failed, false) };
        let position = applied.position;
        let Some(configuration) = configuration(position) else {
            return self.end(now, SnapshotOutcome::Failed, true);
        };
        sending.position = Some(position);
        sending.progress_at = now;
        let name = SnapshotName { position, digest: applied.digest, configuration };
        let epoch = sending.epoch;
        let mut effects = vec![sending.push(now, Piece::Begin { epoch, name })];
        effects.extend(sending.maybe_read());
        effects
    }

    /// The next chunk was read, or the end reached.
    pub(crate) fn on_chunk(
        &mut self,
        now: Instant,
        chunk: Result<Option<Bytes>, ApplyFault>,
    ) -> Vec<TransferEffect> {
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.is_reading) else {
            return Vec::new();
        };
        sending.is_reading = false;
        let Ok(chunk) = chunk else { return self.end(now, SnapshotOutcome::Failed, true) };
        let piece = match chunk {
            Some(chunk) => {
                sending.hash = chained(sending.hash, &chunk);
                Piece::Chunk(chunk)
            }
            None => {
                sending.is_complete = true;
                Piece::End { hash: sending.hash }
            }
        };
        let mut effects = vec![sending.push(now, piece)];
        effects.extend(sending.maybe_read());
        effects
    }

    /// The receiver has taken in every piece below `next`.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        from: NodeId,
        transfer: TransferId,
        next: u64,
    ) -> Vec<TransferEffect> {
        let Some(sending) = self.ours(from, transfer) else { return Vec::new() };
        sending.heard_at = now;
        let before = sending.window.len();
        while sending.window.front().is_some_and(|(number, _)| *number < next) {
            sending.window.pop_front();
        }
        if sending.window.len() < before {
            sending.progress_at = now;
            sending.resend_at = now + RESEND_AFTER;
        }
        if sending.is_complete && sending.window.is_empty() {
            return self.end(now, SnapshotOutcome::Delivered, true);
        }
        sending.maybe_read().into_iter().collect()
    }

    /// The receiver cannot go on.
    pub(crate) fn on_abort(
        &mut self,
        now: Instant,
        from: NodeId,
        transfer: TransferId,
    ) -> Vec<TransferEffect> {
        match self.ours(from, transfer) {
            Some(_) => self.end(now, SnapshotOutcome::Failed, true),
            None => Vec::new(),
        }
    }

    /// The peer cannot be reached: what it would get later would be old by then.
    pub(crate) fn on_link_down(&mut self, now: Instant, peer: NodeId) -> Vec<TransferEffect> {
        if self.queue.remove(&peer).is_some() {
            return vec![failed(peer)];
        }
        match &self.sending {
            Some(sending) if sending.to == peer && sending.position.is_some() => {
                self.end(now, SnapshotOutcome::Failed, true)
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn ours(&mut self, from: NodeId, transfer: TransferId) -> Option<&mut Sending> {
        let sending = self.sending.as_mut()?;
        (sending.to == from && sending.transfer == transfer).then_some(sending)
    }

    /// Time has passed.
    pub(crate) fn on_time(&mut self, now: Instant) -> Vec<TransferEffect> {
        let due = self.unreachable.iter().filter(|(_, at)| **at <= now);
        let due: Vec<NodeId> = due.map(|(peer, _)| *peer).collect();
        self.unreachable.retain(|_, at| *at > now);
        let mut effects: Vec<TransferEffect> = due.into_iter().map(failed).collect();
        effects.extend(self.sending_on_time(now));
        effects
    }

    fn sending_on_time(&mut self, now: Instant) -> Vec<TransferEffect> {
        let others_wait = !self.queue.is_empty();
        let Some(sending) = self.sending.as_mut().filter(|sending| sending.position.is_some())
        else {
            return Vec::new();
        };
        let is_stuck = sending.progress_at + GIVE_UP_AFTER <= now && !sending.is_reading;
        let is_silent = !sending.window.is_empty() && sending.heard_at + SILENT_AFTER <= now;
        if is_stuck || is_silent && others_wait {
            return self.end(now, SnapshotOutcome::Failed, true);
        }
        if sending.resend_at > now {
            return Vec::new();
        }
        sending.resend_at = now + RESEND_AFTER;
        let (to, transfer) = (sending.to, sending.transfer);
        let say = |(number, piece): &(u64, Piece)| {
            let message = BulkMessage::Piece { transfer, number: *number, piece: piece.clone() };
            TransferEffect::Say(to, message)
        };
        sending.window.iter().map(say).collect()
    }

    fn end(
        &mut self,
        now: Instant,
        outcome: SnapshotOutcome,
        is_captured: bool,
    ) -> Vec<TransferEffect> {
        let Some(sending) = self.sending.take() else { return Vec::new() };
        let position = sending.position.unwrap_or(Position::ZERO);
        let sent = SnapshotInput::Sent { to: sending.to, position, outcome };
        let mut effects = vec![TransferEffect::Tell(sent)];
        if is_captured {
            effects.push(TransferEffect::Machine(MachineRequest::DropCapture));
        }
        effects.extend(self.maybe_begin(now));
        effects
    }

    /// When something is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let sending = self.sending.as_ref().filter(|sending| sending.position.is_some());
        let unreachable = self.unreachable.values().min().copied();
        sending.map(|sending| sending.resend_at).into_iter().chain(unreachable).min()
    }
}

/// Nothing was sent to this peer.
fn failed(to: NodeId) -> TransferEffect {
    let (position, outcome) = (Position::ZERO, SnapshotOutcome::Failed);
    TransferEffect::Tell(SnapshotInput::Sent { to, position, outcome })
}

impl Sending {
    fn push(&mut self, now: Instant, piece: Piece) -> TransferEffect {
        let number = self.next;
        self.next += 1;
        if self.window.is_empty() {
            self.resend_at = now + RESEND_AFTER;
            self.heard_at = now;
        }
        self.window.push_back((number, piece.clone()));
        let message = BulkMessage::Piece { transfer: self.transfer, number, piece };
        TransferEffect::Say(self.to, message)
    }

    fn maybe_read(&mut self) -> Option<TransferEffect> {
        if self.is_reading || self.is_complete || self.window.len() >= WINDOW_PIECES {
            return None;
        }
        self.is_reading = true;
        Some(TransferEffect::Machine(MachineRequest::NextChunk))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::name;
    use super::*;
    use quorate_types::Digest;

    /// Whom the protocol is told to have had no snapshot.
    fn failures(effects: &[TransferEffect]) -> Vec<NodeId> {
        let failure = |effect: &TransferEffect| match effect {
            TransferEffect::Tell(SnapshotInput::Sent { to, outcome, .. }) => {
                (*outcome == SnapshotOutcome::Failed).then_some(*to)
            }
            TransferEffect::Tell(_)
            | TransferEffect::Say(..)
            | TransferEffect::Machine(_)
            | TransferEffect::Install(_) => None,
        };
        effects.iter().filter_map(failure).collect()
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// A transfer to `to` is under way, its first piece is sent.
    fn begun(to: NodeId) -> Outbound {
        let mut outbound = Outbound::new(7);
        outbound.send(seconds(0), to, Epoch::ZERO, true);
        let applied = Applied { position: name(5).position, digest: Digest(1) };
        outbound.on_captured(seconds(0), Ok(applied), |_| Some(name(5).configuration));
        outbound
    }

    #[test]
    fn a_receiver_that_says_nothing_keeps_nobody_waiting_behind_it() {
        let mut outbound = begun(NodeId(2));
        assert_eq!(failures(&outbound.on_time(seconds(4))), []);
        outbound.send(seconds(4), NodeId(3), Epoch::ZERO, true);
        let effects = outbound.on_time(seconds(5));
        assert_eq!(failures(&effects), [NodeId(2)]);
        let sending = outbound.sending.as_ref().map(|sending| sending.to);
        assert_eq!(sending, Some(NodeId(3)), "the next has its turn");
    }

    #[test]
    fn a_receiver_that_answers_is_waited_for_though_others_wait() {
        let mut outbound = begun(NodeId(2));
        outbound.send(seconds(0), NodeId(3), Epoch::ZERO, true);
        outbound.on_chunk(seconds(0), Ok(None));
        for second in 1..29 {
            outbound.on_ack(seconds(second), NodeId(2), TransferId(7), 0);
            assert_eq!(failures(&outbound.on_time(seconds(second))), [], "after {second} s");
        }
        assert_eq!(failures(&outbound.on_time(seconds(30))), [NodeId(2)], "nothing was taken in");
    }

    fn drops_capture(effects: &[TransferEffect]) -> bool {
        effects
            .iter()
            .any(|effect| matches!(effect, TransferEffect::Machine(MachineRequest::DropCapture)))
    }

    /// The pieces said, by number.
    fn pieces(effects: &[TransferEffect]) -> Vec<u64> {
        let number = |effect: &TransferEffect| match effect {
            TransferEffect::Say(_, BulkMessage::Piece { number, .. }) => Some(*number),
            TransferEffect::Say(..)
            | TransferEffect::Tell(_)
            | TransferEffect::Machine(_)
            | TransferEffect::Install(_) => None,
        };
        effects.iter().filter_map(number).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_each_second() {
        let mut outbound = begun(NodeId(2));
        let chunk = || Ok(Some(Bytes::from_static(b"a")));
        for number in 1..WINDOW_PIECES as u64 {
            assert_eq!(pieces(&outbound.on_chunk(seconds(0), chunk())), [number]);
        }
        assert!(outbound.on_chunk(seconds(0), chunk()).is_empty(), "none was asked for");
        assert_eq!(outbound.next_deadline(), Some(seconds(1)));
        assert_eq!(pieces(&outbound.on_time(Instant(seconds(1).0 - 1))), []);
        assert_eq!(pieces(&outbound.on_time(seconds(1))), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(pieces(&outbound.on_time(seconds(1))), []);
        assert!(outbound.on_ack(seconds(1), NodeId(3), TransferId(7), 9).is_empty());
        assert!(outbound.on_ack(seconds(1), NodeId(2), TransferId(6), 9).is_empty());
        let effects = outbound.on_ack(seconds(1), NodeId(2), TransferId(7), 3);
        assert!(matches!(effects[..], [TransferEffect::Machine(MachineRequest::NextChunk)]));
        assert_eq!(pieces(&outbound.on_time(seconds(2))), [3, 4, 5, 6, 7]);
        let half = Instant(seconds(2).0 + 1);
        assert!(outbound.on_ack(half, NodeId(2), TransferId(7), 3).is_empty());
        assert_eq!(outbound.next_deadline(), Some(seconds(3)), "nothing more was taken in");
        outbound.on_ack(half, NodeId(2), TransferId(7), 4);
        assert_eq!(outbound.next_deadline(), Some(half + RESEND_AFTER));
        let effects = outbound.on_ack(seconds(2), NodeId(2), TransferId(7), 8);
        assert!(effects.is_empty(), "a chunk is being read");
        assert_eq!(pieces(&outbound.on_time(seconds(9))), []);
    }

    #[test]
    fn who_asks_for_what_is_under_way_to_it_is_not_sent_it_twice() {
        let mut outbound = begun(NodeId(2));
        assert!(outbound.on_wanted(seconds(0), NodeId(2), Epoch::ZERO).is_empty());
        assert!(outbound.on_wanted(seconds(0), NodeId(3), Epoch::ZERO).is_empty(), "in turn");
        assert!(outbound.queue.contains_key(&NodeId(3)));
        assert!(!outbound.queue.contains_key(&NodeId(2)));
        let later = Epoch::new(9, NodeId(1));
        assert!(outbound.on_wanted(seconds(0), NodeId(3), later).is_empty());
        assert_eq!(outbound.queue[&NodeId(3)], Epoch::ZERO, "it waits already");
    }

    #[test]
    fn a_transfer_ends_with_its_link_or_when_its_receiver_cannot_go_on() {
        let mut outbound = begun(NodeId(2));
        outbound.send(seconds(0), NodeId(3), Epoch::ZERO, true);
        assert!(outbound.on_link_down(seconds(0), NodeId(4)).is_empty());
        assert!(outbound.on_abort(seconds(0), NodeId(3), TransferId(7)).is_empty());
        assert!(outbound.on_abort(seconds(0), NodeId(2), TransferId(6)).is_empty());
        assert_eq!(failures(&outbound.on_link_down(seconds(0), NodeId(3))), [NodeId(3)]);
        let ended = outbound.on_link_down(seconds(0), NodeId(2));
        assert_eq!(failures(&ended), [NodeId(2)]);
        assert!(drops_capture(&ended));
        assert_eq!(outbound.next_deadline(), None);

        let ended = begun(NodeId(2)).on_abort(seconds(0), NodeId(2), TransferId(7));
        assert_eq!(failures(&ended), [NodeId(2)]);
        assert!(drops_capture(&ended));

        // Of what is not captured yet, the view is dropped when it comes.
        let mut outbound = Outbound::new(7);
        outbound.send(seconds(0), NodeId(2), Epoch::ZERO, true);
        assert!(outbound.on_link_down(seconds(0), NodeId(2)).is_empty());
    }

    #[test]
    fn who_cannot_be_reached_is_named_after_a_second_unless_it_can_be_by_then() {
        let mut outbound = Outbound::new(7);
        for peer in [2, 3] {
            assert!(outbound.send(seconds(0), NodeId(peer), Epoch::ZERO, false).is_empty());
        }
        assert_eq!(outbound.next_deadline(), Some(seconds(1)));
        assert_eq!(failures(&outbound.on_time(Instant(seconds(1).0 - 1))), []);
        outbound.send(seconds(0), NodeId(3), Epoch::ZERO, true);
        assert_eq!(failures(&outbound.on_time(seconds(1))), [NodeId(2)]);
        assert_eq!(failures(&outbound.on_time(seconds(2))), []);
    }
}
