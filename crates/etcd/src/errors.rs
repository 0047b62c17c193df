//! Every error that a client of etcd v3 knows: clients match codes and texts as strings, so both are API.

use crate::replica::Failure;
use prost::Message;
use quorate_consensus::RefuseReason;
use quorate_store::etcd::KvError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The trailer that names the members that could not be reached, separated by commas.
pub const MISSING_MEMBERS_METADATA: &str = "quorate-missing-members";

macro_rules! known_errors {
    ($($name:ident, $code:ident, $text:literal;)+) => {
        /// An error of the etcd v3 API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EtcdError {
            $(#[doc = concat!("`", stringify!($code), "`: ", $text)] $name,)+
        }

        impl EtcdError {
            /// All of them.
            pub const ALL: &'static [EtcdError] = &[$(EtcdError::$name,)+];

            /// The gRPC code that goes with it.
            #[must_use]
            pub fn code(self) -> Code {
                match self {
                    $(EtcdError::$name => Code::$code,)+
                }
            }

            /// The text that clients compare.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(EtcdError::$name => $text,)+
                }
            }
        }
    };
}

known_errors! {
    EmptyKey, InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound, InvalidArgument, "etcdserver: key not found";
    ValueProvided, InvalidArgument, "etcdserver: value is provided";
    LeaseProvided, InvalidArgument, "etcdserver: lease is provided";
    TooManyOps, InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidClientApiVersion, InvalidArgument, "etcdserver: invalid client api version";
    InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option";
    Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRevision, OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseNotFound, NotFound, "etcdserver: requested lease not found";
    LeaseExists, FailedPrecondition, "etcdserver: lease already exists";
    LeaseTtlTooLarge, OutOfRange, "etcdserver: too large lease TTL";
    WatchCanceled, Cancelled, "etcdserver: watch canceled";
    MemberExists, FailedPrecondition, "etcdserver: member ID already exist";
    PeerUrlExists, FailedPrecondition, "etcdserver: Peer URLs already exists";
    MemberNotEnoughStarted, FailedPrecondition,
        "etcdserver: re-configuration failed due to not enough started members";
    MemberBadUrls, InvalidArgument, "etcdserver: given member URLs are invalid";
    MemberNotFound, NotFound, "etcdserver: member not found";
    MemberNotLearner, FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady, FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners, FailedPrecondition, "etcdserver: too many learner members in cluster";
    ClusterIdMismatch, FailedPrecondition, "etcdserver: cluster ID mismatch";
    RequestTooLarge, InvalidArgument, "etcdserver: request is too large";
    TooManyRequests, ResourceExhausted, "etcdserver: too many requests";
    RootUserNotExist, FailedPrecondition, "etcdserver: root user does not exist";
    RootRoleNotExist, FailedPrecondition, "etcdserver: root user does not have root role";
    UserAlreadyExists, FailedPrecondition, "etcdserver: user name already exists";
    UserEmpty, InvalidArgument, "etcdserver: user name is empty";
    UserNotFound, FailedPrecondition, "etcdserver: user name not found";
    RoleAlreadyExists, FailedPrecondition, "etcdserver: role name already exists";
    RoleNotFound, FailedPrecondition, "etcdserver: role name not found";
    RoleEmpty, InvalidArgument, "etcdserver: role name is empty";
    AuthFailed, InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven, InvalidArgument, "etcdserver: permission not given";
    PermissionDenied, PermissionDenied, "etcdserver: permission denied";
    RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user";
    PermissionNotGranted, FailedPrecondition,
        "etcdserver: permission is not granted to the role";
    AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled";
    InvalidAuthToken, Unauthenticated, "etcdserver: invalid auth token";
    InvalidAuthManagement, InvalidArgument, "etcdserver: invalid auth management";
    AuthOldRevision, InvalidArgument, "etcdserver: revision of auth store is old";
    NoLeader, Unavailable, "etcdserver: no leader";
    NotLeader, FailedPrecondition, "etcdserver: not leader";
    LeaderChanged, Unavailable, "etcdserver: leader changed";
    NotCapable, FailedPrecondition, "etcdserver: not capable";
    Stopped, Unavailable, "etcdserver: server stopped";
    Timeout, Unavailable, "etcdserver: request timed out";
    TimeoutDueToLeaderFail, Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost, Unavailable,
        "etcdserver: request timed out, possibly due to connection lost";
    TimeoutWaitAppliedIndex, Unavailable,
        "etcdserver: request timed out, waiting for the applied index took too long";
    Unhealthy, Unavailable, "etcdserver: unhealthy cluster";
    Corrupt, DataLoss, "etcdserver: corrupt cluster";
    NotSupportedForLearner, FailedPrecondition, "etcdserver: rpc not supported for learner";
    BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee";
    WrongDowngradeVersionFormat, InvalidArgument,
        "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion, InvalidArgument,
        "etcdserver: invalid downgrade target version";
    ClusterVersionUnavailable, FailedPrecondition,
        "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess, FailedPrecondition,
        "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade, FailedPrecondition, "etcdserver: no inflight downgrade job";
    Canceled, Cancelled, "etcdserver: request canceled";
    DeadlineExceeded, DeadlineExceeded, "etcdserver: context deadline exceeded";
}

