//! What befalls disks: failures that they admit, lies, and folders that are lost.

use crate::disk::{CrashDisk, Ending};
use crate::engine;
use crate::history::{Call, Outcome};
use crate::mutants::Mutant;
use crate::network::ProcessId;
use crate::world::World;
use quorate_log::Log;
use quorate_store::engine::MemoryDisk;
use quorate_types::{FileName, GroupId};
use std::time::Duration;

/// Where the log's files are.
const LOG_FOLDER: &str = "log";

/// The unit of offsets at which misdirected writes land.
const MISDIRECTION_UNIT: u64 = 4096;

/// How long a run of a process must have lasted before its folder may be rolled back to an image from before: by then its
/// peers have durably heard of it.
const KNOWN_AFTER: Duration = Duration::from_secs(5);

/// From how many of the latest writes the one is chosen that rots.
const RECENT_WRITES: usize = 60;

/// What a machine's folder was at an earlier time.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Its files.
    disk: CrashDisk,
    /// In which life it was taken.
    life: crate::network::Life,
}

impl World {
    pub(super) fn fail_next_write(&mut self, victim: ProcessId, ending: Ending) {
        let process = &mut self.processes[victim.0];
        process.sabotage = Some(ending);
        // What a failed sync left reads back good and is not on the device: when such a file lives again, what it held
        // before is not what the log noted of it.
        process.is_tainted |= ending == Ending::SyncFailed;
    }

    pub(super) fn fail_engine(&mut self, victim: ProcessId) {
        let process = &mut self.processes[victim.0];
        process.engine.fail("simulated engine error");
        if let Some(running) = &mut process.running {
            running.engine_failed = true;
        }
    }

    pub(super) fn stall_disk(&mut self, victim: ProcessId) {
        let longest = Duration::from_secs(3);
        let until = self.dice.faults.moment(self.now, Duration::from_millis(20), longest);
        self.processes[victim.0].disk_stalled_until = until;
    }

    pub(super) fn slow_disk(&mut self, victim: ProcessId) {
        let longest = Duration::from_secs(10);
        let until = self.dice.faults.moment(self.now, Duration::from_secs(1), longest);
        self.processes[victim.0].disk_slow_until = until;
    }

    pub(super) fn fill_disk(&mut self, victim: ProcessId) {
        let longest = Duration::from_secs(8);
        let until = self.dice.faults.moment(self.now, Duration::from_millis(200), longest);
        self.processes[victim.0].disk.set_full(true);
        self.plan(until, crate::world::Event::Space(victim));
    }

    /// A place in the log that holds something.
    fn place_in_log(&mut self, victim: ProcessId) -> Option<(FileName, u64, u64)> {
        let mut used = self.processes[victim.0].disk.used(LOG_FOLDER);
        if used.is_empty() {
            return None;
        }
        let (file, size) = used.swap_remove(self.dice.faults.position(used.len()));
        let offset = self.dice.faults.below(size);
        Some((file, offset, size))
    }

    pub(super) fn rot(&mut self, victim: ProcessId) -> bool {
        for _ in 0..1 + self.dice.faults.position(3) {
            let Some((file, offset, _)) = self.place_in_log(victim) else { return false };
            let sizes = [1, 1, 8, 512, 4096];
            let size = sizes[self.dice.faults.position(sizes.len())];
            let mask = 1 << self.dice.faults.position(8);
            self.trace.step(self.now, "rot", &[victim.0 as u64, offset, size], |f| {
                write!(f, "n{} {file}+{offset} {size}B", victim.0 + 1)
            });
            self.processes[victim.0].disk.rot(&file, offset, size, mask);
        }
        self.wound(victim);
        true
    }

    pub(super) fn lose_page(&mut self, victim: ProcessId) -> bool {
        let Some((file, offset, _)) = self.place_in_log(victim) else { return false };
        let mut after = self.processes[victim.0].disk.durable_image();
        after.lose_page(&file, offset);
        let opened = Log::open(&after, self.mix.log(victim).clone());
        let is_any_left = opened.is_ok_and(|(_, found)| {
            found.groups.get(&GroupId(0)).is_some_and(|group| {
                let count = group.bounds.purged.index.distance_to(group.bounds.last);
                (group.faults.len() as u64) < count
            })
        });
        if !is_any_left {
            // The page holds every batch of a young log. That there were any is said once more elsewhere, which power may take
            // as it fails: then nothing is left that peers could make whole, and the node must be replaced.
            return false;
        }
        self.processes[victim.0].disk.lose_page(&file, offset);
        self.wound(victim);
        true
    }

