//! The etcd v3 door: gRPC and HTTP on one port. A door only translates.

pub mod proto;
