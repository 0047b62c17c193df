//! What clients ask of a node, and what it answers.

use crate::engine;
use crate::history::{Call, ClientId, Key, Outcome};
use crate::network::ProcessId;
use crate::process::name;
use crate::world::World;
use quorate_node::{Answer, NodeInput, RequestId};
use quorate_types::{EntryKind, Instant, StateMachine};

impl World {
    /// Sends a client's call to a process; false when it does not run.
    pub(crate) fn request(
        &mut self,
        id: ProcessId,
        client: ClientId,
        make: impl FnOnce(Instant) -> quorate_node::Request,
    ) -> bool {
        let now = self.now;
        let Some(running) = &mut self.processes[id.0].running else { return false };
        running.next_request += 1;
        let request_id = RequestId(running.next_request);
        running.requests.insert(request_id, client);
        let request = make(running.local(now));
        self.tell(id, NodeInput::Request { id: request_id, request });
        true
    }

    /// Proposes a call for which nobody waits.
    pub(crate) fn propose_beside(&mut self, id: ProcessId, call: Call) {
        let group = self.group();
        let Some(running) = &mut self.processes[id.0].running else { return };
        running.next_request += 1;
        let request_id = RequestId(running.next_request);
        if let Some(body) = engine::command(call) {
            let (kind, deadline) = (EntryKind::Command, None);
            let request = quorate_node::Request::Propose { group, kind, body, deadline };
            self.tell(id, NodeInput::Request { id: request_id, request });
        }
    }

    /// Who waits for a request; from now on nobody does.
    pub(crate) fn take_waiter(&mut self, id: ProcessId, request: RequestId) -> Option<ClientId> {
        self.processes[id.0].running.as_mut()?.requests.remove(&request)
    }

    pub(crate) fn answer(&mut self, id: ProcessId, request: RequestId, answer: Answer) {
        if self.on_settled(id, request, &answer) {
            return;
        }
        let Some(client) = self.take_waiter(id, request) else { return };
        let Some(call) = self.clients.pending(client).map(|pending| pending.call) else { return };
        let outcome = match answer {
            Answer::ReadReady { index } => {
                let running = self.processes[id.0].running.as_ref().expect("it spoke");
                let applied = running.machine.store.applied().position.index;
                if applied < index {
                    let seen = format!("{} reads at {index}, but applied {applied}", name(id));
                    return self.fail("read", seen);
                }
                return self.read_locally(id, client, call);
            }
            Answer::Taken | Answer::Settled(_) => return,
            Answer::Refused { .. } | Answer::Declined(_) => Outcome::Refused,
            Answer::Unknown { origin, .. } => {
                self.end_call(client, Outcome::Unknown);
                return self.on_unknown(origin);
            }
        };
        self.end_call(client, outcome);
    }

    /// Carries a read out on the local store and ends the call with what it shows.
    pub(crate) fn read_locally(&mut self, id: ProcessId, client: ClientId, call: Call) {
        let Some(running) = &self.processes[id.0].running else { return };
        let (first, end) = match call {
            Call::Get { key } => (key, Key(key.0 + 1)),
            Call::Scan { first, end } => (first, end),
            Call::Put { .. } | Call::Swap { .. } | Call::Delete { .. } | Call::Compact { .. } => {
                return self.fail("read", format!("{call} is answered as a read"));
            }
        };
        match engine::read(&running.machine.reader, first, end, None) {
            Ok((revision, found)) => {
                let outcome = if matches!(call, Call::Get { .. }) {
                    Outcome::Got(revision, found.get(&first).copied())
                } else {
                    Outcome::Scanned(revision, found)
                };
                self.end_call(client, outcome);
            }
            Err(reason) => self.fail("read", format!("{}: {reason}", name(id))),
        }
    }
}
