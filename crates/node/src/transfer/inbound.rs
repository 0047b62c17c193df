//! A snapshot on its way in.

use super::{BulkMessage, Piece, SILENT_AFTER, TransferEffect, TransferId, chained};
use crate::interface::MachineRequest;
use quorate_consensus::SnapshotInput;
use quorate_types::{Epoch, InstallFault, Instant, NodeId, Position, SnapshotName};
use std::time::Duration;

/// A transfer that nothing was heard of for this long gives way to another.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// The snapshot that is being received.
#[derive(Debug)]
struct Receiving {
    /// From whom.
    from: NodeId,
    /// Its name on the wire.
    transfer: TransferId,
    /// The sender's epoch when it began.
    epoch: Epoch,
    /// The snapshot.
    name: SnapshotName,
    /// The next piece.
    next: u64,
    /// Chunks handed to the state machine that it has not answered.
    pending: u64,
    /// Whether the state machine verifies what is staged.
    is_finishing: bool,
    /// The hash over the chunks so far.
    hash: u64,
    /// When a piece came last.
    heard_at: Instant,
}

/// How far the snapshot at hand is.
#[derive(Debug)]
enum State {
    /// There is none.
    Idle,
    /// Pieces come in.
    Receiving(Receiving),
    /// All is staged; the state machine verifies and syncs it.
    Verifying(Receiving),
    /// It is staged, and the protocol decides.
    Staged(Receiving),
    /// It is being installed.
    Installing(SnapshotName),
}

/// Received snapshots, one at a time.
#[derive(Debug)]
pub(crate) struct Inbound {
    state: State,
    /// Answers about chunks still to come from the state machine for snapshots that were given up.
    stale_chunks: u64,
    /// Answers about verification still to come for such snapshots.
    stale_finishes: u64,
    /// The last snapshot taken in whole, so that a lost acknowledgement can be said again.
    taken: Option<(NodeId, TransferId, u64)>,
}

impl Inbound {
    /// Nothing is being received.
    pub(crate) fn new() -> Inbound {
        Inbound { state: State::Idle, stale_chunks: 0, stale_finishes: 0, taken: None }
    }

