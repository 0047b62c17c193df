//! The state machine: applies entries, captures and installs snapshots.

use crate::compaction::Sweep;
use crate::engine::{Direction, Engine, EngineView, Table, View};
use crate::etcd::{Command, KvError, Reply, SetMemberAttributes, check, write_attributes};
use crate::evaluate::Evaluation;
use crate::install::Staging;
use crate::keys::Keys;
use crate::overlay::Overlay;
use crate::reader::{ReadError, StoreReader, read_summary};
use crate::record::{Summary, damaged};
use crate::snapshot::Capture;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    Applied, AppliedMembers, ApplyFault, Committed, DecodeError, Digest, EntryKind, Fate, GroupId,
    Incarnation, InstallFault, MachineState, Mistake, NodeId, Origin, OriginTable, Position,
    SnapshotName, SnapshotSource, StateMachine, Syncer, settled_by,
};
use std::collections::BTreeSet;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How much space for changes is taken at once, in bytes.
const SCRATCH_SIZE: usize = 64 * 1024;

/// How many changes are swept for each entry that is applied: more than an entry usually adds, so that
/// sweeping catches up also under load, and few, because each costs about as much as a put.
const SWEEP_AN_ENTRY: usize = 4;

/// How many changes are swept at once when there is nothing to apply: what comes next waits about a
/// millisecond for it.
const SWEEP_ALONE: usize = 512;

/// The replicated store of one group.
///
/// # Invariants
/// 1. While there is no fault, `summary`, `members`, `sweep`, `origins` and `recorded` say what the engine's live
///    generation says.
/// 2. After a fault nothing is applied any more, and what is published is still as of the last write.
pub struct Store<E: Engine> {
    /// What it is written to.
    engine: E,
    /// What it is read from; shares its view of the engine with every clone that was given away.
    reader: StoreReader<E>,
    /// The keys of the group.
    keys: Keys,
    /// Applied position, digest and revisions.
    summary: Summary,
    /// Who takes part.
    members: AppliedMembers,
    /// How far unreachable changes were removed.
    sweep: Sweep,
    /// Which proposals were applied.
    origins: OriginTable,
    /// The incarnations whose windows the engine holds.
    recorded: BTreeSet<(NodeId, Incarnation)>,
    /// Space for the keys and values of changes.
    scratch: BytesMut,
    /// A snapshot on its way in.
    staging: Option<Staging>,
    /// Why nothing is applied any more.
    fault: Option<ApplyFault>,
}

impl<E: Engine> Store<E> {
    /// Opens the state that the engine holds for `group`, or an empty one.
    ///
    /// # Errors
    /// When the engine fails, or holds something that cannot be right or is of a later format.
    pub fn open(engine: E, group: GroupId) -> Result<Store<E>, ApplyFault> {
        let keys = Keys::new(group);
        let reader = StoreReader::new(engine.reader(), keys);
        let mut store = Store {
            engine,
            reader,
            keys,
            summary: Summary::default(),
            members: AppliedMembers::default(),
            sweep: Sweep::default(),
            origins: OriginTable::default(),
            recorded: BTreeSet::new(),
            scratch: BytesMut::with_capacity(SCRATCH_SIZE),
            staging: None,
            fault: None,
        };
        store.load()?;
        Ok(store)
    }

    /// A handle for reads from other threads.
    #[must_use]
    pub fn reader(&self) -> StoreReader<E> {
        self.reader.clone()
    }

    /// Takes over what the live generation says.
    fn load(&mut self) -> Result<(), ApplyFault> {
        let overlay = Overlay::new(self.reader.view()?);
        let summary = read_summary(&overlay, self.keys)?;
        let sweep = Sweep::read(&overlay, self.keys)?;
        let members = match overlay.read(Table::State, &self.keys.configuration())? {
            Some(bytes) => AppliedMembers::decode(bytes).map_err(|error| damaged(&error))?,
            None => AppliedMembers::default(),
        };
        let mut origins = OriginTable::default();
        for pair in overlay.scan(Table::State, &self.keys.origins(), Direction::Forward) {
            let (key, window) = pair?;
            let id = key.last_chunk::<16>().map_or(0, |id| u128::from_be_bytes(*id));
            let (node, incarnation) = (NodeId((id >> 64) as u64), Incarnation(id as u64));
            origins.decode_window(node, incarnation, window).map_err(|error| damaged(&error))?;
        }
        self.summary = summary;
        self.members = members;
        self.sweep = sweep;
        self.recorded = origins.incarnations().collect();
        self.origins = origins;
        self.reader.publish(summary, sweep);
        Ok(())
    }

