//! Evaluating one request against the state and the changes of earlier entries.
//!
//! An [`Evaluation`] lives for one entry. Its writes all get the main revision after the current
//! one, and a sub revision each; nothing is written before everything that can be refused was
//! checked, so there is never a partial effect to take back.

use crate::compaction::is_gone;
use crate::engine::{EngineView, Table};
use crate::etcd::{
    CompactRequest, CompactResponse, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    DeleteRangeResponse, KeyValue, KvError, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use crate::keys::{HISTORY_KEY_SIZE, Keys, Revision};
use crate::overlay::Overlay;
use crate::range::{Span, range, visit_current};
use crate::reader::ReadError;
use crate::record::{Links, Record, read_record};
use bytes::Bytes;
use quorate_types::ApplyFault;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The evaluation of one entry, or of one read-only transaction.
pub(crate) struct Evaluation<'a, V> {
    /// What it reads, and where its writes go.
    overlay: &'a mut Overlay<V>,
    /// The keys of its group.
    keys: Keys,
    /// The revision before it.
    begin: i64,
    /// The lowest readable revision.
    pub(crate) compacted: i64,
    /// How many changes it has made.
    changes: u32,
    /// The digest chain up to the last change.
    pub(crate) digest: u64,
}

/// Which branch each transaction takes: decided for all, also the inner ones, before anything is
/// written. In order of evaluation: a transaction before those inside.
type Path = Vec<bool>;

