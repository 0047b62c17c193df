//! Networks in which only some pairs of nodes reach each other, or only in one direction, held for long: whoever
//! reaches a quorum leads soon, work goes on, and terms do not grow.
//!
//! Left out on purpose is the constrained election: the only node that reaches a quorum lacks entries that the others
//! hold. Raft chooses nobody then, since nobody may vote for a log that lacks what its own holds.

use crate::random::World;
use quorate_consensus::RoleName;
use quorate_types::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest election timeout.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How closely it is measured how long a group is without a leader.
const STEP: Duration = Duration::from_millis(10);

/// A network of five, or of as many as are named. Node 0 leads before; a pair is a way from the first to the second.
struct Topology {
    name: &'static str,
    count: usize,
    ways: &'static [(usize, usize)],
    /// Whether the ways are open in both directions.
    both: bool,
    /// Who may lead in the end.
    leaders: &'static [usize],
}

const TOPOLOGIES: [Topology; 14] = [
    Topology {
        name: "bridge: the old leader reaches one of three that reach each other",
        count: 5,
        ways: &[(0, 1), (1, 2), (1, 3), (2, 3)],
        both: true,
        leaders: &[1, 2, 3],
    },
    Topology {
        name: "halves: the leader is with the fewer",
        count: 5,
        ways: &[(0, 1), (2, 3), (2, 4), (3, 4)],
        both: true,
        leaders: &[2, 3, 4],
    },
    Topology {
        name: "star: only one reaches others, and it did not lead",
        count: 5,
        ways: &[(1, 0), (1, 2), (1, 3), (1, 4)],
        both: true,
        leaders: &[1],
    },
    Topology {
        name: "star: only the leader reaches others",
        count: 5,
        ways: &[(0, 1), (0, 2), (0, 3), (0, 4)],
        both: true,
        leaders: &[0],
    },
    Topology {
        name: "chain of three, the leader at its end",
        count: 3,
        ways: &[(0, 1), (1, 2)],
        both: true,
        leaders: &[0, 1, 2],
    },
    Topology {
        name: "chain of three, the leader in its middle",
        count: 3,
        ways: &[(1, 0), (0, 2)],
        both: true,
        leaders: &[0],
    },
    Topology {
        name: "chain of five, the leader at its end",
        count: 5,
        ways: &[(0, 1), (1, 2), (2, 3), (3, 4)],
        both: true,
        leaders: &[1, 2, 3],
    },
    Topology {
        name: "ring of five",
        count: 5,
        ways: &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)],
        both: true,
        leaders: &[0],
    },
    // Howard and Abraham, "Raft does not guarantee liveness in the face of network faults" (2020), figure 1.
    Topology {
        name: "two that see only followers",
        count: 5,
        ways: &[(0, 1), (0, 2), (1, 2), (1, 3), (0, 4)],
        both: true,
        leaders: &[0],
    },
    Topology {
        name: "a leader that hears nobody",
        count: 3,
        ways: &[(0, 1), (0, 2), (1, 2), (2, 1)],
        both: false,
        leaders: &[1, 2],
    },
    Topology {
        name: "a leader that nobody hears",
        count: 3,
        ways: &[(1, 0), (2, 0), (1, 2), (2, 1)],
        both: false,
        leaders: &[1, 2],
    },
    Topology {
        name: "a leader of five that hears nobody",
        count: 5,
        ways: &[
            (0, 1),
            (0, 2),
            (0, 3),
            (0, 4),
            (1, 2),
            (2, 1),
            (1, 3),
            (3, 1),
            (1, 4),
            (4, 1),
            (2, 3),
            (3, 2),
            (2, 4),
            (4, 2),
            (3, 4),
            (4, 3),
        ],
        both: false,
        leaders: &[1, 2, 3, 4],
    },
    Topology {
        name: "a leader of five that nobody hears",
        count: 5,
        ways: &[
            (1, 0),
            (2, 0),
            (3, 0),
            (4, 0),
            (1, 2),
            (2, 1),
            (1, 3),
            (3, 1),
            (1, 4),
            (4, 1),
            (2, 3),
            (3, 2),
            (2, 4),
            (4, 2),
            (3, 4),
            (4, 3),
        ],
        both: false,
        leaders: &[1, 2, 3, 4],
    },
    Topology {
        name: "a bridge of which the old leader only hears",
        count: 5,
        ways: &[(1, 0), (1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)],
        both: false,
        leaders: &[1, 2, 3],
    },
];

impl Topology {
    /// The ways that carry nothing, where `nodes` are the nodes in the order that the topology names them.
    fn cuts(&self, nodes: &[NodeId]) -> BTreeSet<(NodeId, NodeId)> {
        let is_open = |from: usize, to: usize| {
            self.ways.contains(&(from, to)) || self.both && self.ways.contains(&(to, from))
        };
        let mut cuts = BTreeSet::new();
        for (from, one) in nodes.iter().enumerate() {
            for (to, other) in nodes.iter().enumerate() {
                if from != to && !is_open(from, to) {
                    cuts.insert((*one, *other));
                }
            }
        }
        cuts
    }

    /// How long it took until somebody led and something was committed.
    fn check(&self, seed: u64) -> Duration {
        let what = format!("{} (seed {seed})", self.name);
        let mut world = World::quiet(seed, self.count as u64);
        world.run_for(ELECTION_TIMEOUT * 4);
        let leader = world.leader().unwrap_or_else(|| panic!("{what}: {}", world.describe()));
        let others = world.nodes().into_iter().filter(|node| *node != leader);
        let nodes: Vec<NodeId> = std::iter::once(leader).chain(others).collect();
        // All logs are equal when the ways close: nobody is held back by what it lacks.
        world.pause_clients();
        world.run_for(ELECTION_TIMEOUT);
        world.cut(self.cuts(&nodes));
        world.resume_clients();
        let before = world.committed();
        let limit = ELECTION_TIMEOUT * 4;
        let mut span = Duration::ZERO;
        while span < limit
            && !(world.leader_with_quorum(&self.cuts(&nodes)).is_some()
                && world.committed() > before)
        {
            world.run_for(STEP);
            span += STEP;
        }
        let found = world.leader_with_quorum(&self.cuts(&nodes));
        let place = found.and_then(|found| nodes.iter().position(|node| *node == found));
        assert!(
            place.is_some_and(|place| self.leaders.contains(&place)),
            "{what}: {found:?} of {nodes:?} leads: {}",
            world.describe()
        );
        assert!(world.committed() > before, "{what}: nothing is committed: {}", world.describe());
        world.run_for(ELECTION_TIMEOUT * 10 - span);
        let (term, committed) = (world.term(), world.committed());
        world.run_for(ELECTION_TIMEOUT * 90);
        assert_eq!(world.term(), term, "{what}: terms grow: {}", world.describe());
        assert!(world.committed() > committed, "{what}: work stands still");
        assert_eq!(world.role(nodes[place.expect("was checked")]), RoleName::Leader, "{what}");
        span
    }
}

#[test]
fn whoever_reaches_a_quorum_leads_and_terms_do_not_grow() {
    for topology in &TOPOLOGIES {
        let spans: Vec<u128> = (1..=2).map(|seed| topology.check(seed).as_millis()).collect();
        eprintln!("{}: leads and commits after {spans:?} ms", topology.name);
    }
}