    fn apply_all(&mut self, entries: &[Committed]) -> Result<Vec<Option<Reply>>, ApplyFault> {
        let commands = decode_all(entries)?;
        let mut members = None;
        let mut batch = Applying {
            overlay: Overlay::with_scratch(self.reader.view()?, std::mem::take(&mut self.scratch)),
            keys: self.keys,
            summary: self.summary,
            origins: &mut self.origins,
            touched: BTreeSet::new(),
        };
        let mut replies = Vec::with_capacity(entries.len());
        for (committed, command) in entries.iter().zip(commands) {
            members = AppliedMembers::of(committed)?.or(members);
            replies.push(batch.apply(committed, command)?);
        }
        let Applying { mut overlay, summary, touched, .. } = batch;
        self.write_origins(&mut overlay, &touched);
        if let Some(members) = &members {
            overlay.changes.put(Table::State, self.keys.configuration(), members.encode());
        }
        if Mistake::AppliedApart.is_made() {
            let (before, sweep) = (self.summary, self.sweep);
            self.write(overlay, before, sweep)?;
            overlay = Overlay::new(self.reader.view()?);
        }
        overlay.changes.put(Table::State, self.keys.summary(), summary.encode());
        let mut sweep = self.sweep;
        if summary.compacted > self.summary.compacted {
            sweep.reopen(self.summary.compacted);
        }
        let count = SWEEP_AN_ENTRY * entries.len();
        sweep.step(&mut overlay, self.keys, summary.compacted, count)?;
        self.write(overlay, summary, sweep)?;
        if let Some(members) = members {
            self.members = members;
        }
        Ok(replies)
    }

    /// Writes the changes of an overlay, after which the engine holds such a state.
    fn write(
        &mut self,
        overlay: Overlay<View<E>>,
        summary: Summary,
        sweep: Sweep,
    ) -> Result<(), ApplyFault> {
        let Overlay { changes, scratch, .. } = overlay;
        self.scratch = scratch;
        let batch = changes.into_batch();
        self.reader.begin_write();
        self.engine.write(batch)?;
        (self.summary, self.sweep) = (summary, sweep);
        self.reader.publish(summary, sweep);
        Ok(())
    }

    /// Removes some more of what compaction made unreachable; whether there is more.
    fn sweep_on(&mut self) -> Result<bool, ApplyFault> {
        let (summary, mut sweep) = (self.summary, self.sweep);
        if sweep.is_done(summary.compacted) {
            return Ok(false);
        }
        let scratch = std::mem::take(&mut self.scratch);
        let mut overlay = Overlay::with_scratch(self.reader.view()?, scratch);
        sweep.step(&mut overlay, self.keys, summary.compacted, SWEEP_ALONE)?;
        self.write(overlay, summary, sweep)?;
        Ok(!sweep.is_done(summary.compacted))
    }

    /// Puts the windows that changed into the batch, and removes those that the table forgot.
    fn write_origins(
        &mut self,
        overlay: &mut Overlay<View<E>>,
        touched: &BTreeSet<(NodeId, Incarnation)>,
    ) {
        for (node, incarnation) in touched {
            let key = self.keys.origin(*node, *incarnation);
            if let Some(window) = self.origins.encode_window(*node, *incarnation) {
                overlay.changes.put(Table::State, key, window);
            }
        }
        if touched.is_subset(&self.recorded) {
            return;
        }
        let known: BTreeSet<_> = self.origins.incarnations().collect();
        for (node, incarnation) in self.recorded.difference(&known) {
            overlay.changes.remove(Table::State, self.keys.origin(*node, *incarnation));
        }
        self.recorded = known;
    }

    fn guarded<T, F: From<ApplyFault>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, F>,
        fault_of: impl Fn(&F) -> Option<ApplyFault>,
    ) -> Result<T, F> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone().into());
        }
        let result = work(self);
        if let Err(error) = &result {
            self.fault = fault_of(error);
        }
        result
    }

    fn staged<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, InstallFault>,
    ) -> Result<T, InstallFault> {
        let result = self.guarded(work, |fault| match fault {
            InstallFault::Apply(fault) => Some(fault.clone()),
            InstallFault::Content(_) => None,
        });
        if result.is_err() && self.staging.take().is_some() && self.fault.is_none() {
            self.engine.drop_generation().map_err(ApplyFault::from)?;
        }
        result
    }
}

