//! How a lost hard state is made up for.
//!
//! A replica without its hard state is silent: it says nothing to candidates or leaders until all other members have
//! told their durable terms. Candidates ask for votes only when their own term is durable, so no vote of this replica
//! can be of a higher term than the highest of those, and no acknowledgement either. It goes on in the term after that one. The
//! end of its log may be lost as well, so that a leader must prove the log whole before it votes at all (`repair`); and that must
//! be a leader of a later term: the one of the highest term counts on what it was told of the lost end, and proves no more
//! of it than it has sent again. So a leader that lives is replaced once.
//!
//! With the end of the log may have gone the last configuration, so that the members are not known here. Everybody who
//! can be reached is asked, and says which configuration is in force. The survey ends when all other members of one
//! configuration have told their terms, and no quorum of it is without somebody who vouches for that very configuration:
//! that it is committed, that its engine holds it durably, and that no slot above it is damaged. Why that is enough,
//! whoever was a candidate under an earlier or a later one: `docs/design/lost-hard-state.md`.

use super::damage::suspicion;
use super::message::Message;
use super::replica::Raft;
use crate::plan::next_node;
use crate::quorum::Quorum;
use quorate_types::{Configuration, Epoch, Incarnation, Index, Instant, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// The search for a lost term.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// Which survey.
    context: u64,
    /// The highest term that anybody told.
    highest: u64,
    /// The configuration that each one vouched for, if it did.
    answers: BTreeMap<NodeId, Option<Configuration>>,
    /// When to ask again.
    pub(super) due: Instant,
}

impl Survey {
    /// Nobody has answered.
    pub(super) fn new(context: u64) -> Survey {
        Survey { context, highest: 0, answers: BTreeMap::new(), due: Instant::ZERO }
    }

    /// Whether a member vouches for this configuration.
    fn is_vouched_by(&self, node: NodeId, configuration: &Configuration) -> bool {
        self.answers.get(&node).is_some_and(|members| members.as_ref() == Some(configuration))
    }

    /// Whether this is the configuration in force, and all its members but `own` have told their terms.
    fn is_over(&self, own: NodeId, configuration: &Configuration) -> bool {
        others_than(own, configuration).all(|id| self.answers.contains_key(&id))
            && Quorum::new(configuration)
                .is_blocked_by(|node| node != own && self.is_vouched_by(node, configuration))
    }
}

/// Whose terms count: one that never came has promised nothing, and another configuration must be committed before it can.
fn others_than(own: NodeId, configuration: &Configuration) -> impl Iterator<Item = NodeId> {
    let members = configuration.members.iter();
    let came = members.filter(|(_, member)| member.incarnation != Incarnation::UNBOUND);
    came.map(|(id, _)| *id).filter(move |id| *id != own)
}

impl Raft {
    /// Asks everybody who may be a member for their terms, now and then.
    pub(super) fn maybe_survey(&mut self) {
        let epoch = self.hard.promised;
        let again = self.now + self.options.timing.election_timeout_min;
        let Some(survey) = &mut self.damage.survey else { return };
        if survey.due > self.now {
            return;
        }
        survey.due = again;
        let context = survey.context;
        let mut asked = BTreeSet::from_iter(self.membership.peers(self.options.node));
        // Members of a configuration that the log has lost.
        asked.extend(self.contacts.keys().copied().filter(|id| *id != self.options.node));
        for peer in asked {
            self.replies.push((peer, Message::Survey { epoch, context }, None));
        }
    }

    /// Somebody has lost its hard state; the answer is as durable as a promise.
    pub(super) fn on_survey(&mut self, from: NodeId, epoch: Epoch, context: u64) {
        self.observe_term(epoch.number);
        let epoch = self.hard.promised;
        let after = self.writes.latest();
        let members = self.vouched_members().cloned();
        self.send(from, Message::SurveyReply { epoch, context, members }, after);
    }

    /// The configuration in force, if it is certain that it is committed, here and after every crash, and that this log
    /// held no later one.
    fn vouched_members(&self) -> Option<&Configuration> {
        /// What a log begins with is committed by formation, or was when its node was welcomed.
        const FIRST: Index = Index(1);
        let at = self.membership.latest_index();
        // Without its engine the log may lack a configuration that stood in a slot which was purged though it was damaged.
        let is_certain = !self.needs_snapshot
            && at <= self.synced.max(FIRST)
            && self.damage.is_genuine()
            && self.damage.first_fault_above(at).is_none()
            && self.is_named_by(self.membership.latest());
        is_certain.then(|| self.membership.latest())
    }

    /// Whether a configuration names this node under its own incarnation.
    fn is_named_by(&self, configuration: &Configuration) -> bool {
        let member = configuration.members.get(&self.node());
        member.is_some_and(|member| member.incarnation == self.options.incarnation)
    }

    pub(super) fn on_message_while_forgetful(&mut self, from: NodeId, message: Message) {
        let Message::SurveyReply { epoch, context, members } = message else { return };
        let Some(survey) = &mut self.damage.survey else { return };
        if context != survey.context {
            return;
        }
        survey.highest = survey.highest.max(epoch.number);
        survey.answers.insert(from, members);
        let own = self.options.node;
        let told: Vec<Configuration> = survey.answers.values().flatten().cloned().collect();
        let is_over = |told: &Configuration| {
            let survey = self.damage.survey.as_ref();
            self.is_named_by(told) && survey.is_some_and(|survey| survey.is_over(own, told))
        };
        if told.iter().any(is_over) {
            self.end_survey();
        }
    }

    fn end_survey(&mut self) {
        let Some(survey) = self.damage.survey.take() else { return };
        // A leader of the highest term may count what was acknowledged here and is lost; one of a later term knows of all of it
        // that is committed.
        self.hard.log_epoch = suspicion(self.node());
        let highest = survey.highest.max(self.term());
        self.forwards.led_before = highest;
        self.enter_term(highest + 1);
        self.reset_election_timer();
    }

    /// What the survey waits for, for people.
    pub(super) fn describe_survey(&self) -> String {
        let mut text = "the hard state is lost: every other member must be reached once before this replica takes part"
            .to_owned();
        let Some(survey) = &self.damage.survey else { return text };
        let told = survey.answers.values().flatten().max_by_key(|members| next_node(members));
        let members = told.unwrap_or_else(|| self.membership.latest());
        let others: Vec<NodeId> = others_than(self.node(), members).collect();
        let silent: Vec<String> = others
            .iter()
            .filter(|id| !survey.answers.contains_key(id))
            .map(NodeId::to_string)
            .collect();
        let unsure: Vec<String> = others
            .iter()
            .filter(|id| survey.answers.contains_key(id) && !survey.is_vouched_by(**id, members))
            .map(NodeId::to_string)
            .collect();
        if !silent.is_empty() {
            text.push_str(&format!("; nothing was heard of {}", silent.join(", ")));
        }
        if !unsure.is_empty() {
            text.push_str(&format!("; not sure of who the members are: {}", unsure.join(", ")));
        }
        if others.is_empty() {
            text.push_str("; nobody has said yet who the members are");
        }
        text
    }
}
