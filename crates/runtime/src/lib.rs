//! Drives a node with real devices: clock, disk, sockets, threads and the on-disk engine.
//!
//! [`start`] puts a node together and gives a [`NodeHandle`]; [`RuntimeOptions`] says what it needs, among it a
//! [`DataFolder`] that is locked first. [`DiskEngine`] is the engine to build the store on. All decisions are
//! made below, in `quorate-node`: here requests meet devices, and completions find their way back.
//!
//! ```text
//!   thread        does                                     waits for
//!   <name>-node   the node: every decision, every stream   input, or its next deadline
//!   <name>-log    log writes and their syncs               the device
//!   <name>-disk   allocation, reads, renames, deletes      the device
//!   <name>-apply  the state machine, replies to clients    the engine
//!   <name>-sync   the engine's syncs                       the device
//!   engine-flush  what the engine gathered in memory       the device
//!   engine-merge  merging what the engine has on disk      the device
//!   (tokio)       dialling and accepting peers             the network
//! ```

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is where the operating system's clock, files, sockets and threads are used"
)]

#[doc(hidden)]
pub mod fuzzing;

mod clock;
mod disk;
mod driver;
mod engine;
mod engine_folder;
mod files;
mod folder;
mod handle;
mod inbound;
mod machine;
mod metrics;
mod net;
mod outside;
mod published;
mod queue;
mod spin;
mod start;
mod stream;
mod streams;
mod waiters;

pub use clock::Clock;
pub use engine::{DiskEngine, DiskReader, DiskView, EngineOptions};
pub use engine_folder::{SetAside, condemn, open_or_set_aside};
pub use folder::{DataFolder, DataFolderError, FileReader};
pub use handle::{NodeHandle, NodeNotice, RequestError};
pub use metrics::RuntimeMetrics;
pub use outside::warn_outside;
pub use start::{PeerListener, RuntimeOptions, SPIN, StartError, start};
