//! Requests that come before there is a replica to take them: they wait for it, as they would for a leader.

use super::Node;
use crate::interface::{Answer, NodeEffect, Request, RequestId};
use crate::status::Phase;
use quorate_consensus::RefuseReason;
use quorate_types::Instant;
use std::collections::BTreeMap;

/// The most that wait: clients that try again and again while a cluster forms are few, or are told to come later.
const COUNT_MAX: usize = 4_096;

/// The most bytes of their bodies.
const SIZE_MAX: usize = 16 * 1024 * 1024;

/// Requests that wait for the replicas.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// By deadline, so that the first is the next to give up.
    requests: BTreeMap<(Instant, RequestId), Request>,
    /// Bytes of their bodies.
    size: usize,
}

impl Early {
    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.requests.len()
    }

    /// When the next one gives up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Takes a request in. The error is why it is refused at once.
    pub(super) fn take_in(
        &mut self,
        id: RequestId,
        mut request: Request,
        latest: Instant,
    ) -> Result<(), RefuseReason> {
        let (deadline, size) = match &mut request {
            Request::Propose { deadline, body, .. } => (deadline, body.len()),
            Request::Read { deadline, .. } | Request::Settle { deadline, .. } => (deadline, 0),
            Request::Control { .. } => return Err(RefuseReason::NotReady),
        };
        if self.requests.len() >= COUNT_MAX || self.size + size > SIZE_MAX {
            return Err(RefuseReason::Busy);
        }
        // It waits no longer for having waited here.
        let deadline = *deadline.get_or_insert(latest);
        self.size += size;
        self.requests.insert((deadline, id), request);
        Ok(())
    }

    /// Those whose time is over.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<RequestId> {
        let mut overdue = Vec::new();
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            if let Some(((_, id), request)) = self.requests.pop_first() {
                self.size -= size_of(&request);
                overdue.push(id);
            }
        }
        overdue
    }

    /// All that wait, in the order in which they came.
    pub(super) fn take_all(&mut self) -> Vec<(RequestId, Request)> {
        self.size = 0;
        let requests = std::mem::take(&mut self.requests);
        let mut all: Vec<_> =
            requests.into_iter().map(|((_, id), request)| (id, request)).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }
}

fn size_of(request: &Request) -> usize {
    match request {
        Request::Propose { body, .. } => body.len(),
        Request::Read { .. } | Request::Settle { .. } | Request::Control { .. } => 0,
    }
}

impl Node {
    /// Lets a request wait until there is a replica to take it.
    pub(super) fn wait_for_replica(&mut self, id: RequestId, request: Request) {
        let latest = self.now + self.options.request_timeout;
        if let Err(reason) = self.early.take_in(id, request, latest) {
            self.refuse_early(id, reason);
        }
    }

    /// Gives what has waited to the replicas.
    pub(super) fn admit_early(&mut self) {
        for (id, request) in self.early.take_all() {
            self.on_request(id, request);
        }
    }

    /// Ends the waits whose time is over.
    pub(super) fn end_overdue_early(&mut self) {
        for id in self.early.take_overdue(self.now) {
            self.refuse_early(id, RefuseReason::NoLeader);
        }
    }

    /// Ends all waits: the node leaves.
    pub(super) fn end_all_early(&mut self) {
        for (id, _) in self.early.take_all() {
            self.refuse_early(id, RefuseReason::NoLeader);
        }
    }

    /// Nothing of it was sent anywhere, so it is refused and not in doubt.
    fn refuse_early(&mut self, id: RequestId, reason: RefuseReason) {
        let missing =
            if let Phase::Forming { missing } = self.phase() { missing } else { Vec::new() };
        self.out.push_back(NodeEffect::Answer { id, answer: Answer::Refused { reason, missing } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_consensus::Control;
    use quorate_types::{EntryKind, GroupId};

    fn propose(size: usize, deadline: Option<Instant>) -> Request {
        let (group, kind) = (GroupId(0), EntryKind::Command);
        Request::Propose { group, kind, body: Bytes::from(vec![0; size]), deadline }
    }

    #[test]
    fn waits_are_bounded_in_number_bytes_and_time() {
        let mut early = Early::default();
        let latest = Instant(100);
        let read = Request::Read { group: GroupId(0), deadline: Some(Instant(50)) };
        assert_eq!(early.take_in(RequestId(2), read, latest), Ok(()));
        assert_eq!(early.take_in(RequestId(1), propose(SIZE_MAX, None), latest), Ok(()));
        let full = early.take_in(RequestId(3), propose(1, None), latest);
        assert_eq!(full, Err(RefuseReason::Busy));
        let control = Request::Control { group: GroupId(0), control: Control::Campaign };
        assert_eq!(early.take_in(RequestId(3), control, latest), Err(RefuseReason::NotReady));
        assert_eq!(early.next_deadline(), Some(Instant(50)));
        assert_eq!(early.take_overdue(Instant(99)), [RequestId(2)]);
        assert_eq!(early.take_overdue(Instant(100)), [RequestId(1)]);
        for id in 0..COUNT_MAX as u64 {
            assert_eq!(early.take_in(RequestId(id), propose(1, Some(Instant(id))), latest), Ok(()));
        }
        let full = early.take_in(RequestId(9_999), propose(1, None), latest);
        assert_eq!(full, Err(RefuseReason::Busy));
        let ids: Vec<u64> = early.take_all().into_iter().map(|(id, _)| id.0).collect();
        assert!(ids.is_sorted() && ids.len() == COUNT_MAX);
        assert_eq!((early.count(), early.size), (0, 0));
    }
}
