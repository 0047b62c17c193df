//! Sorted runs: the entries of one table, in order of key, in a part of a file that never changes.
//!
//! ```text
//!  run     blocks ... | index | filter | footer
//!
//!  index   for each block: offset (8) size (4) checksum (8) key size (2), its first key;
//!          then the last key of the run
//!  footer  0       4         5       8          16         24        32
//!          +-------+---------+-------+----------+----------+---------+
//!          |"QRUN" | version | table | file     | index    | index   |
//!          |       |  = 1    | zero  | number   | offset   | size, n |
//!          +-------+---------+-------+----------+----------+---------+
//!          32       40       48        56        64         72       80
//!          +--------+--------+---------+---------+----------+--------+
//!          | filter | count  | removed | begin   | checksum | footer |
//!          | size   |        |         |         | index,   | check- |
//!          |        |        |         |         | filter   | sum    |
//!          +--------+--------+---------+---------+----------+--------+
//! ```
//! `n` is how many blocks there are; both it and the index size have four bytes. Little-endian; offsets count from the beginning of the file; checksums are XXH3-64. Every byte that is read is
//! covered by one, and what says where to read names the file, so that rot, lost and misdirected writes show.

use super::block::{self, Entry};
use super::filter::{Filter, FilterBuilder};
use super::io_error;
use bytes::{Buf, BufMut, Bytes};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use quorate_store::engine::{EngineError, Table};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// The version of the layout of runs that this code writes.
const RUN_VERSION: u8 = 1;

/// The first bytes of a footer.
const MAGIC: u32 = u32::from_le_bytes(*b"QRUN");

/// The size of a footer in bytes.
const FOOTER_SIZE: usize = 80;

/// The bytes of an index entry before its key.
const INDEX_ENTRY_SIZE: usize = 22;

/// How much is gathered before it is given to the operating system, in bytes.
const WRITE_SIZE: usize = 256 * 1024;

/// How large a block becomes before the next begins, in bytes: history is mostly read in order, the others mostly
/// key by key.
pub(super) fn block_size(table: Table) -> usize {
    match table {
        Table::History => 16 * 1024,
        Table::Current | Table::State => 4 * 1024,
    }
}

/// A file of runs.
pub(super) struct RunFile {
    pub(super) number: u64,
    path: PathBuf,
    file: File,
    /// Whether it goes with its last user.
    obsolete: AtomicBool,
}

