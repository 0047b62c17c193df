//! An engine in memory that loses unsynced batches at a crash, as an engine on a disk does.
//!
//! Every key keeps its newest value and, while a view or a possible crash may still ask for them,
//! older ones, each with the sequence number of its batch. A view is a sequence number; a crash
//! takes back all sequence numbers above the one that survives.

use super::{Batch, Direction, Engine, EngineError, EngineReader, EngineView, Pair, Syncer, Table};
use bytes::Bytes;
use quorate_types::ApplyFault;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many pairs a scan takes at once under the lock: few at first, because many scans want only a
/// few,
const SCAN_PAGE_MIN: usize = 2;
/// and at most so many.
const SCAN_PAGE_MAX: usize = 64;

/// The value of a key as of a batch; `None` when that batch removed it.
type Version = (u64, Option<Bytes>);

/// The newest version of a key and the older ones that may still be asked for, oldest first.
#[derive(Debug)]
struct Chain {
    newest: Version,
    older: VecDeque<Version>,
}

impl Chain {
    /// The value as of `sequence`.
    fn at(&self, sequence: u64) -> Option<&Bytes> {
        if self.newest.0 <= sequence {
            return self.newest.1.as_ref();
        }
        self.older
            .iter()
            .rev()
            .find(|(made, _)| *made <= sequence)
            .and_then(|(_, value)| value.as_ref())
    }

    /// Takes back what batches above `sequence` did; whether anything is left.
    fn take_back(&mut self, sequence: u64) -> bool {
        while self.newest.0 > sequence {
            match self.older.pop_back() {
                Some(version) => self.newest = version,
                None => return false,
            }
        }
        true
    }

    /// Forgets versions that neither a view nor a crash can ask for: all older than the newest at
    /// or below `floor`.
    fn forget(&mut self, floor: u64) {
        if self.newest.0 <= floor {
            self.older.clear();
        } else {
            while self.older.get(1).is_some_and(|(made, _)| *made <= floor) {
                self.older.pop_front();
            }
        }
    }
}

#[derive(Debug, Default)]
struct Tables([BTreeMap<Bytes, Chain>; Table::ALL.len()]);

/// One generation.
#[derive(Debug, Default)]
struct Content {
    tables: Tables,
    /// Removed keys whose chain can go once no view and no crash reaches behind the removal.
    removed: VecDeque<(u64, Table, Bytes)>,
}

impl Content {
    fn write(&mut self, batch: Batch, sequence: u64, floor: u64) {
        for change in batch.changes {
            if change.value.is_none() {
                self.removed.push_back((sequence, change.table, change.key.clone()));
            }
            let version = (sequence, change.value);
            self.tables.0[change.table as usize]
                .entry(change.key)
                .and_modify(|chain| {
                    let before = std::mem::replace(&mut chain.newest, version.clone());
                    chain.older.push_back(before);
                    chain.forget(floor);
                })
                .or_insert_with(|| Chain { newest: version, older: VecDeque::new() });
        }
        while self.removed.front().is_some_and(|(sequence, ..)| *sequence <= floor) {
            let Some((_, table, key)) = self.removed.pop_front() else { break };
            let pairs = &mut self.tables.0[table as usize];
            if pairs
                .get(&key)
                .is_some_and(|chain| chain.newest.1.is_none() && chain.newest.0 <= floor)
            {
                pairs.remove(&key);
            }
        }
    }

    fn take_back(&mut self, sequence: u64) {
        for pairs in &mut self.tables.0 {
            pairs.retain(|_, chain| chain.take_back(sequence));
        }
        self.removed.retain(|(made, ..)| *made <= sequence);
    }

    fn size(&self) -> u64 {
        let pairs = self.tables.0.iter().flatten();
        let bytes: usize = pairs
            .map(|(key, chain)| key.len() + chain.newest.1.as_ref().map_or(0, Bytes::len))
            .sum();
        bytes as u64
    }
}

/// What survives the engine: its device.
#[derive(Debug, Default)]
struct Device {
    /// The live generation; views of an earlier one keep it alive.
    live: Arc<RwLock<Content>>,
    /// The staged generation and whether it is synced.
    staged: Option<(Content, bool)>,
    /// The last batch written.
    written: u64,
    /// The last batch that no crash can lose.
    synced: u64,
    /// How many views stand at a sequence number.
    views: BTreeMap<u64, usize>,
    /// Counts openings: an engine of an earlier one is dead.
    openings: u64,
    /// Why writes and syncs fail, when they are made to.
    failure: Option<String>,
}

impl Device {
    /// What is at or below can be asked for only in its newest version.
    fn floor(&self) -> u64 {
        self.views.keys().next().map_or(self.synced, |view| self.synced.min(*view))
    }

