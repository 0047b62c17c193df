//! What Raft replicas say to each other. A term travels as an [`Epoch`]: its number is the term, its owner the
//! candidate or leader that speaks for it, `NodeId(0)` where nobody does.

use crate::{Proposal, RefuseReason};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    BODY_SIZE_MAX, Configuration, DecodeError, Digest, ENTRY_HEADER_SIZE, Entry, EntryKind, Epoch,
    Index, NodeId, Origin, Position, Reader, TransactionId, Writer,
};
use std::fmt;

/// How a follower answers an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Everything up to here is durable and equal to the leader's log of that term.
    Matched(Index),
    /// The entry before the first one sent is not what the leader said.
    Rejected {
        /// Its index, as the leader sent it.
        previous: Index,
        /// The last position that may agree.
        hint: Position,
        /// Slots above the hint were damaged: what was acknowledged there before is not held any more.
        lost: bool,
    },
}

/// Why a member cannot give what another has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its log is intact there and does not have the position.
    Absent,
    /// It has the position, and its entry is damaged too.
    Damaged,
    /// It cannot tell: its own log is not to be relied on there.
    Unsure,
    /// The index is only in its engine's state any more; a snapshot is on the way.
    Applied,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Absent => "absent",
            Verdict::Damaged => "damaged too",
            Verdict::Unsure => "unsure",
            Verdict::Applied => "applied",
        })
    }
}

