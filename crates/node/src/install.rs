//! The `install-<group>` file: which snapshot is about to take the place of a group's state.
//!
//! A snapshot's install changes two things that no single write covers: the engine, then the log. The file is durable
//! before the engine changes and is deleted after the log's reset is durable. At open it explains an engine that stands
//! where the log has never been:
//! ```text
//! engine at the snapshot, log does not hold that position   reset the log to it
//! anything else                                             the install never happened, or is complete: delete the file
//! ```

use crate::sealed::{Seal, SealError};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    Applied, Configuration, Digest, DiskDone, DiskError, DiskId, DiskOp, DiskRequest, FileName,
    GroupId, Index, LogSummary, Position, Reader, SlotFault, SnapshotName, Writer,
};

const SEAL: Seal = Seal { what: "install file", magic: *b"QrIn", version: 1 };

/// The file of a group.
pub(crate) fn install_file(group: GroupId) -> FileName {
    FileName::new(format!("install-{}", group.0))
}

/// Appends a snapshot's name.
pub(crate) fn encode_name(name: &SnapshotName, buffer: &mut BytesMut) {
    buffer.write_position(name.position);
    buffer.put_u64_le(name.digest.0);
    buffer.write_blob(&name.configuration.encode());
}

/// Takes a snapshot's name off the front of `reader`.
pub(crate) fn decode_name(reader: &mut Reader) -> Result<SnapshotName, quorate_types::DecodeError> {
    let position = reader.position()?;
    let digest = Digest(reader.u64()?);
    let configuration = Configuration::decode(reader.blob()?)?;
    Ok(SnapshotName { position, digest, configuration })
}

/// The file's content.
pub(crate) fn encode_install(name: &SnapshotName) -> Bytes {
    let mut buffer = BytesMut::new();
    encode_name(name, &mut buffer);
    SEAL.seal(&buffer)
}

/// Reads what [`encode_install`] wrote.
pub(crate) fn decode_install(file: &Bytes) -> Result<SnapshotName, SealError> {
    let mut reader = Reader::new("install record", SEAL.unseal(file)?);
    let name = decode_name(&mut reader)?;
    reader.finish()?;
    Ok(name)
}

/// What the file holds, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileState {
    /// There is no file.
    Absent,
    /// The file is to be written, once a deletion under way is done.
    Wanted(SnapshotName),
    /// It is being written.
    Writing(DiskId, SnapshotName),
    /// It is durable.
    Present,
    /// It is durable and still needed: the log's reset to it is under way. Another snapshot waits to be recorded.
    Kept(SnapshotName),
    /// It is to be deleted.
    Unwanted,
    /// It is being deleted; another may be wanted already.
    Deleting(DiskId, Option<SnapshotName>),
}

/// The file of one group, as it changes.
///
/// # Invariants
/// 1. At most one request is in flight, so that a deletion never meets a later record.
#[derive(Debug)]
pub(crate) struct InstallFile {
    /// Which file.
    file: FileName,
    /// How far it is.
    state: FileState,
}

impl InstallFile {
    /// The file of a group; `is_left_over` when one was found at open and is of no more use.
    pub(crate) fn new(group: GroupId, is_left_over: bool) -> InstallFile {
        let state = if is_left_over { FileState::Unwanted } else { FileState::Absent };
        InstallFile { file: install_file(group), state }
    }

    /// This snapshot is to be recorded, once the record before it has served.
    pub(crate) fn record(&mut self, name: SnapshotName) {
        self.state = match std::mem::replace(&mut self.state, FileState::Absent) {
            FileState::Deleting(id, _) => FileState::Deleting(id, Some(name)),
            FileState::Present | FileState::Kept(_) => FileState::Kept(name),
            FileState::Absent
            | FileState::Wanted(_)
            | FileState::Writing(..)
            | FileState::Unwanted => FileState::Wanted(name),
        };
    }

    /// The record has served.
    pub(crate) fn forget(&mut self) {
        self.state = match std::mem::replace(&mut self.state, FileState::Absent) {
            FileState::Present => FileState::Unwanted,
            FileState::Kept(name) => FileState::Wanted(name),
            other @ (FileState::Absent
            | FileState::Wanted(_)
            | FileState::Writing(..)
            | FileState::Unwanted
            | FileState::Deleting(..)) => other,
        };
    }

