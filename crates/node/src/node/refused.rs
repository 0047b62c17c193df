//! The end of a member that its cluster refuses for good: it records that in its identity file before it stops, so that a
//! folder that was refused once is refused at every later start, whoever can be reached then and whatever its number is.

use super::{CastOut, Node};
use crate::group::Group;
use crate::interface::{Answer, NodeEffect, NodeInput, Request, StopReason};
use quorate_consensus::RefuseReason;

impl Node {
    /// A peer refuses this node for good. A folder that never was a member has promised nothing and may be asked about again.
    pub(super) fn on_final_refusal(&mut self, text: String) {
        if self.identity.identity().membership.is_none() {
            self.stop.get_or_insert(StopReason::Refused(text));
            return;
        }
        if self.cast_out.is_some() {
            return;
        }
        self.end_all_early();
        self.with_groups(Group::give_up_all);
        let version = self.identity.change(|identity| identity.refuse(&text));
        self.cast_out = Some(CastOut { version, text });
    }

    /// From the refusal on nothing counts but the file that holds it.
    pub(super) fn handle_cast_out(&mut self, input: NodeInput) {
        match input {
            NodeInput::Disk(done) => {
                if let Some(Err(error)) = self.identity.handle(&done) {
                    let text = format!("the identity file cannot be written: {error}");
                    self.stop.get_or_insert(StopReason::Log(text));
                }
            }
            NodeInput::Request { id, request } => match request {
                Request::Propose { .. }
                | Request::Read { .. }
                | Request::Settle { .. }
                | Request::Control { .. } => {
                    let answer =
                        Answer::Refused { reason: RefuseReason::NotReady, missing: Vec::new() };
                    self.out.push_back(NodeEffect::Answer { id, answer });
                }
            },
            NodeInput::StreamOpened { stream, .. } | NodeInput::Frame { stream, .. } => {
                let reason = "this node was refused".to_owned();
                self.out.push_back(NodeEffect::Close { stream, reason });
            }
            NodeInput::Shutdown => {
                self.stop.get_or_insert(StopReason::Asked);
            }
            NodeInput::Tick | NodeInput::StreamClosed { .. } | NodeInput::Machine { .. } => {}
        }
    }

    /// Writes the file, and stops once it is durable.
    pub(super) fn settle_cast_out(&mut self) {
        let Some(CastOut { version, text }) = self.cast_out.clone() else { return };
        if self.identity.is_durable(version) {
            return self.halt(StopReason::Refused(text));
        }
        let ids = &mut self.disk_ids;
        if let Some(request) = self.identity.poll(|| ids.next()) {
            self.out.push_back(NodeEffect::Disk(request));
        }
    }
}
