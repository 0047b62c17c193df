//! What a node does while its cluster is being formed, and for founders that are late.

use super::{Forming, Node, Stage};
use crate::formation::{FormationMessage, Step};
use crate::hello::names;
use crate::interface::{NodeEffect, StreamPurpose};
use crate::peers::Speaker;
use quorate_types::{Frame, FrameKind, GroupId};
use std::time::Duration;

/// How often a node says again what it knows of a formation.
const SAY_INTERVAL: Duration = Duration::from_millis(200);

impl Node {
    /// Takes formation a step on; false when it waits.
    pub(super) fn advance_formation(&mut self) -> bool {
        let Stage::Forming(forming) = &mut self.stage else { return false };
        let is_recorded =
            forming.recording.is_some_and(|version| self.identity.is_durable(version));
        if is_recorded {
            forming.recording = None;
            forming.formation.on_recorded();
        }
        let step = forming.formation.step();
        if is_recorded {
            self.say_formation(None);
        }
        match step {
            Step::Record(roster) => {
                let version = self.identity.change(|identity| identity.roster = Some(roster));
                if let Stage::Forming(forming) = &mut self.stage {
                    forming.recording = Some(version);
                }
            }
            Step::Complete(roster) => {
                self.bootstrap(roster);
                if let Some(message) = self.complete_message() {
                    self.say_formation_message(&message, None);
                }
                return true;
            }
            Step::Wait => {}
        }
        self.note_missing();
        false
    }

    fn note_missing(&mut self) {
        let Stage::Forming(forming) = &mut self.stage else { return };
        let missing = forming.formation.missing();
        if missing.is_empty() || missing == forming.noted_missing {
            return;
        }
        let listed = names(missing.iter().map(String::as_str));
        forming.noted_missing = missing;
        self.note(format!("forming a cluster; waiting for {listed}"));
    }

    /// Says what this node knows, when it is time to.
    pub(super) fn say_formation_when_due(&mut self) {
        let now = self.now;
        let Stage::Forming(forming) = &mut self.stage else { return };
        if forming.say_at <= now {
            forming.say_at = now + SAY_INTERVAL;
            self.say_formation(None);
        }
    }

    /// Says what this node knows to one member, or to all that can be reached.
    pub(super) fn say_formation(&mut self, only: Option<&str>) {
        let Stage::Forming(Forming { formation, .. }) = &self.stage else { return };
        let message = formation.message();
        self.say_formation_message(&message, only);
    }

    fn say_formation_message(&mut self, message: &FormationMessage, only: Option<&str>) {
        let payload = message.encode();
        let chosen = self.assigned.iter().filter(|(name, _)| only.is_none_or(|only| only == name));
        for (name, _) in chosen {
            if let Some(stream) = self.peers.way_to(name, StreamPurpose::Messages) {
                let payload = payload.clone();
                let frame = Frame { kind: FrameKind::Formation, group: GroupId(0), payload };
                self.out.push_back(NodeEffect::Send { stream, frame });
            }
        }
    }

    /// What a node tells that knows its cluster to be formed.
    fn complete_message(&self) -> Option<FormationMessage> {
        let roster = self.identity.identity().roster.clone()?;
        Some(FormationMessage { list: Vec::new(), roster: Some(roster), complete: true })
    }

    /// A member says something about formation. False when its bytes are no message.
    pub(super) fn on_formation(&mut self, speaker: &Speaker, frame: &Frame) -> bool {
        let Ok(message) = FormationMessage::decode(frame.payload.clone()) else { return false };
        match &mut self.stage {
            Stage::Forming(forming) => {
                let verdict = forming.formation.on_message(&speaker.name, &message);
                if let Err(text) = verdict {
                    self.note_refusal(Some(&speaker.name), &text, text.clone());
                }
            }
            Stage::Joining | Stage::Admitted(_) => {}
            Stage::Bootstrapping(_) | Stage::Enrolling(_) | Stage::Running => {
                if !message.complete
                    && let Some(complete) = self.complete_message()
                {
                    self.say_formation_message(&complete, Some(&speaker.name));
                }
            }
            Stage::Starting { .. } | Stage::Resetting(_) => {}
        }
        true
    }
}
