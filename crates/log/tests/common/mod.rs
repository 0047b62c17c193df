//! A disk that knows live bytes from durable ones, and a driver that runs a log on it.

#![expect(dead_code, reason = "each test file uses its part of the double")]

use bytes::Bytes;
use quorate_log::{Log, LogEvent, LogOptions, OpenError, Recovery};
use quorate_types::{
    Configuration, DiskDone, DiskError, DiskOp, DiskOutput, DiskReader, DiskRequest, Entry,
    EntryKind, Epoch, FileName, GroupId, Incarnation, Index, Instant, Member, NodeId, Op, Origin,
    Slot, TransactionId, WriteId,
};
use std::collections::{BTreeMap, VecDeque};

/// A stream of numbers that a seed fixes.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A file as the running process sees it, and as a power cut leaves it.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    pub(crate) live: Vec<u8>,
    pub(crate) durable: Vec<u8>,
}

/// The disk of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashDisk {
    pub(crate) files: BTreeMap<FileName, File>,
    /// The most bytes of all files; `Allocate` beyond fails.
    pub(crate) space: Option<u64>,
    /// Fail the next sync with an I/O error, while later ones succeed again.
    pub(crate) fail_sync: bool,
    /// Let the next synced write go nowhere although it reports success.
    pub(crate) lose_write: bool,
    /// Pages of files that the device cannot read.
    pub(crate) bad_pages: Vec<(FileName, u64)>,
}

impl CrashDisk {
    fn size(&self) -> u64 {
        self.files.values().map(|file| file.live.len() as u64).sum()
    }

    /// Executes a request completely.
    pub(crate) fn execute(&mut self, op: &DiskOp) -> Result<DiskOutput, DiskError> {
        match op {
            DiskOp::Allocate { file, size } => {
                let old = self.files.get(file).map_or(0, |file| file.live.len() as u64);
                if self.space.is_some_and(|space| self.size() - old + size > space) {
                    return Err(DiskError::NoSpace(file.clone()));
                }
                let zeroes = vec![0; usize::try_from(*size).unwrap()];
                let content = File { live: zeroes.clone(), durable: zeroes };
                self.files.insert(file.clone(), content);
            }
            DiskOp::Write { file, offset, data, sync } => {
                let fail = *sync && std::mem::take(&mut self.fail_sync);
                let lose = *sync && std::mem::take(&mut self.lose_write);
                let content = self.file(file)?;
                let mut at = usize::try_from(*offset).unwrap();
                for chunk in data.iter().filter(|_| !lose) {
                    assert!(at + chunk.len() <= content.live.len(), "{op} grows the file");
                    content.live[at..at + chunk.len()].copy_from_slice(chunk);
                    at += chunk.len();
                }
                if fail {
                    let reason = "input/output error".into();
                    return Err(DiskError::Io { file: file.clone(), reason });
                }
                if *sync {
                    content.durable = content.live.clone();
                }
            }
            DiskOp::Read { file, offset, size } => {
                return self.read(file, *offset, *size).map(DiskOutput::Read);
            }
            DiskOp::Rename { from, to } => {
                let content =
                    self.files.remove(from).ok_or_else(|| DiskError::NotFound(from.clone()))?;
                self.files.insert(to.clone(), content);
            }
            DiskOp::Delete { file } => {
                self.files.remove(file);
            }
            DiskOp::Replace { file, data } => {
                let content = File { live: data.to_vec(), durable: data.to_vec() };
                self.files.insert(file.clone(), content);
            }
        }
        Ok(DiskOutput::Done)
    }

    fn file(&mut self, file: &FileName) -> Result<&mut File, DiskError> {
        self.files.get_mut(file).ok_or_else(|| DiskError::NotFound(file.clone()))
    }

    /// The process dies; of a request under way, some bytes may have reached the page cache.
    pub(crate) fn kill(&mut self, pending: &[DiskRequest], random: &mut Random) {
        for request in pending {
            if random.chance(50) {
                self.apply_part(&request.op, random, true);
            }
        }
    }