    fn refuse(&self, opening: u64) -> Result<(), EngineError> {
        if self.openings != opening {
            return Err(EngineError::Failed("the engine was closed by a crash".into()));
        }
        self.failure.clone().map_or(Ok(()), |reason| Err(EngineError::Failed(reason)))
    }
}

/// The device under a [`MemoryEngine`]: keeps what is written, crashes, is opened again.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<RwLock<Device>>);

impl MemoryDisk {
    /// An empty device.
    #[must_use]
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Opens an engine on what the device holds. An engine opened before is dead from here on.
    #[must_use]
    pub fn open(&self) -> MemoryEngine {
        let mut device = self.change();
        device.openings += 1;
        MemoryEngine { disk: self.clone(), opening: device.openings }
    }

    /// A reader of the engine that is open.
    #[must_use]
    pub fn reader(&self) -> MemoryReader {
        MemoryReader { disk: self.clone(), opening: self.look().openings }
    }

    /// How many batches a crash could lose.
    #[must_use]
    pub fn unsynced_batches(&self) -> u64 {
        let device = self.look();
        device.written - device.synced
    }

    /// The number of the last batch written, for [`MemoryDisk::sync_up_to`].
    #[must_use]
    pub fn written(&self) -> u64 {
        self.look().written
    }

    /// Makes the batches up to number `written` durable: a sync that began when they were the last
    /// and ends now. Numbers that a crash took back make nothing durable.
    pub fn sync_up_to(&self, written: u64) {
        let mut device = self.change();
        device.synced = device.synced.max(written.min(device.written));
    }

    /// Loses power: of the batches not synced, only the first `keep` survive, and what was staged
    /// is gone. Engines from before are dead; what their views show from here on says nothing.
    pub fn crash(&self, keep: u64) {
        let mut device = self.change();
        let survives = device.written.min(device.synced.saturating_add(keep));
        device.live.write().expect(UNPOISONED).take_back(survives);
        device.written = survives;
        device.synced = survives;
        device.staged = None;
        device.openings += 1;
        device.failure = None;
    }

    /// Makes every later write and sync fail with `reason`, until the next crash.
    pub fn fail(&self, reason: &str) {
        self.change().failure = Some(reason.to_owned());
    }

    fn look(&self) -> RwLockReadGuard<'_, Device> {
        self.0.read().expect(UNPOISONED)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Device> {
        self.0.write().expect(UNPOISONED)
    }
}

/// Why a lock is not poisoned.
const UNPOISONED: &str = "nothing panics while it holds this lock";

/// The engine on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryEngine {
    disk: MemoryDisk,
    /// Which opening of the device this is.
    opening: u64,
}

impl MemoryEngine {
    /// The device beneath, which survives this engine.
    #[must_use]
    pub fn disk(&self) -> MemoryDisk {
        self.disk.clone()
    }

    fn device(&self) -> Result<RwLockWriteGuard<'_, Device>, EngineError> {
        let device = self.disk.change();
        device.refuse(self.opening)?;
        Ok(device)
    }
}

fn nothing_staged() -> EngineError {
    EngineError::Failed("no generation is staged and synced".into())
}

impl Engine for MemoryEngine {
    type Reader = MemoryReader;

    fn write(&mut self, batch: Batch) -> Result<(), EngineError> {
        let mut device = self.device()?;
        device.written += 1;
        let (written, floor) = (device.written, device.floor());
        device.live.write().expect(UNPOISONED).write(batch, written, floor);
        Ok(())
    }

    fn reader(&self) -> MemoryReader {
        MemoryReader { disk: self.disk.clone(), opening: self.opening }
    }

    fn syncer(&self) -> Syncer {
        let (disk, opening) = (self.disk.clone(), self.opening);
        Arc::new(move || {
            let mut device = disk.change();
            device.refuse(opening).map_err(ApplyFault::from)?;
            device.synced = device.written;
            Ok(())
        })
    }

    fn begin_generation(&mut self) -> Result<(), EngineError> {
        self.device()?.staged = Some((Content::default(), false));
        Ok(())
    }

    fn write_generation(&mut self, batch: Batch) -> Result<(), EngineError> {
        let mut device = self.device()?;
        let (content, synced) = device.staged.as_mut().ok_or_else(nothing_staged)?;
        content.write(batch, 0, 0);
        *synced = false;
        Ok(())
    }

    fn sync_generation(&mut self) -> Result<(), EngineError> {
        let mut device = self.device()?;
        device.staged.as_mut().ok_or_else(nothing_staged)?.1 = true;
        Ok(())
    }