impl EtcdError {
    /// The error as it goes to the client.
    #[must_use]
    pub fn status(self) -> Status {
        Status::new(self.code(), self.text())
    }

    /// The error with the members that could not be reached, in status details and in a trailer: the text stays
    /// the one that clients compare.
    #[must_use]
    pub fn status_missing(self, missing: &[String]) -> Status {
        if missing.is_empty() {
            return self.status();
        }
        let names = missing.join(",");
        let mut metadata = MetadataMap::new();
        if let Ok(value) = MetadataValue::try_from(&names) {
            metadata.insert(MISSING_MEMBERS_METADATA, value);
        }
        let details = details::missing_members(self, names);
        let details = details.encode_to_vec().into();
        Status::with_details_and_metadata(self.code(), self.text(), details, metadata)
    }
}

impl From<KvError> for EtcdError {
    fn from(error: KvError) -> EtcdError {
        match error {
            KvError::EmptyKey => EtcdError::EmptyKey,
            KvError::KeyNotFound => EtcdError::KeyNotFound,
            KvError::ValueProvided => EtcdError::ValueProvided,
            KvError::LeaseProvided => EtcdError::LeaseProvided,
            KvError::LeaseNotFound => EtcdError::LeaseNotFound,
            KvError::DuplicateKey => EtcdError::DuplicateKey,
            KvError::TooManyOps => EtcdError::TooManyOps,
            KvError::InvalidSortOption => EtcdError::InvalidSortOption,
            KvError::Compacted => EtcdError::Compacted,
            KvError::FutureRevision => EtcdError::FutureRevision,
            KvError::RequestTooLarge => EtcdError::RequestTooLarge,
            KvError::NoSpace => EtcdError::NoSpace,
        }
    }
}

/// What a client is told when its request was refused. Each of these is definite: nothing was done.
fn refusal(reason: RefuseReason) -> EtcdError {
    match reason {
        RefuseReason::NoLeader => EtcdError::NoLeader,
        RefuseReason::NotLeader | RefuseReason::Transferring => EtcdError::LeaderChanged,
        RefuseReason::Busy => EtcdError::TooManyRequests,
        RefuseReason::TooLarge => EtcdError::RequestTooLarge,
        RefuseReason::NotReady => EtcdError::Unhealthy,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        match failure {
            Failure::Refused { reason, missing } => refusal(reason).status_missing(&missing),
            Failure::Unknown { missing } => EtcdError::Timeout.status_missing(&missing),
            Failure::Stopped(reason) => {
                tracing::debug!(reason, "a request met a stopped node");
                EtcdError::Stopped.status()
            }
        }
    }
}

