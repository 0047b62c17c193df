//! Snapshots in transit, on bulk streams.
//!
//! ```text
//! sender                                        receiver
//!   piece 0    begin: epoch, name        ->     stage
//!   piece 1..  chunk, its hash           ->     stage, one after the other
//!   piece n    end: hash over all hashes ->     verify, sync
//!                                        <-     ack: the first piece not yet taken in
//!                                        <-     abort: why it cannot go on
//!                                        <-     want: my state is lost, begin (asked again until a piece comes)
//! ```
//! Frames may be dropped, so pieces are sent again until they are acknowledged; a piece that does not come in order is
//! acknowledged with what is expected instead. At most [`WINDOW_PIECES`] pieces are on their way. One snapshot at a time
//! is sent and one received.

mod inbound;
mod outbound;
mod wanted;

pub(crate) use inbound::Inbound;
pub(crate) use outbound::Outbound;
pub(crate) use wanted::Wanted;

use crate::install::{decode_name, encode_name};
use crate::interface::MachineRequest;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_consensus::SnapshotInput;
use quorate_types::{DecodeError, Epoch, Index, NodeId, Reader, SnapshotName, Writer};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// The most pieces sent and not acknowledged: 2 MiB, enough for 200 MiB/s at 10 ms.
const WINDOW_PIECES: usize = 8;

/// Who has said nothing of a transfer for this long is no longer there, or no longer knows of it. A sender repeats what is
/// not acknowledged each second, and a receiver answers each time.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Names one transfer; drawn by the sender, different in each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransferId(pub(crate) u64);

/// What a piece holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// What follows.
    Begin {
        /// The sender's epoch.
        epoch: Epoch,
        /// The snapshot.
        name: SnapshotName,
    },
    /// A part of the stream.
    Chunk(Bytes),
    /// Nothing follows; the hash is over the hashes of all chunks.
    End {
        /// The hash.
        hash: u64,
    },
}

/// What is said about a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BulkMessage {
    /// A piece, from the sender.
    Piece {
        /// Of which transfer.
        transfer: TransferId,
        /// Its number, from 0.
        number: u64,
        /// What it holds.
        piece: Piece,
    },
    /// From the receiver: every piece below this number is taken in.
    Ack {
        /// Of which transfer.
        transfer: TransferId,
        /// The first piece not yet taken in.
        next: u64,
    },
    /// From the receiver: it cannot go on.
    Abort {
        /// Which transfer.
        transfer: TransferId,
        /// Why.
        reason: String,
    },
    /// From one whose state is lost: it needs a snapshot.
    Want {
        /// Of no use is one that covers less.
        at_least: Index,
    },
}

/// Which piece of which transfer the payload of a bulk frame is, for those who watch what leaves a node; `None` when it is
/// no piece.
#[must_use]
pub fn piece_of(payload: &Bytes) -> Option<(u64, u64)> {
    match BulkMessage::decode(payload.clone()).ok()? {
        BulkMessage::Piece { transfer, number, piece: _ } => Some((transfer.0, number)),
        BulkMessage::Ack { .. } | BulkMessage::Abort { .. } | BulkMessage::Want { .. } => None,
    }
}