    fn commit_generation(&mut self) -> Result<(), EngineError> {
        let mut device = self.device()?;
        match device.staged.take() {
            Some((content, true)) => device.live = Arc::new(RwLock::new(content)),
            other => {
                device.staged = other;
                return Err(nothing_staged());
            }
        }
        // Batches of the old generation can no longer be lost, nor matter.
        device.synced = device.written;
        Ok(())
    }

    fn drop_generation(&mut self) -> Result<(), EngineError> {
        self.device()?.staged = None;
        Ok(())
    }
}

/// Takes views of a [`MemoryEngine`].
#[derive(Clone, Debug)]
pub struct MemoryReader {
    disk: MemoryDisk,
    /// Which opening of the device this belongs to.
    opening: u64,
}

impl EngineReader for MemoryReader {
    type View = MemoryView;

    fn view(&self) -> Result<MemoryView, EngineError> {
        let mut device = self.disk.change();
        if device.openings != self.opening {
            return Err(EngineError::Failed("the engine was closed by a crash".into()));
        }
        let sequence = device.written;
        *device.views.entry(sequence).or_default() += 1;
        Ok(MemoryView { disk: self.disk.clone(), content: Arc::clone(&device.live), sequence })
    }

    fn size(&self) -> u64 {
        let live = Arc::clone(&self.disk.look().live);
        let content = live.read().expect(UNPOISONED);
        content.size()
    }
}

/// A consistent view of a [`MemoryEngine`].
#[derive(Debug)]
pub struct MemoryView {
    disk: MemoryDisk,
    /// The generation that was live.
    content: Arc<RwLock<Content>>,
    /// The last batch it shows.
    sequence: u64,
}

impl Drop for MemoryView {
    fn drop(&mut self) {
        let mut device = self.disk.change();
        if let Some(count) = device.views.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                device.views.remove(&self.sequence);
            }
        }
    }
}

impl EngineView for MemoryView {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let content = self.content.read().expect(UNPOISONED);
        Ok(content.tables.0[table as usize]
            .get(key)
            .and_then(|chain| chain.at(self.sequence))
            .cloned())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> impl Iterator<Item = Result<Pair, EngineError>> {
        MemoryScan {
            view: self,
            table,
            start: Bound::Included(Bytes::copy_from_slice(start)),
            end: Bytes::copy_from_slice(end),
            direction,
            page: VecDeque::new(),
            page_size: SCAN_PAGE_MIN,
            done: start >= end,
        }
    }
}

/// A scan of a [`MemoryView`]: takes pages under the lock, gives pairs without it.
#[derive(Debug)]
pub struct MemoryScan<'a> {
    view: &'a MemoryView,
    table: Table,
    /// What is left of the range: from here,
    start: Bound<Bytes>,
    /// to before here.
    end: Bytes,
    direction: Direction,
    /// What was taken and not given yet.
    page: VecDeque<Pair>,
    /// How many pairs to take next.
    page_size: usize,
    /// Whether the range is read to its end.
    done: bool,
}

impl MemoryScan<'_> {
    fn fill(&mut self) {
        let content = self.view.content.read().expect(UNPOISONED);
        let range = content.tables.0[self.table as usize]
            .range((self.start.clone(), Bound::Excluded(self.end.clone())));
        let sequence = self.view.sequence;
        let alive = |(key, chain): (&Bytes, &Chain)| {
            chain.at(sequence).map(|value| (key.clone(), value.clone()))
        };
        match self.direction {
            Direction::Forward => self.page.extend(range.filter_map(alive).take(self.page_size)),
            Direction::Backward => {
                self.page.extend(range.rev().filter_map(alive).take(self.page_size));
            }
        }
        self.done = self.page.len() < self.page_size;
        self.page_size = (self.page_size * 2).min(SCAN_PAGE_MAX);
        if let Some((last, _)) = self.page.back() {
            match self.direction {
                Direction::Forward => self.start = Bound::Excluded(last.clone()),
                Direction::Backward => self.end = last.clone(),
            }
        }
    }
}

