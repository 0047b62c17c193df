//! The configurations that are searched, and how a search ends.

use crate::{Action, Bounds, Cluster};
use quorate_types::Mistake;
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// A named configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is there for.
    pub about: &'static str,
    /// How much happens.
    pub bounds: Bounds,
}

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Some seconds for all of them.
    Small,
    /// About a minute for all of them in an optimized build.
    Normal,
    /// As far as patience and memory go.
    Large,
}

/// How a search ended.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How many different states were looked at.
    pub state_count: usize,
    /// The length of the longest history.
    pub depth: usize,
    /// The promise that was broken, and a history that breaks it.
    pub broken: Option<(&'static str, Vec<Action>)>,
    /// What should have happened in some history and did in none.
    pub missed: Vec<&'static str>,
}

fn three(campaigns: [usize; 3]) -> Bounds {
    Bounds {
        voters: vec![1, 2, 3],
        learners: Vec::new(),
        logs: Vec::new(),
        campaigns: campaigns.to_vec(),
        entries: 0,
        crashes: 0,
        losses: 0,
        duplicates: 0,
        reads: 0,
        target: None,
        slow_disks: Vec::new(),
        cut: None,
    }
}

/// Two leaders have written what nobody else holds.
fn parted(campaigns: [usize; 3]) -> Bounds {
    Bounds { logs: vec![vec![(2, 1)], vec![(3, 2)]], ..three(campaigns) }
}

/// Two voters give way to a third node.
fn change(campaigns: [usize; 3]) -> Bounds {
    let (voters, learners) = (vec![1, 2], vec![3]);
    Bounds { voters, learners, target: Some(vec![3]), ..three(campaigns) }
}

/// The configurations of unbroken code.
#[must_use]
pub fn configurations(size: Size) -> Vec<Configuration> {
    let is_large = size == Size::Large;
    let sized = |small: usize, normal: usize, large: usize| match size {
        Size::Small => small,
        Size::Normal => normal,
        Size::Large => large,
    };
    // Two of the replicas hear of each other through the third only, but in the largest searches.
    let cut = |one, two| (!is_large).then_some((one, two));
    let configuration = |name, about, bounds| Configuration { name, about, bounds };
    let mut all = vec![
        configuration(
            "elections",
            "two replicas campaign, one after the other and at once; their entries part ways",
            Bounds { duplicates: sized(0, 0, 1), ..three([1, 1, sized(0, 0, 1)]) },
        ),
        configuration(
            "voter",
            "a voter's writes take time, and it loses some of them",
            Bounds { crashes: 1, slow_disks: vec![3], cut: cut(1, 2), ..three([1, 2, 0]) },
        ),
        configuration(
            "leader",
            "a leader's writes take time, and it loses some of them",
            Bounds {
                crashes: 1,
                slow_disks: vec![1],
                cut: cut(2, 3),
                entries: sized(0, 0, 1),
                ..three([1, 1, 0])
            },
        ),
        configuration(
            "reads",
            "a leader is asked for a read while another may have taken over",
            Bounds { reads: 1, cut: Some((1, 2)), ..three([1, 2, 0]) },
        ),
        configuration(
            "parted logs",
            "the logs have parted as in figure 3.7 of the thesis: what most hold is not yet safe",
            Bounds { cut: cut(1, 2), ..parted([1, 2, sized(0, 1, 1)]) },
        ),
        configuration(
            "members",
            "two voters give way to a third node, by way of a joint configuration",
            change([1, 0, sized(0, 1, 1)]),
        ),
    ];
    if is_large {
        all.push(configuration(
            "members lost",
            "the same, while the leader's writes take time, and it loses some of them",
            Bounds { crashes: 1, slow_disks: vec![1], ..change([1, 0, 1]) },
        ));
    }
    all
}

/// The configuration in which a mistake shows; `None` for those that need what the model leaves out.
#[must_use]
pub fn trap(mistake: Mistake) -> Option<Bounds> {
    let chain = Some((1, 2));
    Some(match mistake {
        Mistake::VoteTwice => Bounds { cut: chain, ..three([1, 1, 0]) },
        Mistake::VoteUnrecorded => {
            Bounds { cut: chain, crashes: 1, slow_disks: vec![3], ..three([1, 1, 0]) }
        }
        Mistake::LossForgotten => {
            Bounds { cut: chain, losses: 1, slow_disks: vec![3], ..three([1, 1, 0]) }
        }
        Mistake::VoteUnchecked => Bounds { cut: chain, ..three([1, 2, 0]) },
        Mistake::OwnUndurableCounted => {
            Bounds { cut: Some((2, 3)), crashes: 1, slow_disks: vec![1], ..three([1, 1, 0]) }
        }
        Mistake::OldTermCommit => Bounds { cut: chain, ..parted([1, 2, 0]) },
        Mistake::PreviousUnchecked => Bounds { cut: Some((2, 3)), ..parted([0, 1, 0]) },
        Mistake::JointSkipped => {
            Bounds { cut: Some((2, 3)), crashes: 1, slow_disks: vec![1], ..change([2, 0, 0]) }
        }
        Mistake::AfterIgnored
        | Mistake::ReleasedByAnyWrite
        | Mistake::DurableByIndex
        | Mistake::StaleAckCounted
        | Mistake::ReadWithoutRound
        | Mistake::ReadBeforeNoop
        | Mistake::StallIgnored
        | Mistake::MembersForgotten
        | Mistake::EarlyChange
        | Mistake::AppliedApart
        | Mistake::OriginsForgotten
        | Mistake::SettledApplied
        | Mistake::WindowIgnored
        | Mistake::LogErased
        | Mistake::MatchRegress
        | Mistake::CommitUnverified
        | Mistake::TermRegress
        | Mistake::OldLeaderObeyed
        | Mistake::AppliedUndurable
        | Mistake::ResetBeforeInstall
        | Mistake::InstallUnrecorded
        | Mistake::GivenUpUnproved
        | Mistake::HoleIsTorn
        | Mistake::TornIsWhole
        | Mistake::OlderHardState
        | Mistake::SyncedTooFar
        | Mistake::TailNotRewritten
        | Mistake::LiveRecycled
        | Mistake::RecycledEarly
        | Mistake::FailureForgotten => return None,
    })
}

/// Looks at every history within the bounds, by `threads`, until one breaks a promise.
#[must_use]
pub fn search(bounds: Bounds, threads: usize, mistake: Option<Mistake>) -> Verdict {
    let checker = Cluster { bounds, mistake }.checker().threads(threads);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    match mistake {
        // Everything is looked at, whatever the order, and breadth finds the shortest history.
        None => judge(&checker.spawn_bfs().join()),
        // What is broken shows in most long histories.
        Some(_) => judge(&checker.spawn_dfs().join()),
    }
}

fn judge(checker: &impl Checker<Cluster>) -> Verdict {
    let mut verdict = Verdict {
        state_count: checker.unique_state_count(),
        depth: checker.max_depth(),
        broken: None,
        missed: Vec::new(),
    };
    let found = checker.discoveries();
    for property in checker.model().properties() {
        let path = found.get(property.name);
        match (property.expectation, path) {
            (Expectation::Sometimes, None) => verdict.missed.push(property.name),
            (Expectation::Sometimes, Some(_)) => {}
            (Expectation::Always | Expectation::Eventually, path) => {
                let broken = path.map(|path| (property.name, path.clone().into_actions()));
                verdict.broken = verdict.broken.take().or(broken);
            }
        }
    }
    verdict
}
