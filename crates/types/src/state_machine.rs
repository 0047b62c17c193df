//! What applies the agreed entries.

use crate::{
    Configuration, DecodeError, Digest, Entry, EntryKind, Fate, Index, Origin, Position, Reader,
    Writer,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// One entry on its way into a state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it stands in the log.
    pub index: Index,
    /// What it says.
    pub entry: Entry,
    /// Whether somebody on this node waits for the reply; without it, none need be made.
    pub wanted: bool,
}

/// How far a state machine has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub position: Position,
    /// The digest chain there.
    pub digest: Digest,
}

/// The members of the group as of what a state machine has applied.
///
/// Apply has no use for them. They are kept because nobody asks for a damaged slot of the log again whose entry the state
/// machine holds durably: if that was the latest change of members, only the state machine can still tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedMembers {
    /// The entry that put the configuration in force, or the snapshot that came with it; zero while there was none.
    pub index: Index,
    /// Who takes part.
    pub configuration: Configuration,
}

impl AppliedMembers {
    /// What an entry that is being applied makes of the members, if it changes them.
    ///
    /// # Errors
    /// When a configuration entry cannot be read.
    pub fn of(committed: &Committed) -> Result<Option<AppliedMembers>, ApplyFault> {
        let Committed { index, entry, .. } = committed;
        if entry.kind() != EntryKind::Configuration {
            return Ok(None);
        }
        let unsupported = |error: DecodeError| ApplyFault::Unsupported {
            index: *index,
            reason: error.to_string(),
        };
        let configuration = Configuration::decode(entry.body().clone()).map_err(unsupported)?;
        Ok(Some(AppliedMembers { index: *index, configuration }))
    }

    /// The encoding: the index (`u64`), and the configuration (a blob) where it names anybody.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.put_u64_le(self.index.0);
        if !self.configuration.members.is_empty() {
            buffer.write_blob(&self.configuration.encode());
        }
        buffer.freeze()
    }

    /// Reads what [`AppliedMembers::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such an encoding.
    pub fn decode(bytes: Bytes) -> Result<AppliedMembers, DecodeError> {
        let mut reader = Reader::new("applied members", bytes);
        let index = Index(reader.u64()?);
        let configuration = match reader.is_empty() {
            true => Configuration::default(),
            false => Configuration::decode(reader.blob()?)?,
        };
        reader.finish()?;
        Ok(AppliedMembers { index, configuration })
    }
}

impl From<&SnapshotName> for AppliedMembers {
    fn from(name: &SnapshotName) -> AppliedMembers {
        AppliedMembers { index: name.position.index, configuration: name.configuration.clone() }
    }
}

/// Where a state machine stands: what it keeps of the log beside its own state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// How far it has come.
    pub applied: Applied,
    /// Who took part there.
    pub members: AppliedMembers,
}

impl MachineState {
    /// An entry is applied, which brings the digest chain to `digest`.
    ///
    /// # Errors
    /// When it is a configuration entry that cannot be read.
    pub fn advance(&mut self, committed: &Committed, digest: Digest) -> Result<(), ApplyFault> {
        if let Some(members) = AppliedMembers::of(committed)? {
            self.members = members;
        }
        let position = Position::new(committed.index, committed.entry.created());
        self.applied = Applied { position, digest };
        Ok(())
    }

    /// The encoding: position, digest (`u64`), and the members as a blob.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.write_position(self.applied.position);
        buffer.put_u64_le(self.applied.digest.0);
        buffer.write_blob(&self.members.encode());
        buffer.freeze()
    }

    /// Reads what [`MachineState::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such an encoding.
    pub fn decode(bytes: Bytes) -> Result<MachineState, DecodeError> {
        let mut reader = Reader::new("machine state", bytes);
        let applied = Applied { position: reader.position()?, digest: Digest(reader.u64()?) };
        let members = AppliedMembers::decode(reader.blob()?)?;
        reader.finish()?;
        Ok(MachineState { applied, members })
    }
}

/// Why a replica cannot go on: a local failure, never an answer to a client. The replica stops before its
/// applied index moves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyFault {
    /// The storage engine failed.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// The engine holds something that cannot be right.
    #[error("the engine is damaged: {0}")]
    Damaged(String),
    /// An entry of a kind or version that this code does not know.
    #[error("the entry at index {index} cannot be applied by this version: {reason}")]
    Unsupported {
        /// Where it stands.
        index: Index,
        /// What is unknown about it.
        reason: String,
    },
}

