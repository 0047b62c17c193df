//! The etcd v3 door: gRPC and plain HTTP on one port.
//!
//! A door only translates. [`serve`] speaks to clients; a [`Door`] turns what they say into commands and reads of
//! `quorate_store`, has the [`Replica`] beside it agree on writes and confirm reads, and turns the replies back;
//! [`EtcdError`] holds every code and text that clients compare. Waiting, retry, forwarding and deadlines belong to
//! the node below.
//!
//! Left out: watches, leases, changes of membership, alarms, snapshots, authorization and the JSON gateway. Their
//! methods answer `Unimplemented`. A compaction that asks to wait until its space is given back is answered once the
//! revisions are unreadable, like any other: the store does not say how far its sweep has come.

#[doc(hidden)]
pub mod fuzzing;

mod door;
mod errors;
mod replica;
mod server;

mod cluster;
mod coalesced;
mod health;
mod http_routes;
mod kv;
mod maintenance;
mod metrics;

mod deadline;
pub mod proto;
mod translate;

pub use door::{Door, ETCD_VERSION, REQUEST_OVERHEAD_MAX, REQUEST_SIZE_MAX};
pub use errors::{EtcdError, MISSING_MEMBERS_METADATA};
pub use replica::{Failure, Replica};
pub use server::{connection_builder, serve, serve_with, socket};