    /// Whether a snapshot is on its way in, and comes nearer: its sender, as long as it lives and knows of it, says
    /// something again and again.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        match &self.state {
            State::Idle => false,
            State::Receiving(receiving) => now < receiving.heard_at + SILENT_AFTER,
            State::Verifying(_) | State::Staged(_) | State::Installing(_) => true,
        }
    }

    /// A piece has come.
    pub(crate) fn on_piece(
        &mut self,
        now: Instant,
        from: NodeId,
        transfer: TransferId,
        number: u64,
        piece: Piece,
    ) -> Vec<TransferEffect> {
        if let Some((taken_from, taken, next)) = self.taken
            && (taken_from, taken) == (from, transfer)
        {
            return vec![TransferEffect::Say(from, BulkMessage::Ack { transfer, next })];
        }
        if let Piece::Begin { epoch, name } = piece {
            return self.on_begin(now, from, transfer, epoch, name);
        }
        let receiving = match &mut self.state {
            State::Receiving(receiving)
                if (receiving.from, receiving.transfer) == (from, transfer) =>
            {
                receiving
            }
            // The end was sent again while it is being verified: the answer follows, and this says that somebody is there.
            State::Verifying(receiving)
                if (receiving.from, receiving.transfer) == (from, transfer) =>
            {
                return vec![receiving.ack()];
            }
            State::Idle
            | State::Receiving(_)
            | State::Verifying(_)
            | State::Staged(_)
            | State::Installing(_) => return vec![abort(from, transfer, "unknown transfer")],
        };
        receiving.heard_at = now;
        if number != receiving.next {
            return vec![receiving.ack()];
        }
        match piece {
            Piece::Begin { .. } => Vec::new(),
            Piece::Chunk(chunk) => {
                receiving.next += 1;
                receiving.pending += 1;
                receiving.hash = chained(receiving.hash, &chunk);
                vec![TransferEffect::Machine(MachineRequest::StageChunk(chunk))]
            }
            Piece::End { hash } if hash == receiving.hash => {
                receiving.next += 1;
                receiving.is_finishing = true;
                if let State::Receiving(receiving) = std::mem::replace(&mut self.state, State::Idle)
                {
                    self.state = State::Verifying(receiving);
                }
                vec![TransferEffect::Machine(MachineRequest::StageFinish)]
            }
            Piece::End { .. } => self.give_up("the chunks received are not those sent"),
        }
    }

    fn on_begin(
        &mut self,
        now: Instant,
        from: NodeId,
        transfer: TransferId,
        epoch: Epoch,
        name: SnapshotName,
    ) -> Vec<TransferEffect> {
        match &mut self.state {
            State::Idle => {}
            State::Receiving(receiving) => {
                if (receiving.from, receiving.transfer) == (from, transfer) {
                    return vec![receiving.ack()];
                }
                let is_stale = receiving.heard_at + STALE_AFTER <= now;
                if !is_stale && receiving.from != from && receiving.epoch >= epoch {
                    return vec![abort(from, transfer, "another snapshot is being received")];
                }
                self.stale_chunks += receiving.pending;
            }
            // Every piece was sent again, because no acknowledgement arrived.
            State::Verifying(receiving)
                if (receiving.from, receiving.transfer) == (from, transfer) =>
            {
                return vec![receiving.ack()];
            }
            State::Verifying(_) | State::Staged(_) | State::Installing(_) => {
                return vec![abort(from, transfer, "another snapshot is being installed")];
            }
        }
        let receiving = Receiving {
            from,
            transfer,
            epoch,
            name: name.clone(),
            next: 1,
            pending: 0,
            is_finishing: false,
            hash: 0,
            heard_at: now,
        };
        let ack = receiving.ack();
        self.state = State::Receiving(receiving);
        vec![TransferEffect::Machine(MachineRequest::StageBegin(name)), ack]
    }

    /// The state machine has staged a chunk.
    pub(crate) fn on_chunk_staged(
        &mut self,
        result: Result<(), InstallFault>,
    ) -> Vec<TransferEffect> {
        if self.stale_chunks > 0 {
            self.stale_chunks -= 1;
            return Vec::new();
        }
        let (State::Receiving(receiving) | State::Verifying(receiving)) = &mut self.state else {
            return Vec::new();
        };
        receiving.pending = receiving.pending.saturating_sub(1);
        match result {
            Ok(()) => vec![receiving.ack()],
            Err(fault) => self.give_up(&fault.to_string()),
        }
    }

    /// The state machine has verified what is staged; or could not begin to stage.
    pub(crate) fn on_staged(&mut self, result: Result<(), InstallFault>) -> Vec<TransferEffect> {
        if self.stale_finishes > 0 {
            self.stale_finishes -= 1;
            return Vec::new();
        }
        if let State::Verifying(receiving) = &mut self.state {
            receiving.is_finishing = false;
        }
        if let Err(fault) = result {
            return self.give_up(&fault.to_string());
        }
        let State::Verifying(receiving) = std::mem::replace(&mut self.state, State::Idle) else {
            return Vec::new();
        };
        self.taken = Some((receiving.from, receiving.transfer, receiving.next));
        let told = SnapshotInput::Staged {
            from: receiving.from,
            epoch: receiving.epoch,
            position: receiving.name.position,
            configuration: receiving.name.configuration.clone(),
        };
        let effects = vec![receiving.ack(), TransferEffect::Tell(told)];
        self.state = State::Staged(receiving);
        effects
    }

    fn give_up(&mut self, reason: &str) -> Vec<TransferEffect> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Receiving(receiving) | State::Verifying(receiving) => {
                self.stale_chunks += receiving.pending;
                self.stale_finishes += u64::from(receiving.is_finishing);
                vec![abort(receiving.from, receiving.transfer, reason)]
            }
            other @ (State::Idle | State::Staged(_) | State::Installing(_)) => {
                self.state = other;
                Vec::new()
            }
        }
    }

    /// The protocol wants what is staged.
    pub(crate) fn install(&mut self, from: NodeId, position: Position) -> Vec<TransferEffect> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Staged(receiving)
                if receiving.from == from && receiving.name.position == position =>
            {
                self.state = State::Installing(receiving.name.clone());
                vec![TransferEffect::Install(receiving.name)]
            }
            other @ (State::Idle
            | State::Receiving(_)
            | State::Verifying(_)
            | State::Staged(_)
            | State::Installing(_)) => {
                self.state = other;
                vec![TransferEffect::Tell(SnapshotInput::InstallFailed { position })]
            }
        }
    }

    /// The protocol does not want what is staged.
    pub(crate) fn discard(&mut self) {
        if matches!(self.state, State::Staged(_)) {
            self.state = State::Idle;
        }
    }

    /// The snapshot being installed, which is over with that.
    pub(crate) fn take_installing(&mut self) -> Option<SnapshotName> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Installing(name) => Some(name),
            other
            @ (State::Idle | State::Receiving(_) | State::Verifying(_) | State::Staged(_)) => {
                self.state = other;
                None
            }
        }
    }
}

