//! How a node with an empty folder joins a cluster that is formed.
//!
//! ```text
//! newcomer                          a member of the cluster
//! hello: my name, my folder   ->    nobody of that name: refused, with what to do
//!                                   added, its folder not yet known: recorded in the log; refused for now
//!                             <-    added with this very folder, committed: welcome (id, configuration)
//! log begins with that
//! configuration, then the
//! identity file takes in
//! cluster and id: it runs
//! ```
//! The newcomer asks again until it is welcome. It votes for nobody before it is a member, and a folder is recorded for a
//! member once: another one under the same name is refused for good, since the first may have made promises.

use super::{Node, OPENING_WRITE, SYSTEM_GROUP, Stage};
use crate::hello::{Hello, Welcome};
use crate::identity::Membership;
use crate::interface::StreamId;
use quorate_consensus::plan;
use quorate_types::{HardState, Index, LogSummary, NodeId, Op, Position};

impl Node {
    /// Begins to ask the members that this node was told of.
    pub(super) fn begin_joining(&mut self) {
        let contacts = self.options.join.as_ref().map(|join| join.contacts.clone());
        let contacts = contacts.unwrap_or_default();
        // Who answers there is not known yet.
        self.assign_peers(contacts.iter().map(|at| (at.clone(), at.clone())).collect());
        self.note(format!("joining a cluster by {}", contacts.join(", ")));
        self.stage = Stage::Joining;
    }

    /// A member of a cluster answers a hello of this node, which joins.
    pub(super) fn on_hello_while_joining(&mut self, stream: StreamId, hello: Hello) {
        let Some(cluster) = hello.membership.map(|membership| membership.cluster) else {
            return self.close(stream, "it has not joined a cluster itself");
        };
        let Some(welcome) = hello.welcome else {
            return self.close(stream, "it did not say who this node is");
        };
        let Welcome { node, configuration } = welcome;
        let incarnation = self.identity.identity().incarnation;
        let member = configuration.members.get(&node);
        if member.is_none_or(|member| member.incarnation != incarnation) {
            return self.close(stream, "it takes this node for another one");
        }
        let ops = vec![Op::Reset(Position::ZERO, configuration.clone())];
        self.log.submit(SYSTEM_GROUP, OPENING_WRITE, ops);
        if let Some(found) = self.found.get_mut(&SYSTEM_GROUP) {
            let configurations = vec![(Index::ZERO, configuration)];
            let hard_state = Some(HardState::default());
            found.log = LogSummary { hard_state, configurations, ..LogSummary::default() };
        }
        self.stage = Stage::Admitted(Membership { cluster, node });
        self.close(stream, "joined");
        // Nobody is talked to until the log holds the members. The contacts are then dialled by their names like all others,
        // and as soon, however often they were asked before.
        self.assign_peers(Vec::new());
    }

    /// The log holds the members: the identity file takes in whose member this node is.
    pub(super) fn enrol_as_newcomer(&mut self, membership: Membership) {
        let version = self.identity.change(|identity| identity.membership = Some(membership));
        self.stage = Stage::Enrolling(version);
        self.reassign_peers();
    }

    /// What a newcomer is told that is a member under its folder, once that is certain.
    pub(super) fn welcome(&self, hello: &Hello) -> Option<Welcome> {
        if hello.membership.is_some() || !self.is_running() {
            return None;
        }
        let group = self.groups.get(&SYSTEM_GROUP)?;
        let configuration = group.configuration().filter(|_| group.is_configuration_committed())?;
        let mut members = configuration.members.iter();
        let (node, _) = members.find(|(_, member)| {
            member.name == hello.name && member.incarnation == hello.incarnation
        })?;
        Some(Welcome { node: *node, configuration: configuration.clone() })
    }

    /// A newcomer has come for a member that was added: asks that its folder and its name be recorded.
    pub(super) fn bind(&mut self, node: NodeId, hello: &Hello) {
        let Some(base) = self.groups.get(&SYSTEM_GROUP).and_then(|group| group.configuration())
        else {
            return;
        };
        let base = base.clone();
        let mut target = plan::aim(&base);
        let Some(member) = target.members.get_mut(&node) else { return };
        member.name.clone_from(&hello.name);
        member.incarnation = hello.incarnation;
        self.with_group(SYSTEM_GROUP, |group, ctx| group.target(ctx.now, base, target));
    }
}