/// A message of Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Would you vote for me in this term? Binds nobody (thesis 9.6).
    PreVote {
        /// The term that the sender would campaign in.
        epoch: Epoch,
        /// Where its log ends.
        last: Position,
        /// Which asking this is.
        context: u64,
    },
    /// The answer to [`Message::PreVote`].
    PreVoteReply {
        /// The term asked about.
        epoch: Epoch,
        /// Which asking this answers.
        context: u64,
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me (thesis 3.4).
    Vote {
        /// The term, with the candidate.
        epoch: Epoch,
        /// Where its log ends.
        last: Position,
        /// The leader asked for this campaign: that it is alive is no reason to refuse (thesis 3.10).
        transfer: bool,
    },
    /// The answer to [`Message::Vote`]; a grant is durable.
    VoteReply {
        /// The campaign answered: term and candidate.
        epoch: Epoch,
        /// Whether the vote was given.
        granted: bool,
    },
    /// Entries, in the order of the leader's log (thesis 3.5).
    Append {
        /// The leader's term.
        epoch: Epoch,
        /// What stands before the first of `entries`.
        previous: Position,
        /// What the leader knows to be committed.
        committed: Index,
        /// The entries after `previous`.
        entries: Vec<Entry>,
    },
    /// The answer to [`Message::Append`].
    AppendReply {
        /// The leader's term that is answered.
        epoch: Epoch,
        /// How it ended.
        outcome: AppendOutcome,
        /// The sender's latest digest at a multiple of the digest interval.
        digest: Option<(Index, Digest)>,
    },
    /// The leader is alive; one round of these also proves it still leads (thesis 6.4).
    Heartbeat {
        /// The leader's term.
        epoch: Epoch,
        /// Which round; rises within a term.
        round: u64,
        /// What is committed and known to be in the receiver's log.
        committed: Index,
        /// The last index sent to the receiver.
        sent: Index,
    },
    /// The answer to [`Message::Heartbeat`]; waits for no disk.
    HeartbeatReply {
        /// The leader's term that is answered.
        epoch: Epoch,
        /// Which round is answered.
        round: u64,
        /// The `sent` that is answered.
        sent: Index,
        /// How far the receiver's log, durable or not, is known to agree with the leader's.
        received: Index,
    },
    /// More is committed; not answered.
    Commit {
        /// The leader's term.
        epoch: Epoch,
        /// What is committed and known to be in the receiver's log.
        committed: Index,
    },
    /// Your message is of an older term.
    Stale {
        /// The sender's term.
        epoch: Epoch,
    },
    /// Campaign at once: leadership is handed to you (thesis 3.10).
    TimeoutNow {
        /// The leader's term.
        epoch: Epoch,
    },
    /// Proposals of the sender's clients, for the leader.
    Propose {
        /// The term of the leader it is meant for.
        epoch: Epoch,
        /// The run of the sending process, a random number.
        run: u64,
        /// Rises with each message of that run: a copy that the network made is not taken again, nor refused.
        sequence: u64,
        /// What is proposed.
        proposals: Vec<Proposal>,
    },
    /// Proposals that were not taken.
    Refuse {
        /// The sender's term.
        epoch: Epoch,
        /// Which, and why.
        refusals: Vec<(Origin, RefuseReason)>,
        /// Who may know better.
        hint: Option<NodeId>,
    },
    /// Find an index for reads that wait at the sender.
    Read {
        /// The term of the leader it is meant for.
        epoch: Epoch,
        /// Which batch of reads.
        context: u64,
    },
    /// The answer to [`Message::Read`].
    ReadReply {
        /// The sender's term.
        epoch: Epoch,
        /// Which batch of reads.
        context: u64,
        /// The index; `None` when the sender does not lead (any more).
        index: Option<Index>,
    },
    /// What is your term? Asked by a replica that lost its hard state.
    Survey {
        /// The highest term that the sender still knows of.
        epoch: Epoch,
        /// Which survey.
        context: u64,
    },
    /// The answer to [`Message::Survey`]; the term is durable.
    SurveyReply {
        /// The sender's term.
        epoch: Epoch,
        /// Which survey.
        context: u64,
        /// The configuration in force, where the sender can vouch for it (`survey`).
        members: Option<Configuration>,
    },
    /// Who has these? Their entries are damaged at the sender, and no leader is known to it.
    Repair {
        /// The sender's term.
        epoch: Epoch,
        /// What stood in the damaged slots.
        wants: Vec<Position>,
    },
    /// The answer to [`Message::Repair`], in one or more parts; the term is durable.
    RepairReply {
        /// The sender's term.
        epoch: Epoch,
        /// What the sender holds of it, each with its index.
        entries: Vec<(Index, Entry)>,
        /// What it cannot give, and why.
        verdicts: Vec<(Position, Verdict)>,
    },
    /// What stood in these slots? They are damaged beyond knowledge at the sender, and no leader is known to it.
    Identify {
        /// The sender's term.
        epoch: Epoch,
        /// The first of them.
        first: Index,
        /// What follows the last of them.
        next: Position,
    },
    /// The answer to [`Message::Identify`], of somebody who holds what follows as well.
    Identified {
        /// The sender's term.
        epoch: Epoch,
        /// What follows, as it was asked.
        next: Position,
        /// What stands before it, in order.
        positions: Vec<Position>,
    },
    /// Somebody asked the sender for these members.
    Change {
        /// The term of the leader it is meant for.
        epoch: Epoch,
        /// What they would follow.
        base: Configuration,
        /// What is to be.
        target: Configuration,
    },
    /// The answer to [`Message::Change`].
    ChangeReply {
        /// The sender's term.
        epoch: Epoch,
        /// Why not, if it was refused.
        refusal: Option<String>,
    },
}

/// The least an encoded proposal takes, in bytes.
const PROPOSAL_SIZE_MIN: usize = 24 + 1 + 8 + 4;

impl Message {
    fn tag(&self) -> u8 {
        match self {
            Message::PreVote { .. } => 1,
            Message::PreVoteReply { .. } => 2,
            Message::Vote { .. } => 3,
            Message::VoteReply { .. } => 4,
            Message::Append { .. } => 5,
            Message::AppendReply { .. } => 6,
            Message::Heartbeat { .. } => 7,
            Message::HeartbeatReply { .. } => 8,
            Message::Stale { .. } => 9,
            Message::TimeoutNow { .. } => 10,
            Message::Propose { .. } => 11,
            Message::Refuse { .. } => 12,
            Message::Read { .. } => 13,
            Message::ReadReply { .. } => 14,
            Message::Survey { .. } => 15,
            Message::SurveyReply { members: None, .. } => 16,
            Message::SurveyReply { members: Some(_), .. } => 22,
            Message::Commit { .. } => 17,
            Message::Repair { .. } => 18,
            Message::RepairReply { .. } => 19,
            Message::Change { .. } => 20,
            Message::ChangeReply { .. } => 21,
            Message::Identify { .. } => 23,
            Message::Identified { .. } => 24,
        }
    }

