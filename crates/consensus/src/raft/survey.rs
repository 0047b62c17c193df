//! How a lost hard state is made up for.
//!
//! A replica without its hard state is silent: it says nothing to candidates or leaders until all other voters have
//! told their durable terms. Candidates ask for votes only when their own term is durable, so no vote of this replica
//! can be of a higher term than the highest of those. In that term it will not vote again. The end of its log may be
//! lost as well, so that a leader must prove the log whole before it votes at all (`repair`).

use super::damage::suspicion;
use super::message::Message;
use super::replica::Raft;
use crate::Event;
use quorate_types::{Epoch, Instant, NodeId};
use std::collections::BTreeMap;

/// The search for a lost term.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// Which survey.
    context: u64,
    /// The terms that other voters told.
    answers: BTreeMap<NodeId, u64>,
    /// When to ask again.
    pub(super) due: Instant,
}

impl Survey {
    /// Nobody has answered.
    pub(super) fn new(context: u64) -> Survey {
        Survey { context, answers: BTreeMap::new(), due: Instant::ZERO }
    }
}

impl Raft {
    /// Asks the other voters for their terms, now and then.
    pub(super) fn maybe_survey(&mut self) {
        let epoch = self.hard.promised;
        let again = self.now + self.options.timing.election_timeout_min;
        let Some(survey) = &mut self.damage.survey else { return };
        if survey.due > self.now {
            return;
        }
        survey.due = again;
        let context = survey.context;
        for peer in self.membership.peers(self.options.node) {
            self.replies.push((peer, Message::Survey { epoch, context }, None));
        }
    }

    /// Somebody has lost its hard state; the answer is as durable as a promise.
    pub(super) fn on_survey(&mut self, from: NodeId, epoch: Epoch, context: u64) {
        self.observe_term(epoch.number);
        let epoch = self.hard.promised;
        let after = self.writes.latest();
        self.send(from, Message::SurveyReply { epoch, context }, after);
    }

    pub(super) fn on_message_while_forgetful(&mut self, from: NodeId, message: Message) {
        let Message::SurveyReply { epoch, context } = message else { return };
        let Some(survey) = &mut self.damage.survey else { return };
        if context != survey.context {
            return;
        }
        survey.answers.insert(from, epoch.number);
        let configuration = self.membership.latest();
        let mut others = configuration.members.keys().filter(|id| **id != self.options.node);
        if configuration.members.len() < 2 || !others.all(|id| survey.answers.contains_key(id)) {
            return;
        }
        let highest = survey.answers.values().copied().max().unwrap_or(0).max(self.term());
        self.damage.survey = None;
        self.hard.promised = Epoch::new(highest, NodeId(0));
        // Whoever it voted for in this term, it votes for nobody else.
        self.hard.voted_for = Some(self.node());
        self.hard.log_epoch = suspicion(self.node());
        self.writes.hard(self.hard);
        self.event(Event::EpochChanged { epoch: self.hard.promised });
        self.reset_election_timer();
    }
}
