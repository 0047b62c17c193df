//! Reading beside apply.

use crate::compaction::Sweep;
use crate::engine::{Direction, Engine, EngineError, EngineReader, EngineView, Table, View};
use crate::etcd;
use crate::etcd::{
    KvError, RangeRequest, RangeResponse, TxnRequest, TxnResponse, check_range, check_txn,
};
use crate::evaluate::Evaluation;
use crate::keys::Keys;
use crate::overlay::Overlay;
use crate::record::{Summary, damaged};
use quorate_types::{Applied, ApplyFault, NodeId, Reader};
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The request cannot be answered, here or on any replica: an answer for the client.
    #[error(transparent)]
    Refused(#[from] KvError),
    /// This replica's engine failed: never an answer for a client.
    #[error(transparent)]
    Fault(#[from] ApplyFault),
}

impl From<EngineError> for ReadError {
    fn from(error: EngineError) -> ReadError {
        ReadError::Fault(error.into())
    }
}

/// How clients reach a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberAttributes {
    /// Its name.
    pub name: String,
    /// Where its etcd door listens.
    pub client_urls: Vec<String>,
}

/// Answers reads from what is applied, from any thread, while the [`crate::Store`] goes on. Cheap
/// to clone; after a snapshot was installed it reads that.
///
/// A read sees one applied index, whole. Whether that is recent enough is the caller's to ensure: a
/// linearizable read first waits until the index of its read barrier is applied.
#[derive(Debug)]
pub struct StoreReader<E: Engine> {
    /// Takes views.
    engine: E::Reader,
    /// The keys of the group.
    keys: Keys,
    /// What the store last said of itself.
    published: Arc<RwLock<Published>>,
}

/// What the store says of itself to its readers.
#[derive(Clone, Copy, Debug)]
struct Published {
    /// The summary after the last write of the engine.
    summary: Summary,
    /// How far unreachable changes were removed.
    sweep: Sweep,
    /// Odd from before a write of the engine until its summary is published. A view taken while
    /// this stood still and even holds just what the summary says.
    version: u64,
}

impl<E: Engine> Clone for StoreReader<E> {
    fn clone(&self) -> StoreReader<E> {
        let (engine, published) = (self.engine.clone(), Arc::clone(&self.published));
        StoreReader { engine, keys: self.keys, published }
    }
}

impl<E: Engine> StoreReader<E> {
    pub(crate) fn new(engine: E::Reader, keys: Keys) -> StoreReader<E> {
        let (summary, sweep) = (Summary::default(), Sweep::default());
        let published = Arc::new(RwLock::new(Published { summary, sweep, version: 0 }));
        StoreReader { engine, keys, published }
    }

    pub(crate) fn view(&self) -> Result<View<E>, ApplyFault> {
        Ok(self.engine.view()?)
    }

    /// Says that the engine is about to be written.
    pub(crate) fn begin_write(&self) {
        self.published.write().expect(UNPOISONED).version |= 1;
    }

    /// Says what the engine holds, once it is written.
    pub(crate) fn publish(&self, summary: Summary, sweep: Sweep) {
        let mut published = self.published.write().expect(UNPOISONED);
        *published = Published { summary, sweep, version: (published.version | 1) + 1 };
    }

    fn published(&self) -> Published {
        *self.published.read().expect(UNPOISONED)
    }

    /// How far the store has come: everything up to there is seen by a read that begins now.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.published().summary.applied
    }

    /// The current revision and the compacted one, which is the lowest readable and -1 before the
    /// first compaction.
    #[must_use]
    pub fn revision(&self) -> (i64, i64) {
        let summary = self.published().summary;
        (summary.revision, summary.compacted)
    }

    /// Whether everything is removed here that a compaction at `revision` made unreachable. The space
    /// comes back a little later, when the engine merges.
    #[must_use]
    pub fn is_swept(&self, revision: i64) -> bool {
        let Published { summary, sweep, .. } = self.published();
        summary.compacted >= revision && sweep.is_done(revision)
    }

    /// About how many bytes the engine uses on its device.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.engine.size()
    }

    /// Answers a range.
    ///
    /// # Errors
    /// What etcd answers to such a request, or that the engine failed.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        check_range(request)?;
        let (overlay, summary) = self.open()?;
        let revisions = (summary.revision, summary.compacted);
        crate::range::range(&overlay, self.keys, revisions, request)
    }

    /// Answers a transaction that only reads ([`TxnRequest::is_read_only`]).
    ///
    /// # Panics
    /// When it may write: such a transaction must be agreed on.
    ///
    /// # Errors
    /// What etcd answers to such a request, or that the engine failed.
    pub fn txn(&self, request: &TxnRequest) -> Result<TxnResponse, ReadError> {
        assert!(request.is_read_only(), "a transaction that writes was sent to a reader");
        check_txn(request)?;
        let (mut overlay, summary) = self.open()?;
        let revisions = (summary.revision, summary.compacted);
        Evaluation::new(&mut overlay, self.keys, revisions, 0).txn(request)
    }

    /// How clients reach the members that said so.
    ///
    /// # Errors
    /// When the engine failed.
    pub fn members_attributes(&self) -> Result<BTreeMap<NodeId, MemberAttributes>, ApplyFault> {
        let (overlay, _) = self.open()?;
        let mut members = BTreeMap::new();
        for pair in overlay.scan(Table::State, &self.keys.members(), Direction::Forward) {
            let (key, value) = pair?;
            let mut reader = Reader::new("member attributes", value);
            let id = key.last_chunk().map(|id| NodeId(u64::from_be_bytes(*id)));
            let attributes =
                etcd::read_attributes(&mut reader).and_then(|read| reader.finish().map(|()| read));
            let (name, client_urls) = attributes.map_err(|error| damaged(&error))?;
            members.insert(id.unwrap_or_default(), MemberAttributes { name, client_urls });
        }
        Ok(members)
    }

    /// A view and the summary in it, which is read from the view only when a write went on beside.
    fn open(&self) -> Result<(Overlay<View<E>>, Summary), ApplyFault> {
        let before = self.published();
        let overlay = Overlay::new(self.view()?);
        let undisturbed =
            before.version.is_multiple_of(2) && self.published().version == before.version;
        let summary = if undisturbed { before.summary } else { read_summary(&overlay, self.keys)? };
        Ok((overlay, summary))
    }
}

/// Why the lock is not poisoned.
const UNPOISONED: &str = "nothing panics while it holds this lock";

/// The summary that a view holds; the default before the first apply.
pub(crate) fn read_summary<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
) -> Result<Summary, ApplyFault> {
    match overlay.read(Table::State, &keys.summary())? {
        Some(value) => Summary::decode(value).map_err(|error| damaged(&error)),
        None => Ok(Summary::default()),
    }
}