    pub(super) fn lose_write(&mut self, victim: ProcessId) -> bool {
        if self.processes[victim.0].disk.is_loss_open() {
            return false;
        }
        self.wound(victim);
        self.fail_next_write(victim, Ending::Lost);
        true
    }

    pub(super) fn misdirect_write(&mut self, victim: ProcessId) -> bool {
        if self.processes[victim.0].disk.is_loss_open() {
            return false;
        }
        let Some((_, _, size)) = self.place_in_log(victim) else { return false };
        let place = self.dice.faults.below(size / MISDIRECTION_UNIT + 1);
        self.wound(victim);
        self.fail_next_write(victim, Ending::Misdirected(place * MISDIRECTION_UNIT));
        true
    }

    /// Each machine loses another one of the latest committed entries, so that every entry is left somewhere.
    pub(super) fn helical_rot(&mut self) -> bool {
        let written = |call: &Call, outcome: &Outcome| {
            matches!(outcome, Outcome::Written(_)).then(|| engine::command(*call)).flatten()
        };
        let operations = self.clients.history().operations.iter().rev();
        let bodies =
            operations.filter_map(|operation| written(&operation.call, &operation.outcome));
        let mut bodies: Vec<_> = bodies.take(RECENT_WRITES).collect();
        if bodies.len() < self.ids().count() {
            return false;
        }
        let mut hit_count = 0;
        for ProcessId(id) in self.ids() {
            let body = bodies.swap_remove(self.dice.faults.position(bodies.len()));
            let count = self.processes[id].disk.rot_copies(LOG_FOLDER, &body);
            if count > 0 {
                hit_count += 1;
                self.wound(ProcessId(id));
            }
        }
        hit_count > 0
    }

    pub(super) fn lose_engine(&mut self, victim: ProcessId) {
        self.kill(victim);
        let process = &mut self.processes[victim.0];
        process.engine = MemoryDisk::new();
        process.is_stateless = true;
        process.order.on_engine_lost();
        self.reopen_later(victim);
    }

    /// An operator empties a folder and starts the node on it.
    pub(super) fn wipe(&mut self, victim: ProcessId) {
        self.kill(victim);
        self.exile(victim, CrashDisk::new());
    }

    /// A machine is set back to an image from before its current start, of which its peers know. Where there is none yet, one
    /// is taken for the next time.
    pub(super) fn roll_back(&mut self, victim: ProcessId) -> bool {
        let Some(running) = &self.processes[victim.0].running else { return false };
        let is_known = self.now.since(running.began) > KNOWN_AFTER
            && running.status(self.now).peers.values().all(|peer| peer.incoming && peer.outgoing);
        let process = &mut self.processes[victim.0];
        let life = process.life;
        let Some(image) = &process.image else {
            process.image = Some(Image { disk: process.disk.durable_image(), life });
            return false;
        };
        let is_older = image.life < life;
        if !is_older || !is_known || !self.may_exile(victim) {
            return false;
        }
        self.kill(victim);
        let process = &mut self.processes[victim.0];
        let mut image = process.image.take().expect("there is one");
        if self.options.mutant == Some(Mutant::Amnesia) {
            image.disk.copy_from(&process.disk, &FileName::new("identity"));
            process.disk = image.disk;
            process.engine = MemoryDisk::new();
            process.order.on_engine_lost();
            self.reopen_later(victim);
        } else {
            self.exile(victim, image.disk);
        }
        true
    }

    /// The node on this folder may never take part again.
    fn exile(&mut self, victim: ProcessId, disk: CrashDisk) {
        let process = &mut self.processes[victim.0];
        process.disk = disk;
        process.engine = MemoryDisk::new();
        process.claims = crate::checkers::claims::Claims::default();
        process.order = crate::checkers::order::Order::default();
        process.sabotage = None;
        process.node = None;
        process.is_exiled = true;
        process.exiled_since = self.now;
        self.reopen_later(victim);
    }
}