impl RunFile {
    pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
        folder.join(number.to_string())
    }

    pub(super) fn open(folder: &Path, number: u64) -> Result<Arc<RunFile>, EngineError> {
        let path = RunFile::path(folder, number);
        let file = File::open(&path).map_err(|error| {
            let missing = || EngineError::Damaged(format!("{} is missing", path.display()));
            if error.kind() == ErrorKind::NotFound { missing() } else { io_error(error) }
        })?;
        Ok(Arc::new(RunFile { number, path, file, obsolete: AtomicBool::new(false) }))
    }

    /// From here on it goes with its last user.
    pub(super) fn retire(&self) {
        self.obsolete.store(true, Ordering::Relaxed);
    }

    fn damaged(&self, offset: u64, what: &str) -> EngineError {
        EngineError::Damaged(format!("{} at {offset}: {what}", self.path.display()))
    }

    fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, EngineError> {
        let mut bytes = vec![0; size];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.damaged(offset, "the file ends too early"))
            }
            Err(error) => Err(io_error(error)),
        }
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Relaxed) {
            // What cannot be removed now is removed at the next open.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// A new file of runs, written from its beginning to its end.
pub(super) struct FileWriter {
    file: RunFile,
    /// What was not given to the operating system yet.
    buffer: Vec<u8>,
    /// How much was given to the operating system.
    written: u64,
    /// Whether that failed for lack of space.
    is_device_full: bool,
}

impl FileWriter {
    /// Begins a file, over what an attempt that a crash cut short may have left there.
    pub(super) fn create(folder: &Path, number: u64) -> Result<FileWriter, EngineError> {
        let path = RunFile::path(folder, number);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(io_error)?;
        // Until it is finished it goes with its writer.
        let file = RunFile { number, path, file, obsolete: AtomicBool::new(true) };
        let buffer = Vec::with_capacity(2 * WRITE_SIZE);
        Ok(FileWriter { file, buffer, written: 0, is_device_full: false })
    }

    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(super) fn is_device_full(&self) -> bool {
        self.is_device_full
    }

    pub(super) fn write_out(&mut self) -> Result<(), EngineError> {
        (&self.file.file).write_all(&self.buffer).map_err(|error| {
            self.is_device_full =
                matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
            io_error(error)
        })?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes the file durable; its name is not yet.
    pub(super) fn finish(mut self) -> Result<Arc<RunFile>, EngineError> {
        self.write_out()?;
        self.file.file.sync_all().map_err(io_error)?;
        self.file.obsolete.store(false, Ordering::Relaxed);
        Ok(Arc::new(self.file))
    }
}

/// Writes one run into a file.
pub(super) struct RunWriter<'a> {
    file: &'a mut FileWriter,
    table: Table,
    /// Where the run begins.
    begin: u64,
    /// The block that is being filled.
    block: Vec<u8>,
    /// Its first key.
    first: Vec<u8>,
    index: Vec<u8>,
    /// How many blocks are in the index.
    block_count: u32,
    /// Only where keys are looked for one by one.
    filter: Option<FilterBuilder>,
    /// The last key.
    last: Vec<u8>,
    count: u64,
    removed: u64,
}

impl<'a> RunWriter<'a> {
    /// Begins a run of at most `count_max` entries.
    pub(super) fn new(file: &'a mut FileWriter, table: Table, count_max: u64) -> RunWriter<'a> {
        let begin = file.position();
        let count_max = usize::try_from(count_max).expect("entries are fewer than 2^64");
        RunWriter {
            file,
            table,
            begin,
            block: Vec::with_capacity(2 * block_size(table)),
            first: Vec::new(),
            index: Vec::new(),
            block_count: 0,
            filter: (table == Table::Current).then(|| FilterBuilder::new(count_max)),
            last: Vec::new(),
            count: 0,
            removed: 0,
        }
    }

    /// What is out of order hides keys without a word.
    fn check_order(&self, key: &[u8]) -> Result<(), EngineError> {
        if self.count > 0 && key <= &self.last[..] {
            return Err(self.file.file.damaged(self.file.position(), "keys that do not rise"));
        }
        Ok(())
    }

    /// Appends an entry; keys rise.
    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EngineError> {
        self.check_order(key)?;
        if self.block.is_empty() {
            self.first.clear();
            self.first.extend_from_slice(key);
        }
        block::append(&mut self.block, key, value);
        if let Some(filter) = &mut self.filter {
            filter.add(key);
        }
        self.count += 1;
        self.removed += u64::from(value.is_none());
        self.last.clear();
        self.last.extend_from_slice(key);
        if self.block.len() >= block_size(self.table) {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), EngineError> {
        let checksum = xxh3_64(&self.block);
        let (first, block) = (std::mem::take(&mut self.first), std::mem::take(&mut self.block));
        self.put_block(&first, &block, checksum)?;
        (self.first, self.block) = (first, block);
        self.block.clear();
        Ok(())
    }

    fn put_block(&mut self, first: &[u8], block: &[u8], checksum: u64) -> Result<(), EngineError> {
        self.index.put_u64_le(self.file.position());
        self.index
            .put_u32_le(u32::try_from(block.len()).expect("a block has one large value at most"));
        self.index.put_u64_le(checksum);
        put_key(&mut self.index, first);
        self.block_count += 1;
        self.file.buffer.extend_from_slice(block);
        if self.file.buffer.len() >= WRITE_SIZE {
            self.file.write_out()?;
        }
        Ok(())
    }

    /// Appends a block of another run as it is: its keys lie behind all that was added. Only for tables without a filter.
    pub(super) fn add_block(&mut self, piece: &BlockPiece, last: &[u8]) -> Result<(), EngineError> {
        assert!(self.filter.is_none(), "the keys of a whole block are in no filter");
        self.check_order(&piece.first)?;
        if !self.block.is_empty() {
            self.end_block()?;
        }
        self.put_block(&piece.first, &piece.block, piece.checksum)?;
        self.last.clear();
        self.last.extend_from_slice(last);
        self.count += piece.count;
        self.removed += piece.removed;
        Ok(())
    }

    /// Ends the run; where it ends in its file. `None` when it has no entries: then nothing was written.
    pub(super) fn finish(mut self) -> Result<Option<u64>, EngineError> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        if self.count == 0 {
            return Ok(None);
        }
        put_key(&mut self.index, &self.last);
        let index_size = self.index.len();
        if let Some(filter) = &self.filter {
            filter.append_to(&mut self.index);
        }
        let offset = self.file.position();
        let mut footer = Vec::with_capacity(FOOTER_SIZE);
        footer.put_u32_le(MAGIC);
        footer.put_u8(RUN_VERSION);
        footer.put_u8(self.table as u8);
        footer.put_u16_le(0);
        footer.put_u64_le(self.file.file.number);
        footer.put_u64_le(offset);
        footer.put_u32_le(u32::try_from(index_size).expect("an index is far below 4 GiB"));
        footer.put_u32_le(self.block_count);
        footer.put_u64_le((self.index.len() - index_size) as u64);
        footer.put_u64_le(self.count);
        footer.put_u64_le(self.removed);
        footer.put_u64_le(self.begin);
        footer.put_u64_le(xxh3_64(&self.index));
        footer.put_u64_le(xxh3_64(&footer));
        self.file.buffer.extend_from_slice(&self.index);
        self.file.buffer.extend_from_slice(&footer);
        Ok(Some(self.file.position()))
    }
}

fn put_key(index: &mut Vec<u8>, key: &[u8]) {
    index
        .put_u16_le(u16::try_from(key.len()).expect("the engine's keys have at most 65,535 bytes"));
    index.put_slice(key);
}

/// A verified block of a run.
pub(super) struct BlockPiece {
    pub(super) first: Bytes,
    pub(super) block: Bytes,
    pub(super) checksum: u64,
    /// How many entries it has, and how many of them say that a key was removed; zero until counted.
    pub(super) count: u64,
    pub(super) removed: u64,
}

/// Blocks in memory, by file and offset, up to a number of bytes.
pub(super) type BlockCache = Cache<(u64, u64), Bytes, BlockSize>;

/// Weighs blocks by their bytes.
#[derive(Clone)]
pub(super) struct BlockSize;

impl Weighter<(u64, u64), Bytes> for BlockSize {
    fn weight(&self, _: &(u64, u64), block: &Bytes) -> u64 {
        block.len() as u64 + 64
    }
}

/// Where a block stands.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    size: usize,
    checksum: u64,
}

/// A sorted run.
pub(super) struct Run {
    file: Arc<RunFile>,
    /// Where it ends in its file: with the file, its name.
    end: u64,
    index: Bytes,
    /// Where the entries of the index begin.
    places: Vec<u32>,
    filter: Filter,
    last: Bytes,
    /// How many entries it has, and how many of them say that a key was removed.
    pub(super) count: u64,
    pub(super) removed: u64,
    /// How many bytes it has in its file.
    pub(super) size: u64,
}

impl Run {
    /// Opens the run of `table` that ends at `end`, and reads its index and filter.
    pub(super) fn open(file: Arc<RunFile>, table: Table, end: u64) -> Result<Run, EngineError> {
        let damaged = |what: &str| file.damaged(end, what);
        let at =
            end.checked_sub(FOOTER_SIZE as u64).ok_or_else(|| damaged("too small for a run"))?;
        let bytes = file.read(at, FOOTER_SIZE)?;
        let mut footer = &bytes[..];
        let expected = xxh3_64(&bytes[..FOOTER_SIZE - 8]);
        let (magic, version, of, zero) =
            (footer.get_u32_le(), footer.get_u8(), footer.get_u8(), footer.get_u16_le());
        let (number, offset) = (footer.get_u64_le(), footer.get_u64_le());
        let (index_size, block_count) = (footer.get_u32_le() as usize, footer.get_u32_le());
        let filter_size = footer.get_u64_le();
        let (count, removed, begin) =
            (footer.get_u64_le(), footer.get_u64_le(), footer.get_u64_le());
        let (checksum, found) = (footer.get_u64_le(), footer.get_u64_le());
        if expected != found || magic != MAGIC {
            return Err(damaged("the footer of a run does not match its checksum"));
        }
        if version != RUN_VERSION || zero != 0 {
            // Whole, and of another program: nothing to throw away.
            let reason = format!("{}: a run of version {version}", file.path.display());
            return Err(EngineError::Failed(reason));
        }
        if number != file.number || of != table as u8 {
            return Err(damaged("the run belongs elsewhere"));
        }
        let size = index_size.saturating_add(usize::try_from(filter_size).unwrap_or(usize::MAX));
        if begin > offset
            || offset.checked_add(size as u64) != Some(at)
            || count == 0
            || removed > count
        {
            return Err(damaged("the footer of a run contradicts itself"));
        }
        let index = file.read(offset, size)?;
        if xxh3_64(&index) != checksum {
            return Err(damaged("the index of a run does not match its checksum"));
        }
        let mut index = Bytes::from(index);
        let filter = index.split_off(index_size);
        let (places, last) = parse_index(&index, block_count, begin..offset)
            .ok_or_else(|| damaged("the index of a run is malformed"))?;
        let filter = Filter::new(filter).ok_or_else(|| damaged("a filter of parts of blocks"))?;
        let size = end - begin;
        Ok(Run { file, end, index, places, filter, last, count, removed, size })
    }

    /// File and end: its name in a manifest.
    pub(super) fn name(&self) -> (u64, u64) {
        (self.file.number, self.end)
    }

    pub(super) fn file(&self) -> &RunFile {
        &self.file
    }

    pub(super) fn block_count(&self) -> usize {
        self.places.len()
    }

    /// The first key of a block.
    pub(super) fn first(&self, block: usize) -> &[u8] {
        let at = self.places[block] as usize;
        let size = usize::from(u16::from_le_bytes([self.index[at + 20], self.index[at + 21]]));
        &self.index[at + INDEX_ENTRY_SIZE..at + INDEX_ENTRY_SIZE + size]
    }

    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    fn place(&self, block: usize) -> Place {
        let mut entry = &self.index[self.places[block] as usize..];
        let (offset, size) = (entry.get_u64_le(), entry.get_u32_le() as usize);
        Place { offset, size, checksum: entry.get_u64_le() }
    }

    /// The block in which a key stands if it stands anywhere; `None` when it is below all.
    pub(super) fn block_of(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.places.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.first(middle) <= key { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    fn verify(&self, place: Place, block: &[u8]) -> Result<(), EngineError> {
        if xxh3_64(block) == place.checksum {
            return Ok(());
        }
        Err(self.file.damaged(place.offset, "a block does not match its checksum"))
    }

    /// A block, from memory or from the file.
    pub(super) fn block(&self, block: usize, cache: &BlockCache) -> Result<Bytes, EngineError> {
        let place = self.place(block);
        let name = (self.file.number, place.offset);
        if let Some(known) = cache.get(&name) {
            return Ok(known);
        }
        let bytes = self.file.read(place.offset, place.size)?;
        self.verify(place, &bytes)?;
        let bytes = Bytes::from(bytes);
        cache.insert(name, bytes.clone());
        Ok(bytes)
    }

    /// As many blocks from `block` on as fit into about `size_max` bytes, at least one.
    pub(super) fn blocks(
        &self,
        block: usize,
        size_max: usize,
    ) -> Result<Vec<BlockPiece>, EngineError> {
        let begin = self.place(block).offset;
        let mut places = vec![self.place(block)];
        while let Some(next) = (block + places.len() < self.places.len())
            .then(|| self.place(block + places.len()))
            .filter(|next| (next.offset - begin) as usize + next.size <= size_max)
        {
            places.push(next);
        }
        let size = places.iter().map(|place| place.size).sum();
        let bytes = Bytes::from(self.file.read(begin, size)?);
        let mut pieces = Vec::with_capacity(places.len());
        for (at, place) in places.into_iter().enumerate() {
            let from = (place.offset - begin) as usize;
            let piece = bytes.get(from..from + place.size).map(|piece| bytes.slice_ref(piece));
            let piece = piece
                .ok_or_else(|| self.file.damaged(place.offset, "blocks that do not follow"))?;
            self.verify(place, &piece)?;
            let first = self.index.slice_ref(self.first(block + at));
            pieces.push(BlockPiece {
                first,
                block: piece,
                checksum: place.checksum,
                count: 0,
                removed: 0,
            });
        }
        Ok(pieces)
    }

    /// What the run says of a key: `None` nothing, `Some(None)` that it was removed.
    pub(super) fn find(
        &self,
        key: &[u8],
        cache: &BlockCache,
    ) -> Result<Option<Option<Bytes>>, EngineError> {
        if key < self.first(0) || key > self.last() || !self.filter.may_have(key) {
            return Ok(None);
        }
        let Some(at) = self.block_of(key) else { return Ok(None) };
        let block = self.block(at, cache)?;
        let found = block::find(&block, key).map_err(|()| self.malformed(at))?;
        Ok(found.map(|Entry { value, .. }| value.map(|value| block.slice(value))))
    }

    pub(super) fn malformed(&self, block: usize) -> EngineError {
        self.file.damaged(self.place(block).offset, "a block is malformed")
    }
}

/// Where the entries of an index begin, and the last key; `None` unless blocks fill their part of the file one behind the
/// other and keys rise.
fn parse_index(index: &Bytes, block_count: u32, part: Range<u64>) -> Option<(Vec<u32>, Bytes)> {
    let key_at = |at: usize| {
        let size = usize::from(u16::from_le_bytes(*index.get(at..)?.first_chunk()?));
        index.get(at + 2..at + 2 + size)
    };
    let mut places = Vec::new();
    let (mut at, mut offset, mut before) = (0, part.start, None);
    for _ in 0..block_count {
        places.push(u32::try_from(at).ok()?);
        let first = key_at(at + INDEX_ENTRY_SIZE - 2)?;
        let mut place = index.get(at..)?;
        let is_next = place.get_u64_le() == offset && before.is_none_or(|before| before < first);
        offset = offset.checked_add(u64::from(place.get_u32_le())).filter(|_| is_next)?;
        before = Some(first);
        at += INDEX_ENTRY_SIZE + first.len();
    }
    let last = key_at(at)?;
    let is_whole = at + 2 + last.len() == index.len();
    let fits = is_whole && offset == part.end && before.is_some_and(|first| first <= last);
    fits.then(|| (places, index.slice_ref(last)))
}