    /// The power fails: what was not synced is gone, or there in part.
    pub(crate) fn lose_power(&mut self, pending: &[DiskRequest], random: &mut Random) {
        for file in self.files.values_mut() {
            let sectors = file.live.len().div_ceil(512);
            for sector in 0..sectors {
                let range = sector * 512..((sector + 1) * 512).min(file.live.len());
                if file.live[range.clone()] != file.durable[range.clone()] && random.chance(50) {
                    file.durable[range.clone()].copy_from_slice(&file.live[range]);
                }
            }
            file.live = file.durable.clone();
        }
        for request in pending {
            if random.chance(80) {
                self.apply_part(&request.op, random, false);
            }
        }
    }

    /// Applies a random part of a request: a prefix of its bytes, or any of its sectors, or of a file
    /// operation all or nothing.
    fn apply_part(&mut self, op: &DiskOp, random: &mut Random, prefix: bool) {
        let DiskOp::Write { file, offset, data, .. } = op else {
            if let DiskOp::Allocate { file, size } = op {
                let size = if random.chance(50) { random.below(size + 1) } else { *size };
                let zeroes = vec![0; usize::try_from(size).unwrap()];
                let content = File { live: zeroes.clone(), durable: zeroes };
                self.files.insert(file.clone(), content);
            } else if random.chance(50) {
                let _ = self.execute(op);
            }
            return;
        };
        let Some(content) = self.files.get_mut(file) else { return };
        let bytes: Vec<u8> = data.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        let at = usize::try_from(*offset).unwrap();
        let cut = usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap();
        let mut put = |range: std::ops::Range<usize>| {
            content.live[at + range.start..at + range.end].copy_from_slice(&bytes[range.clone()]);
            if !prefix {
                let range = at + range.start..at + range.end;
                content.durable[range.clone()].copy_from_slice(&content.live[range]);
            }
        };
        if prefix || random.chance(30) {
            put(0..cut);
        } else {
            for start in (0..bytes.len()).step_by(512) {
                if random.chance(60) {
                    put(start..(start + 512).min(bytes.len()));
                }
            }
        }
    }
}

impl DiskReader for CrashDisk {
    fn list(&self, folder: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        let inside = |name: &FileName| name.as_str().starts_with(&format!("{folder}/"));
        let files = self.files.iter().filter(|(name, _)| inside(name));
        Ok(files.map(|(name, file)| (name.clone(), file.live.len() as u64)).collect())
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        let content = self.files.get(file).ok_or_else(|| DiskError::NotFound(file.clone()))?;
        let bad = |page: &u64| page + 4096 > offset && *page < offset + size;
        if self.bad_pages.iter().any(|(of, page)| of == file && bad(page)) {
            let reason = "medium error".into();
            return Err(DiskError::Io { file: file.clone(), reason });
        }
        let start = content.live.len().min(usize::try_from(offset).unwrap());
        let end = content.live.len().min(usize::try_from(offset + size).unwrap());
        Ok(Bytes::copy_from_slice(&content.live[start..end]))
    }
}

/// A log on its disk.
pub(crate) struct Runner {
    pub(crate) disk: CrashDisk,
    pub(crate) log: Log,
    pub(crate) events: VecDeque<LogEvent>,
    /// Requests that were asked for and not executed.
    pub(crate) queue: VecDeque<DiskRequest>,
    pub(crate) now: Instant,
    /// How many files were made.
    pub(crate) allocated: usize,
    /// How many bytes were written.
    pub(crate) written_size: u64,
}

impl Runner {
    pub(crate) fn open(
        disk: CrashDisk,
        options: LogOptions,
    ) -> Result<(Runner, Recovery), OpenError> {
        let (log, recovery) = Log::open(&disk, options)?;
        let (events, queue) = (VecDeque::new(), VecDeque::new());
        let (now, allocated, written_size) = (Instant::ZERO, 0, 0);
        Ok((Runner { disk, log, events, queue, now, allocated, written_size }, recovery))
    }

