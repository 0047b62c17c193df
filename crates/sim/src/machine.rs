//! What a node asks of its state machine, carried out in order and in its own time.

use crate::engine;
use crate::history::{Call, Key, Value};
use crate::mutants::Mutant;
use crate::network::{Life, ProcessId};
use crate::world::{Event, World};
use quorate_node::{CommittedFor, MachineDone, MachineRequest, NodeInput};
use quorate_types::{Applied, Committed, Entry, EntryKind, Index, StateMachine};
use std::time::Duration;

impl World {
    /// Takes a request in.
    pub(crate) fn ask_machine(&mut self, id: ProcessId, request: MachineRequest) {
        let running = self.processes[id.0].running.as_mut().expect("it asked");
        running.machine.waiting.push_back(request);
        if !running.machine.busy {
            running.machine.busy = true;
            self.plan_machine(id);
        }
    }

    fn plan_machine(&mut self, id: ProcessId) {
        let latency_max = self.mix.machine_latency_max;
        let wait = self.dice.process.duration(Duration::from_micros(1), latency_max);
        let life = self.processes[id.0].life;
        self.plan_in(wait, Event::Machine(id, life));
    }

    /// Carries out the next request.
    pub(crate) fn machine_step(&mut self, id: ProcessId, life: Life) {
        let process = &mut self.processes[id.0];
        if process.life != life {
            return;
        }
        let Some(running) = &mut process.running else { return };
        let Some(request) = running.machine.waiting.pop_front() else {
            running.machine.busy = false;
            return;
        };
        let applied = running.machine.store.applied().position.index.0;
        self.trace.step(self.now, "machine", &[id.0 as u64, applied], |f| match &request {
            MachineRequest::Apply(entries) => {
                write!(f, "n{} applies {} entries after {applied}", id.0 + 1, entries.len())
            }
            MachineRequest::StageChunk(chunk) => {
                write!(f, "n{} stages {} bytes", id.0 + 1, chunk.len())
            }
            MachineRequest::Sync
            | MachineRequest::Capture
            | MachineRequest::NextChunk
            | MachineRequest::DropCapture
            | MachineRequest::StageBegin(_)
            | MachineRequest::StageFinish
            | MachineRequest::Install => write!(f, "n{} {request:?}", id.0 + 1),
        });
        let done = self.carry_out_machine(id, request);
        // What failed does nothing any more; the node is about to stop.
        let failed = matches!(done, Some(MachineDone::Failed(_)));
        if let Some(done) = done {
            let group = self.group();
            self.tell(id, NodeInput::Machine { group, done });
        }
        if !failed {
            self.plan_machine(id);
        }
    }

    fn carry_out_machine(&mut self, id: ProcessId, request: MachineRequest) -> Option<MachineDone> {
        let machine = &mut self.processes[id.0].running.as_mut().expect("it asked").machine;
        match request {
            MachineRequest::Apply(entries) => Some(self.apply(id, entries)),
            MachineRequest::Sync => {
                self.begin_sync(id);
                None
            }
            MachineRequest::Capture => {
                let captured = machine.store.capture();
                let applied = captured.as_ref().map(|source| source.applied());
                let done = MachineDone::Captured(applied.map_err(Clone::clone));
                machine.capture = captured.ok();
                Some(done)
            }
            MachineRequest::NextChunk => {
                let chunk = machine.capture.as_mut().map(|source| source.next_chunk());
                chunk.map(MachineDone::Chunk)
            }
            MachineRequest::DropCapture => {
                machine.capture = None;
                None
            }
            MachineRequest::StageBegin(name) => {
                let begun = machine.store.stage_begin(&name);
                begun.err().map(|fault| MachineDone::Staged(Err(fault)))
            }
            MachineRequest::StageChunk(chunk) => {
                Some(MachineDone::ChunkStaged(machine.store.stage_chunk(chunk)))
            }
            MachineRequest::StageFinish => Some(MachineDone::Staged(machine.store.stage_finish())),
            MachineRequest::Install => Some(self.install(id)),
        }
    }

