//! What can be said of a request without the store: checked by a door before it proposes, and again
//! at apply.

use super::{
    Command, DeleteRangeRequest, KvError, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// The most operations of a transaction, counted as etcd does: the largest of its three lists, and
/// for a transaction inside what that leaves.
pub const TXN_OPS_MAX: usize = 128;

/// The largest key in bytes. Engines limit keys to 64 KiB, and a key's zero bytes are doubled in
/// one of the tables.
pub const KEY_SIZE_MAX: usize = 32_000;

/// The most bytes that a member says of itself: names and addresses, not data.
const ATTRIBUTES_SIZE_MAX: usize = 64 * 1024;

/// Checks a command.
///
/// # Errors
/// What etcd answers to such a request.
pub fn check(command: &Command) -> Result<(), KvError> {
    match command {
        Command::Put(put) => check_put(put),
        Command::DeleteRange(delete) => check_delete(delete),
        Command::Txn(txn) => check_txn(txn),
        Command::Compact(_) => Ok(()),
        Command::SetMemberAttributes(attributes) => {
            let size: usize = attributes.client_urls.iter().map(String::len).sum();
            let size = size + attributes.name.len() + attributes.client_urls.len();
            if size > ATTRIBUTES_SIZE_MAX { Err(KvError::RequestTooLarge) } else { Ok(()) }
        }
    }
}

/// Checks a range.
///
/// # Errors
/// What etcd answers to such a request.
pub fn check_range(range: &RangeRequest) -> Result<(), KvError> {
    check_keys(&range.key, &range.range_end)
}

/// Checks a transaction: its operations first, then that no key is written twice.
///
/// # Errors
/// What etcd answers to such a request.
pub fn check_txn(txn: &TxnRequest) -> Result<(), KvError> {
    check_ops(txn, TXN_OPS_MAX)?;
    written(&txn.success)?;
    written(&txn.failure)?;
    Ok(())
}

fn check_keys(key: &Bytes, range_end: &Bytes) -> Result<(), KvError> {
    if key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    if key.len() > KEY_SIZE_MAX || range_end.len() > KEY_SIZE_MAX {
        return Err(KvError::RequestTooLarge);
    }
    Ok(())
}

fn check_put(put: &PutRequest) -> Result<(), KvError> {
    check_keys(&put.key, &Bytes::new())?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(KvError::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(KvError::LeaseProvided);
    }
    Ok(())
}

fn check_delete(delete: &DeleteRangeRequest) -> Result<(), KvError> {
    check_keys(&delete.key, &delete.range_end)
}

fn check_ops(txn: &TxnRequest, ops_max: usize) -> Result<(), KvError> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = ops_max.checked_sub(ops).ok_or(KvError::TooManyOps)?;
    for compare in &txn.compare {
        check_keys(&compare.key, &compare.range_end)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            RequestOp::Range(range) => check_range(range)?,
            RequestOp::Put(put) => check_put(put)?,
            RequestOp::DeleteRange(delete) => check_delete(delete)?,
            RequestOp::Txn(inner) => check_ops(inner, left)?,
        }
    }
    Ok(())
}

/// Ranges of keys that deletes cover: start → the furthest end of a range starting there, `None`
/// for no end.
type Deleted = BTreeMap<Bytes, Option<Bytes>>;

/// What one branch writes.
#[derive(Default)]
struct Written {
    puts: BTreeSet<Bytes>,
    deletes: Deleted,
}

impl Written {
    fn delete(&mut self, start: Bytes, end: Option<Bytes>) {
        match self.deletes.get(&start) {
            Some(None) => {}
            Some(Some(known)) if end.as_ref().is_some_and(|end| end <= known) => {}
            Some(Some(_)) | None => {
                self.deletes.insert(start, end);
            }
        }
    }

    fn put(&mut self, key: &Bytes, elsewhere: Option<&BTreeSet<Bytes>>) -> Result<(), KvError> {
        let known = self.puts.contains(key);
        if known && !elsewhere.is_some_and(|branch| branch.contains(key)) {
            return Err(KvError::DuplicateKey);
        }
        let mut before = self.deletes.range::<Bytes, _>(..=key);
        if before.any(|(_, end)| end.as_ref().is_none_or(|end| key < end)) {
            return Err(KvError::DuplicateKey);
        }
        self.puts.insert(key.clone());
        Ok(())
    }
}

