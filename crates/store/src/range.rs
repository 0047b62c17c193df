//! Reading ranges: at the current revision from `Current`, at an older one from there by the links
//! between the changes of each key, through `History`.

use crate::engine::{Direction, EngineView, Table};
use crate::etcd::{KeyValue, KvError, RangeRequest, RangeResponse, SortOrder, SortTarget};
use crate::keys::{Keys, Revision};
use crate::overlay::Overlay;
use crate::reader::ReadError;
use crate::record::{Record, is_tombstone, read_record};
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

/// Shows the newest change of each key of `span`, also of deleted ones, by its engine key and its
/// encoded record, until told to stop.
fn visit_newest<V: EngineView>(
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

/// Shows each key of `span` that lives after the last change, by its engine key and its encoded
/// record, until told to stop.
pub(crate) fn visit_current<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
    span: Span<'_>,
    mut visit: impl FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, ApplyFault>,
) -> Result<(), ApplyFault> {
    visit_newest(overlay, keys, span, |place, value| {
        if is_tombstone(&value) {
            return Ok(ControlFlow::Continue(()));
        }
        visit(place, value)
    })
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
    (revision, compacted): (i64, i64),
    keep: Keep,
) -> Result<Found, ApplyFault> {
    let behind = Revision { main: revision + 1, sub: 0 };
    let mut found = Found::default();
    visit_newest(overlay, keys, span, |_, value| {
        let change = newest_below(overlay, keys, read_record(value)?, behind, compacted)?;
        if let Some(change) = change.filter(|change| !change.deleted) {
            found.count += 1;
            if found.wants_more(keep) {
                found.kvs.push(change.kv);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The newest change of a key before `behind`, which lies above the compacted revision; `newest` is
/// its newest of all.
pub(crate) fn newest_below<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
    newest: Record,
    behind: Revision,
    compacted: i64,
) -> Result<Option<Record>, ApplyFault> {
    let mut change = newest;
    while change.revision() >= behind {
        let links = change.links;
        let next = if links.far >= behind { links.far } else { links.before };
        if next == Revision::NONE {
            return Ok(None);
        }
        change = match overlay.read(Table::History, &keys.history(next))? {
            Some(value) => read_record(value)?,
            // A deletion that was swept: only those go although nothing at or below the compacted
            // revision followed.
            None if next.main < compacted => return Ok(None),
            None => {
                let Revision { main, sub } = next;
                let reason = format!("history lacks the change {main}.{sub} that another names");
                return Err(ApplyFault::Damaged(reason));
            }
        };
    }
    Ok(Some(change))
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
        find_at(overlay, keys, span, (revision, compacted), keep)?
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