/// The commands of a batch. All are read before the first is applied, so that one that this version
/// does not know stops the replica with nothing of the batch applied.
fn decode_all(entries: &[Committed]) -> Result<Vec<Option<Command>>, ApplyFault> {
    let decode = |committed: &Committed| {
        let unsupported = |reason| ApplyFault::Unsupported { index: committed.index, reason };
        match committed.entry.kind() {
            EntryKind::Noop | EntryKind::Configuration | EntryKind::Settle => Ok(None),
            EntryKind::Command => match Command::decode(committed.entry.body().clone()) {
                Ok(command) => Ok(Some(command)),
                Err(error) => Err(unsupported(error.to_string())),
            },
            kind @ (EntryKind::WriteSet | EntryKind::Prepared) => {
                Err(unsupported(format!("entries of kind {kind} are not known yet")))
            }
        }
    };
    entries.iter().map(decode).collect()
}

/// One batch of entries on its way into the engine.
struct Applying<'a, V> {
    /// The state with the changes so far.
    overlay: Overlay<V>,
    /// The keys of the group.
    keys: Keys,
    /// The summary after the entries so far.
    summary: Summary,
    /// Which proposals were applied.
    origins: &'a mut OriginTable,
    /// The incarnations whose windows changed.
    touched: BTreeSet<(NodeId, Incarnation)>,
}

impl<V: EngineView> Applying<'_, V> {
    fn apply(
        &mut self,
        committed: &Committed,
        command: Option<Command>,
    ) -> Result<Option<Reply>, ApplyFault> {
        let (before, at) = (self.summary.applied.position.index, committed.index);
        assert!(
            at == before.next(),
            "the entry at {at} was given to a store that applied {before}"
        );
        let mut digest = self.summary.applied.digest.0;
        let mut reply = None;
        let is_admitted = self.admit(committed)?;
        if let Some(command) = command
            && (is_admitted || Mistake::OriginsForgotten.is_made())
        {
            let answer = self.evaluate(command, &mut digest)?;
            reply = committed.wanted.then_some(answer);
        }
        let position = Position::new(at, committed.entry.created());
        self.summary.applied = Applied { position, digest: self.seal(position, digest) };
        Ok(reply)
    }

    /// Takes the origins of an entry in; whether what it says is to be carried out.
    fn admit(&mut self, committed: &Committed) -> Result<bool, ApplyFault> {
        let Committed { index, entry, .. } = committed;
        let unsupported = |error: DecodeError| ApplyFault::Unsupported {
            index: *index,
            reason: error.to_string(),
        };
        let mut touch = |origin: Origin| {
            if !origin.is_none() {
                self.touched.insert((origin.node, origin.incarnation));
            }
        };
        touch(entry.origin());
        if entry.kind() == EntryKind::Settle {
            touch(settled_by(entry).map_err(unsupported)?);
        }
        let is_forced =
            Mistake::SettledApplied.is_made() && self.origins.fate(entry.origin()) == Fate::Never;
        self.origins.admit(entry).map(|is_new| is_new || is_forced).map_err(unsupported)
    }

    /// Ends an entry's part of the digest chain: its position, and what it left the revisions at.
    fn seal(&self, position: Position, digest: u64) -> Digest {
        let mut bytes = [0; 40];
        let mut rest = &mut bytes[..];
        rest.put_u64_le(position.index.0);
        rest.put_u64_le(position.epoch.number);
        rest.put_u64_le(position.epoch.owner.0);
        rest.put_i64_le(self.summary.revision);
        rest.put_i64_le(self.summary.compacted);
        Digest(xxh3_64_with_seed(&bytes, digest))
    }

    fn evaluate(&mut self, command: Command, digest: &mut u64) -> Result<Reply, ApplyFault> {
        if let Err(refusal) = check(&command) {
            return Ok(Reply::Error(refusal));
        }
        if let Command::SetMemberAttributes(attributes) = &command {
            return Ok(self.set_member_attributes(attributes, digest));
        }
        let revisions = (self.summary.revision, self.summary.compacted);
        let mut evaluation = Evaluation::new(&mut self.overlay, self.keys, revisions, *digest);
        let result = match &command {
            Command::Put(put) => evaluation.put(put).map(Reply::Put),
            Command::DeleteRange(delete) => evaluation.delete_range(delete).map(Reply::DeleteRange),
            Command::Txn(txn) => evaluation.txn(txn).map(Reply::Txn),
            Command::Compact(request) => evaluation.compact(*request).map(Reply::Compact),
            Command::SetMemberAttributes(_) => Ok(Reply::SetMemberAttributes),
        };
        let (revision, compacted) = (evaluation.revision(), evaluation.compacted);
        *digest = evaluation.digest;
        self.summary.revision = revision;
        self.summary.compacted = compacted;
        refused(result)
    }

    fn set_member_attributes(
        &mut self,
        attributes: &SetMemberAttributes,
        digest: &mut u64,
    ) -> Reply {
        let mut value = BytesMut::new();
        write_attributes(&mut value, &attributes.name, &attributes.client_urls);
        let (key, value): (Bytes, Bytes) = (self.keys.member(attributes.member), value.freeze());
        *digest = xxh3_64_with_seed(&key, *digest);
        *digest = xxh3_64_with_seed(&value, *digest);
        self.overlay.changes.put(Table::State, key, value);
        Reply::SetMemberAttributes
    }
}

