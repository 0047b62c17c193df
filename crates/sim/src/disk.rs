//! A disk that knows live bytes from durable ones.
//!
//! ```text
//!   submit ──▶ in flight ──▶ complete ──▶ live bytes ──▶ sync ──▶ durable bytes
//!                 │                           │                        │
//!   kill          │ any part of it lands      │ stay                   │ stay
//!   power loss    │ any sectors, any prefix   │ any sectors of each    │ stay
//!   failed sync   │                           │ read back good, a later sync says yes, still not durable
//! ```
//! Only the content of files can be unsynced: the requests that create, rename and delete sync the folder themselves,
//! so a crash in the middle of one leaves the old or the new state.

use crate::dice::Dice;
use bytes::Bytes;
use quorate_types::{DiskDone, DiskError, DiskOp, DiskOutput, DiskReader, DiskRequest, FileName};
use std::collections::BTreeMap;

/// The unit that a device writes whole or not at all.
const SECTOR_SIZE: usize = 512;

/// Names one submitted request for the life of the disk: a process chooses its own ids anew at each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How a request is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As asked.
    Good,
    /// A write reaches the file in part, and says so.
    WriteFailed,
    /// A write reaches the file, its sync fails: what was not synced before never will be, though it reads back good.
    SyncFailed,
    /// The lie of a mutant: reported as synced, but only written.
    Unsynced,
}

/// What a power loss took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Bytes that had been written and not synced, or were on their way.
    pub unsynced_size: u64,
    /// Writes of which a part survived.
    pub torn_count: u64,
}

/// A write that reached the file and was not synced.
#[derive(Clone, Debug)]
struct Unsynced {
    /// Where it begins.
    offset: usize,
    /// What was written.
    data: Vec<u8>,
}

/// One file.
#[derive(Clone, Debug, Default)]
struct SimFile {
    /// What reads see.
    live: Vec<u8>,
    /// What is left after a power loss that takes all it can.
    durable: Vec<u8>,
    /// What a sync would make durable, in order.
    unsynced: Vec<Unsynced>,
}

impl SimFile {
    fn whole(content: Vec<u8>) -> SimFile {
        SimFile { durable: content.clone(), live: content, unsynced: Vec::new() }
    }

    fn write(&mut self, offset: usize, data: Vec<u8>) {
        overwrite(&mut self.live, offset, &data);
        self.unsynced.push(Unsynced { offset, data });
    }

    fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            overwrite(&mut self.durable, write.offset, &write.data);
        }
    }
}

