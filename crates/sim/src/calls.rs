//! The life of a call: sent to a process, answered once, and never left without an answer.

use crate::client::Pending;
use crate::engine;
use crate::finale::Stage;
use crate::history::{Call, ClientId, Moment, Outcome};
use crate::mutants::{self, Mutant};
use crate::network::ProcessId;
use crate::world::{Event, World};
use quorate_node::Request;
use quorate_types::{EntryKind, Instant};
use std::time::Duration;

/// How long after its deadline a call may still be without an answer: wake-ups take time.
const OVERDUE_SLACK: Duration = Duration::from_millis(500);

impl World {
    /// A client of the workload makes its next call.
    pub(crate) fn call(&mut self, client: ClientId) {
        if self.stage != Stage::Working || self.clients.pending(client).is_some() {
            return;
        }
        let (call, process) = self.clients.draw(client, &mut self.dice.clients);
        if !self.send_call(client, call, process) {
            self.find_another(client);
            let wait =
                self.dice.clients.duration(Duration::from_millis(10), Duration::from_millis(300));
            self.plan_in(wait, Event::Call(client));
        }
    }

    /// Sends a call; false when the process does not run.
    pub(crate) fn send_call(&mut self, client: ClientId, call: Call, process: ProcessId) -> bool {
        if self.processes[process.0].running.is_none() {
            return false;
        }
        let called = self.next_moment();
        let life = self.processes[process.0].life;
        self.trace.step(self.now, "call", &[client.0 as u64, process.0 as u64], |f| {
            write!(f, "{client} asks n{} {call}", process.0 + 1)
        });
        self.clients.begin(client, Pending { call, called, at: (process, life) });
        if call.is_read() && self.options.mutant == Some(Mutant::StaleRead) {
            self.read_locally(process, client, call);
            return true;
        }
        let patience_max = self.mix.workload.patience_max;
        let patience = self.dice.clients.duration(Duration::from_millis(300), patience_max);
        let patience = self.impatience(client, call).unwrap_or(patience);
        let group = self.group();
        if self.options.mutant == Some(Mutant::ProposedTwice) && self.dice.clients.chance(20_000) {
            self.propose_beside(process, call);
        }
        self.request(process, client, |now| {
            let deadline = Some(now + patience);
            match engine::command(call) {
                Some(body) => Request::Propose { group, kind: EntryKind::Command, body, deadline },
                None => Request::Read { group, deadline },
            }
        });
        self.plan_in(patience + OVERDUE_SLACK, Event::Overdue(client, called));
        true
    }

    /// A call has ended; its client thinks about the next one.
    pub(crate) fn end_call(&mut self, client: ClientId, outcome: Outcome) {
        let now = self.next_moment();
        let sings = self.options.mutant == Some(Mutant::Canary);
        let outcome = if sings { mutants::sing(outcome) } else { outcome };
        let Some(operation) = self.clients.end(client, now, outcome) else { return };
        self.trace.step(self.now, "return", &[client.0 as u64, operation.ended.0], |f| {
            write!(f, "{operation}")
        });
        if client.0 >= self.mix.workload.client_count {
            return self.on_probe_ended(&operation);
        }
        let hurries = operation.outcome != Outcome::Refused;
        let think = if hurries && self.dice.clients.chance(self.mix.workload.hurry) {
            Duration::from_micros(10)
        } else {
            self.dice.clients.duration(Duration::from_millis(1), self.mix.workload.think_max)
        };
        self.plan_in(think, Event::Call(client));
    }

    /// A call whose deadline has passed must have been answered, unless its process stood still.
    pub(crate) fn check_answered(&mut self, client: ClientId, called: Moment) {
        let Some(pending) = self.clients.pending(client).filter(|call| call.called == called)
        else {
            return;
        };
        let (process, life) = pending.at;
        let (now, call) = (self.now, pending.call);
        let target = &self.processes[process.0];
        let Some(running) = target.running.as_ref().filter(|_| target.life == life) else { return };
        let awake_since = running.paused_until;
        let due: Instant = awake_since + OVERDUE_SLACK;
        if due > now {
            return self.plan(due, Event::Overdue(client, called));
        }
        self.fail("answer", format!("n{} never answers {client} {call}", process.0 + 1));
    }
}