impl Iterator for MemoryScan<'_> {
    type Item = Result<Pair, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && !self.done {
            self.fill();
        }
        self.page.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Change;
    use super::*;

    fn batch(changes: &[(&'static str, Option<&'static str>)]) -> Batch {
        let changes = changes
            .iter()
            .map(|(key, value)| Change {
                table: Table::Current,
                key: Bytes::from_static(key.as_bytes()),
                value: value.map(|value| Bytes::from_static(value.as_bytes())),
            })
            .collect();
        Batch { changes }
    }

    fn content(view: &MemoryView, direction: Direction) -> String {
        let pairs = view.scan(Table::Current, b"", b"~", direction);
        let texts = pairs.map(|pair| {
            let (key, value) = pair.expect("memory does not fail");
            format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
        });
        texts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_view_stays_as_it_is() {
        let mut engine = MemoryDisk::new().open();
        engine.write(batch(&[("a", Some("1")), ("b", Some("1"))])).expect("open");
        let view = engine.reader().view().expect("open");
        engine.write(batch(&[("a", None), ("b", Some("2")), ("c", Some("2"))])).expect("open");
        (engine.syncer())().expect("open");
        engine.write(batch(&[("d", Some("3"))])).expect("open");
        assert_eq!(content(&view, Direction::Forward), "a=1 b=1");
        assert_eq!(view.read(Table::Current, b"a"), Ok(Some(Bytes::from_static(b"1"))));
        let now = engine.reader().view().expect("open");
        assert_eq!(content(&now, Direction::Forward), "b=2 c=2 d=3");
        assert_eq!(content(&now, Direction::Backward), "d=3 c=2 b=2");
    }

    #[test]
    fn a_crash_takes_back_a_suffix_of_unsynced_batches() {
        for keep in 0..4 {
            let disk = MemoryDisk::new();
            let mut engine = disk.open();
            engine.write(batch(&[("a", Some("0"))])).expect("open");
            (engine.syncer())().expect("open");
            engine.write(batch(&[("a", Some("1"))])).expect("open");
            engine.write(batch(&[("a", None), ("b", Some("2"))])).expect("open");
            engine.write(batch(&[("a", Some("3"))])).expect("open");
            assert_eq!(disk.unsynced_batches(), 3);
            disk.crash(keep);
            assert!(
                engine.write(batch(&[("z", Some("9"))])).is_err(),
                "a dead engine writes nothing"
            );
            let engine = disk.open();
            let expected = ["a=0", "a=1", "b=2", "a=3 b=2"][keep as usize];
            let view = engine.reader().view().expect("open");
            assert_eq!(content(&view, Direction::Forward), expected);
        }
    }

    #[test]
    fn a_staged_generation_is_invisible_until_it_is_committed() {
        let disk = MemoryDisk::new();
        let mut engine = disk.open();
        let reader = engine.reader();
        engine.write(batch(&[("a", Some("old"))])).expect("open");
        engine.begin_generation().expect("open");
        engine.write_generation(batch(&[("b", Some("new"))])).expect("staged");
        assert!(engine.commit_generation().is_err(), "not synced yet");
        engine.sync_generation().expect("staged");
        let before = reader.view().expect("open");
        engine.commit_generation().expect("synced");
        disk.sync_up_to(0);
        assert_eq!(content(&before, Direction::Forward), "a=old");
        assert_eq!(content(&reader.view().expect("open"), Direction::Forward), "b=new");
        engine.write(batch(&[("c", Some("lost"))])).expect("open");
        disk.crash(0);
        let view = disk.open().reader().view().expect("open");
        assert_eq!(content(&view, Direction::Forward), "b=new");
    }

    #[test]
    fn old_versions_are_forgotten_once_nothing_reaches_them() {
        let mut engine = MemoryDisk::new().open();
        for _ in 0..100 {
            engine.write(batch(&[("a", Some("x")), ("b", None)])).expect("open");
            (engine.syncer())().expect("open");
        }
        let live = Arc::clone(&engine.disk.look().live);
        let content = live.read().expect(UNPOISONED);
        let pairs = &content.tables.0[Table::Current as usize];
        assert!(pairs.values().all(|chain| chain.older.len() <= 2));
        assert!(content.removed.len() <= 2);
    }

    #[test]
    fn a_scan_crosses_pages_both_ways() {
        let mut engine = MemoryDisk::new().open();
        let changes = (0..1000_u32)
            .map(|number| Change {
                table: Table::History,
                key: Bytes::copy_from_slice(&number.to_be_bytes()),
                value: Some(Bytes::new()),
            })
            .collect();
        engine.write(Batch { changes }).expect("open");
        let view = engine.reader().view().expect("open");
        for (from, to) in [(0, 1000), (3, 67), (3, 68), (10, 10), (999, 1000), (936, 1000)] {
            let (start, end) = (u32::to_be_bytes(from), u32::to_be_bytes(to));
            let keys = |direction| -> Vec<u32> {
                view.scan(Table::History, &start, &end, direction)
                    .map(|pair| pair.expect("memory does not fail").0)
                    .map(|key| u32::from_be_bytes(key[..].try_into().expect("four bytes")))
                    .collect()
            };
            assert_eq!(keys(Direction::Forward), (from..to).collect::<Vec<_>>());
            assert_eq!(keys(Direction::Backward), (from..to).rev().collect::<Vec<_>>());
        }
    }
}