fn overwrite(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// The disk under one data folder.
///
/// # Invariants
/// 1. Without unsynced writes and failed syncs, live and durable content of a file are equal.
/// 2. A request is completed at most once, and never after a crash.
#[derive(Clone, Debug, Default)]
pub struct CrashDisk {
    /// The files.
    files: BTreeMap<FileName, SimFile>,
    /// What was submitted and is not done.
    in_flight: BTreeMap<Ticket, DiskRequest>,
    /// The next ticket.
    next: u64,
}

impl CrashDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> CrashDisk {
        CrashDisk::default()
    }

    /// Takes a request in; nothing has happened yet.
    pub fn submit(&mut self, request: DiskRequest) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.in_flight.insert(ticket, request);
        ticket
    }

    /// Carries a request out. `None` when a crash took it.
    pub fn complete(
        &mut self,
        ticket: Ticket,
        ending: Ending,
        dice: &mut Dice,
    ) -> Option<DiskDone> {
        let DiskRequest { id, op } = self.in_flight.remove(&ticket)?;
        let result = self.carry_out(op, ending, dice);
        Some(DiskDone { id, result })
    }

    /// Syncs a file now, as the system does by itself at some time after a write.
    pub fn write_back(&mut self, file: &FileName) {
        if let Some(file) = self.files.get_mut(file) {
            file.sync();
        }
    }

    /// The process dies, the system lives: what was written stays, what is on its way lands in part.
    pub fn kill(&mut self, dice: &mut Dice) {
        for request in std::mem::take(&mut self.in_flight).into_values() {
            let DiskRequest { id: _, op } = request;
            match op {
                DiskOp::Write { file, offset, data, sync: _ } => {
                    let mut data = concatenated(&data);
                    data.truncate(dice.position(data.len() + 1));
                    if let Some(file) = self.files.get_mut(&file) {
                        file.write(position(offset), data);
                    }
                }
                DiskOp::Allocate { .. }
                | DiskOp::Read { .. }
                | DiskOp::Rename { .. }
                | DiskOp::Delete { .. }
                | DiskOp::Replace { .. } => self.crash_in(op, dice),
            }
        }
    }

    /// The power fails: unsynced bytes go, but any sector and any prefix of them may have reached the device.
    pub fn lose_power(&mut self, dice: &mut Dice) -> Loss {
        let mut loss = Loss::default();
        for request in std::mem::take(&mut self.in_flight).into_values() {
            match request.op {
                DiskOp::Write { file, offset, data, sync: _ } => {
                    if let Some(file) = self.files.get_mut(&file) {
                        file.write(position(offset), concatenated(&data));
                    }
                }
                op @ (DiskOp::Allocate { .. }
                | DiskOp::Read { .. }
                | DiskOp::Rename { .. }
                | DiskOp::Delete { .. }
                | DiskOp::Replace { .. }) => self.crash_in(op, dice),
            }
        }
        for file in self.files.values_mut() {
            for write in std::mem::take(&mut file.unsynced) {
                loss.unsynced_size += write.data.len() as u64;
                loss.torn_count += u64::from(tear(&mut file.durable, &write, dice));
            }
            file.live.clone_from(&file.durable);
        }
        loss
    }

    /// How many bytes a power loss would put at risk now, those on their way included.
    #[must_use]
    pub fn unsynced_size(&self) -> u64 {
        let written = self.files.values().flat_map(|file| &file.unsynced).map(|w| w.data.len());
        let coming = self.in_flight.values().map(|request| match &request.op {
            DiskOp::Write { data, .. } => data.iter().map(Bytes::len).sum(),
            DiskOp::Allocate { .. }
            | DiskOp::Read { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Delete { .. }
            | DiskOp::Replace { .. } => 0,
        });
        written.chain(coming).sum::<usize>() as u64
    }

    /// A disk that holds what would be left if power failed now and took all that it can.
    #[must_use]
    pub fn durable_image(&self) -> CrashDisk {
        let whole = |file: &SimFile| SimFile::whole(file.durable.clone());
        let files = self.files.iter().map(|(name, file)| (name.clone(), whole(file))).collect();
        CrashDisk { files, in_flight: BTreeMap::new(), next: 0 }
    }

    fn carry_out(
        &mut self,
        op: DiskOp,
        ending: Ending,
        dice: &mut Dice,
    ) -> Result<DiskOutput, DiskError> {
        match op {
            DiskOp::Allocate { file, size } => {
                self.files.insert(file, SimFile::whole(vec![0; position(size)]));
            }
            DiskOp::Write { file: name, offset, data, sync } => {
                return self.write(name, position(offset), concatenated(&data), sync, ending, dice);
            }
            DiskOp::Read { file, offset, size } => {
                return Ok(DiskOutput::Read(self.read(&file, offset, size)?));
            }
            DiskOp::Rename { from, to } => {
                let file =
                    self.files.remove(&from).ok_or_else(|| DiskError::NotFound(from.clone()))?;
                self.files.insert(to, file);
            }
            DiskOp::Delete { file } => {
                self.files.remove(&file);
            }
            DiskOp::Replace { file, data } => {
                self.files.insert(file, SimFile::whole(data.to_vec()));
            }
        }
        Ok(DiskOutput::Done)
    }

    fn write(
        &mut self,
        name: FileName,
        offset: usize,
        mut data: Vec<u8>,
        sync: bool,
        ending: Ending,
        dice: &mut Dice,
    ) -> Result<DiskOutput, DiskError> {
        let failed = |file, reason: &str| Err(DiskError::Io { file, reason: reason.to_owned() });
        let Some(file) = self.files.get_mut(&name) else {
            return Err(DiskError::NotFound(name));
        };
        match ending {
            Ending::WriteFailed => {
                data.truncate(dice.position(data.len() + 1));
                file.write(offset, data);
                return failed(name, "simulated write error");
            }
            Ending::SyncFailed if sync => {
                file.write(offset, data);
                // The pages are marked clean without having reached the device: nothing is left for a later sync.
                file.unsynced.clear();
                return failed(name, "simulated sync error");
            }
            Ending::Unsynced => file.write(offset, data),
            Ending::Good | Ending::SyncFailed => {
                file.write(offset, data);
                if sync {
                    file.sync();
                }
            }
        }
        Ok(DiskOutput::Done)
    }

    /// A crash in the middle of a request that is atomic, or whose file nobody counts on yet.
    fn crash_in(&mut self, op: DiskOp, dice: &mut Dice) {
        let happened = dice.chance(500_000);
        if let DiskOp::Allocate { file, size } = &op {
            // The file may be there with any part of its size; what it held before is forgotten.
            if happened {
                let size = dice.between(0, *size);
                self.files.insert(file.clone(), SimFile::whole(vec![0; position(size)]));
            }
        } else if happened {
            // A rename of a file that is not there fails here as it would have in time.
            let _ = self.carry_out(op, Ending::Good, dice);
        }
    }
}