impl Receiving {
    /// Acknowledges what the state machine has taken in.
    fn ack(&self) -> TransferEffect {
        let next = self.next - self.pending - u64::from(self.is_finishing);
        TransferEffect::Say(self.from, BulkMessage::Ack { transfer: self.transfer, next })
    }
}

fn abort(to: NodeId, transfer: TransferId, reason: &str) -> TransferEffect {
    TransferEffect::Say(to, BulkMessage::Abort { transfer, reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::tests::name;
    use super::*;
    use bytes::Bytes;

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn is_ack(effects: &[TransferEffect], expected: u64) -> bool {
        let is_it = |effect: &TransferEffect| matches!(effect, TransferEffect::Say(_, BulkMessage::Ack { next, .. }) if *next == expected);
        effects.iter().any(is_it)
    }

    #[test]
    fn a_sender_that_fell_silent_does_not_keep_others_from_being_asked() {
        let (from, transfer) = (NodeId(2), TransferId(7));
        let mut inbound = Inbound::new();
        let begin = Piece::Begin { epoch: Epoch::ZERO, name: name(5) };
        inbound.on_piece(seconds(0), from, transfer, 0, begin);
        assert!(inbound.is_busy(seconds(2)));
        assert!(!inbound.is_busy(seconds(3)));
        inbound.on_piece(seconds(3), from, transfer, 1, Piece::Chunk(Bytes::from_static(b"a")));
        assert!(inbound.is_busy(seconds(5)), "it is there after all");
    }

    #[test]
    fn whoever_verifies_what_it_has_says_so_when_it_is_asked_again() {
        let (from, transfer) = (NodeId(2), TransferId(7));
        let mut inbound = Inbound::new();
        let begin = Piece::Begin { epoch: Epoch::ZERO, name: name(5) };
        inbound.on_piece(seconds(0), from, transfer, 0, begin.clone());
        let end = Piece::End { hash: 0 };
        let effects = inbound.on_piece(seconds(0), from, transfer, 1, end.clone());
        assert!(matches!(effects[..], [TransferEffect::Machine(MachineRequest::StageFinish)]));
        let effects = inbound.on_piece(seconds(1), from, transfer, 1, end);
        assert!(is_ack(&effects, 1), "the end is not taken in yet");
        let effects = inbound.on_piece(seconds(1), from, transfer, 0, begin);
        assert!(is_ack(&effects, 1), "all was sent again");
    }

    #[test]
    fn chunks_other_than_those_sent_are_refused_at_the_end() {
        let (from, transfer) = (NodeId(2), TransferId(7));
        let sent =
            |chunks: &[&'static [u8]]| chunks.iter().fold(0, |hash, chunk| chained(hash, chunk));
        for (hash, is_good) in [
            (sent(&[b"a", b"b"]), true),
            (sent(&[b"b", b"a"]), false),
            (sent(&[b"a", b"c"]), false),
            (sent(&[b"b"]), false),
        ] {
            let mut inbound = Inbound::new();
            let begin = Piece::Begin { epoch: Epoch::ZERO, name: name(5) };
            inbound.on_piece(seconds(0), from, transfer, 0, begin);
            for (number, chunk) in [(1, b"a"), (2, b"b")] {
                let chunk = Piece::Chunk(Bytes::from_static(chunk));
                inbound.on_piece(seconds(0), from, transfer, number, chunk);
                inbound.on_chunk_staged(Ok(()));
            }
            let effects = inbound.on_piece(seconds(0), from, transfer, 3, Piece::End { hash });
            let is_finished =
                matches!(effects[..], [TransferEffect::Machine(MachineRequest::StageFinish)]);
            assert_eq!(is_finished, is_good, "{effects:?}");
            assert_eq!(inbound.is_busy(seconds(0)), is_good);
        }
    }

    #[test]
    fn pieces_of_another_transfer_or_sender_are_refused_at_every_stage() {
        let (from, transfer) = (NodeId(2), TransferId(7));
        let others = [(NodeId(3), transfer), (from, TransferId(8))];
        let chunk = || Piece::Chunk(Bytes::from_static(b"a"));
        let is_refused = |inbound: &mut Inbound| {
            others.iter().all(|(from, transfer)| {
                let effects = inbound.on_piece(seconds(0), *from, *transfer, 1, chunk());
                let is_abort = |effect: &TransferEffect| {
                    matches!(effect, TransferEffect::Say(to, BulkMessage::Abort { transfer: of, .. })
                        if to == from && of == transfer)
                };
                matches!(&effects[..], [effect] if is_abort(effect))
            })
        };
        let mut inbound = Inbound::new();
        assert!(is_refused(&mut inbound));
        let begin = Piece::Begin { epoch: Epoch::ZERO, name: name(5) };
        inbound.on_piece(seconds(0), from, transfer, 0, begin);
        assert!(is_refused(&mut inbound), "while pieces come in");
        inbound.on_piece(seconds(0), from, transfer, 1, Piece::End { hash: 0 });
        assert!(is_refused(&mut inbound), "while they are verified");
        inbound.on_staged(Ok(()));
        assert!(is_refused(&mut inbound), "once all is staged");
        let effects = inbound.on_piece(seconds(0), from, transfer, 1, Piece::End { hash: 0 });
        assert!(is_ack(&effects, 2), "a lost acknowledgement is said again");
    }

    fn begin(inbound: &mut Inbound, at: Instant, from: u64, transfer: u64, epoch: u64) -> bool {
        let epoch = Epoch::new(epoch, NodeId(1));
        let piece = Piece::Begin { epoch, name: name(5) };
        let effects = inbound.on_piece(at, NodeId(from), TransferId(transfer), 0, piece);
        effects
            .iter()
            .any(|effect| matches!(effect, TransferEffect::Machine(MachineRequest::StageBegin(_))))
    }

    fn chunk(inbound: &mut Inbound, from: u64, transfer: u64, number: u64) -> Vec<TransferEffect> {
        let piece = Piece::Chunk(Bytes::from_static(b"a"));
        inbound.on_piece(seconds(0), NodeId(from), TransferId(transfer), number, piece)
    }

    fn failure() -> Result<(), InstallFault> {
        Err(InstallFault::Content("wrong".into()))
    }

    #[test]
    fn a_snapshot_gives_way_to_its_senders_next_to_a_later_epoch_and_when_it_is_stale() {
        for (at, from, transfer, epoch, gives_way) in [
            (0, 2, 8, 3, true),
            (0, 2, 8, 5, true),
            (0, 3, 9, 4, false),
            (0, 3, 9, 5, false),
            (0, 3, 9, 6, true),
            (9, 3, 9, 5, false),
            (10, 3, 9, 5, true),
            (10, 3, 9, 4, true),
        ] {
            let mut inbound = Inbound::new();
            assert!(begin(&mut inbound, seconds(0), 2, 7, 5));
            let is_taken = begin(&mut inbound, seconds(at), from, transfer, epoch);
            assert_eq!(is_taken, gives_way, "{at} {from} {transfer} {epoch}");
        }
    }

    #[test]
    fn answers_about_a_snapshot_that_gave_way_say_nothing_of_the_next() {
        let mut inbound = Inbound::new();
        assert!(begin(&mut inbound, seconds(0), 2, 7, 5));
        assert!(is_ack(&chunk(&mut inbound, 2, 7, 9), 1), "out of order");
        for number in 1..=3 {
            chunk(&mut inbound, 2, 7, number);
        }
        assert!(is_ack(&inbound.on_chunk_staged(Ok(())), 2), "two of three are not staged");
        assert!(begin(&mut inbound, seconds(0), 2, 8, 5));
        chunk(&mut inbound, 2, 8, 1);
        for _ in 0..2 {
            assert!(inbound.on_chunk_staged(failure()).is_empty());
        }
        assert!(is_ack(&inbound.on_chunk_staged(Ok(())), 2));
        // This one is given up itself, with a chunk and its end not answered yet.
        for number in 2..=3 {
            chunk(&mut inbound, 2, 8, number);
        }
        let hash = (0..3).fold(0, |hash, _| chained(hash, b"a"));
        let end = Piece::End { hash };
        inbound.on_piece(seconds(0), NodeId(2), TransferId(8), 4, end.clone());
        let effects = inbound.on_chunk_staged(failure());
        assert!(matches!(effects[..], [TransferEffect::Say(_, BulkMessage::Abort { .. })]));
        assert!(!inbound.is_busy(seconds(0)));
        assert!(begin(&mut inbound, seconds(0), 3, 9, 5));
        for number in 1..=3 {
            chunk(&mut inbound, 3, 9, number);
        }
        inbound.on_piece(seconds(0), NodeId(3), TransferId(9), 4, end);
        assert!(inbound.on_chunk_staged(failure()).is_empty(), "of the one before");
        assert!(inbound.on_staged(failure()).is_empty(), "of the one before");
        for next in 2..=4 {
            assert!(is_ack(&inbound.on_chunk_staged(Ok(())), next));
        }
        let effects = inbound.on_staged(Ok(()));
        assert!(is_ack(&effects, 5));
        assert!(matches!(effects[1], TransferEffect::Tell(SnapshotInput::Staged { .. })));
    }

    #[test]
    fn only_what_is_staged_is_installed_and_only_that_is_discarded() {
        let staged = || {
            let mut inbound = Inbound::new();
            assert!(begin(&mut inbound, seconds(0), 2, 7, 5));
            inbound.discard();
            let end = Piece::End { hash: 0 };
            inbound.on_piece(seconds(0), NodeId(2), TransferId(7), 1, end);
            inbound.discard();
            inbound.on_staged(Ok(()));
            inbound
        };
        let other = name(6).position;
        for (from, position, is_it) in
            [(2, name(5).position, true), (3, name(5).position, false), (2, other, false)]
        {
            let effects = staged().install(NodeId(from), position);
            let installs = matches!(effects[..], [TransferEffect::Install(_)]);
            let failed = matches!(
                effects[..],
                [TransferEffect::Tell(SnapshotInput::InstallFailed { position: of })]
                    if of == position
            );
            assert_eq!((installs, failed), (is_it, !is_it), "{from} {position}");
        }
        let mut inbound = staged();
        inbound.discard();
        assert!(!inbound.is_busy(seconds(0)));
        assert!(begin(&mut inbound, seconds(0), 3, 9, 5));
        let mut inbound = staged();
        inbound.install(NodeId(2), name(5).position);
        inbound.discard();
        assert!(inbound.is_busy(seconds(0)), "it is being installed");
        assert_eq!(inbound.take_installing(), Some(name(5)));
        assert_eq!(inbound.take_installing(), None);
    }
}
