//! The replicated MVCC store of Quorate over an ordered key-value engine.
//!
//! [`Store`] applies agreed entries and implements [`quorate_types::StateMachine`]; [`StoreReader`]
//! answers reads beside it, from any thread; [`engine::Engine`] is what both stand on: an ordered
//! key-value engine with atomic batches and consistent views, real (on disk) or simulated
//! ([`engine::MemoryEngine`]). [`etcd`] holds the requests and responses of the `etcd` keyspace as
//! plain data, without protobuf.
//!
//! The store does not know which protocol replicates it. What it does depends on the entries and on
//! its state, on nothing else: no clock, no randomness, no local resource.
//!
//! Left out, with its place kept: leases (a put that names one finds none), watches (the `History`
//! table is ordered by revision for them), the `sql` keyspace, and an index that counts a range
//! without walking it.

#[doc(hidden)]
pub mod fuzzing;

pub mod engine;
pub mod etcd;

mod compaction;
mod evaluate;
mod install;
mod keys;
mod overlay;
mod range;
mod reader;
mod record;
mod snapshot;
mod store;

pub use reader::{MemberAttributes, ReadError, StoreReader};
pub use record::FORMAT_VERSION;
pub use store::Store;
