//! Reading ranges: at the current revision from `Current`, at an older one from `Versions` and
//! `History`.

use crate::engine::{Direction, EngineView, Table};
use crate::etcd::{KeyValue, KvError, RangeRequest, RangeResponse, SortOrder, SortTarget};
use crate::keys::{KeyRange, Keys, Revision, split_version};
use crate::overlay::Overlay;
use crate::reader::ReadError;
use crate::record::read_record;
use bytes::Bytes;
use quorate_types::ApplyFault;
use std::ops::ControlFlow;

/// Which keys a request names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Span<'a> {
    /// One key.
    Key(&'a Bytes),
    /// From a key to before another, or to the last.
    Range(&'a Bytes, Option<&'a Bytes>),
}

impl<'a> Span<'a> {
    /// From etcd's two fields.
    pub(crate) fn new(key: &'a Bytes, range_end: &'a Bytes) -> Span<'a> {
        match &range_end[..] {
            [] => Span::Key(key),
            [0] => Span::Range(key, None),
            _ => Span::Range(key, Some(range_end)),
        }
    }
}

/// How much of what is found to keep.
#[derive(Clone, Copy, Debug)]
struct Keep {
    /// At most so many keys; the count goes on.
    limit: usize,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// In order of key, as far as kept.
    kvs: Vec<KeyValue>,
    /// All of them.
    count: i64,
}

impl Found {
    fn wants_more(&self, keep: Keep) -> bool {
        self.kvs.len() < keep.limit
    }
}

/// Shows each key of `span` as of the last change, by its engine key and its encoded record, until
/// told to stop.
pub(crate) fn visit_current<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
    span: Span<'_>,
    mut visit: impl FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, ApplyFault>,
) -> Result<(), ApplyFault> {
    match span {
        Span::Key(key) => {
            let place = keys.current(key);
            if let Some(value) = overlay.read(Table::Current, &place)? {
                let _ = visit(place, value)?;
            }
        }
        Span::Range(key, end) => {
            let range = keys.current_range(key, end.map(|end| &end[..]));
            for pair in overlay.scan(Table::Current, &range, Direction::Forward) {
                let (place, value) = pair?;
                if visit(place, value)?.is_break() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The keys of `span` as of the last change.
fn find_current<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
    span: Span<'_>,
    keep: Keep,
) -> Result<Found, ApplyFault> {
    let mut found = Found::default();
    visit_current(overlay, keys, span, |_, value| {
        found.count += 1;
        if found.wants_more(keep) {
            found.kvs.push(read_record(value)?.kv);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The keys of `span` as of the end of `revision`.
fn find_at<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
    span: Span<'_>,
    revision: i64,
    keep: Keep,
) -> Result<Found, ApplyFault> {
    let behind = Revision { main: revision + 1, sub: 0 };
    let mut found = Found::default();
    let take = |found: &mut Found, version: Revision| -> Result<(), ApplyFault> {
        found.count += 1;
        if found.wants_more(keep) {
            found.kvs.push(read_history(overlay, keys, version)?);
        }
        Ok(())
    };
    match span {
        Span::Key(key) => {
            let range = keys.versions_before(key, behind);
            if let Some((_, version, true)) = newest(overlay, &range)? {
                take(&mut found, version)?;
            }
        }
        Span::Range(key, end) => {
            let range = keys.versions_range(key, end.map(|end| &end[..]));
            let mut candidate: Option<(Bytes, Revision, bool)> = None;
            for pair in overlay.scan(Table::Versions, &range, Direction::Forward) {
                let (place, version, alive) = read_version(&pair?)?;
                let same = candidate.as_ref().is_some_and(|(known, ..)| *known == place);
                if !same && let Some((_, version, true)) = candidate.take() {
                    take(&mut found, version)?;
                }
                if version < behind {
                    candidate = Some((place, version, alive));
                }
            }
            if let Some((_, version, true)) = candidate {
                take(&mut found, version)?;
            }
        }
    }
    Ok(found)
}

/// The newest version in a range of `Versions`: what names its key, where it is, whether the key
/// lives there.
fn newest<V: EngineView>(
    overlay: &Overlay<V>,
    range: &KeyRange,
) -> Result<Option<(Bytes, Revision, bool)>, ApplyFault> {
    match overlay.scan(Table::Versions, range, Direction::Backward).next() {
        Some(pair) => Ok(Some(read_version(&pair?)?)),
        None => Ok(None),
    }
}

fn read_version(pair: &(Bytes, Bytes)) -> Result<(Bytes, Revision, bool), ApplyFault> {
    let (place, revision) = split_version(&pair.0)?;
    match &pair.1[..] {
        [0] => Ok((place, revision, false)),
        [1] => Ok((place, revision, true)),
        _ => Err(ApplyFault::Damaged(format!(
            "version {}.{} says neither put nor deleted",
            revision.main, revision.sub
        ))),
    }
}

fn read_history<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
    revision: Revision,
) -> Result<KeyValue, ApplyFault> {
    let missing = || {
        let Revision { main, sub } = revision;
        ApplyFault::Damaged(format!("history lacks revision {main}.{sub} of a known version"))
    };
    let value = overlay.read(Table::History, &keys.history(revision))?.ok_or_else(missing)?;
    Ok(read_record(value)?.kv)
}

/// Answers a range. `current` is the revision that reads see, `compacted` the lowest readable one.
///
/// The order of steps is etcd's, and shows: filters leave the count alone, and a limit without sort
/// order cuts in order of key even when the sort target is another.
pub(crate) fn range<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
    (current, compacted): (i64, i64),
    request: &RangeRequest,
) -> Result<RangeResponse, ReadError> {
    let revision = if request.revision <= 0 { current } else { request.revision };
    if revision > current {
        return Err(KvError::FutureRevision.into());
    }
    if revision < compacted {
        return Err(KvError::Compacted.into());
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let sorts = request.sort_order != SortOrder::None;
    let keep = match limit {
        _ if request.count_only => Keep { limit: 0 },
        // One more than asked for shows whether there are more.
        Some(limit) if !sorts && !filters(request) => Keep { limit: limit.saturating_add(1) },
        Some(_) | None => Keep { limit: usize::MAX },
    };
    let span = Span::new(&request.key, &request.range_end);
    let found = if revision == current {
        find_current(overlay, keys, span, keep)?
    } else {
        find_at(overlay, keys, span, revision, keep)?
    };
    let mut kvs = found.kvs;
    kvs.retain(|kv| passes(request, kv));
    sort(request, &mut kvs);
    let more = limit.is_some_and(|limit| kvs.len() > limit);
    kvs.truncate(limit.unwrap_or(usize::MAX));
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    Ok(RangeResponse { revision: current, kvs, more, count: found.count })
}

fn filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

fn sort(request: &RangeRequest, kvs: &mut [KeyValue]) {
    let order = match (request.sort_order, request.sort_target) {
        (SortOrder::None, SortTarget::Key) => return,
        (SortOrder::None, _) => SortOrder::Ascend,
        (order, _) => order,
    };
    match request.sort_target {
        // They come in this order.
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if order == SortOrder::Descend {
        kvs.reverse();
    }
}