impl BulkMessage {
    /// The payload of a bulk frame.
    pub(crate) fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        match self {
            BulkMessage::Piece { transfer, number, piece } => {
                let kind = match piece {
                    Piece::Begin { .. } => 1,
                    Piece::Chunk(_) => 2,
                    Piece::End { .. } => 3,
                };
                buffer.put_u8(kind);
                buffer.put_u64_le(transfer.0);
                buffer.put_u64_le(*number);
                match piece {
                    Piece::Begin { epoch, name } => {
                        buffer.write_epoch(*epoch);
                        encode_name(name, &mut buffer);
                    }
                    Piece::Chunk(chunk) => {
                        buffer.put_u64_le(xxh3_64(chunk));
                        buffer.put_slice(chunk);
                    }
                    Piece::End { hash } => buffer.put_u64_le(*hash),
                }
            }
            BulkMessage::Ack { transfer, next } => {
                buffer.put_u8(4);
                buffer.put_u64_le(transfer.0);
                buffer.put_u64_le(*next);
            }
            BulkMessage::Abort { transfer, reason } => {
                buffer.put_u8(5);
                buffer.put_u64_le(transfer.0);
                buffer.write_blob(reason.as_bytes());
            }
            BulkMessage::Want { at_least } => {
                buffer.put_u8(6);
                buffer.put_u64_le(at_least.0);
            }
        }
        buffer.freeze()
    }

    /// Reads what [`BulkMessage::encode`] wrote.
    pub(crate) fn decode(bytes: Bytes) -> Result<BulkMessage, DecodeError> {
        let mut reader = Reader::new("bulk message", bytes);
        let kind = reader.u8()?;
        let first = reader.u64()?;
        let transfer = TransferId(first);
        let message = match kind {
            1 => {
                let number = reader.u64()?;
                let epoch = reader.epoch()?;
                let name = decode_name(&mut reader)?;
                BulkMessage::Piece { transfer, number, piece: Piece::Begin { epoch, name } }
            }
            2 => {
                let number = reader.u64()?;
                let expected = reader.u64()?;
                let chunk = reader.bytes(reader.left())?;
                let found = xxh3_64(&chunk);
                if expected != found {
                    let what = "snapshot chunk";
                    return Err(DecodeError::Checksum { what, expected, found });
                }
                BulkMessage::Piece { transfer, number, piece: Piece::Chunk(chunk) }
            }
            3 => {
                let number = reader.u64()?;
                let hash = reader.u64()?;
                BulkMessage::Piece { transfer, number, piece: Piece::End { hash } }
            }
            4 => BulkMessage::Ack { transfer, next: reader.u64()? },
            5 => BulkMessage::Abort { transfer, reason: reader.text()? },
            6 => BulkMessage::Want { at_least: Index(first) },
            value => {
                let what = "bulk message kind";
                return Err(DecodeError::Unknown { what, value: value.into() });
            }
        };
        reader.finish()?;
        Ok(message)
    }
}

/// The hash over all chunks, with one more.
fn chained(hash: u64, chunk: &[u8]) -> u64 {
    let mut pair = [0; 16];
    pair[..8].copy_from_slice(&hash.to_le_bytes());
    pair[8..].copy_from_slice(&xxh3_64(chunk).to_le_bytes());
    xxh3_64(&pair)
}

/// What a transfer asks for.
#[derive(Debug)]
pub(crate) enum TransferEffect {
    /// Of the state machine.
    Machine(MachineRequest),
    /// Say this to a peer, on the bulk stream.
    Say(NodeId, BulkMessage),
    /// Tell the protocol.
    Tell(SnapshotInput),
    /// Make the install record durable, then let the state machine install.
    Install(SnapshotName),
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_consensus::SnapshotOutcome;
    use quorate_types::{Applied, Configuration, Digest, Incarnation, Instant, Member, Position};

    pub(super) fn name(index: u64) -> SnapshotName {
        let member = Member {
            incarnation: Incarnation(1),
            name: "n1".into(),
            peer_address: "n1:1".into(),
            voter: true,
            outgoing_voter: false,
            intent: quorate_types::Intent::Stay,
        };
        let members = std::collections::BTreeMap::from([(NodeId(1), member)]);
        let position = Position::new(Index(index), Epoch::new(2, NodeId(1)));
        SnapshotName {
            position,
            digest: Digest(7),
            configuration: Configuration { members, ..Configuration::default() },
        }
    }

