//! A state machine that counts: trivial state, the whole contract.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    Applied, AppliedMembers, ApplyFault, Committed, Digest, Fate, InstallFault, MachineState,
    Origin, OriginTable, Position, Reader, SnapshotName, SnapshotSource, StateMachine, Syncer,
};
use std::sync::Arc;

/// How many bytes of ballast a snapshot carries, so that it takes several chunks.
const BALLAST: usize = 3_000;

/// Adds up the bodies, which are little-endian numbers; replies with the sum.
#[derive(Clone, Default)]
pub(crate) struct Counter {
    pub(crate) applied: Applied,
    members: AppliedMembers,
    pub(crate) sum: u64,
    pub(crate) commands: u64,
    origins: OriginTable,
    /// Whose proposal was carried out last.
    pub(crate) last: Option<Origin>,
    staged: Option<(SnapshotName, Vec<Bytes>)>,
    /// Whether what it holds cannot be read to its end.
    pub(crate) is_damaged: bool,
}

struct Source {
    applied: Applied,
    chunks: Vec<Bytes>,
    is_damaged: bool,
}

impl SnapshotSource for Source {
    fn applied(&self) -> Applied {
        self.applied
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, ApplyFault> {
        if self.is_damaged && self.chunks.len() < 10 {
            return Err(ApplyFault::Damaged("a row is unreadable".into()));
        }
        Ok((!self.chunks.is_empty()).then(|| self.chunks.remove(0)))
    }
}

impl Counter {
    fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.put_u64_le(self.sum);
        buffer.put_u64_le(self.commands);
        for (node, incarnation) in self.origins.incarnations() {
            let window = self.origins.encode_window(node, incarnation).expect("listed");
            buffer.put_u64_le(node.0);
            buffer.put_u64_le(incarnation.0);
            buffer.put_u32_le(window.len() as u32);
            buffer.put_slice(&window);
        }
        buffer.freeze()
    }

    fn decode(bytes: Bytes) -> Result<Counter, quorate_types::DecodeError> {
        let mut reader = Reader::new("counter", bytes);
        let mut counter =
            Counter { sum: reader.u64()?, commands: reader.u64()?, ..Counter::default() };
        while reader.left() > 0 {
            let node = quorate_types::NodeId(reader.u64()?);
            let incarnation = quorate_types::Incarnation(reader.u64()?);
            counter.origins.decode_window(node, incarnation, reader.blob()?)?;
        }
        Ok(counter)
    }
}

impl StateMachine for Counter {
    type Reply = u64;

    fn state(&self) -> MachineState {
        MachineState { applied: self.applied, members: self.members.clone() }
    }

    fn fate(&self, origin: Origin) -> Fate {
        self.origins.fate(origin)
    }

    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Option<u64>>, ApplyFault> {
        let mut replies = Vec::new();
        for committed in entries {
            let entry = &committed.entry;
            assert_eq!(committed.index, self.applied.position.index.next(), "applied in order");
            self.applied.position = Position::new(committed.index, entry.created());
            if let Some(members) = AppliedMembers::of(committed)? {
                self.members = members;
            }
            self.applied.digest =
                Digest(self.applied.digest.0.wrapping_mul(31).wrapping_add(entry.hash().0));
            if !self.origins.admit(entry).expect("the node reads what it proposes") {
                replies.push(None);
                continue;
            }
            let mut body = [0; 8];
            body.copy_from_slice(&entry.body()[..8]);
            self.sum += u64::from_le_bytes(body);
            self.commands += 1;
            self.last = Some(entry.origin());
            replies.push(committed.wanted.then_some(self.sum));
        }
        Ok(replies)
    }

    fn syncer(&self) -> Syncer {
        Arc::new(|| Ok(()))
    }

    fn capture(&mut self) -> Result<Box<dyn SnapshotSource>, ApplyFault> {
        let mut chunks = vec![self.encode()];
        chunks.extend((0..20).map(|step| Bytes::from(vec![step; BALLAST])));
        Ok(Box::new(Source { applied: self.applied, chunks, is_damaged: self.is_damaged }))
    }

    fn stage_begin(&mut self, name: &SnapshotName) -> Result<(), InstallFault> {
        self.staged = Some((name.clone(), Vec::new()));
        Ok(())
    }

    fn stage_chunk(&mut self, chunk: Bytes) -> Result<(), InstallFault> {
        let (_, chunks) =
            self.staged.as_mut().ok_or(InstallFault::Content("nothing is staged".into()))?;
        chunks.push(chunk);
        Ok(())
    }

    fn stage_finish(&mut self) -> Result<(), InstallFault> {
        let count = self.staged.as_ref().map_or(0, |(_, chunks)| chunks.len());
        if count == 21 { Ok(()) } else { Err(InstallFault::Content(format!("{count} chunks"))) }
    }

    fn install(&mut self) -> Result<Applied, InstallFault> {
        let (name, chunks) =
            self.staged.take().ok_or(InstallFault::Content("nothing is staged".into()))?;
        let installed = Counter::decode(chunks[0].clone())
            .map_err(|error| InstallFault::Content(error.to_string()))?;
        *self = installed;
        self.applied = Applied { position: name.position, digest: name.digest };
        self.members = AppliedMembers::from(&name);
        Ok(self.applied)
    }
}