/// gRPC's structured details: `google.rpc.Status` with one `google.rpc.ErrorInfo` in it.
mod details {
    use super::EtcdError;
    use prost::Message;
    use std::collections::BTreeMap;

    /// `google.rpc.Status`.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct RpcStatus {
        #[prost(int32, tag = "1")]
        pub(super) code: i32,
        #[prost(string, tag = "2")]
        pub(super) message: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) details: Vec<Any>,
    }

    /// `google.protobuf.Any`.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Any {
        #[prost(string, tag = "1")]
        pub(super) type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) value: Vec<u8>,
    }

    /// `google.rpc.ErrorInfo`.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ErrorInfo {
        #[prost(string, tag = "1")]
        pub(super) reason: String,
        #[prost(string, tag = "2")]
        pub(super) domain: String,
        #[prost(btree_map = "string, string", tag = "3")]
        pub(super) metadata: BTreeMap<String, String>,
    }

    /// The details of an error whose cause is that members cannot be reached.
    pub(super) fn missing_members(error: EtcdError, names: String) -> RpcStatus {
        let info = ErrorInfo {
            reason: "MEMBERS_UNREACHABLE".into(),
            domain: "quorate".into(),
            metadata: BTreeMap::from([("missing_members".into(), names)]),
        };
        let any = Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
            value: info.encode_to_vec(),
        };
        RpcStatus { code: error.code() as i32, message: error.text().into(), details: vec![any] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_store_and_the_door_say_the_same() {
        for error in KvError::ALL {
            assert_eq!(EtcdError::from(error).text(), error.to_string());
        }
    }

    #[test]
    fn every_error_has_a_text_of_its_own() {
        let texts: BTreeSet<_> = EtcdError::ALL.iter().map(|error| error.text()).collect();
        assert_eq!(texts.len(), EtcdError::ALL.len());
        assert!(texts.iter().all(|text| text.starts_with("etcdserver: ")));
    }

    /// Clients retry elsewhere on `Unavailable`, give up on the others.
    #[test]
    fn failures_of_the_cluster_have_the_code_that_clients_act_on() {
        let check = |failure: Failure, code: Code, text: &str| {
            let status = Status::from(failure);
            assert_eq!((status.code(), status.message()), (code, text));
        };
        let refused = |reason| Failure::Refused { reason, missing: vec![] };
        check(refused(RefuseReason::NoLeader), Code::Unavailable, "etcdserver: no leader");
        check(refused(RefuseReason::NotLeader), Code::Unavailable, "etcdserver: leader changed");
        check(refused(RefuseReason::Transferring), Code::Unavailable, "etcdserver: leader changed");
        check(
            refused(RefuseReason::Busy),
            Code::ResourceExhausted,
            "etcdserver: too many requests",
        );
        check(
            refused(RefuseReason::TooLarge),
            Code::InvalidArgument,
            "etcdserver: request is too large",
        );
        check(refused(RefuseReason::NotReady), Code::Unavailable, "etcdserver: unhealthy cluster");
        check(
            Failure::Unknown { missing: vec![] },
            Code::Unavailable,
            "etcdserver: request timed out",
        );
        check(Failure::Stopped("disk".into()), Code::Unavailable, "etcdserver: server stopped");
    }

    #[test]
    fn missing_members_are_named_beside_the_text() {
        let missing = vec!["n2".to_string(), "n3".to_string()];
        let status = Status::from(Failure::Refused { reason: RefuseReason::NoLeader, missing });
        assert_eq!(status.message(), "etcdserver: no leader");
        let trailer = status.metadata().get(MISSING_MEMBERS_METADATA).expect("a trailer");
        assert_eq!(trailer, "n2,n3");
        let decoded = details::RpcStatus::decode(status.details()).expect("details");
        assert_eq!(decoded.code, Code::Unavailable as i32);
        assert_eq!(decoded.message, "etcdserver: no leader");
        let info = details::ErrorInfo::decode(&decoded.details[0].value[..]).expect("error info");
        assert_eq!(info.metadata["missing_members"], "n2,n3");
    }
}
