//! What replicas still know of the past at the end of a run: each acknowledged write at its revision, and what became of
//! the revisions that no client was told of.

use crate::engine;
use crate::history::{Call, Change, Found, Key, Outcome, Recall, Revision, Value};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};

/// The revision of the first change: an empty store is at revision 1.
const FIRST_CHANGE: u64 = 2;

type Registers = BTreeMap<Key, Found>;

impl World {
    /// The lowest revision that no compaction can have taken: all of it must be readable.
    fn surely_readable_from(&self) -> u64 {
        let compactions = self.clients.history().operations.iter().filter_map(|operation| {
            let Call::Compact { revision } = operation.call else { return None };
            (operation.outcome != Outcome::Refused).then_some(revision.0)
        });
        compactions.max().unwrap_or(0).max(FIRST_CHANGE - 1)
    }

    /// Asks a replica for each acknowledged write at its revision, as far as it was not compacted.
    pub(crate) fn recall(&mut self, id: usize) -> Result<(), String> {
        let readable_from = self.surely_readable_from();
        let running = self.processes[id].running.as_ref().expect("all replicas are equal");
        let mut recalls = Vec::new();
        for operation in &self.clients.history().operations {
            let Outcome::Written(revision) = operation.outcome else { continue };
            if revision.0 < readable_from {
                continue;
            }
            for (key, _) in operation.call.writes() {
                let end = Key(key.0 + 1);
                let (_, found) = engine::read(&running.machine.reader, key, end, Some(revision))?;
                recalls.push(Recall { key, revision, found: found.get(&key).copied() });
            }
        }
        self.clients.history_mut().recalls.extend(recalls);
        Ok(())
    }

    /// Finds out from a replica what each revision did that no client was told of.
    pub(crate) fn explain(&mut self, id: usize) -> Result<(), String> {
        let told = self.revisions_told();
        let running = self.processes[id].running.as_ref().expect("all replicas are equal");
        let reader = &running.machine.reader;
        let scan = |revision| {
            let Call::Scan { first, end } = Call::SCAN_ALL else { unreachable!("it is a scan") };
            engine::read(reader, first, end, revision)
        };
        let (highest, _) = scan(None)?;
        let mut changes = Vec::new();
        for revision in self.surely_readable_from() + 1..=highest.0 {
            if told.contains(&Revision(revision)) {
                continue;
            }
            let (_, before) = scan(Some(Revision(revision - 1)))?;
            let (_, after) = scan(Some(Revision(revision)))?;
            let writes = difference(&before, &after);
            changes.push(Change { revision: Revision(revision), writes });
        }
        self.clients.history_mut().changes = changes;
        Ok(())
    }

    fn revisions_told(&self) -> BTreeSet<Revision> {
        let mut told = BTreeSet::new();
        for operation in &self.clients.history().operations {
            if let Outcome::Written(revision) | Outcome::Deleted(revision, true) = operation.outcome
            {
                told.insert(revision);
            }
            let found = operation.outcome.found(operation.call);
            told.extend(found.into_iter().map(|(_, found)| found.written_at));
        }
        told
    }
}

/// What changed from one state to the next.
fn difference(before: &Registers, after: &Registers) -> BTreeMap<Key, Option<Value>> {
    let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (*key, None));
    let changed = after.iter().filter(|(key, found)| before.get(key) != Some(found));
    gone.chain(changed.map(|(key, found)| (*key, Some(found.value)))).collect()
}
