//! Links that are cut, in one or both directions, or squeezed.

use super::{Begun, Remedy, target};
use crate::Result;
use crate::cluster::Cluster;
use crate::plan::{Cut, Who};

/// One direction of a link: from, to.
type Way = (usize, usize);

/// Cuts links.
pub(super) fn cut(cluster: &mut Cluster, cut: Cut) -> Result<Begun> {
    let (Cut::Isolate(who)
    | Cut::Deaf(who)
    | Cut::Mute(who)
    | Cut::OneWay(who)
    | Cut::Halves(who)
    | Cut::Bridge(who)
    | Cut::Ring(who)) = cut;
    let Some(target) = target(cluster, who) else { return Ok(None) };
    let members = cluster.members();
    let (ways, shape) = ways(cut, target.nodes[0], &members);
    for from in &members {
        let to: Vec<usize> = ways.iter().filter(|way| way.0 == *from).map(|way| way.1).collect();
        if !to.is_empty() {
            cluster.space.cut(*from, &to)?;
        }
    }
    Ok(Some((format!("{shape} {}", target.said), Remedy::Mend)))
}

/// Lets everybody reach everybody.
pub(super) fn mend(cluster: &mut Cluster) -> Result<()> {
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    for from in &all {
        let others: Vec<usize> = all.iter().copied().filter(|to| to != from).collect();
        cluster.space.mend(*from, &others)?;
    }
    Ok(())
}

/// Squeezes what a node sends.
pub(super) fn squeeze(cluster: &mut Cluster, who: Who, kilobits: u32) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    let node = target.nodes[0];
    cluster.space.squeeze(node, Some(kilobits))?;
    Ok(Some((format!("{} sends {kilobits} kbit/s", target.said), Remedy::Release(node))))
}

/// Which directions a cut takes, and what it is called. `members` are in order, `chosen` is one of them.
fn ways(cut: Cut, chosen: usize, members: &[usize]) -> (Vec<Way>, &'static str) {
    let others: Vec<usize> = members.iter().copied().filter(|node| *node != chosen).collect();
    let from_chosen = others.iter().map(|other| (chosen, *other));
    let to_chosen = others.iter().map(|other| (*other, chosen));
    // Those that come after the chosen one, round about.
    let place = members.iter().position(|node| *node == chosen).unwrap_or(0);
    let circle: Vec<usize> = members[place..].iter().chain(&members[..place]).copied().collect();
    match cut {
        Cut::Isolate(_) => (from_chosen.chain(to_chosen).collect(), "isolated:"),
        Cut::Deaf(_) => (to_chosen.collect(), "hears nobody:"),
        Cut::Mute(_) => (from_chosen.collect(), "heard by nobody:"),
        Cut::OneWay(_) => (from_chosen.take(1).collect(), "one link one way, from"),
        Cut::Halves(_) => {
            let (few, many) = circle.split_at(members.len().saturating_sub(1) / 2);
            (between(few, many), "halves, the smaller with")
        }
        Cut::Bridge(_) => {
            let rest = &circle[1..];
            let (left, right) = rest.split_at(rest.len() / 2);
            (between(left, right), "bridge over")
        }
        Cut::Ring(_) => {
            let count = circle.len();
            let mut ways = Vec::new();
            for one in 0..count {
                for other in 0..count {
                    let distance = one.abs_diff(other);
                    if distance > 1 && distance < count - 1 {
                        ways.push((circle[one], circle[other]));
                    }
                }
            }
            (ways, "ring from")
        }
    }
}

fn between(left: &[usize], right: &[usize]) -> Vec<Way> {
    let pairs = left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other)));
    pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn check(cut: Cut, members: &[usize], expected: &[Way]) {
        let ways: BTreeSet<Way> = ways(cut, 2, members).0.into_iter().collect();
        assert_eq!(ways, expected.iter().copied().collect(), "{cut:?}");
    }

    #[test]
    fn each_shape_cuts_what_it_says() {
        let who = Who::Leader;
        check(Cut::Isolate(who), &[0, 1, 2], &[(2, 0), (2, 1), (0, 2), (1, 2)]);
        check(Cut::Deaf(who), &[0, 1, 2], &[(0, 2), (1, 2)]);
        check(Cut::Mute(who), &[0, 1, 2], &[(2, 0), (2, 1)]);
        check(Cut::OneWay(who), &[0, 1, 2], &[(2, 0)]);
        check(Cut::Halves(who), &[0, 1, 2], &[(2, 0), (2, 1), (0, 2), (1, 2)]);
        check(Cut::Bridge(who), &[0, 1, 2], &[(0, 1), (1, 0)]);
        let five = [0, 1, 2, 3, 4];
        let bridge = [(3, 0), (3, 1), (4, 0), (4, 1), (0, 3), (1, 3), (0, 4), (1, 4)];
        check(Cut::Bridge(who), &five, &bridge);
        let ring = [(0, 2), (2, 0), (1, 3), (3, 1), (2, 4), (4, 2), (3, 0), (0, 3), (4, 1), (1, 4)];
        check(Cut::Ring(who), &five, &ring);
    }
}