    /// The sender's term, or the term that the message answers.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Message::PreVote { epoch, .. }
            | Message::PreVoteReply { epoch, .. }
            | Message::Vote { epoch, .. }
            | Message::VoteReply { epoch, .. }
            | Message::Append { epoch, .. }
            | Message::AppendReply { epoch, .. }
            | Message::Heartbeat { epoch, .. }
            | Message::HeartbeatReply { epoch, .. }
            | Message::Commit { epoch, .. }
            | Message::Stale { epoch }
            | Message::TimeoutNow { epoch }
            | Message::Propose { epoch, .. }
            | Message::Refuse { epoch, .. }
            | Message::Read { epoch, .. }
            | Message::ReadReply { epoch, .. }
            | Message::Survey { epoch, .. }
            | Message::SurveyReply { epoch, .. }
            | Message::Repair { epoch, .. }
            | Message::RepairReply { epoch, .. }
            | Message::Identify { epoch, .. }
            | Message::Identified { epoch, .. }
            | Message::Change { epoch, .. }
            | Message::ChangeReply { epoch, .. } => *epoch,
        }
    }

    /// Appends the encoding: a tag, the epoch, the fields in the order of their declaration.
    pub fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_u8(self.tag());
        buffer.write_epoch(self.epoch());
        match self {
            Message::PreVote { last, context, .. } => {
                buffer.write_position(*last);
                buffer.put_u64_le(*context);
            }
            Message::PreVoteReply { context, granted, .. } => {
                buffer.put_u64_le(*context);
                buffer.write_bool(*granted);
            }
            Message::Vote { last, transfer, .. } => {
                buffer.write_position(*last);
                buffer.write_bool(*transfer);
            }
            Message::VoteReply { granted, .. } => buffer.write_bool(*granted),
            Message::Append { previous, committed, entries, .. } => {
                encode_append(buffer, *previous, *committed, entries);
            }
            Message::AppendReply { outcome, digest, .. } => {
                encode_append_reply(buffer, outcome, digest.as_ref());
            }
            Message::Heartbeat { round, committed, sent, .. } => {
                buffer.put_u64_le(*round);
                buffer.put_u64_le(committed.0);
                buffer.put_u64_le(sent.0);
            }
            Message::HeartbeatReply { round, sent, received, .. } => {
                buffer.put_u64_le(*round);
                buffer.put_u64_le(sent.0);
                buffer.put_u64_le(received.0);
            }
            Message::Commit { committed, .. } => buffer.put_u64_le(committed.0),
            Message::Stale { .. } | Message::TimeoutNow { .. } => {}
            Message::Propose { run, sequence, proposals, .. } => {
                buffer.put_u64_le(*run);
                buffer.put_u64_le(*sequence);
                let size = |proposal: &Proposal| PROPOSAL_SIZE_MIN + proposal.body.len();
                buffer.reserve(4 + proposals.iter().map(size).sum::<usize>());
                buffer.write_count(proposals.len());
                proposals.iter().for_each(|proposal| encode_proposal(buffer, proposal));
            }
            Message::Refuse { refusals, hint, .. } => {
                buffer.put_u64_le(hint.map_or(0, |node| node.0));
                buffer.write_count(refusals.len());
                for (origin, reason) in refusals {
                    origin.encode(buffer);
                    buffer.put_u8(byte_of_reason(*reason));
                }
            }
            Message::ReadReply { context, index, .. } => {
                buffer.put_u64_le(*context);
                buffer.write_bool(index.is_some());
                buffer.put_u64_le(index.unwrap_or_default().0);
            }
            Message::Read { context, .. } | Message::Survey { context, .. } => {
                buffer.put_u64_le(*context);
            }
            Message::SurveyReply { context, members, .. } => {
                buffer.put_u64_le(*context);
                if let Some(members) = members {
                    buffer.write_blob(&members.encode());
                }
            }
            Message::Repair { wants, .. } => {
                buffer.write_count(wants.len());
                wants.iter().for_each(|want| buffer.write_position(*want));
            }
            Message::RepairReply { entries, verdicts, .. } => {
                encode_repair_reply(buffer, entries, verdicts);
            }
            Message::Identify { first, next, .. } => {
                buffer.put_u64_le(first.0);
                buffer.write_position(*next);
            }
            Message::Identified { next, positions, .. } => {
                buffer.write_position(*next);
                buffer.write_count(positions.len());
                positions.iter().for_each(|position| buffer.write_position(*position));
            }
            Message::Change { base, target, .. } => {
                buffer.write_blob(&base.encode());
                buffer.write_blob(&target.encode());
            }
            Message::ChangeReply { refusal, .. } => {
                buffer.write_bool(refusal.is_some());
                buffer.write_blob(refusal.as_deref().unwrap_or_default().as_bytes());
            }
        }
    }

    /// Takes a message off the front of `reader`.
    ///
    /// # Errors
    /// When the bytes are not such an encoding.
    pub fn decode(reader: &mut Reader) -> Result<Message, DecodeError> {
        let tag = reader.u8()?;
        let epoch = reader.epoch()?;
        Ok(match tag {
            1 => Message::PreVote { epoch, last: reader.position()?, context: reader.u64()? },
            2 => Message::PreVoteReply { epoch, context: reader.u64()?, granted: reader.bool()? },
            3 => Message::Vote { epoch, last: reader.position()?, transfer: reader.bool()? },
            4 => Message::VoteReply { epoch, granted: reader.bool()? },
            5 => decode_append(reader, epoch)?,
            6 => decode_append_reply(reader, epoch)?,
            7 => Message::Heartbeat {
                epoch,
                round: reader.u64()?,
                committed: Index(reader.u64()?),
                sent: Index(reader.u64()?),
            },
            8 => Message::HeartbeatReply {
                epoch,
                round: reader.u64()?,
                sent: Index(reader.u64()?),
                received: Index(reader.u64()?),
            },
            9 => Message::Stale { epoch },
            10 => Message::TimeoutNow { epoch },
            11 => {
                let (run, sequence) = (reader.u64()?, reader.u64()?);
                let count = reader.count(PROPOSAL_SIZE_MIN)?;
                let proposals =
                    (0..count).map(|_| decode_proposal(reader)).collect::<Result<_, _>>()?;
                Message::Propose { epoch, run, sequence, proposals }
            }
            12 => {
                let hint = Some(NodeId(reader.u64()?)).filter(|node| *node != NodeId(0));
                let count = reader.count(25)?;
                let refusals = (0..count)
                    .map(|_| Ok((Origin::decode(reader)?, reason_of_byte(reader.u8()?)?)))
                    .collect::<Result<_, DecodeError>>()?;
                Message::Refuse { epoch, refusals, hint }
            }
            13 => Message::Read { epoch, context: reader.u64()? },
            14 => {
                let context = reader.u64()?;
                let known = reader.bool()?;
                let index = Index(reader.u64()?);
                Message::ReadReply { epoch, context, index: known.then_some(index) }
            }
            15 => Message::Survey { epoch, context: reader.u64()? },
            16 => Message::SurveyReply { epoch, context: reader.u64()?, members: None },
            22 => {
                let context = reader.u64()?;
                let members = Some(Configuration::decode(reader.blob()?)?);
                Message::SurveyReply { epoch, context, members }
            }
            17 => Message::Commit { epoch, committed: Index(reader.u64()?) },
            18 => {
                let count = reader.count(POSITION_SIZE)?;
                let wants = (0..count).map(|_| decode_want(reader)).collect::<Result<_, _>>()?;
                Message::Repair { epoch, wants }
            }
            19 => decode_repair_reply(reader, epoch)?,
            23 => Message::Identify {
                epoch,
                first: decode_index(reader)?,
                next: decode_want(reader)?,
            },
            24 => {
                let next = decode_want(reader)?;
                let count = reader.count(POSITION_SIZE)?;
                let positions =
                    (0..count).map(|_| decode_want(reader)).collect::<Result<_, _>>()?;
                Message::Identified { epoch, next, positions }
            }
            20 => Message::Change {
                epoch,
                base: Configuration::decode(reader.blob()?)?,
                target: Configuration::decode(reader.blob()?)?,
            },
            21 => {
                let is_refused = reader.bool()?;
                Message::ChangeReply { epoch, refusal: Some(reader.text()?).filter(|_| is_refused) }
            }
            value => {
                return Err(DecodeError::Unknown { what: "raft message", value: value.into() });
            }
        })
    }
}

