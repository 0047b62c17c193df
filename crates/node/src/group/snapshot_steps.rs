//! Snapshots: what transfers ask for, and the install.

use super::{Context, Group};
use crate::interface::{MachineRequest, NodeEffect, StopReason, StreamPurpose};
use crate::peers::Speaker;
use crate::transfer::{BulkMessage, TransferEffect};
use quorate_consensus::{Input, SnapshotInput};
use quorate_types::{
    Applied, ApplyFault, Frame, FrameKind, Index, InstallFault, Instant, Mistake, NodeId,
    SnapshotName, WriteId,
};

impl Group {
    /// A peer says something on a bulk stream. False when its bytes are no message.
    pub(crate) fn on_bulk(
        &mut self,
        ctx: &mut Context<'_>,
        speaker: &Speaker,
        frame: &Frame,
    ) -> bool {
        let Ok(message) = BulkMessage::decode(frame.payload.clone()) else { return false };
        let Some(from) = self.member(&speaker.name, speaker.incarnation) else { return true };
        let now = ctx.now;
        let effects = match message {
            BulkMessage::Piece { transfer, number, piece } => {
                self.inbound.on_piece(now, from, transfer, number, piece)
            }
            BulkMessage::Want { at_least } => self.on_wanted(ctx, from, at_least),
            BulkMessage::Ack { transfer, next } => self.outbound.on_ack(now, from, transfer, next),
            BulkMessage::Abort { transfer, reason } => {
                let note = format!("{} cannot take a snapshot: {reason}", speaker.name);
                ctx.out.push_back(NodeEffect::Note(note));
                self.outbound.on_abort(now, from, transfer)
            }
        };
        self.on_transfer(ctx, effects);
        true
    }

    /// A member cannot go on without a snapshot that reaches this far. It gets one if there is one to give; otherwise it
    /// asks again.
    fn on_wanted(
        &mut self,
        ctx: &Context<'_>,
        from: NodeId,
        at_least: Index,
    ) -> Vec<TransferEffect> {
        let has_it = self.wanted.is_none() && self.machine.applied().position.index >= at_least;
        if !has_it || self.way_to(ctx, from, StreamPurpose::Bulk).is_none() {
            return Vec::new();
        }
        let epoch = self.protocol.status(ctx.now).epoch;
        self.outbound.on_wanted(ctx.now, from, epoch)
    }

    /// Asks for the snapshot that the state machine cannot go on without, when it is time to.
    pub(super) fn ask_for_snapshot(&mut self, ctx: &mut Context<'_>) {
        let is_coming = self.inbound.is_busy(ctx.now);
        let reachable = self.reachable(ctx);
        let leader = self.leader;
        let Some(wanted) = &mut self.wanted else { return };
        if let Some((peer, at_least)) = wanted.on_time(ctx.now, is_coming, leader, &reachable) {
            self.say_bulk(ctx, peer, &BulkMessage::Want { at_least });
        }
    }

    /// The other members to whom there is a bulk stream, also those of whom the log here knows nothing.
    fn reachable(&self, ctx: &Context<'_>) -> Vec<NodeId> {
        let known = self.configuration().into_iter().flat_map(|found| found.members.keys());
        let members = known.chain(self.later.members().map(|(member, _)| member));
        let others = members.copied().filter(|member| *member != self.node);
        others.filter(|peer| self.way_to(ctx, *peer, StreamPurpose::Bulk).is_some()).collect()
    }

    /// Carries out what a transfer asks for.
    pub(super) fn on_transfer(&mut self, ctx: &mut Context<'_>, effects: Vec<TransferEffect>) {
        for effect in effects {
            match effect {
                TransferEffect::Machine(request) => self.ask_machine(ctx, request),
                TransferEffect::Say(to, message) => self.say_bulk(ctx, to, &message),
                TransferEffect::Tell(input) => {
                    self.protocol.handle(ctx.now, Input::Snapshot(input));
                }
                TransferEffect::Install(name) => {
                    self.machine.begin_install();
                    if Mistake::ResetBeforeInstall.is_made() {
                        self.tell_installed(ctx.now, &name);
                    }
                    if Mistake::InstallUnrecorded.is_made() {
                        self.begin_install(ctx);
                    } else {
                        self.install_file.record(name);
                    }
                }
            }
        }
    }

    fn say_bulk(&self, ctx: &mut Context<'_>, to: NodeId, message: &BulkMessage) {
        if let Some(stream) = self.way_to(ctx, to, StreamPurpose::Bulk) {
            let frame = Frame { kind: FrameKind::Bulk, group: self.id, payload: message.encode() };
            ctx.out.push_back(NodeEffect::Send { stream, frame });
        }
    }

    /// The record of the install is durable: from here on the engine may change.
    pub(super) fn begin_install(&mut self, ctx: &mut Context<'_>) {
        self.ask_machine(ctx, MachineRequest::Install);
    }

    /// The install has ended.
    pub(super) fn on_installed(
        &mut self,
        ctx: &mut Context<'_>,
        result: Result<Applied, InstallFault>,
    ) {
        let Some(name) = self.inbound.take_installing() else { return };
        let position = name.position;
        match result {
            Ok(applied) if applied.position == position => {
                self.machine.installed(applied);
                self.wanted = None;
                let former = self.configuration().cloned();
                self.later.pass(former.as_ref(), &name.configuration);
                self.configurations.clear();
                self.configurations.insert(position.index, name.configuration.clone());
                self.has_configuration_changed = true;
                if !Mistake::ResetBeforeInstall.is_made() {
                    self.tell_installed(ctx.now, &name);
                }
                let index = position.index;
                let answers = self.waiters.on_applied(index, &[], &[], &[]);
                ctx.answer(answers);
                self.tell_applied(ctx);
            }
            Ok(applied) => {
                let text =
                    format!("installed a snapshot of {position}, stands at {}", applied.position);
                ctx.fail(StopReason::Machine(ApplyFault::Damaged(text)));
            }
            // The engine failed: another snapshot would fare no better.
            Err(InstallFault::Apply(fault)) => ctx.fail(StopReason::Machine(fault)),
            Err(fault @ InstallFault::Content(_)) => {
                ctx.out
                    .push_back(NodeEffect::Note(format!("a snapshot was not installed: {fault}")));
                self.machine.install_failed();
                self.install_file.forget();
                let failed = SnapshotInput::InstallFailed { position };
                self.protocol.handle(ctx.now, Input::Snapshot(failed));
            }
        }
    }

    /// The protocol brings the log in line with the engine.
    fn tell_installed(&mut self, now: Instant, name: &SnapshotName) {
        self.is_write_owed = true;
        let (position, configuration) = (name.position, name.configuration.clone());
        let installed = SnapshotInput::Installed { position, configuration };
        self.protocol.handle(now, Input::Snapshot(installed));
    }

    /// The first write after an install brings the log in line with it, and so ends it.
    pub(super) fn note_write(&mut self, write: WriteId) {
        if std::mem::take(&mut self.is_write_owed) {
            self.install_write = Some(write);
        }
    }
}