impl<'a, V: EngineView> Evaluation<'a, V> {
    pub(crate) fn new(
        overlay: &'a mut Overlay<V>,
        keys: Keys,
        (revision, compacted): (i64, i64),
        digest: u64,
    ) -> Evaluation<'a, V> {
        Evaluation { overlay, keys, begin: revision, compacted, changes: 0, digest }
    }

    /// The revision that reads see now: the next one as soon as something changed.
    pub(crate) fn revision(&self) -> i64 {
        if self.changes == 0 { self.begin } else { self.begin + 1 }
    }

    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, ReadError> {
        // No lease exists yet, so each that is named is unknown.
        if request.lease != 0 {
            return Err(KvError::LeaseNotFound.into());
        }
        let needed = request.ignore_value || request.ignore_lease;
        let place = self.keys.place(&request.key, &mut self.overlay.scratch);
        let newest = self.read_newest(&place)?;
        if needed && newest.as_ref().is_none_or(|newest| newest.deleted) {
            return Err(KvError::KeyNotFound.into());
        }
        Ok(self.write_put(request, place, newest))
    }

    /// The newest change of a key, also its deletion, unless compaction made that unreachable.
    fn read_newest(&self, place: &Bytes) -> Result<Option<Record>, ApplyFault> {
        let Some(value) = self.overlay.read(Table::Current, place)? else { return Ok(None) };
        let newest = read_record(value)?;
        Ok((!is_gone(&newest, self.compacted)).then_some(newest))
    }

    fn write_put(
        &mut self,
        request: &PutRequest,
        place: Bytes,
        newest: Option<Record>,
    ) -> PutResponse {
        let revision = self.next_change();
        let links = newest.as_ref().map_or_else(Links::default, Record::links_behind);
        let before = newest.filter(|newest| !newest.deleted).map(|newest| newest.kv);
        let (create_revision, version) = match &before {
            Some(before) => (before.create_revision, before.version + 1),
            None => (revision.main, 1),
        };
        let kept = |ignore: bool| before.as_ref().filter(|_| ignore);
        let value =
            kept(request.ignore_value).map_or_else(|| request.value.clone(), |kv| kv.value.clone());
        let lease = kept(request.ignore_lease).map_or(request.lease, |kv| kv.lease);
        let key = request.key.clone();
        let kv =
            KeyValue { key, create_revision, mod_revision: revision.main, version, value, lease };
        self.write(place, &Record { deleted: false, sub: revision.sub, links, kv });
        PutResponse { revision: revision.main, prev_kv: before.filter(|_| request.prev_kv) }
    }

    fn next_change(&mut self) -> Revision {
        let revision = Revision { main: self.begin + 1, sub: self.changes };
        self.changes += 1;
        revision
    }

    /// Writes one change into both tables, and into the digest.
    fn write(&mut self, place: Bytes, record: &Record) {
        let buffer = &mut self.overlay.scratch;
        buffer.reserve(HISTORY_KEY_SIZE + record.encoded_size());
        let history = self.keys.change(record.revision(), buffer);
        record.encode(buffer);
        let encoded = buffer.split().freeze();
        self.digest = xxh3_64_with_seed(&encoded, self.digest);
        let changes = &mut self.overlay.changes;
        changes.put(Table::History, history, encoded.clone());
        changes.put(Table::Current, place, encoded);
    }

    pub(crate) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ReadError> {
        let span = Span::new(&request.key, &request.range_end);
        let mut gone = Vec::new();
        let mut prev_kvs = Vec::new();
        visit_current(self.overlay, self.keys, span, |place, value| {
            let mut newest = read_record(value)?;
            if request.prev_kv {
                prev_kvs.push(newest.kv.clone());
            }
            newest.kv.value = Bytes::new();
            gone.push((place, newest));
            Ok(ControlFlow::Continue(()))
        })?;
        let deleted = i64::try_from(gone.len()).expect("keys are fewer than 2^63");
        for (place, newest) in gone {
            let revision = self.next_change();
            let links = newest.links_behind();
            self.write(place, &Record::tombstone(newest.kv.key, revision, links));
        }
        Ok(DeleteRangeResponse { revision: self.revision(), deleted, prev_kvs })
    }

    pub(crate) fn compact(
        &mut self,
        request: CompactRequest,
    ) -> Result<CompactResponse, ReadError> {
        if request.revision <= self.compacted {
            return Err(KvError::Compacted.into());
        }
        if request.revision > self.begin {
            return Err(KvError::FutureRevision.into());
        }
        self.compacted = request.revision;
        Ok(CompactResponse { revision: self.begin })
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        range(self.overlay, self.keys, (self.revision(), self.compacted), request)
    }

    /// A transaction whose form was checked by [`crate::etcd::check_txn`].
    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, ReadError> {
        let mut path = Path::new();
        self.choose(request, &mut path)?;
        self.check_puts(request, &mut path.iter())?;
        self.check_ranges(request, &mut path.iter())?;
        self.run(request, &mut path.iter())
    }

    fn choose(&self, request: &TxnRequest, path: &mut Path) -> Result<(), ReadError> {
        let mut holds = true;
        for compare in &request.compare {
            if !self.compare(compare)? {
                holds = false;
                break;
            }
        }
        path.push(holds);
        for op in branch(request, holds) {
            if let RequestOp::Txn(inner) = op {
                self.choose(inner, path)?;
            }
        }
        Ok(())
    }

    fn compare(&self, compare: &Compare) -> Result<bool, ReadError> {
        let span = Span::new(&compare.key, &compare.range_end);
        let (mut found, mut all) = (false, true);
        visit_current(self.overlay, self.keys, span, |_, value| {
            found = true;
            all = holds(compare, &read_record(value)?.kv);
            Ok(if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if found {
            return Ok(all);
        }
        // There is no way to tell a missing value from an empty one in a request.
        let by_value = matches!(compare.target, CompareTarget::Value(_));
        Ok(!by_value && holds(compare, &KeyValue::default()))
    }

    /// Puts are checked against the state before the transaction, as etcd does: a key that an
    /// earlier operation would create does not exist yet.
    fn check_puts(
        &self,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<(), ReadError> {
        for op in branch(request, taken(path)) {
            match op {
                RequestOp::Put(put) => {
                    let needed = put.ignore_value || put.ignore_lease;
                    if needed {
                        let newest = self.read_newest(&self.keys.current(&put.key))?;
                        if newest.is_none_or(|newest| newest.deleted) {
                            return Err(KvError::KeyNotFound.into());
                        }
                    }
                    if put.lease != 0 {
                        return Err(KvError::LeaseNotFound.into());
                    }
                }
                RequestOp::Txn(inner) => self.check_puts(inner, path)?,
                RequestOp::Range(_) | RequestOp::DeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn check_ranges(
        &self,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<(), ReadError> {
        for op in branch(request, taken(path)) {
            match op {
                RequestOp::Range(range) if range.revision > self.begin => {
                    return Err(KvError::FutureRevision.into());
                }
                RequestOp::Range(range)
                    if range.revision > 0 && range.revision < self.compacted =>
                {
                    return Err(KvError::Compacted.into());
                }
                RequestOp::Txn(inner) => self.check_ranges(inner, path)?,
                RequestOp::Range(_) | RequestOp::Put(_) | RequestOp::DeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<TxnResponse, ReadError> {
        let succeeded = taken(path);
        let ops = branch(request, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                RequestOp::Range(range) => ResponseOp::Range(self.range(range)?),
                RequestOp::Put(put) => {
                    let place = self.keys.place(&put.key, &mut self.overlay.scratch);
                    let newest = self.read_newest(&place)?;
                    ResponseOp::Put(self.write_put(put, place, newest))
                }
                RequestOp::DeleteRange(delete) => {
                    ResponseOp::DeleteRange(self.delete_range(delete)?)
                }
                RequestOp::Txn(inner) => ResponseOp::Txn(self.run(inner, path)?),
            });
        }
        Ok(TxnResponse { revision: self.revision(), succeeded, responses })
    }
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn taken(path: &mut std::slice::Iter<'_, bool>) -> bool {
    *path.next().expect("every transaction on the path was chosen")
}

fn holds(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(value) => kv.version.cmp(value),
        CompareTarget::Create(value) => kv.create_revision.cmp(value),
        CompareTarget::Mod(value) => kv.mod_revision.cmp(value),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(value) => kv.lease.cmp(value),
    };
    match compare.result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::NotEqual => order != Ordering::Equal,
    }
}
