//! What passes between a group and its state machine: entries to apply, syncs, and how they ended.

use super::{Context, Group};
use crate::interface::{
    CommittedFor, MachineDone, MachineRequest, NodeEffect, RequestId, StopReason,
};
use crate::machine::APPLY_SIZE_MAX;
use quorate_consensus::Input;
use quorate_types::{Applied, ApplyFault, Committed, Fate, InstallFault, Position, Slot};

impl Group {
    /// The state machine has done something.
    pub(crate) fn on_machine(&mut self, ctx: &mut Context<'_>, done: MachineDone) {
        let now = ctx.now;
        let effects = match done {
            MachineDone::Applied { applied, answered, settled } => {
                return self.on_applied(ctx, applied, &answered, &settled);
            }
            MachineDone::Synced(applied) => {
                self.machine.on_synced(applied);
                return self.tell_applied(ctx);
            }
            MachineDone::Failed(fault) => return ctx.fail(StopReason::Machine(fault)),
            MachineDone::Installed(result) => return self.on_installed(ctx, result),
            // What is lost to reads is lost to applies as well, sooner or later; and the engine refuses everything
            // after it has failed to take a snapshot in.
            MachineDone::Captured(Err(fault @ ApplyFault::Damaged(_)))
            | MachineDone::Chunk(Err(fault @ ApplyFault::Damaged(_)))
            | MachineDone::ChunkStaged(Err(InstallFault::Apply(fault)))
            | MachineDone::Staged(Err(InstallFault::Apply(fault))) => {
                return ctx.fail(StopReason::Machine(fault));
            }
            MachineDone::Captured(captured) => {
                let configurations = &self.configurations;
                let in_force = |at: Position| {
                    let mut until = configurations.range(..=at.index);
                    until.next_back().map(|(_, configuration)| configuration.clone())
                };
                self.outbound.on_captured(now, captured, in_force)
            }
            MachineDone::Chunk(chunk) => self.outbound.on_chunk(now, chunk),
            MachineDone::ChunkStaged(result) => self.inbound.on_chunk_staged(result),
            MachineDone::Staged(result) => self.inbound.on_staged(result),
        };
        self.on_transfer(ctx, effects);
    }

    fn on_applied(
        &mut self,
        ctx: &mut Context<'_>,
        applied: Applied,
        answered: &[RequestId],
        settled: &[(RequestId, Fate)],
    ) {
        match self.machine.on_applied(ctx.now, applied) {
            Ok(outcome) => {
                let index = applied.position.index;
                let requests = &outcome.requests;
                let answers = self.waiters.on_applied(index, requests, answered, settled);
                ctx.answer(answers);
                self.tell_applied(ctx);
            }
            Err(text) => ctx.fail(StopReason::Machine(ApplyFault::Engine(text))),
        }
    }

    pub(super) fn tell_applied(&mut self, ctx: &mut Context<'_>) {
        let index = self.machine.applied().position.index;
        let (synced, digest) = (self.machine.synced(), self.machine.digest());
        self.protocol.handle(ctx.now, Input::Applied { index, synced, digest });
    }

    /// Hands over what the protocol allows, as far as there is room, and asks for a sync when one is due.
    pub(super) fn hand_over(&mut self, ctx: &mut Context<'_>) {
        while let Some(wanted) = self.machine.wanted() {
            let (first, last) = (wanted.first, wanted.last);
            match ctx.log.cached(self.id, first, last, APPLY_SIZE_MAX) {
                Some(slots) => self.hand_over_slots(ctx, slots),
                None => {
                    let read = self.read_ids.next();
                    self.machine.reading(read);
                    ctx.log.fetch(self.id, read, first, last, APPLY_SIZE_MAX);
                }
            }
        }
        if self.machine.take_sync(ctx.now) {
            self.ask_machine(ctx, MachineRequest::Sync);
        }
    }

    /// Hands over what was read; when none of it is of use, reads again later.
    pub(super) fn hand_over_slots(&mut self, ctx: &mut Context<'_>, slots: Vec<Slot>) {
        let slots = self.machine.usable(slots);
        if slots.is_empty() {
            self.machine.stall(ctx.now);
            return;
        }
        let waiting: Vec<Option<RequestId>> =
            slots.iter().map(|slot| self.waiters.waiting_for(slot.entry.origin())).collect();
        self.machine.handed_over(&slots, waiting.iter().flatten().copied().collect());
        let committed = |(slot, request): (Slot, Option<RequestId>)| {
            let wanted = request.is_some();
            let committed = Committed { index: slot.index, entry: slot.entry, wanted };
            CommittedFor { committed, request }
        };
        let entries = slots.into_iter().zip(waiting).map(committed).collect();
        self.ask_machine(ctx, MachineRequest::Apply(entries));
    }

    /// Whether the engine holds durably what was applied when this was asked first; asks it to, if not.
    pub(crate) fn save(&mut self, ctx: &mut Context<'_>) -> bool {
        let applied = self.machine.applied().position.index;
        let wanted = *self.save_up_to.get_or_insert(applied);
        if self.machine.synced() >= wanted || self.is_awaiting_snapshot() {
            return true;
        }
        if self.machine.take_sync_now() {
            self.ask_machine(ctx, MachineRequest::Sync);
        }
        false
    }

    pub(super) fn ask_machine(&self, ctx: &mut Context<'_>, request: MachineRequest) {
        ctx.out.push_back(NodeEffect::Machine { group: self.id, request });
    }
}