/// Puts a random part of an unsynced write onto the device: nothing, all, a prefix of bytes, or any of its sectors.
/// True when it was torn.
fn tear(durable: &mut Vec<u8>, write: &Unsynced, dice: &mut Dice) -> bool {
    match dice.below(4) {
        0 => false,
        1 => {
            overwrite(durable, write.offset, &write.data);
            false
        }
        2 => {
            let size = dice.position(write.data.len() + 1);
            overwrite(durable, write.offset, &write.data[..size]);
            size > 0 && size < write.data.len()
        }
        _ => {
            let mut start = 0;
            let mut kept = 0;
            while start < write.data.len() {
                let sector_end = (write.offset + start) / SECTOR_SIZE * SECTOR_SIZE + SECTOR_SIZE;
                let end = (sector_end - write.offset).min(write.data.len());
                if dice.chance(500_000) {
                    overwrite(durable, write.offset + start, &write.data[start..end]);
                    kept += end - start;
                }
                start = end;
            }
            kept > 0 && kept < write.data.len()
        }
    }
}

fn concatenated(data: &[Bytes]) -> Vec<u8> {
    data.concat()
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files fit in memory")
}

impl DiskReader for CrashDisk {
    fn list(&self, folder: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        let inside = |name: &FileName| match name.as_str().rsplit_once('/') {
            Some((parent, _)) => parent == folder,
            None => folder.is_empty(),
        };
        let files = self.files.iter().filter(|(name, _)| inside(name));
        Ok(files.map(|(name, file)| (name.clone(), file.live.len() as u64)).collect())
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        let content = &self.files.get(file).ok_or_else(|| DiskError::NotFound(file.clone()))?.live;
        let start = position(offset).min(content.len());
        let end = position(offset.saturating_add(size)).min(content.len());
        Ok(Bytes::copy_from_slice(&content[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::DiskId;

    fn name() -> FileName {
        FileName::new("log/1")
    }

    fn request(op: DiskOp) -> DiskRequest {
        DiskRequest { id: DiskId(1), op }
    }

    fn write(offset: u64, data: &'static [u8], sync: bool) -> DiskRequest {
        let data = vec![Bytes::from_static(data)];
        request(DiskOp::Write { file: name(), offset, data, sync })
    }

    fn disk() -> (CrashDisk, Dice) {
        let mut disk = CrashDisk::new();
        let mut dice = Dice::new(1, "disk");
        let allocate = DiskOp::Allocate { file: name(), size: 2048 };
        let ticket = disk.submit(request(allocate));
        let done = disk.complete(ticket, Ending::Good, &mut dice);
        assert_eq!(done, Some(DiskDone { id: DiskId(1), result: Ok(DiskOutput::Done) }));
        (disk, dice)
    }

    fn run(disk: &mut CrashDisk, dice: &mut Dice, request: DiskRequest, ending: Ending) -> bool {
        let ticket = disk.submit(request);
        disk.complete(ticket, ending, dice).expect("no crash").result.is_ok()
    }

    fn content(disk: &CrashDisk, size: u64) -> Bytes {
        disk.read(&name(), 0, size).expect("it exists")
    }

    #[test]
    fn a_kill_keeps_what_was_written_and_a_power_loss_keeps_what_was_synced() {
        let mut kept = 0;
        for seed in 0..64 {
            let (mut disk, _) = disk();
            let mut dice = Dice::new(seed, "crash");
            assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Good));
            assert!(run(&mut disk, &mut dice, write(4, b"bbbb", false), Ending::Good));
            disk.kill(&mut dice);
            assert_eq!(&content(&disk, 8)[..], b"aaaabbbb");
            let loss = disk.lose_power(&mut dice);
            assert_eq!(loss.unsynced_size, 4);
            assert_eq!(&content(&disk, 4)[..], b"aaaa");
            kept += u64::from(&content(&disk, 8)[..] == b"aaaabbbb");
        }
        assert!((1..63).contains(&kept), "unsynced bytes stayed {kept} times of 64");
    }

    #[test]
    fn a_sync_makes_earlier_writes_to_the_file_durable() {
        let (mut disk, mut dice) = disk();
        assert!(run(&mut disk, &mut dice, write(0, b"aaaa", false), Ending::Good));
        assert!(run(&mut disk, &mut dice, write(4, b"bbbb", true), Ending::Good));
        assert_eq!(disk.unsynced_size(), 0);
        disk.lose_power(&mut dice);
        assert_eq!(&content(&disk, 8)[..], b"aaaabbbb");
    }

    #[test]
    fn after_a_failed_sync_bytes_read_back_good_and_no_later_sync_saves_them() {
        let (mut disk, mut dice) = disk();
        assert!(!run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::SyncFailed));
        assert!(run(&mut disk, &mut dice, write(4, b"bbbb", true), Ending::Good));
        assert_eq!(&content(&disk, 8)[..], b"aaaabbbb");
        disk.lose_power(&mut dice);
        assert_eq!(&content(&disk, 8)[..], b"\0\0\0\0bbbb");
    }

    #[test]
    fn a_write_in_flight_is_torn_at_every_byte_and_in_every_sector() {
        static LONG: [u8; 1536] = [7; 1536];
        let mut sizes = std::collections::BTreeSet::new();
        let mut middle_only = 0;
        for seed in 0..400 {
            let (mut disk, _) = disk();
            let mut dice = Dice::new(seed, "crash");
            let data = vec![Bytes::from_static(&LONG)];
            disk.submit(request(DiskOp::Write { file: name(), offset: 0, data, sync: true }));
            disk.lose_power(&mut dice);
            let found = content(&disk, 1536);
            sizes.insert(found.iter().filter(|byte| **byte == 7).count());
            middle_only += u32::from(found[0] == 0 && found[600] == 7 && found[1100] == 0);
        }
        assert!(sizes.len() > 50, "only {} different sizes survived", sizes.len());
        assert!(middle_only > 0, "no crash kept a middle sector alone");
        assert!(sizes.contains(&0));
        assert!(sizes.contains(&1536));
    }

    #[test]
    fn a_crash_takes_the_completion_with_it() {
        let (mut disk, mut dice) = disk();
        let ticket = disk.submit(write(0, b"aaaa", true));
        disk.kill(&mut dice);
        assert_eq!(disk.complete(ticket, Ending::Good, &mut dice), None);
    }

    #[test]
    fn a_replace_is_atomic_over_a_crash() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..32 {
            let (mut disk, _) = disk();
            let mut dice = Dice::new(seed, "crash");
            let file = FileName::new("identity");
            let put = |data: &'static [u8]| {
                request(DiskOp::Replace { file: file.clone(), data: Bytes::from_static(data) })
            };
            assert!(run(&mut disk, &mut dice, put(b"old"), Ending::Good));
            disk.submit(put(b"newer"));
            disk.lose_power(&mut dice);
            seen.insert(disk.read(&file, 0, 10).expect("it exists"));
        }
        let expected = [Bytes::from_static(b"newer"), Bytes::from_static(b"old")];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_lie_of_a_mutant_costs_the_bytes() {
        let (mut disk, mut dice) = disk();
        assert!(run(&mut disk, &mut dice, write(0, b"aaaa", true), Ending::Unsynced));
        assert_eq!(disk.unsynced_size(), 4);
        assert_eq!(&content(&disk.durable_image(), 4)[..], b"\0\0\0\0");
        disk.write_back(&name());
        assert_eq!(&content(&disk.durable_image(), 4)[..], b"aaaa");
    }

    #[test]
    fn folders_list_their_own_files_only() {
        let (mut disk, mut dice) = disk();
        let replace = DiskOp::Replace { file: FileName::new("identity"), data: Bytes::new() };
        assert!(run(&mut disk, &mut dice, request(replace), Ending::Good));
        assert_eq!(disk.list(""), Ok(vec![(FileName::new("identity"), 0)]));
        assert_eq!(disk.list("log"), Ok(vec![(name(), 2048)]));
        assert_eq!(disk.list("other"), Ok(vec![]));
    }
}
