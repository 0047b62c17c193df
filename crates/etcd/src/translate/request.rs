//! From messages to requests of the store.

use crate::errors::EtcdError;
use crate::proto::etcdserverpb as pb;
use bytes::Bytes;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use quorate_store::etcd;

/// A range. The key comes first, so that a request that is wrong twice gets etcd's answer.
pub(crate) fn range(message: pb::RangeRequest) -> Result<etcd::RangeRequest, EtcdError> {
    if message.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    let sort_order = sort_order(message.sort_order)?;
    let sort_target = sort_target(message.sort_target)?;
    Ok(etcd::RangeRequest {
        key: message.key,
        range_end: message.range_end,
        limit: message.limit,
        revision: message.revision,
        sort_order,
        sort_target,
        keys_only: message.keys_only,
        count_only: message.count_only,
        min_mod_revision: message.min_mod_revision,
        max_mod_revision: message.max_mod_revision,
        min_create_revision: message.min_create_revision,
        max_create_revision: message.max_create_revision,
    })
}

/// A put.
pub(crate) fn put(message: pb::PutRequest) -> etcd::PutRequest {
    etcd::PutRequest {
        key: message.key,
        value: message.value,
        lease: message.lease,
        prev_kv: message.prev_kv,
        ignore_value: message.ignore_value,
        ignore_lease: message.ignore_lease,
    }
}

/// A delete.
pub(crate) fn delete_range(message: pb::DeleteRangeRequest) -> etcd::DeleteRangeRequest {
    etcd::DeleteRangeRequest {
        key: message.key,
        range_end: message.range_end,
        prev_kv: message.prev_kv,
    }
}

/// A transaction with all that is nested in it. The decoder has bounded the depth.
pub(crate) fn txn(message: pb::TxnRequest) -> Result<etcd::TxnRequest, EtcdError> {
    let compare = message.compare.into_iter().map(compare).collect::<Result<_, _>>()?;
    let success = message.success.into_iter().map(op).collect::<Result<_, _>>()?;
    let failure = message.failure.into_iter().map(op).collect::<Result<_, _>>()?;
    Ok(etcd::TxnRequest { compare, success, failure })
}

/// A compaction. `physical` has no place in it: whoever asks waits at the door.
pub(crate) fn compaction(message: pb::CompactionRequest) -> etcd::CompactRequest {
    etcd::CompactRequest { revision: message.revision }
}

/// One operation; an empty one is an error of its own in etcd.
fn op(message: pb::RequestOp) -> Result<etcd::RequestOp, EtcdError> {
    match message.request {
        Some(Request::RequestRange(message)) => Ok(etcd::RequestOp::Range(range(message)?)),
        Some(Request::RequestPut(message)) => Ok(etcd::RequestOp::Put(put(message))),
        Some(Request::RequestDeleteRange(message)) => {
            Ok(etcd::RequestOp::DeleteRange(delete_range(message)))
        }
        Some(Request::RequestTxn(message)) => Ok(etcd::RequestOp::Txn(txn(message)?)),
        None => Err(EtcdError::KeyNotFound),
    }
}