/// What a branch writes, or `DuplicateKey`. As in etcd: a put must not meet another put, nor a
/// delete of its own branch or of a transaction listed before it; both branches of one inner
/// transaction may put one key, because only one is taken.
fn written(ops: &[RequestOp]) -> Result<Written, KvError> {
    let mut all = Written::default();
    for op in ops {
        if let RequestOp::DeleteRange(delete) = op {
            let end = match &delete.range_end[..] {
                [] => Some(successor(&delete.key)),
                [0] => None,
                _ => Some(delete.range_end.clone()),
            };
            all.delete(delete.key.clone(), end);
        }
    }
    for op in ops {
        if let RequestOp::Txn(inner) = op {
            let success = written(&inner.success)?;
            let failure = written(&inner.failure)?;
            for key in &success.puts {
                all.put(key, None)?;
            }
            for key in &failure.puts {
                all.put(key, Some(&success.puts))?;
            }
            for (start, end) in success.deletes.into_iter().chain(failure.deletes) {
                all.delete(start, end);
            }
        }
    }
    for op in ops {
        if let RequestOp::Put(put) = op {
            all.put(&put.key, None)?;
        }
    }
    Ok(all)
}

/// The next key in order.
fn successor(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::{Compare, CompareResult, CompareTarget, SetMemberAttributes};
    use quorate_types::NodeId;

    fn put(key: &'static str) -> RequestOp {
        RequestOp::Put(PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            ..PutRequest::default()
        })
    }

    fn delete(key: &'static str, end: &'static str) -> RequestOp {
        RequestOp::DeleteRange(DeleteRangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
            prev_kv: false,
        })
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp::Txn(TxnRequest { compare: vec![], success, failure })
    }

    #[test]
    fn a_branch_writes_no_key_twice() {
        let check = |ops: Vec<RequestOp>, expected: Result<(), KvError>| {
            let request = |success, failure| TxnRequest { compare: vec![], success, failure };
            assert_eq!(check_txn(&request(ops.clone(), vec![])), expected, "{ops:?}");
            assert_eq!(check_txn(&request(vec![], ops.clone())), expected, "{ops:?}");
        };
        let duplicate = Err(KvError::DuplicateKey);
        check(vec![put("a"), put("b")], Ok(()));
        check(vec![put("a"), put("a")], duplicate);
        check(vec![put("a"), delete("a", "")], duplicate);
        check(vec![delete("a", ""), put("a")], duplicate);
        check(vec![delete("a", ""), put("a\0")], Ok(()));
        check(vec![delete("a", "c"), put("b")], duplicate);
        check(vec![delete("a", "c"), put("c")], Ok(()));
        check(vec![delete("a", "z"), delete("a", "b"), put("c")], duplicate);
        check(vec![delete("a", "b"), delete("a", "z"), put("c")], duplicate);
        check(vec![delete("a", "b"), delete("a", "\0"), put("c")], duplicate);
        check(vec![delete("a", "\0"), delete("a", "b"), put("c")], duplicate);
        check(vec![delete("a", "c"), delete("b", "d")], Ok(()));
        check(vec![delete("b", "\0"), put("z")], duplicate);
        check(vec![delete("b", "\0"), put("a")], Ok(()));
        check(vec![delete("c", "a"), put("b")], Ok(()));
        // Both branches of one inner transaction may overlap, two inner transactions may not.
        check(vec![txn(vec![put("a")], vec![put("a")])], Ok(()));
        check(vec![txn(vec![put("a")], vec![delete("a", "")])], Ok(()));
        check(vec![txn(vec![put("a")], vec![]), txn(vec![put("a")], vec![])], duplicate);
        check(vec![txn(vec![put("a")], vec![]), txn(vec![], vec![put("a")])], duplicate);
        check(vec![txn(vec![put("a")], vec![]), put("a")], duplicate);
        check(vec![txn(vec![delete("a", "b")], vec![]), put("a")], duplicate);
        check(vec![delete("a", ""), txn(vec![], vec![put("a")])], duplicate);
        check(vec![txn(vec![delete("a", "b")], vec![]), txn(vec![put("a")], vec![])], duplicate);
        check(vec![txn(vec![txn(vec![put("a")], vec![])], vec![]), put("a")], duplicate);
    }

    #[test]
    fn operations_are_counted_down_through_nesting() {
        let check = |request: &TxnRequest, expected| assert_eq!(check_txn(request), expected);
        let ranges = |count| {
            vec![
                RequestOp::Range(RangeRequest { key: "k".into(), ..RangeRequest::default() });
                count
            ]
        };
        let of = |success| TxnRequest { success, ..TxnRequest::default() };
        check(&of(ranges(128)), Ok(()));
        check(&of(ranges(129)), Err(KvError::TooManyOps));
        let mut full = of(ranges(100));
        full.failure = ranges(128);
        check(&full, Ok(()));
        let compare = Compare {
            key: "k".into(),
            range_end: Bytes::new(),
            result: CompareResult::Equal,
            target: CompareTarget::Version(0),
        };
        full.compare = vec![compare; 129];
        check(&full, Err(KvError::TooManyOps));
        check(&of(vec![RequestOp::Txn(of(ranges(127)))]), Ok(()));
        check(&of(vec![RequestOp::Txn(of(ranges(128)))]), Err(KvError::TooManyOps));
        let mut deep = of(ranges(1));
        for _ in 0..127 {
            deep = of(vec![RequestOp::Txn(deep)]);
        }
        check(&deep, Ok(()));
        check(&of(vec![RequestOp::Txn(deep)]), Err(KvError::TooManyOps));
    }

    #[test]
    fn requests_that_say_nothing_or_too_much_are_refused() {
        let check =
            |request: PutRequest, expected| assert_eq!(check(&Command::Put(request)), expected);
        let good = PutRequest { key: "k".into(), ..PutRequest::default() };
        check(good.clone(), Ok(()));
        check(PutRequest::default(), Err(KvError::EmptyKey));
        let value = PutRequest { ignore_value: true, value: "v".into(), ..good.clone() };
        check(value, Err(KvError::ValueProvided));
        let lease = PutRequest { ignore_lease: true, lease: 7, ..good.clone() };
        check(lease, Err(KvError::LeaseProvided));
        let long = PutRequest { key: vec![b'k'; KEY_SIZE_MAX + 1].into(), ..good };
        check(long, Err(KvError::RequestTooLarge));
        assert_eq!(check_range(&RangeRequest::default()), Err(KvError::EmptyKey));
        let delete = DeleteRangeRequest { range_end: "\0".into(), ..DeleteRangeRequest::default() };
        assert_eq!(super::check(&Command::DeleteRange(delete)), Err(KvError::EmptyKey));
        let empty = Compare {
            key: Bytes::new(),
            range_end: Bytes::new(),
            result: CompareResult::Equal,
            target: CompareTarget::Value(Bytes::new()),
        };
        let txn = TxnRequest { compare: vec![empty], ..TxnRequest::default() };
        assert_eq!(check_txn(&txn), Err(KvError::EmptyKey));
    }

    #[test]
    fn sizes_are_taken_up_to_their_bounds() {
        let of = |size: usize| Bytes::from(vec![b'k'; size]);
        for (size, expected) in
            [(KEY_SIZE_MAX, Ok(())), (KEY_SIZE_MAX + 1, Err(KvError::RequestTooLarge))]
        {
            let key = RangeRequest { key: of(size), ..RangeRequest::default() };
            let end = RangeRequest { key: of(1), range_end: of(size), ..RangeRequest::default() };
            assert_eq!(check_range(&key), expected, "a key of {size} bytes");
            assert_eq!(check_range(&end), expected, "an end of {size} bytes");
        }
        let client_urls = vec!["http://one".to_owned(), "http://other".to_owned()];
        let rest = ATTRIBUTES_SIZE_MAX - "http://one".len() - "http://other".len() - 2;
        for (size, expected) in [(rest, Ok(())), (rest + 1, Err(KvError::RequestTooLarge))] {
            let (name, client_urls) = ("n".repeat(size), client_urls.clone());
            let attributes = SetMemberAttributes { member: NodeId(1), name, client_urls };
            assert_eq!(check(&Command::SetMemberAttributes(attributes)), expected, "{size}");
        }
    }
}