    #[test]
    fn every_message_survives_its_encoding_and_no_prefix_is_one() {
        let piece = |piece| BulkMessage::Piece { transfer: TransferId(3), number: 9, piece };
        let all = [
            piece(Piece::Begin { epoch: Epoch::new(2, NodeId(1)), name: name(5) }),
            piece(Piece::Chunk(Bytes::from_static(b"abc"))),
            piece(Piece::End { hash: 4 }),
            BulkMessage::Ack { transfer: TransferId(3), next: 7 },
            BulkMessage::Abort { transfer: TransferId(3), reason: "busy".into() },
            BulkMessage::Want { at_least: Index(8) },
        ];
        for message in all {
            let bytes = message.encode();
            assert_eq!(BulkMessage::decode(bytes.clone()), Ok(message));
            for size in 0..bytes.len() {
                assert!(BulkMessage::decode(bytes.slice(..size)).is_err(), "{size} bytes");
            }
        }
    }

    #[test]
    fn pieces_are_told_from_the_rest() {
        let piece = Piece::Chunk(Bytes::from_static(b"abc"));
        let piece = BulkMessage::Piece { transfer: TransferId(3), number: 9, piece };
        assert_eq!(piece_of(&piece.encode()), Some((3, 9)));
        let ack = BulkMessage::Ack { transfer: TransferId(3), next: 7 };
        assert_eq!(piece_of(&ack.encode()), None);
        assert_eq!(piece_of(&Bytes::from_static(b"\x02")), None);
    }

