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

mod file;
#[cfg(test)]
mod tests;

use crate::dice::Dice;
use bytes::Bytes;
use file::SimFile;
use quorate_types::{DiskDone, DiskError, DiskOp, DiskOutput, DiskReader, DiskRequest, FileName};
use std::collections::BTreeMap;

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
    /// Another one: the sync fails, a second one is good, and that is believed.
    SyncRetried,
    /// The lie of a device: reported as done, but nothing was written.
    Lost,
    /// Another one: written at this offset of the file instead.
    Misdirected(u64),
}

/// What a power loss took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Bytes that had been written and not synced, or were on their way.
    pub unsynced_size: u64,
    /// Writes of which a part survived.
    pub torn_count: u64,
}

/// A write that was reported done and never reached the device.
#[derive(Clone, Debug)]
struct Lost {
    /// Of which file.
    file: FileName,
    /// Where it should begin.
    offset: usize,
    /// What it should have written.
    data: Vec<u8>,
    /// How many writes were synced since.
    followed_count: u32,
}

/// After so many later writes of the same stream a lost one stays lost over a crash: only then do the records that follow
/// tell that one is missing. No log can notice that the very last thing it was told to be durable is not; and what it
/// writes elsewhere in the meantime, as the remains of a file that it recycles, tells nothing.
const FOLLOWED_COUNT_MIN: u32 = 2;

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
    /// The latest write that a device lied about, while a crash would bring it back.
    lost: Option<Lost>,
    /// Whether no more space can be had.
    full: bool,
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
        self.bring_back_lost();
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
        self.bring_back_lost();
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
            let (unsynced_size, torn_count) = file.lose_power(dice);
            loss.unsynced_size += unsynced_size;
            loss.torn_count += torn_count;
        }
        loss
    }

    /// How many bytes a power loss would put at risk now, those on their way included.
    #[must_use]
    pub fn unsynced_size(&self) -> u64 {
        let written = self.files.values().map(SimFile::unsynced_size);
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
        let files = self.files.iter().map(|(name, file)| (name.clone(), file.durable_half()));
        CrashDisk { files: files.collect(), ..CrashDisk::default() }
    }

    /// Reads what would be left if power failed now and took all that it can.
    #[must_use]
    pub fn durable(&self) -> Durable<'_> {
        Durable(self)
    }

    /// Takes one file over from another disk.
    pub fn copy_from(&mut self, other: &CrashDisk, file: &FileName) {
        if let Some(content) = other.files.get(file) {
            self.files.insert(file.clone(), content.clone());
        }
    }

    /// From now on no more space can be had, or again.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether a request has been submitted and is neither done nor gone with a crash.
    #[must_use]
    pub fn is_in_flight(&self, ticket: Ticket) -> bool {
        self.in_flight.contains_key(&ticket)
    }

    /// Whether a write is lost that a crash would bring back.
    #[must_use]
    pub fn is_loss_open(&self) -> bool {
        self.lost.is_some()
    }

    /// The files of a folder that hold anything but zeroes, and how far they do, in bytes.
    #[must_use]
    pub fn used(&self, folder: &str) -> Vec<(FileName, u64)> {
        let files = self.files.iter().filter(|(name, _)| is_in(name, folder));
        let sizes = files.map(|(name, file)| (name.clone(), file.used_size() as u64));
        sizes.filter(|(_, size)| *size > 0).collect()
    }

    /// Flips the bits of `mask` in bytes at rest.
    pub fn rot(&mut self, file: &FileName, offset: u64, size: u64, mask: u8) {
        if let Some(file) = self.files.get_mut(file) {
            file.rot(position(offset), position(size), mask);
        }
    }

    /// Flips a bit in every durable copy of some bytes in a folder. Gives how many there were.
    pub fn rot_copies(&mut self, folder: &str, bytes: &[u8]) -> usize {
        let mut count = 0;
        for (_, file) in self.files.iter_mut().filter(|(name, _)| is_in(name, folder)) {
            for at in file.find(bytes) {
                file.rot(at + bytes.len() / 2, 1, 0x10);
                count += 1;
            }
        }
        count
    }

    /// Makes the page at an offset unreadable until it is written again.
    pub fn lose_page(&mut self, file: &FileName, offset: u64) {
        if let Some(file) = self.files.get_mut(file) {
            file.lose_page(position(offset));
        }
    }

    /// Whether a page in a folder cannot be read, or holds what belongs elsewhere; used or not, for what comes to stand before
    /// it is then uncertain.
    #[must_use]
    pub fn is_ailing(&self, folder: &str) -> bool {
        let mut files = self.files.iter().filter(|(name, _)| is_in(name, folder));
        files.any(|(_, file)| file.is_ailing())
    }

    /// A lost write that too little followed comes to rest after all.
    fn bring_back_lost(&mut self) {
        if let Some(lost) = self.lost.take()
            && let Some(file) = self.files.get_mut(&lost.file)
        {
            file.overwrite_at_rest(lost.offset, &lost.data);
        }
    }

    /// A write was synced. It follows a lost one in the same file, or at the beginning of the next.
    fn note_followed(&mut self, file: &FileName, offset: usize) {
        if let Some(lost) = self.lost.as_mut().filter(|lost| lost.file == *file || offset == 0) {
            lost.followed_count += 1;
        }
        self.lost.take_if(|lost| lost.followed_count >= FOLLOWED_COUNT_MIN);
    }

    fn carry_out(
        &mut self,
        op: DiskOp,
        ending: Ending,
        dice: &mut Dice,
    ) -> Result<DiskOutput, DiskError> {
        match op {
            DiskOp::Allocate { file, .. } if self.full => return Err(DiskError::NoSpace(file)),
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
                if let Some(lost) = self.lost.as_mut().filter(|lost| lost.file == from) {
                    lost.file = to.clone();
                }
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
                file.forget_unsynced();
                return failed(name, "simulated sync error");
            }
            Ending::SyncRetried => {
                file.write(offset, data);
                file.forget_unsynced();
            }
            Ending::Unsynced => file.write(offset, data),
            Ending::Lost => {
                self.lost = Some(Lost { file: name, offset, data, followed_count: 0 });
            }
            Ending::Misdirected(elsewhere) => {
                file.stray(position(elsewhere), &data);
                self.lost = Some(Lost { file: name, offset, data, followed_count: 0 });
            }
            Ending::Good | Ending::SyncFailed => {
                file.write(offset, data);
                if sync {
                    file.sync();
                    self.note_followed(&name, offset);
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

fn concatenated(data: &[Bytes]) -> Vec<u8> {
    data.concat()
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files fit in memory")
}

impl DiskReader for CrashDisk {
    fn list(&self, folder: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        let files = self.files.iter().filter(|(name, _)| is_in(name, folder));
        Ok(files.map(|(name, file)| (name.clone(), file.live.len() as u64)).collect())
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        let found = self.files.get(file).ok_or_else(|| DiskError::NotFound(file.clone()))?;
        read_half(found, &found.live, file, offset, size)
    }
}

/// The durable half of a disk.
pub struct Durable<'a>(&'a CrashDisk);

impl DiskReader for Durable<'_> {
    fn list(&self, folder: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        let files = self.0.files.iter().filter(|(name, _)| is_in(name, folder));
        Ok(files.map(|(name, file)| (name.clone(), file.durable.len() as u64)).collect())
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        let found = self.0.files.get(file).ok_or_else(|| DiskError::NotFound(file.clone()))?;
        read_half(found, &found.durable, file, offset, size)
    }
}

/// Reads from one half of a file.
fn read_half(
    file: &SimFile,
    content: &[u8],
    name: &FileName,
    offset: u64,
    size: u64,
) -> Result<Bytes, DiskError> {
    let start = position(offset).min(content.len());
    let end = position(offset.saturating_add(size)).min(content.len());
    if !file.is_readable(start, end) {
        let reason = "simulated read error".to_owned();
        return Err(DiskError::Io { file: name.clone(), reason });
    }
    Ok(Bytes::copy_from_slice(&content[start..end]))
}

/// Whether a file lies in a folder, not in one below it.
fn is_in(name: &FileName, folder: &str) -> bool {
    match name.as_str().rsplit_once('/') {
        Some((parent, _)) => parent == folder,
        None => folder.is_empty(),
    }
}
