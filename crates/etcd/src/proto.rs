//! The API's messages, servers and clients, generated from `proto/*.proto` when the crate is built.
#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// `etcdserverpb`: the services of the API and their messages.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// `mvccpb`: keys and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// `authpb`: users, roles and rights.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// `grpc.health.v1`: gRPC's own health check.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
