//! A state machine that does nothing, so that what is measured is everything else.

use bytes::Bytes;
use quorate_types::{
    Applied, ApplyFault, Committed, Digest, Fate, InstallFault, MachineState, Origin, SnapshotName,
    SnapshotSource, StateMachine, Syncer,
};
use std::sync::Arc;

/// Remembers how far it has come and nothing else; its replies are empty. Without state it has no use for snapshots
/// and refuses them: the measurement never purges far enough for one to be needed.
#[derive(Debug, Default)]
pub(crate) struct NoopMachine {
    /// The last entry seen, a chain over the identities of all, and the members.
    state: MachineState,
}

impl StateMachine for NoopMachine {
    type Reply = ();

    fn state(&self) -> MachineState {
        self.state.clone()
    }

    fn applied(&self) -> Applied {
        self.state.applied
    }

    fn fate(&self, _origin: Origin) -> Fate {
        Fate::Forgotten
    }

    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Option<()>>, ApplyFault> {
        for committed in entries {
            let before = self.state.applied.digest.0;
            let chained = before.rotate_left(1) ^ committed.entry.hash().0;
            self.state.advance(committed, Digest(chained))?;
        }
        Ok(entries.iter().map(|committed| committed.wanted.then_some(())).collect())
    }

    fn syncer(&self) -> Syncer {
        Arc::new(|| Ok(()))
    }

    fn capture(&mut self) -> Result<Box<dyn SnapshotSource>, ApplyFault> {
        Err(ApplyFault::Engine("a machine without state has no snapshot".into()))
    }

    fn stage_begin(&mut self, _name: &SnapshotName) -> Result<(), InstallFault> {
        Err(InstallFault::Content("a machine without state takes no snapshot".into()))
    }

    fn stage_chunk(&mut self, _chunk: Bytes) -> Result<(), InstallFault> {
        Err(InstallFault::Content("a machine without state takes no snapshot".into()))
    }

    fn stage_finish(&mut self) -> Result<(), InstallFault> {
        Err(InstallFault::Content("a machine without state takes no snapshot".into()))
    }

    fn install(&mut self) -> Result<Applied, InstallFault> {
        Err(InstallFault::Content("a machine without state takes no snapshot".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Entry, EntryKind, Epoch, Index, NodeId, Origin, TransactionId};

    #[test]
    fn every_entry_that_is_wanted_gets_a_reply() {
        let entry = |body: &'static [u8]| {
            let body = Bytes::from_static(body);
            let epoch = Epoch::new(1, NodeId(1));
            Entry::new(epoch, EntryKind::Command, Origin::NONE, TransactionId(0), body)
        };
        let entries = [
            Committed { index: Index(1), entry: entry(b"a"), wanted: true },
            Committed { index: Index(2), entry: entry(b"b"), wanted: false },
        ];
        let mut machine = NoopMachine::default();
        assert_eq!(machine.apply(&entries), Ok(vec![Some(()), None]));
        assert_eq!(machine.applied().position.index, Index(2));
    }
}
