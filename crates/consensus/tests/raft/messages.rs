//! The encoding of messages: what peers send is input, so nothing that arrives may panic.

use bytes::{Bytes, BytesMut};
use quorate_consensus::raft::{AppendOutcome, Message, Verdict};
use quorate_consensus::{Proposal, RefuseReason};
use quorate_types::{
    Digest, Entry, EntryKind, Epoch, Incarnation, Index, NodeId, Origin, Position, TransactionId,
};

fn members(nodes: &[u64]) -> quorate_types::Configuration {
    let nodes: Vec<NodeId> = nodes.iter().map(|node| NodeId(*node)).collect();
    crate::replica::configuration(&nodes)
}

fn samples() -> Vec<Message> {
    let epoch = Epoch::new(7, NodeId(2));
    let position = Position::new(Index(41), Epoch::new(6, NodeId(1)));
    let origin = Origin { node: NodeId(3), incarnation: Incarnation(9), sequence: 12 };
    let (kind, transaction) = (EntryKind::WriteSet, TransactionId(5));
    let body = Bytes::from_static(b"hello");
    let entry = Entry::new(epoch, kind, origin, transaction, body.clone());
    let entries = vec![Entry::noop(epoch), entry];
    let (round, context) = (3, 99);
    let rejected = AppendOutcome::Rejected { previous: Index(41), hint: position, lost: true };
    vec![
        Message::PreVote { epoch, last: position, context },
        Message::PreVoteReply { epoch, context, granted: true },
        Message::Vote { epoch, last: position, transfer: true },
        Message::VoteReply { epoch, granted: false },
        Message::Append { epoch, previous: position, committed: Index(40), entries },
        Message::AppendReply {
            epoch,
            outcome: AppendOutcome::Matched(Index(43)),
            digest: Some((Index(32), Digest(1))),
        },
        Message::AppendReply { epoch, outcome: rejected, digest: None },
        Message::Heartbeat { epoch, round, committed: Index(4), sent: Index(9) },
        Message::HeartbeatReply { epoch, round, sent: Index(9), received: Index(8) },
        Message::Commit { epoch, committed: Index(43) },
        Message::Stale { epoch },
        Message::TimeoutNow { epoch },
        Message::Propose {
            epoch,
            run: 1,
            sequence: 2,
            proposals: vec![Proposal { origin, kind, transaction, body }],
        },
        Message::Refuse {
            epoch,
            refusals: vec![(origin, RefuseReason::Busy), (origin, RefuseReason::Transferring)],
            hint: Some(NodeId(1)),
        },
        Message::Read { epoch, context },
        Message::ReadReply { epoch, context, index: Some(Index(5)) },
        Message::ReadReply { epoch, context, index: None },
        Message::Survey { epoch, context },
        Message::SurveyReply { epoch, context, members: None },
        Message::SurveyReply { epoch, context, members: Some(members(&[1, 2])) },
        Message::Change { epoch, base: members(&[1, 2]), target: members(&[1, 3]) },
        Message::ChangeReply { epoch, refusal: None },
        Message::ChangeReply { epoch, refusal: Some("no".into()) },
        Message::Identify { epoch, first: Index(40), next: position },
        Message::Identified {
            epoch,
            next: position,
            positions: vec![Position::new(Index(40), epoch)],
        },
        Message::Repair { epoch, wants: vec![position, Position::new(Index(43), epoch)] },
        Message::RepairReply {
            epoch,
            entries: vec![(Index(41), Entry::noop(epoch))],
            verdicts: vec![
                (position, Verdict::Absent),
                (position, Verdict::Damaged),
                (position, Verdict::Unsure),
                (position, Verdict::Applied),
            ],
        },
    ]
}

fn encoded(message: &Message) -> Bytes {
    let mut buffer = BytesMut::new();
    quorate_consensus::Message::Raft(message.clone()).encode(&mut buffer);
    buffer.freeze()
}

#[test]
fn every_message_survives_its_encoding() {
    for message in samples() {
        let decoded = quorate_consensus::Message::decode(encoded(&message));
        assert_eq!(decoded, Ok(quorate_consensus::Message::Raft(message)));
    }
}

#[test]
fn every_cut_is_noticed() {
    for message in samples() {
        let bytes = encoded(&message);
        for size in 0..bytes.len() {
            let cut = quorate_consensus::Message::decode(bytes.slice(..size));
            assert!(cut.is_err(), "{message} cut to {size} bytes gave {cut:?}");
        }
    }
}

#[test]
fn flipped_bits_never_panic_and_never_change_an_entry_unseen() {
    for message in samples() {
        let bytes = encoded(&message);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = BytesMut::from(&bytes[..]);
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = quorate_consensus::Message::decode(damaged.freeze());
            let Ok(quorate_consensus::Message::Raft(Message::Append { entries, .. })) = decoded
            else {
                continue;
            };
            let Message::Append { entries: sent, .. } = &message else { continue };
            assert_eq!(&entries, sent, "bit {bit}");
        }
    }
}

#[test]
fn a_count_of_four_billion_reserves_nothing() {
    let epoch = Epoch::new(7, NodeId(2));
    let previous = Position::ZERO;
    let empty = Message::Append { epoch, previous, committed: Index(0), entries: Vec::new() };
    let mut bytes = BytesMut::from(&encoded(&empty)[..]);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(quorate_consensus::Message::decode(bytes.freeze()).is_err());
}