    /// The next request, if one is due.
    pub(crate) fn poll(&mut self, id: impl FnOnce() -> DiskId) -> Option<DiskRequest> {
        let file = self.file.clone();
        match std::mem::replace(&mut self.state, FileState::Absent) {
            FileState::Wanted(name) => {
                let id = id();
                let data = encode_install(&name);
                self.state = FileState::Writing(id, name);
                Some(DiskRequest { id, op: DiskOp::Replace { file, data } })
            }
            FileState::Unwanted => {
                let id = id();
                self.state = FileState::Deleting(id, None);
                Some(DiskRequest { id, op: DiskOp::Delete { file } })
            }
            other @ (FileState::Absent
            | FileState::Writing(..)
            | FileState::Present
            | FileState::Kept(_)
            | FileState::Deleting(..)) => {
                self.state = other;
                None
            }
        }
    }

    /// Takes a completion in; `None` when it is not of this file. `true` when a record has become durable.
    pub(crate) fn handle(&mut self, done: &DiskDone) -> Option<Result<bool, DiskError>> {
        let (next, is_recorded) = match &self.state {
            FileState::Writing(id, _) if *id == done.id => (FileState::Present, true),
            FileState::Deleting(id, None) if *id == done.id => (FileState::Absent, false),
            FileState::Deleting(id, Some(name)) if *id == done.id => {
                (FileState::Wanted(name.clone()), false)
            }
            FileState::Absent
            | FileState::Wanted(_)
            | FileState::Writing(..)
            | FileState::Present
            | FileState::Kept(_)
            | FileState::Unwanted
            | FileState::Deleting(..) => return None,
        };
        Some(match &done.result {
            Ok(_) => {
                self.state = next;
                Ok(is_recorded)
            }
            Err(error) => Err(error.clone()),
        })
    }
}

/// How log and engine of a group stand to each other at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The engine lies within the log.
    Within,
    /// An install was interrupted: the log is to be reset to this first.
    Reset(SnapshotName),
    /// The engine was lost, replaced or rolled back: the log does not reach back to where it stands, and only a snapshot
    /// brings it further.
    Behind,
}

/// Judges where the engine stands. The error says why the two cannot belong together.
pub(crate) fn standing(
    log: &LogSummary,
    applied: Applied,
    install: Option<SnapshotName>,
) -> Result<Standing, String> {
    let position = applied.position;
    let bounds = log.bounds;
    let interrupted = install.filter(|name| name.position == position);
    if position.index < bounds.purged.index {
        return Ok(Standing::Behind);
    }
    let held = created_at(log, position.index);
    let is_within = position.index <= bounds.last
        && match held {
            Some(created) => created == position.epoch,
            // The slot is damaged: nothing there contradicts the engine.
            None => log.faults.iter().any(|fault| fault.index() == position.index),
        };
    match (is_within || position == Position::ZERO, interrupted) {
        (true, _) => Ok(Standing::Within),
        (false, Some(name)) => Ok(Standing::Reset(name)),
        (false, None) if position.index > bounds.last => Err(format!(
            "the state machine stands at {position}, the log ends at {}: its end was lost to a damaged disk, or the log \
             was replaced or rolled back",
            bounds.last
        )),
        (false, None) => Err(format!(
            "the state machine stands at {position}, where the log holds another entry: what had replaced that was lost \
             with the end of the log to a damaged disk, or the two are of different folders"
        )),
    }
}