    fn apply(&mut self, id: ProcessId, entries: Vec<CommittedFor>) -> MachineDone {
        self.check_apply(id, &entries);
        let settling: Vec<_> = entries.iter().filter_map(CommittedFor::settles).collect();
        let (mut committed, requests): (Vec<Committed>, Vec<_>) =
            entries.into_iter().map(|entry| (entry.committed, entry.request)).unzip();
        if self.options.mutant == Some(Mutant::ApplyDiffers) && self.dice.process.chance(2_000) {
            committed.iter_mut().for_each(change_entry);
        }
        let machine = &mut self.processes[id.0].running.as_mut().expect("it asked").machine;
        let replies = match machine.store.apply(&committed) {
            Ok(replies) => replies,
            Err(fault) => return MachineDone::Failed(fault),
        };
        let applied = machine.store.applied();
        let fate = |(request, origin)| (request, machine.store.fate(origin));
        let settled: Vec<_> = settling.into_iter().map(fate).collect();
        let result = self.agreement.on_applied(id, applied);
        self.accuse(result);
        let mut answered = Vec::new();
        for (request, reply) in requests.into_iter().zip(replies) {
            let (Some(request), Some(reply)) = (request, reply) else { continue };
            answered.push(request);
            let Some(client) = self.take_waiter(id, request) else { continue };
            let Some(pending) = self.clients.pending(client) else { continue };
            match engine::outcome(pending.call, &reply) {
                Ok(outcome) => self.end_call(client, outcome),
                Err(reason) => self.fail("reply", reason),
            }
        }
        if self.options.mutant == Some(Mutant::PurgePastSynced) {
            let (group, done) = (self.group(), MachineDone::Synced(applied));
            self.tell(
                id,
                NodeInput::Machine {
                    group,
                    done: MachineDone::Applied { applied, answered, settled },
                },
            );
            return done;
        }
        MachineDone::Applied { applied, answered, settled }
    }

    /// What is applied is what was decided, without a gap.
    fn check_apply(&mut self, id: ProcessId, entries: &[CommittedFor]) {
        let machine = &self.processes[id.0].running.as_ref().expect("it asked").machine;
        let mut expected: Index = machine.store.applied().position.index.next();
        for CommittedFor { committed, request } in entries {
            let Committed { index, entry, wanted } = committed;
            if *index != expected {
                let seen = format!("n{} applies {index} where {expected} is next", id.0 + 1);
                return self.fail("agreement", seen);
            }
            if *wanted != request.is_some() {
                let seen = format!("entry {index}: wanted={wanted}, but for {request:?}");
                return self.fail("reply", seen);
            }
            let result = self.agreement.on_apply(id, *index, entry.hash());
            self.accuse(result);
            self.logs.on_apply(*index, entry);
            self.note_committed(*index, entry);
            expected = expected.next();
        }
    }

    fn install(&mut self, id: ProcessId) -> MachineDone {
        let machine = &mut self.processes[id.0].running.as_mut().expect("it asked").machine;
        let installed = machine.store.install();
        if let Ok(applied) = installed {
            let result = self.agreement.on_applied(id, applied);
            self.accuse(result);
        }
        MachineDone::Installed(installed)
    }

    /// A sync covers what was applied before it and takes its time, while applies go on.
    fn begin_sync(&mut self, id: ProcessId) {
        let process = &self.processes[id.0];
        let running = process.running.as_ref().expect("it asked");
        let (life, written) = (process.life, process.engine.written());
        let applied = running.machine.store.applied();
        let speed = self.mix.disk;
        let wait = self.dice.disk.duration(speed.latency_min, speed.latency_max * 4);
        self.plan_in(wait, Event::Synced(id, life, written, applied));
    }

    /// A sync is done.
    pub(crate) fn machine_synced(
        &mut self,
        id: ProcessId,
        life: Life,
        written: u64,
        applied: Applied,
    ) {
        let process = &self.processes[id.0];
        if process.life != life || process.running.is_none() {
            return;
        }
        if process.running.as_ref().is_some_and(|running| running.engine_failed) {
            return;
        }
        if self.options.mutant != Some(Mutant::PurgePastSynced) {
            process.engine.sync_up_to(written);
        }
        let group = self.group();
        self.tell(id, NodeInput::Machine { group, done: MachineDone::Synced(applied) });
    }
}

/// What a mutant makes of an entry that is applied: a write of something else.
fn change_entry(committed: &mut Committed) {
    let entry = &committed.entry;
    if entry.kind() != EntryKind::Command {
        return;
    }
    let call = Call::Put { key: Key(0), value: Value(u64::MAX) };
    let body = engine::command(call).expect("it is a write");
    committed.entry =
        Entry::new(entry.created(), entry.kind(), entry.origin(), entry.transaction(), body);
}