/// Why a received snapshot was not installed. Nothing has changed; another may be tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallFault {
    /// The stream is not what its name says.
    #[error("the snapshot is not usable: {0}")]
    Content(String),
    /// The engine failed.
    #[error(transparent)]
    Apply(#[from] ApplyFault),
}

/// What a snapshot is a snapshot of. Two snapshots of one name hold the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotName {
    /// The last entry it covers.
    pub position: Position,
    /// The digest chain there.
    pub digest: Digest,
    /// The configuration in force there.
    pub configuration: Configuration,
}

/// A consistent view of a state machine at one applied index, read in chunks while the machine goes on.
pub trait SnapshotSource: Send {
    /// Where the view was taken.
    fn applied(&self) -> Applied;

    /// The next piece of the ordered logical stream, at most [`SNAPSHOT_CHUNK_SIZE`] and a record; `None` at the end.
    ///
    /// # Errors
    /// When the engine cannot read.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, ApplyFault>;
}

/// About how large a chunk of a snapshot is, in bytes: large enough to stream, small enough for a frame.
pub const SNAPSHOT_CHUNK_SIZE: usize = 256 * 1024;

/// Syncs what was applied before the call; safe to call beside `apply`, from another thread.
pub type Syncer = Arc<dyn Fn() -> Result<(), ApplyFault> + Send + Sync>;

/// A replicated state machine.
///
/// `apply` is a function of the entries and the state they meet, of nothing else: no clock, no randomness, no
/// local resource. State and applied position change together or not at all, also across a crash; a crash may
/// take back a suffix of applies that no [`Syncer`] made durable.
pub trait StateMachine: Send {
    /// What a client gets back for one entry.
    type Reply: Send + 'static;

    /// Where it stands; before the first entry, `MachineState::default()`. All of it survives a crash, or none.
    fn state(&self) -> MachineState;

    /// How far it has come, which is asked for after every apply.
    fn applied(&self) -> Applied {
        self.state().applied
    }

    /// What became of a proposal, as far as it was applied here: [`crate::OriginTable::fate`].
    fn fate(&self, origin: Origin) -> Fate;

    /// Applies entries in order, each at the index after the last; [`crate::OriginTable::admit`] says which are to be carried
    /// out. Gives one reply for each entry, `None` where none is wanted, or where it was not carried out.
    ///
    /// # Errors
    /// A fault stops the replica. What was applied before it in this call may or may not stay.
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Option<Self::Reply>>, ApplyFault>;

    /// Does a bounded piece of work that no entry waits for, about a millisecond of it; whether there is more.
    /// Neither answers nor digests nor snapshots depend on it.
    ///
    /// # Errors
    /// A fault stops the replica.
    fn tend(&mut self) -> Result<bool, ApplyFault> {
        Ok(false)
    }

    /// Makes applies durable in the background.
    fn syncer(&self) -> Syncer;

    /// Takes a view to stream from: cheap, and not disturbed by later applies.
    ///
    /// # Errors
    /// When the engine fails.
    fn capture(&mut self) -> Result<Box<dyn SnapshotSource>, ApplyFault>;

    /// Begins to stage a received snapshot beside the live state; drops what was staged before.
    ///
    /// # Errors
    /// When the engine fails.
    fn stage_begin(&mut self, name: &SnapshotName) -> Result<(), InstallFault>;

    /// Stages the next chunk.
    ///
    /// # Errors
    /// When the chunk is not well formed or the engine fails; the staged state is then dropped.
    fn stage_chunk(&mut self, chunk: Bytes) -> Result<(), InstallFault>;

    /// Verifies that what is staged is what its name says, and syncs it.
    ///
    /// # Errors
    /// When it is not, or the engine fails; the staged state is then dropped.
    fn stage_finish(&mut self) -> Result<(), InstallFault>;

    /// Makes the staged snapshot the live state, durably and atomically.
    ///
    /// # Errors
    /// When nothing complete is staged or the engine fails.
    fn install(&mut self) -> Result<Applied, InstallFault>;
}