    /// Takes what the log asks and says.
    pub(crate) fn drain(&mut self) {
        while let Some(request) = self.log.poll() {
            self.queue.push_back(request);
        }
        while let Some(event) = self.log.poll_event() {
            self.events.push_back(event);
        }
    }

    /// Executes the request at `place` of the queue.
    pub(crate) fn complete(&mut self, place: usize) {
        let request = self.queue.remove(place).expect("a request is there");
        let result = self.disk.execute(&request.op);
        self.allocated += usize::from(matches!(request.op, DiskOp::Allocate { .. }));
        if let DiskOp::Write { data, .. } = &request.op {
            self.written_size += data.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        }
        self.log.handle(self.now, DiskDone { id: request.id, result });
        self.drain();
    }

    /// Nothing happens until what is due next.
    pub(crate) fn pass_time(&mut self) {
        if let Some(at) = self.log.next_deadline() {
            self.now = self.now.max(at);
            self.log.on_time(self.now);
            self.drain();
        }
    }

    /// Runs until nothing is left to do, however much time passes.
    pub(crate) fn settle(&mut self) {
        self.drain();
        self.pass_time();
        while !self.queue.is_empty() {
            self.complete(0);
            if self.queue.is_empty() {
                self.pass_time();
            }
        }
    }

    pub(crate) fn durable(&self) -> Vec<WriteId> {
        let writes = self.events.iter().filter_map(|event| {
            if let LogEvent::Durable { write, .. } = event { Some(*write) } else { None }
        });
        writes.collect()
    }

    /// Every slot of a group from `first` to `last`, through cache and disk.
    pub(crate) fn read_all(&mut self, group: GroupId, first: Index, last: Index) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        let mut next = first;
        while next <= last {
            let read = quorate_log::ReadId(next.0);
            self.log.fetch(group, read, next, last, 4096);
            self.settle();
            let answer = self.events.iter().position(
                |event| matches!(event, LogEvent::Fetched { read: found, .. } if *found == read),
            );
            let event = self.events.remove(answer.expect("every fetch is answered"));
            let Some(LogEvent::Fetched { slots: found, .. }) = event else { unreachable!() };
            let reached = found.last().map(|slot| slot.index);
            slots.extend(found);
            next = reached.unwrap_or(next).next();
        }
        slots
    }
}

pub(crate) fn epoch(number: u64) -> Epoch {
    Epoch::new(number, NodeId(1))
}

pub(crate) fn slot(index: u64, number: u64, body: &[u8]) -> Slot {
    let origin = Origin { node: NodeId(1), incarnation: Incarnation(9), sequence: index };
    let body = Bytes::copy_from_slice(body);
    let entry = Entry::new(epoch(number), EntryKind::Command, origin, TransactionId(0), body);
    Slot { index: Index(index), accepted: epoch(number), entry }
}

pub(crate) fn write(index: u64, number: u64, body: &[u8]) -> Op {
    Op::Write(slot(index, number, body))
}

pub(crate) fn configuration(voters: u64) -> Configuration {
    let member = |node| {
        let member = Member {
            incarnation: Incarnation(node),
            name: format!("n{node}"),
            peer_address: format!("127.0.0.1:7{node}01"),
            voter: true,
            outgoing_voter: false,
            intent: quorate_types::Intent::Stay,
        };
        (NodeId(node), member)
    };
    Configuration { members: (1..=voters).map(member).collect(), ..Configuration::default() }
}

pub(crate) fn configuration_slot(index: u64, number: u64, voters: u64) -> Slot {
    let body = configuration(voters).encode();
    let kind = EntryKind::Configuration;
    let entry = Entry::new(epoch(number), kind, Origin::NONE, TransactionId(0), body);
    Slot { index: Index(index), accepted: epoch(number), entry }
}

pub(crate) fn small_options() -> LogOptions {
    LogOptions { segment_size: 64 * 1024, ..LogOptions::default() }
}
