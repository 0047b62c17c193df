//! Plain data and vocabulary that every crate of Quorate shares.
//!
//! Start with [`Entry`] (what is agreed on), [`Epoch`] and [`Index`] (where it stands), [`Op`] (what
//! is made durable), [`DiskRequest`] (how anything reaches a disk), [`Frame`] (how anything
//! reaches a peer) and [`StateMachine`] (what applies it). Nothing here does I/O, reads a clock or
//! draws a random number.
//!
//! One compact notation runs through logs, golden scripts, the simulator and `quorate dump`:
//! `n2` is a node, `g0` a group, `4@2n1` the slot at index 4 in epoch 2 owned by node 1, `w7` a
//! write, `n1.9f3a/12` the twelfth proposal of incarnation 9f3a of node 1.

#[doc(hidden)]
pub mod fuzzing;

mod codec;
mod configuration;
mod disk;
mod entry;
mod histogram;
mod ids;
mod mistake;
mod ops;
mod origins;
mod sequence_map;
mod state_machine;
mod time;
mod wire;

pub use codec::{DecodeError, Reader, Writer};
pub use configuration::{Configuration, ConfigurationError, Intent, Member};
pub use disk::{
    DiskDone, DiskError, DiskId, DiskOp, DiskOutput, DiskReader, DiskRequest, FileName,
};
pub use entry::{
    BODY_SIZE_MAX, ContentHash, ENTRY_HEADER_SIZE, Entry, EntryKind, Origin, Slot, TransactionId,
};
pub use histogram::{HISTOGRAM_BOUNDS, Histogram};
pub use ids::{
    ClusterId, Digest, Epoch, Generation, GroupId, Incarnation, Index, NodeId, Position,
    ProtocolName, StartNumber, WriteId,
};
pub use mistake::Mistake;
pub use ops::{Bounds, EpochRun, HardState, LogSummary, Op, SlotFault};
pub use origins::{Fate, ORIGIN_WINDOW, OriginTable, OriginVerdict, settled_by};
pub use sequence_map::SequenceMap;
pub use state_machine::{
    Applied, AppliedMembers, ApplyFault, Committed, InstallFault, MachineState,
    SNAPSHOT_CHUNK_SIZE, SnapshotName, SnapshotSource, StateMachine, Syncer,
};
pub use time::Instant;
pub use wire::{
    FRAME_HEADER_SIZE, FRAME_PAYLOAD_MAX, Frame, FrameError, FrameHeader, FrameKind, WIRE_VERSION,
};