    /// Chance that is the same in every run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % bound
        }
    }

    /// Both ends of a transfer, their state machines, and a network between them that loses and repeats.
    struct Pair {
        outbound: Outbound,
        inbound: Inbound,
        chunks: Vec<Bytes>,
        read_count: usize,
        staged: Vec<Bytes>,
        /// What the receiver's state machine was asked to do and has not done.
        asked: std::collections::VecDeque<MachineRequest>,
        to_receiver: Vec<BulkMessage>,
        to_sender: Vec<BulkMessage>,
        told: Vec<SnapshotInput>,
    }

    const SENDER: NodeId = NodeId(1);
    const RECEIVER: NodeId = NodeId(2);

    impl Pair {
        fn new(count: usize) -> Pair {
            Pair {
                outbound: Outbound::new(7),
                inbound: Inbound::new(),
                chunks: (0..count).map(|number| Bytes::from(vec![number as u8; 9])).collect(),
                read_count: 0,
                staged: Vec::new(),
                asked: std::collections::VecDeque::new(),
                to_receiver: Vec::new(),
                to_sender: Vec::new(),
                told: Vec::new(),
            }
        }

        fn sender_does(&mut self, now: Instant, effects: Vec<TransferEffect>) {
            for effect in effects {
                let effects = match effect {
                    TransferEffect::Machine(MachineRequest::Capture) => {
                        self.read_count = 0;
                        let name = name(5);
                        let applied = Applied { position: name.position, digest: name.digest };
                        self.outbound.on_captured(now, Ok(applied), |_| Some(name.configuration))
                    }
                    TransferEffect::Machine(MachineRequest::NextChunk) => {
                        let chunk = self.chunks.get(self.read_count).cloned();
                        self.read_count += 1;
                        self.outbound.on_chunk(now, Ok(chunk))
                    }
                    TransferEffect::Say(to, message) => {
                        assert_eq!(to, RECEIVER);
                        self.to_receiver.push(message);
                        Vec::new()
                    }
                    // One that failed is asked for again, as the protocol does.
                    TransferEffect::Tell(SnapshotInput::Sent {
                        outcome: SnapshotOutcome::Failed,
                        ..
                    }) => self.outbound.send(now, RECEIVER, Epoch::new(2, NodeId(1)), true),
                    TransferEffect::Tell(input) => {
                        self.told.push(input);
                        Vec::new()
                    }
                    TransferEffect::Machine(_) | TransferEffect::Install(_) => Vec::new(),
                };
                self.sender_does(now, effects);
            }
        }

        fn receiver_does(&mut self, effects: Vec<TransferEffect>) {
            for effect in effects {
                match effect {
                    TransferEffect::Machine(request) => self.asked.push_back(request),
                    TransferEffect::Say(to, message) => {
                        assert_eq!(to, SENDER);
                        self.to_sender.push(message);
                    }
                    TransferEffect::Tell(input) => self.told.push(input),
                    TransferEffect::Install(_) => {}
                }
            }
        }

        /// The receiver's state machine does the next thing.
        fn stage(&mut self) {
            let effects = match self.asked.pop_front() {
                Some(MachineRequest::StageChunk(chunk)) => {
                    self.staged.push(chunk);
                    self.inbound.on_chunk_staged(Ok(()))
                }
                Some(MachineRequest::StageBegin(_)) => {
                    self.staged.clear();
                    Vec::new()
                }
                Some(MachineRequest::StageFinish) => self.inbound.on_staged(Ok(())),
                Some(_) | None => Vec::new(),
            };
            self.receiver_does(effects);
        }

        /// Some of what is on its way arrives, in any order; some is lost, some comes twice.
        fn deliver(&mut self, now: Instant, dice: &mut Dice, loss: u64) {
            for message in std::mem::take(&mut self.to_receiver) {
                for _ in 0..copies(dice, loss) {
                    let BulkMessage::Piece { transfer, number, piece } = message.clone() else {
                        panic!("a sender says {message:?}");
                    };
                    let taken = self.inbound.on_piece(now, SENDER, transfer, number, piece);
                    self.receiver_does(taken);
                }
            }
            for message in std::mem::take(&mut self.to_sender) {
                for _ in 0..copies(dice, loss) {
                    let effects = match &message {
                        BulkMessage::Ack { transfer, next } => {
                            self.outbound.on_ack(now, RECEIVER, *transfer, *next)
                        }
                        BulkMessage::Abort { transfer, .. } => {
                            assert!(loss > 0, "{message:?}");
                            self.outbound.on_abort(now, RECEIVER, *transfer)
                        }
                        BulkMessage::Piece { .. } | BulkMessage::Want { .. } => {
                            panic!("a receiver says {message:?}")
                        }
                    };
                    self.sender_does(now, effects);
                }
            }
        }
    }

    fn copies(dice: &mut Dice, loss: u64) -> u64 {
        match dice.below(100) {
            chance if chance < loss => 0,
            chance if chance < 2 * loss => 2,
            _ => 1,
        }
    }

    #[test]
    fn a_snapshot_arrives_whole_and_once_whatever_the_network_does() {
        for (seed, loss) in (0..60).zip([0, 5, 20].into_iter().cycle()) {
            let (mut dice, mut pair) = (Dice(seed), Pair::new(seed as usize));
            let mut now = Instant::ZERO;
            let effects = pair.outbound.send(now, RECEIVER, Epoch::new(2, NodeId(1)), true);
            pair.sender_does(now, effects);
            while pair.told.len() < 2 {
                assert!(now < Instant::ZERO + Duration::from_secs(600), "seed {seed} hangs");
                pair.deliver(now, &mut dice, loss);
                let on_the_way = pair.read_count.saturating_sub(pair.staged.len());
                assert!(on_the_way <= WINDOW_PIECES, "{on_the_way} pieces at once");
                let on_the_way = !pair.to_receiver.is_empty() || !pair.to_sender.is_empty();
                if pair.told.len() < 2 && pair.asked.is_empty() && !on_the_way {
                    now = pair.outbound.next_deadline().expect("it is under way");
                    let effects = pair.outbound.on_time(now);
                    pair.sender_does(now, effects);
                }
                for _ in 0..dice.below(4) {
                    pair.stage();
                }
            }
            assert_eq!(pair.staged, pair.chunks, "seed {seed}");
            let SnapshotName { position, configuration, .. } = name(5);
            let epoch = Epoch::new(2, NodeId(1));
            let staged = SnapshotInput::Staged { from: SENDER, epoch, position, configuration };
            let outcome = SnapshotOutcome::Delivered;
            let sent = SnapshotInput::Sent { to: RECEIVER, position, outcome };
            assert_eq!(pair.told, [staged, sent], "seed {seed}");
            assert_eq!(pair.outbound.next_deadline(), None);
            if loss == 0 {
                assert_eq!(now, Instant::ZERO, "nothing had to be sent again");
            }
        }
    }
}