/// The created epoch of the entry at `index`, where the log knows it.
fn created_at(log: &LogSummary, index: Index) -> Option<quorate_types::Epoch> {
    if index == log.bounds.purged.index {
        return Some(log.bounds.purged.epoch);
    }
    let fault = log.faults.iter().find(|fault| fault.index() == index);
    match fault {
        Some(SlotFault::DamagedKnown(position)) => return Some(position.epoch),
        Some(SlotFault::Absent(_) | SlotFault::DamagedUnknown(_)) => return None,
        None => {}
    }
    let after = log.epochs.partition_point(|run| run.first <= index);
    log.epochs[..after].last().map(|run| run.created)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Bounds, Epoch, EpochRun, Incarnation, Member, NodeId};

    fn at(index: u64, number: u64) -> Position {
        Position::new(Index(index), Epoch::new(number, NodeId(1)))
    }

    fn name(position: Position) -> SnapshotName {
        let member = Member {
            incarnation: Incarnation(1),
            name: "n1".into(),
            peer_address: "n1:1".into(),
            voter: true,
            outgoing_voter: false,
            intent: quorate_types::Intent::Stay,
        };
        let members = std::collections::BTreeMap::from([(NodeId(1), member)]);
        SnapshotName {
            position,
            digest: Digest(7),
            configuration: Configuration { members, ..Configuration::default() },
        }
    }

    #[test]
    fn a_record_stays_until_the_reset_that_it_explains_is_durable() {
        let mut file = InstallFile::new(GroupId(0), false);
        let mut ids = 0;
        let mut poll = |file: &mut InstallFile| {
            ids += 1;
            file.poll(|| DiskId(ids))
        };
        let done = |request: &DiskRequest| DiskDone {
            id: request.id,
            result: Ok(quorate_types::DiskOutput::Done),
        };
        file.record(name(at(9, 2)));
        let first = poll(&mut file).expect("the first record is written");
        assert_eq!(file.handle(&done(&first)), Some(Ok(true)));
        // The engine stands at 9 now and the log does not yet: the record of 12 must not replace the one of 9.
        file.record(name(at(12, 2)));
        assert_eq!(poll(&mut file), None);
        file.forget();
        let second = poll(&mut file).expect("the second record is written");
        let data = encode_install(&name(at(12, 2)));
        assert_eq!(second.op, DiskOp::Replace { file: install_file(GroupId(0)), data });
        assert_eq!(file.handle(&done(&second)), Some(Ok(true)));
    }

    #[test]
    fn a_record_survives_its_encoding() {
        let name = name(at(9, 2));
        assert_eq!(decode_install(&encode_install(&name)), Ok(name));
    }

    /// Bytes written by format version 1 stay readable by every later version.
    #[test]
    fn the_frozen_sample_of_version_1_is_read() {
        let frozen = include_bytes!("../tests/frozen/install.v1");
        assert_eq!(decode_install(&Bytes::from_static(frozen)), Ok(name(at(9, 2))));
        assert_eq!(encode_install(&name(at(9, 2))), Bytes::from_static(frozen));
    }

    #[test]
    fn the_engine_stands_within_the_log_or_an_install_explains_it() {
        let run = |first, number| EpochRun {
            first: Index(first),
            created: Epoch::new(number, NodeId(1)),
            accepted: Epoch::new(number, NodeId(1)),
        };
        let log = LogSummary {
            bounds: Bounds { purged: at(10, 1), last: Index(20) },
            epochs: vec![run(11, 1), run(15, 2)],
            faults: vec![SlotFault::DamagedUnknown(Index(18))],
            ..LogSummary::default()
        };
        let check = |position: Position, install: Option<Position>, expected: &str| {
            let applied = Applied { position, digest: Digest(7) };
            let found = match standing(&log, applied, install.map(name)) {
                Ok(Standing::Within) => "within".to_owned(),
                Ok(Standing::Reset(_)) => "reset".to_owned(),
                Ok(Standing::Behind) => "behind".to_owned(),
                Err(text) => text,
            };
            assert!(found.contains(expected), "{position}: {found:?}, not {expected:?}");
        };
        check(at(10, 1), None, "within");
        check(at(14, 1), None, "within");
        check(at(15, 2), None, "within");
        check(at(18, 9), None, "within");
        check(at(20, 2), Some(at(20, 2)), "within");
        check(at(9, 1), None, "behind");
        check(at(9, 1), Some(at(9, 1)), "behind");
        check(Position::ZERO, Some(at(12, 1)), "behind");
        check(at(16, 1), None, "another entry");
        check(at(20, 3), None, "another entry");
        check(at(16, 3), Some(at(16, 3)), "reset");
        check(at(30, 3), Some(at(30, 3)), "reset");
        check(at(30, 3), Some(at(31, 3)), "the log ends at 20");
        check(at(30, 3), None, "the log ends at 20");
        let empty = LogSummary::default();
        assert_eq!(standing(&empty, Applied::default(), None), Ok(Standing::Within));
    }

    #[test]
    fn only_its_own_completion_takes_the_file_further() {
        let mut file = InstallFile::new(GroupId(0), true);
        let done = |id| DiskDone { id: DiskId(id), result: Ok(quorate_types::DiskOutput::Done) };
        let mut ids = 0;
        let mut poll = |file: &mut InstallFile| {
            ids += 1;
            file.poll(|| DiskId(ids)).map(|request| request.id.0)
        };
        // Left over, it is deleted first; then comes the record that was wanted meanwhile.
        assert_eq!(poll(&mut file), Some(1));
        assert_eq!(file.handle(&done(9)), None);
        file.record(name(at(9, 2)));
        assert_eq!(file.handle(&done(9)), None);
        assert_eq!(poll(&mut file), None);
        assert_eq!(file.handle(&done(1)), Some(Ok(false)));
        assert_eq!(poll(&mut file), Some(3));
        assert_eq!(file.handle(&done(9)), None);
        assert_eq!(file.handle(&done(3)), Some(Ok(true)));
        assert_eq!(file.handle(&done(3)), None);
        // A record that nothing follows is deleted, and that is the end.
        file.forget();
        assert_eq!(poll(&mut file), Some(4));
        assert_eq!(file.handle(&done(9)), None);
        assert_eq!(file.handle(&done(4)), Some(Ok(false)));
        assert_eq!(poll(&mut file), None);
        assert_eq!(file.state, FileState::Absent);
    }
}