/// A comparison. Where the operand is missing or is for another target, etcd compares with zero.
fn compare(message: pb::Compare) -> Result<etcd::Compare, EtcdError> {
    let operand = message.target_union;
    let target = match pb::compare::CompareTarget::try_from(message.target) {
        Ok(pb::compare::CompareTarget::Version) => etcd::CompareTarget::Version(match operand {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        Ok(pb::compare::CompareTarget::Create) => etcd::CompareTarget::Create(match operand {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(pb::compare::CompareTarget::Mod) => etcd::CompareTarget::Mod(match operand {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(pb::compare::CompareTarget::Value) => etcd::CompareTarget::Value(match operand {
            Some(TargetUnion::Value(value)) => value,
            _ => Bytes::new(),
        }),
        Ok(pb::compare::CompareTarget::Lease) => etcd::CompareTarget::Lease(match operand {
            Some(TargetUnion::Lease(lease)) => lease,
            _ => 0,
        }),
        // A comparison from a newer API: to guess at it could make a wrong branch run.
        Err(_) => return Err(EtcdError::NotCapable),
    };
    let result = match pb::compare::CompareResult::try_from(message.result) {
        Ok(pb::compare::CompareResult::Equal) => etcd::CompareResult::Equal,
        Ok(pb::compare::CompareResult::Greater) => etcd::CompareResult::Greater,
        Ok(pb::compare::CompareResult::Less) => etcd::CompareResult::Less,
        Ok(pb::compare::CompareResult::NotEqual) => etcd::CompareResult::NotEqual,
        Err(_) => return Err(EtcdError::NotCapable),
    };
    Ok(etcd::Compare { key: message.key, range_end: message.range_end, result, target })
}

fn sort_order(value: i32) -> Result<etcd::SortOrder, EtcdError> {
    match pb::range_request::SortOrder::try_from(value) {
        Ok(pb::range_request::SortOrder::None) => Ok(etcd::SortOrder::None),
        Ok(pb::range_request::SortOrder::Ascend) => Ok(etcd::SortOrder::Ascend),
        Ok(pb::range_request::SortOrder::Descend) => Ok(etcd::SortOrder::Descend),
        Err(_) => Err(EtcdError::InvalidSortOption),
    }
}

fn sort_target(value: i32) -> Result<etcd::SortTarget, EtcdError> {
    match pb::range_request::SortTarget::try_from(value) {
        Ok(pb::range_request::SortTarget::Key) => Ok(etcd::SortTarget::Key),
        Ok(pb::range_request::SortTarget::Version) => Ok(etcd::SortTarget::Version),
        Ok(pb::range_request::SortTarget::Create) => Ok(etcd::SortTarget::Create),
        Ok(pb::range_request::SortTarget::Mod) => Ok(etcd::SortTarget::Mod),
        Ok(pb::range_request::SortTarget::Value) => Ok(etcd::SortTarget::Value),
        Err(_) => Err(EtcdError::InvalidSortOption),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers on the wire, read off the API, not off our own enums.
    #[test]
    fn sort_options_are_the_numbers_of_the_api() {
        let check = |order, target, expected| {
            let message = pb::RangeRequest {
                key: "k".into(),
                sort_order: order,
                sort_target: target,
                ..pb::RangeRequest::default()
            };
            let options = range(message).map(|range| (range.sort_order, range.sort_target));
            assert_eq!(options, expected, "order {order} target {target}");
        };
        check(0, 0, Ok((etcd::SortOrder::None, etcd::SortTarget::Key)));
        check(1, 1, Ok((etcd::SortOrder::Ascend, etcd::SortTarget::Version)));
        check(2, 2, Ok((etcd::SortOrder::Descend, etcd::SortTarget::Create)));
        check(0, 3, Ok((etcd::SortOrder::None, etcd::SortTarget::Mod)));
        check(0, 4, Ok((etcd::SortOrder::None, etcd::SortTarget::Value)));
        check(3, 0, Err(EtcdError::InvalidSortOption));
        check(0, 5, Err(EtcdError::InvalidSortOption));
        check(-1, 0, Err(EtcdError::InvalidSortOption));
    }

    #[test]
    fn every_field_of_a_range_arrives() {
        let message = pb::RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            limit: 1,
            revision: 2,
            sort_order: 0,
            sort_target: 0,
            serializable: true,
            keys_only: true,
            count_only: true,
            min_mod_revision: 3,
            max_mod_revision: 4,
            min_create_revision: 5,
            max_create_revision: 6,
        };
        let expected = etcd::RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            limit: 1,
            revision: 2,
            sort_order: etcd::SortOrder::None,
            sort_target: etcd::SortTarget::Key,
            keys_only: true,
            count_only: true,
            min_mod_revision: 3,
            max_mod_revision: 4,
            min_create_revision: 5,
            max_create_revision: 6,
        };
        assert_eq!(range(message), Ok(expected));
    }

    #[test]
    fn a_comparison_without_its_operand_compares_with_zero() {
        let check = |target: i32, operand: Option<TargetUnion>, expected: etcd::CompareTarget| {
            let message = pb::Compare {
                result: 3,
                target,
                key: "k".into(),
                range_end: "z".into(),
                target_union: operand,
            };
            let compared = compare(message).expect("known numbers");
            assert_eq!(compared.target, expected);
            assert_eq!(compared.result, etcd::CompareResult::NotEqual);
            assert_eq!(compared.range_end, "z");
        };
        check(0, Some(TargetUnion::Version(7)), etcd::CompareTarget::Version(7));
        check(1, Some(TargetUnion::CreateRevision(7)), etcd::CompareTarget::Create(7));
        check(2, Some(TargetUnion::ModRevision(7)), etcd::CompareTarget::Mod(7));
        check(3, Some(TargetUnion::Value("v".into())), etcd::CompareTarget::Value("v".into()));
        check(4, Some(TargetUnion::Lease(7)), etcd::CompareTarget::Lease(7));
        check(0, None, etcd::CompareTarget::Version(0));
        check(3, None, etcd::CompareTarget::Value(Bytes::new()));
        check(2, Some(TargetUnion::Version(7)), etcd::CompareTarget::Mod(0));
    }

    #[test]
    fn a_comparison_that_nobody_knows_is_refused() {
        let unknown_target = pb::Compare { target: 5, ..pb::Compare::default() };
        assert_eq!(compare(unknown_target), Err(EtcdError::NotCapable));
        let unknown_result = pb::Compare { result: 4, ..pb::Compare::default() };
        assert_eq!(compare(unknown_result), Err(EtcdError::NotCapable));
    }

    #[test]
    fn transactions_keep_their_shape() {
        let leaf = pb::RequestOp {
            request: Some(Request::RequestPut(pb::PutRequest {
                key: "k".into(),
                ..pb::PutRequest::default()
            })),
        };
        let inner = pb::TxnRequest { compare: vec![], success: vec![], failure: vec![leaf] };
        let outer = pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            success: vec![pb::RequestOp { request: Some(Request::RequestTxn(inner)) }],
            failure: vec![],
        };
        let translated = txn(outer).expect("well formed");
        assert_eq!(translated.compare.len(), 1);
        assert!(translated.failure.is_empty());
        let etcd::RequestOp::Txn(inner) = &translated.success[0] else {
            panic!("{:?}", translated.success);
        };
        assert!(matches!(&inner.failure[..], [etcd::RequestOp::Put(put)] if put.key == "k"));
        let empty = pb::TxnRequest {
            success: vec![pb::RequestOp { request: None }],
            ..pb::TxnRequest::default()
        };
        assert_eq!(txn(empty), Err(EtcdError::KeyNotFound));
    }
}
