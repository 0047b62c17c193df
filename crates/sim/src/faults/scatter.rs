//! Power fails everywhere, and every log has lost a batch of its own, beyond knowledge of what stood there.
//!
//! ```text
//! n1   2 2 ? ? 3 3 4 4
//! n2   2 2 2 3 3 ? 4 4      each loses slots where a term begins, which no neighbour tells
//! n3   2 2 2 3 3 3 4 4
//! ```
//! Everything is still there: what one has lost, and what follows it, others hold. So the group must come back, and whole.

use crate::engine::Machine;
use crate::network::ProcessId;
use crate::process::{LogFound, name, read_log};
use crate::world::World;
use quorate_types::{Epoch, Index, LogSummary, SlotFault, StateMachine};
use std::collections::BTreeSet;

/// How many places are tried for one whose loss is of the kind that is looked for.
const TRIES_MAX: usize = 30;

/// How much is damaged at a place: a small batch with both copies of its directory.
const DAMAGE_SIZES: [u64; 2] = [1_536, 4_096];

/// Where batches may begin.
const SECTOR_SIZE: u64 = 512;

impl World {
    pub(super) fn scatter_losses(&mut self) {
        self.black_out();
        let mut damaged = BTreeSet::new();
        for id in self.ids() {
            let lost = self.lose_batch(id, &damaged);
            self.trace.step(self.now, "lose-batch", &[id.0 as u64, lost.len() as u64], |f| {
                write!(f, "{} loses {} slots", name(id), lost.len())
            });
            damaged.extend(lost);
        }
    }

    /// Damages one place of a log so that slots where a term begins are lost; gives what nobody else may lose then.
    fn lose_batch(&mut self, victim: ProcessId, taken: &BTreeSet<Index>) -> BTreeSet<Index> {
        let process = &self.processes[victim.0];
        let (options, group) = (self.mix.log(victim).clone(), self.group());
        let before = read_log(&process.disk.durable(), &options, group);
        let Ok(LogFound { log: before, .. }) = before else { return BTreeSet::new() };
        let Ok(machine) = Machine::open(&process.engine) else { return BTreeSet::new() };
        let applied = machine.store.state().applied.position.index;
        let committed = self.agreement.highest();
        let used = process.disk.used("log");
        for _ in 0..TRIES_MAX.min(used.len() * TRIES_MAX) {
            let mut disk = self.processes[victim.0].disk.clone();
            let (file, size) = &used[self.dice.faults.position(used.len())];
            let sector = self.dice.faults.below(size.div_ceil(SECTOR_SIZE));
            let length = DAMAGE_SIZES[self.dice.faults.position(DAMAGE_SIZES.len())];
            disk.rot(file, sector * SECTOR_SIZE, length, 1 << self.dice.faults.position(8));
            let left = read_log(&disk.durable(), &options, group);
            let lost = left.ok().and_then(|LogFound { log, .. }| lost_slots(&before, &log));
            let Some(Lost { gaps, known }) = lost else { continue };
            let with_next = gaps.iter().flat_map(|(first, next)| (first.0..=next.0).map(Index));
            let concerned: BTreeSet<Index> = with_next.chain(known).collect();
            let is_told = gaps
                .iter()
                .all(|(first, next)| *next <= committed && !(*first <= applied && applied < *next));
            if is_told && concerned.is_disjoint(taken) {
                self.processes[victim.0].disk = disk;
                self.wound(victim);
                return concerned;
            }
        }
        BTreeSet::new()
    }
}

/// What damage has taken of a log.
struct Lost {
    /// Runs of slots of which it is not known what stood there, with what follows each.
    gaps: Vec<(Index, Index)>,
    /// The slots of which it is.
    known: Vec<Index>,
}

/// What was lost, if it is slots where a term begins, and no more than slots.
fn lost_slots(before: &LogSummary, left: &LogSummary) -> Option<Lost> {
    let is_else_whole = left.hard_state == before.hard_state
        && left.bounds == before.bounds
        && left.configurations == before.configurations;
    let mut lost = Lost { gaps: Vec::new(), known: Vec::new() };
    for fault in &left.faults {
        let index = fault.index();
        match (fault, lost.gaps.last_mut()) {
            (SlotFault::DamagedKnown(_), _) => lost.known.push(index),
            (_, Some((_, next))) if *next == index => *next = index.next(),
            (_, Some(_) | None) => lost.gaps.push((index, index.next())),
        }
    }
    let begins_term = |(first, next): &(Index, Index)| {
        epoch_at(before, first.previous()) != epoch_at(before, *next)
    };
    let is_inside = |(_, next): &(Index, Index)| *next <= before.bounds.last;
    let fits = lost.gaps.iter().any(begins_term) && lost.gaps.iter().all(is_inside);
    (is_else_whole && fits).then_some(lost)
}

fn epoch_at(log: &LogSummary, index: Index) -> Epoch {
    let after = log.epochs.partition_point(|run| run.first <= index);
    log.epochs[..after].last().map_or(log.bounds.purged.epoch, |run| run.created)
}