fn encode_append(buffer: &mut BytesMut, previous: Position, committed: Index, entries: &[Entry]) {
    let size: usize = entries.iter().map(Entry::encoded_size).sum();
    buffer.reserve(size + 36);
    buffer.write_position(previous);
    buffer.put_u64_le(committed.0);
    buffer.write_count(entries.len());
    entries.iter().for_each(|entry| entry.encode(buffer));
}

fn decode_append(reader: &mut Reader, epoch: Epoch) -> Result<Message, DecodeError> {
    let previous = reader.position()?;
    let committed = Index(reader.u64()?);
    let count = reader.count(ENTRY_HEADER_SIZE)?;
    if previous.index.0.checked_add(count as u64).is_none_or(|last| last >= INDEX_MAX) {
        return Err(DecodeError::Invalid("an append reaches beyond the highest index"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(Entry::decode(reader)?);
    }
    Ok(Message::Append { epoch, previous, committed, entries })
}

/// No log gets here; indexes below it can be added to without overflow.
const INDEX_MAX: u64 = 1 << 62;

fn encode_append_reply(
    buffer: &mut BytesMut,
    outcome: &AppendOutcome,
    digest: Option<&(Index, Digest)>,
) {
    match outcome {
        AppendOutcome::Matched(index) => {
            buffer.put_u8(0);
            buffer.put_u64_le(index.0);
        }
        AppendOutcome::Rejected { previous, hint, lost } => {
            buffer.put_u8(1);
            buffer.put_u64_le(previous.0);
            buffer.write_position(*hint);
            buffer.write_bool(*lost);
        }
    }
    buffer.write_bool(digest.is_some());
    let (index, digest) = digest.copied().unwrap_or_default();
    buffer.put_u64_le(index.0);
    buffer.put_u64_le(digest.0);
}

fn decode_append_reply(reader: &mut Reader, epoch: Epoch) -> Result<Message, DecodeError> {
    let outcome = match reader.u8()? {
        0 => AppendOutcome::Matched(Index(reader.u64()?)),
        1 => AppendOutcome::Rejected {
            previous: Index(reader.u64()?),
            hint: reader.position()?,
            lost: reader.bool()?,
        },
        value => return Err(DecodeError::Unknown { what: "append outcome", value: value.into() }),
    };
    let known = reader.bool()?;
    let digest = (Index(reader.u64()?), Digest(reader.u64()?));
    Ok(Message::AppendReply { epoch, outcome, digest: known.then_some(digest) })
}

fn encode_repair_reply(
    buffer: &mut BytesMut,
    entries: &[(Index, Entry)],
    verdicts: &[(Position, Verdict)],
) {
    let size: usize = entries.iter().map(|(_, entry)| 8 + entry.encoded_size()).sum();
    buffer.reserve(size + verdicts.len() * (POSITION_SIZE + 1) + 8);
    buffer.write_count(entries.len());
    for (index, entry) in entries {
        buffer.put_u64_le(index.0);
        entry.encode(buffer);
    }
    buffer.write_count(verdicts.len());
    for (position, verdict) in verdicts {
        buffer.write_position(*position);
        buffer.put_u8(match verdict {
            Verdict::Absent => 1,
            Verdict::Damaged => 2,
            Verdict::Unsure => 3,
            Verdict::Applied => 4,
        });
    }
}

fn decode_repair_reply(reader: &mut Reader, epoch: Epoch) -> Result<Message, DecodeError> {
    let count = reader.count(8 + ENTRY_HEADER_SIZE)?;
    let entries = (0..count)
        .map(|_| Ok((decode_index(reader)?, Entry::decode(reader)?)))
        .collect::<Result<_, DecodeError>>()?;
    let count = reader.count(POSITION_SIZE + 1)?;
    let verdicts = (0..count)
        .map(|_| {
            let position = decode_want(reader)?;
            let verdict = match reader.u8()? {
                1 => Verdict::Absent,
                2 => Verdict::Damaged,
                3 => Verdict::Unsure,
                4 => Verdict::Applied,
                value => {
                    return Err(DecodeError::Unknown { what: "verdict", value: value.into() });
                }
            };
            Ok((position, verdict))
        })
        .collect::<Result<_, DecodeError>>()?;
    Ok(Message::RepairReply { epoch, entries, verdicts })
}

fn decode_want(reader: &mut Reader) -> Result<Position, DecodeError> {
    let position = reader.position()?;
    match position.index.0 < INDEX_MAX {
        true => Ok(position),
        false => Err(DecodeError::Invalid("a position beyond the highest index")),
    }
}

fn decode_index(reader: &mut Reader) -> Result<Index, DecodeError> {
    let index = Index(reader.u64()?);
    match index.0 < INDEX_MAX {
        true => Ok(index),
        false => Err(DecodeError::Invalid("an entry beyond the highest index")),
    }
}

/// An encoded position, in bytes: index, epoch number, epoch owner.
const POSITION_SIZE: usize = 24;

fn encode_proposal(buffer: &mut BytesMut, proposal: &Proposal) {
    proposal.origin.encode(buffer);
    buffer.put_u8(proposal.kind as u8);
    buffer.put_u64_le(proposal.transaction.0);
    buffer.write_blob(&proposal.body);
}

fn decode_proposal(reader: &mut Reader) -> Result<Proposal, DecodeError> {
    let origin = Origin::decode(reader)?;
    let kind = match reader.u8()? {
        byte if byte == EntryKind::Command as u8 => EntryKind::Command,
        byte if byte == EntryKind::WriteSet as u8 => EntryKind::WriteSet,
        byte if byte == EntryKind::Settle as u8 => EntryKind::Settle,
        value => return Err(DecodeError::Unknown { what: "proposal kind", value: value.into() }),
    };
    let transaction = TransactionId(reader.u64()?);
    let body: Bytes = reader.blob()?;
    if body.len() > BODY_SIZE_MAX {
        return Err(DecodeError::TooLarge {
            what: "proposal body",
            value: body.len() as u64,
            limit: BODY_SIZE_MAX as u64,
        });
    }
    Ok(Proposal { origin, kind, transaction, body })
}

fn byte_of_reason(reason: RefuseReason) -> u8 {
    match reason {
        RefuseReason::NoLeader => 1,
        RefuseReason::NotLeader => 2,
        RefuseReason::Busy => 3,
        RefuseReason::TooLarge => 4,
        RefuseReason::Transferring => 5,
        RefuseReason::NotReady => 6,
    }
}

fn reason_of_byte(byte: u8) -> Result<RefuseReason, DecodeError> {
    Ok(match byte {
        1 => RefuseReason::NoLeader,
        2 => RefuseReason::NotLeader,
        3 => RefuseReason::Busy,
        4 => RefuseReason::TooLarge,
        5 => RefuseReason::Transferring,
        6 => RefuseReason::NotReady,
        value => return Err(DecodeError::Unknown { what: "refusal", value: value.into() }),
    })
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = self.epoch();
        let verdict = |granted: &bool| if *granted { "granted" } else { "refused" };
        match self {
            Message::PreVote { last, .. } => write!(f, "pre-vote @{epoch} last={last}"),
            Message::PreVoteReply { granted, .. } => {
                write!(f, "pre-vote-reply @{epoch} {}", verdict(granted))
            }
            Message::Vote { last, transfer, .. } => {
                let transfer = if *transfer { " transfer" } else { "" };
                write!(f, "vote @{epoch} last={last}{transfer}")
            }
            Message::VoteReply { granted, .. } => {
                write!(f, "vote-reply @{epoch} {}", verdict(granted))
            }
            Message::Append { previous, committed, entries, .. } => {
                write!(f, "append @{epoch} after={previous} commit={committed} [")?;
                for (at, entry) in entries.iter().enumerate() {
                    let index = previous.index.0 + at as u64 + 1;
                    let gap = if at == 0 { "" } else { ", " };
                    write!(f, "{gap}{index}@{} {entry}", entry.created())?;
                }
                f.write_str("]")
            }
            Message::AppendReply { outcome, digest, .. } => {
                match outcome {
                    AppendOutcome::Matched(index) => {
                        write!(f, "append-reply @{epoch} matched={index}")?;
                    }
                    AppendOutcome::Rejected { previous, hint, lost } => {
                        let lost = if *lost { " lost" } else { "" };
                        write!(f, "append-reply @{epoch} rejected={previous} hint={hint}{lost}")?;
                    }
                }
                digest.map_or(Ok(()), |(index, digest)| write!(f, " digest={index}:{digest}"))
            }
            Message::Heartbeat { round, committed, sent, .. } => {
                write!(f, "heartbeat @{epoch} round={round} commit={committed} sent={sent}")
            }
            Message::HeartbeatReply { round, received, .. } => {
                write!(f, "heartbeat-reply @{epoch} round={round} received={received}")
            }
            Message::Commit { committed, .. } => write!(f, "commit @{epoch} {committed}"),
            Message::Stale { .. } => write!(f, "stale @{epoch}"),
            Message::TimeoutNow { .. } => write!(f, "timeout-now @{epoch}"),
            Message::Propose { proposals, .. } => {
                write!(f, "propose @{epoch}")?;
                proposals.iter().try_for_each(|proposal| write!(f, " {}", proposal.origin))
            }
            Message::Refuse { refusals, .. } => {
                write!(f, "refuse @{epoch}")?;
                refusals.iter().try_for_each(|(origin, why)| write!(f, " {origin}:{why:?}"))
            }
            Message::Read { .. } => write!(f, "read @{epoch}"),
            Message::ReadReply { index: Some(index), .. } => {
                write!(f, "read-reply @{epoch} index={index}")
            }
            Message::ReadReply { index: None, .. } => write!(f, "read-reply @{epoch} refused"),
            Message::Survey { .. } => write!(f, "survey @{epoch}"),
            Message::SurveyReply { members: Some(members), .. } => {
                write!(f, "survey-reply @{epoch} members={members}")
            }
            Message::SurveyReply { members: None, .. } => write!(f, "survey-reply @{epoch}"),
            Message::Repair { wants, .. } => {
                write!(f, "repair @{epoch}")?;
                wants.iter().try_for_each(|want| write!(f, " {want}"))
            }
            Message::RepairReply { entries, verdicts, .. } => {
                write!(f, "repair-reply @{epoch}")?;
                for (index, entry) in entries {
                    write!(f, " [{index}@{} {entry}]", entry.created())?;
                }
                verdicts.iter().try_for_each(|(of, verdict)| write!(f, " {of}:{verdict}"))
            }
            Message::Identify { first, next, .. } => {
                write!(f, "identify @{epoch} {first}.. before {next}")
            }
            Message::Identified { next, positions, .. } => {
                write!(f, "identified @{epoch}")?;
                positions.iter().try_for_each(|position| write!(f, " {position}"))?;
                write!(f, " before {next}")
            }
            Message::Change { target, .. } => write!(f, "change @{epoch} to {target}"),
            Message::ChangeReply { refusal: None, .. } => write!(f, "change-reply @{epoch} taken"),
            Message::ChangeReply { refusal: Some(text), .. } => {
                write!(f, "change-reply @{epoch} refused: {text}")
            }
        }
    }
}
