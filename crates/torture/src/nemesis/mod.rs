//! What befalls the cluster: each kind of fault begins here and is healed here.

mod devices;
mod members;
mod partition;
mod processes;

use crate::Result;
use crate::cluster::Cluster;
use crate::options::Kind;
use crate::plan::{Fault, Who};
use members::Changing;

/// A fault that has begun.
pub(crate) struct Active {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Whom it strikes and how, for people.
    pub(crate) what: String,
    /// What ends it.
    remedy: Remedy,
}

/// What ends a fault.
enum Remedy {
    /// These processes are started again.
    Start,
    /// These processes go on.
    Continue(Vec<usize>),
    /// The links between all nodes are mended.
    Mend,
    /// What this node sends is no longer squeezed.
    Release(usize),
    /// The disks and clocks of these nodes are right again.
    Right(Vec<usize>),
    /// The disk of this node has space again, and the node goes on.
    Empty(usize),
    /// The disk of this node is right again, and the node, which must have stopped, is started.
    RightAndStart(usize),
    /// The change of members has come to its end.
    Wait(Changing),
    /// It is over already.
    Nothing,
}

/// Lets a fault begin. `Ok(None)` when nobody is there whom it could strike.
pub(crate) fn begin(cluster: &mut Cluster, fault: Fault) -> Result<Option<Active>> {
    let begun = match fault {
        Fault::Kill(who) => processes::kill(cluster, who)?,
        Fault::Pause(who) => processes::pause(cluster, who)?,
        Fault::Rolling => processes::rolling(cluster)?,
        Fault::Partition(cut) => partition::cut(cluster, cut)?,
        Fault::SlowLink(who, kilobits) => partition::squeeze(cluster, who, kilobits)?,
        Fault::DiskSlow(who, millis) => devices::slow(cluster, who, millis)?,
        Fault::DiskFail(who) => devices::fail(cluster, who)?,
        Fault::DiskFull(who) => devices::fill(cluster, who)?,
        Fault::Clock(who, wrong) => devices::misset(cluster, who, wrong)?,
        Fault::Power(who) => devices::power(cluster, who)?,
        Fault::Replace(who) => members::replace(cluster, who)?,
        Fault::AddRemove(who) => members::add_and_remove(cluster, who)?,
    };
    let active = |(what, remedy)| Active { kind: fault.kind(), what, remedy };
    Ok(begun.map(active))
}

/// Ends a fault. The error says what the cluster owes and did not do.
pub(crate) fn heal(cluster: &mut Cluster, active: Active) -> Result<()> {
    match active.remedy {
        Remedy::Start => cluster.start_missing(),
        Remedy::Continue(nodes) => processes::go_on(cluster, &nodes),
        Remedy::Mend => partition::mend(cluster),
        Remedy::Release(node) => cluster.space.squeeze(node, None),
        Remedy::Right(nodes) => devices::right(cluster, &nodes),
        Remedy::Empty(node) => devices::empty(cluster, node),
        Remedy::RightAndStart(node) => devices::right_and_start(cluster, node),
        Remedy::Wait(changing) => members::wait(cluster, changing),
        Remedy::Nothing => Ok(()),
    }
}

/// What a fault strikes, and in what words that is said.
struct Target {
    nodes: Vec<usize>,
    said: String,
}

/// Finds whom a role means at the moment; `None` when there is nobody.
fn target(cluster: &Cluster, who: Who) -> Option<Target> {
    let active = cluster.active();
    let leader = cluster.leader();
    let one = |node: usize| {
        let role = if Some(node) == leader { "leader" } else { "follower" };
        Target { nodes: vec![node], said: format!("{} ({role})", cluster.nodes[node].name) }
    };
    match who {
        Who::All => {
            (!active.is_empty()).then(|| Target { nodes: active, said: "all nodes".into() })
        }
        Who::Leader => leader.or_else(|| active.first().copied()).map(one),
        Who::Follower(draw) => {
            let others: Vec<usize> =
                active.into_iter().filter(|node| Some(*node) != leader).collect();
            let position = draw.checked_rem(others.len() as u64)?;
            others.get(usize::try_from(position).ok()?).copied().map(one)
        }
    }
}

/// What a fault does when it has begun; `None` when there was nobody to strike.
type Begun = Option<(String, Remedy)>;
