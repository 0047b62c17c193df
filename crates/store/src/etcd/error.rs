//! Refusals of the `etcd` keyspace.

/// Why a request is refused, in etcd's own words. A door maps each to its status code; the text is
/// etcd's to the letter, because clients compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum KvError {
    /// A request without a key (InvalidArgument).
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist, or an empty operation of a
    /// transaction (InvalidArgument).
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A value beside `ignore_value` (InvalidArgument).
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease beside `ignore_lease` (InvalidArgument).
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A lease that does not exist (NotFound).
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// Two writes of one key in one branch of a transaction (InvalidArgument).
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// A transaction with too many operations (InvalidArgument).
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A sort order or target that does not exist (InvalidArgument).
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// A revision below the compacted one (OutOfRange).
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// A revision above the current one (OutOfRange).
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// A request, or a key, above the size limit (InvalidArgument).
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// The space quota is used up (ResourceExhausted).
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
}

impl KvError {
    /// Every error, in order.
    pub const ALL: [KvError; 12] = [
        KvError::EmptyKey,
        KvError::KeyNotFound,
        KvError::ValueProvided,
        KvError::LeaseProvided,
        KvError::LeaseNotFound,
        KvError::DuplicateKey,
        KvError::TooManyOps,
        KvError::InvalidSortOption,
        KvError::Compacted,
        KvError::FutureRevision,
        KvError::RequestTooLarge,
        KvError::NoSpace,
    ];
}