/// A refusal is an answer; a fault is none.
fn refused(result: Result<Reply, ReadError>) -> Result<Reply, ApplyFault> {
    let refusal = |error: KvError| Ok(Reply::Error(error));
    match result {
        Ok(reply) => Ok(reply),
        Err(ReadError::Refused(error)) => refusal(error),
        Err(ReadError::Fault(fault)) => Err(fault),
    }
}

impl<E: Engine> StateMachine for Store<E> {
    type Reply = Reply;

    fn state(&self) -> MachineState {
        MachineState { applied: self.summary.applied, members: self.members.clone() }
    }

    fn applied(&self) -> Applied {
        self.summary.applied
    }

    fn fate(&self, origin: Origin) -> Fate {
        self.origins.fate(origin)
    }

    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Option<Reply>>, ApplyFault> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        self.guarded(|store| store.apply_all(entries), |fault| Some(fault.clone()))
    }

    fn tend(&mut self) -> Result<bool, ApplyFault> {
        self.guarded(Store::sweep_on, |fault| Some(fault.clone()))
    }

    fn syncer(&self) -> Syncer {
        self.engine.syncer()
    }

    fn capture(&mut self) -> Result<Box<dyn SnapshotSource>, ApplyFault> {
        let overlay = Overlay::new(self.reader.view()?);
        let is_swept = self.sweep.is_done(self.summary.compacted);
        Ok(Box::new(Capture::new(overlay, self.keys, self.summary, is_swept)))
    }

    fn stage_begin(&mut self, name: &SnapshotName) -> Result<(), InstallFault> {
        self.staging = None;
        self.staged(|store| {
            store.engine.begin_generation().map_err(ApplyFault::from)?;
            store.staging = Some(Staging::new(name, store.keys));
            Ok(())
        })
    }

    fn stage_chunk(&mut self, chunk: Bytes) -> Result<(), InstallFault> {
        self.staged(|store| {
            let staging = store.staging.as_mut().ok_or_else(nothing_staged)?;
            let batch = staging.take(chunk)?;
            store.engine.write_generation(batch).map_err(ApplyFault::from)?;
            Ok(())
        })
    }

    fn stage_finish(&mut self) -> Result<(), InstallFault> {
        self.staged(|store| {
            let staging = store.staging.as_mut().ok_or_else(nothing_staged)?;
            let batch = staging.finish()?;
            store.engine.write_generation(batch).map_err(ApplyFault::from)?;
            store.engine.sync_generation().map_err(ApplyFault::from)?;
            Ok(())
        })
    }

    fn install(&mut self) -> Result<Applied, InstallFault> {
        self.staged(|store| {
            let staging = store.staging.as_ref().ok_or_else(nothing_staged)?;
            let applied = staging.complete()?;
            let now = store.summary.applied.position.index;
            if applied.position.index < now {
                let reason =
                    format!("it ends at {}, before the applied index {now}", applied.position);
                return Err(InstallFault::Content(reason));
            }
            store.reader.begin_write();
            store.engine.commit_generation().map_err(ApplyFault::from)?;
            store.staging = None;
            store.load()?;
            let loaded = store.summary.applied;
            assert!(loaded == applied, "installed {applied:?} but the engine holds {loaded:?}");
            Ok(applied)
        })
    }
}

fn nothing_staged() -> InstallFault {
    InstallFault::Content("nothing is staged".into())
}
