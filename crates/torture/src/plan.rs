//! Which faults strike, in which order and for how long: a function of the seed alone.
//!
//! Whom a fault strikes is drawn as a role (the leader, some follower), because who leads depends on the run.

use crate::options::Kind;
use quorate_sim::dice::Dice;
use std::fmt;
use std::time::Duration;

/// Of a hundred episodes, how many have a second fault inside the first.
const DOUBLE_PERCENT: u64 = 30;

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Whoever leads.
    Leader,
    /// One of the others, by this draw.
    Follower(u64),
    /// All.
    All,
}

/// Which links are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All links of one node, in both directions.
    Isolate(Who),
    /// Nothing reaches it, what it sends arrives.
    Deaf(Who),
    /// What it sends is lost, it hears the others.
    Mute(Who),
    /// One direction of the one link from this node to the next.
    OneWay(Who),
    /// The minority that begins with the node of this role from the others.
    Halves(Who),
    /// Two halves that only one node, the one of this role, can reach.
    Bridge(Who),
    /// Each node reaches its two neighbours only; with three nodes a chain whose middle this one is.
    Ring(Who),
}

/// How a wall clock is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// By this many seconds.
    Jump(i64),
    /// More and more, by this many parts per million.
    Drift(i64),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9`.
    Kill(Who),
    /// SIGSTOP.
    Pause(Who),
    /// Cut links.
    Partition(Cut),
    /// What a node sends is squeezed to this many kilobits a second.
    SlowLink(Who, u32),
    /// Each sync takes this many milliseconds longer.
    DiskSlow(Who, u32),
    /// Syncs fail.
    DiskFail(Who),
    /// No file grows.
    DiskFull(Who),
    /// The wall clock is wrong.
    Clock(Who, Wrong),
    /// A new node takes the place of this one in one step.
    Replace(Who),
    /// A new node is added, then this one is removed.
    AddRemove(Who),
    /// All nodes leave and come back in turn.
    Rolling,
    /// What was not synced is lost.
    Power(Who),
}

/// A fault, perhaps with another one inside, and the time before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Episode {
    /// How long nothing happens first.
    pub(crate) wait: Duration,
    /// The fault.
    pub(crate) fault: Fault,
    /// How long it lasts.
    pub(crate) hold: Duration,
    /// What strikes half-way.
    pub(crate) second: Option<Fault>,
}

/// The schedule: every kind once in random order, again and again, so that no run leaves one out by chance.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What is drawn from.
    dice: Dice,
    /// The kinds that may strike.
    kinds: Vec<Kind>,
    /// How many nodes there are.
    nodes: usize,
    /// The kinds that are still to come in this round.
    bag: Vec<Kind>,
}

impl Plan {
    /// The schedule of a seed.
    pub(crate) fn new(seed: u64, kinds: &[Kind], nodes: usize) -> Plan {
        assert!(!kinds.is_empty(), "a schedule needs at least one kind of fault");
        let dice = Dice::new(seed, "torture schedule");
        Plan { dice, kinds: kinds.to_vec(), nodes, bag: Vec::new() }
    }

    /// What comes next.
    pub(crate) fn draw(&mut self) -> Episode {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
        }
        let position = self.dice.position(self.bag.len());
        let kind = self.bag.swap_remove(position);
        let millis = |low, high, dice: &mut Dice| Duration::from_millis(dice.between(low, high));
        let wait = millis(1_000, 2_500, &mut self.dice);
        let hold = match kind {
            Kind::Kill | Kind::Power => millis(200, 4_000, &mut self.dice),
            Kind::DiskFail => millis(1_000, 3_000, &mut self.dice),
            Kind::Pause
            | Kind::Partition
            | Kind::SlowLink
            | Kind::DiskSlow
            | Kind::DiskFull
            | Kind::Clock
            | Kind::Members
            | Kind::Rolling => millis(2_000, 7_000, &mut self.dice),
        };
        let fault = self.fault(kind);
        let is_double = self.dice.below(100) < DOUBLE_PERCENT;
        let inner = self.inner_kinds(kind);
        let second = (is_double && !inner.is_empty()).then(|| {
            let inner = inner[self.dice.position(inner.len())];
            self.fault(inner)
        });
        Episode { wait, fault, hold, second }
    }

    /// What may strike inside a fault of this kind: whatever begins and ends at once.
    fn inner_kinds(&self, outer: Kind) -> Vec<Kind> {
        let allowed = |kind: &Kind| match kind {
            Kind::Kill
            | Kind::Pause
            | Kind::Partition
            | Kind::SlowLink
            | Kind::DiskSlow
            | Kind::Clock => *kind != outer,
            Kind::DiskFail | Kind::DiskFull | Kind::Members | Kind::Rolling | Kind::Power => false,
        };
        // Nodes that leave and come back are waited for: nothing may hold them up.
        if matches!(outer, Kind::Rolling) {
            return Vec::new();
        }
        self.kinds.iter().copied().filter(allowed).collect()
    }

    /// The leader half of the time.
    fn one(&mut self) -> Who {
        let draw = self.dice.bits();
        if self.dice.chance(500_000) { Who::Leader } else { Who::Follower(draw) }
    }

    fn one_or_all(&mut self) -> Who {
        if self.dice.chance(300_000) { Who::All } else { self.one() }
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        match kind {
            Kind::Kill => Fault::Kill(self.one_or_all()),
            Kind::Pause => Fault::Pause(self.one()),
            Kind::Partition => Fault::Partition(self.cut()),
            Kind::SlowLink => {
                let kilobits = [64, 256, 1024][self.dice.position(3)];
                Fault::SlowLink(self.one(), kilobits)
            }
            Kind::DiskSlow => {
                let millis = [20, 100, 500, 5_000][self.dice.position(4)];
                Fault::DiskSlow(self.one(), millis)
            }
            Kind::DiskFail => Fault::DiskFail(self.one()),
            Kind::DiskFull => Fault::DiskFull(self.one()),
            Kind::Clock => {
                let wrong = match self.dice.below(4) {
                    0 => Wrong::Drift([-200_000, 200_000][self.dice.position(2)]),
                    1 => Wrong::Jump([-3, 3][self.dice.position(2)]),
                    2 => Wrong::Jump([-3_600, 3_600][self.dice.position(2)]),
                    _ => Wrong::Jump([-315_360_000, 315_360_000][self.dice.position(2)]),
                };
                Fault::Clock(self.one_or_all(), wrong)
            }
            Kind::Members => {
                let who = self.one();
                if self.dice.chance(500_000) { Fault::Replace(who) } else { Fault::AddRemove(who) }
            }
            Kind::Rolling => Fault::Rolling,
            Kind::Power => Fault::Power(self.one_or_all()),
        }
    }

    fn cut(&mut self) -> Cut {
        let who = self.one();
        // Halves of three are one node and two: the same as an isolated one.
        let count = if self.nodes > 3 { 7 } else { 6 };
        match self.dice.below(count) {
            0 => Cut::Isolate(Who::Leader),
            1 => Cut::Isolate(who),
            2 => Cut::Deaf(who),
            3 => Cut::Mute(who),
            4 => Cut::OneWay(who),
            5 if self.nodes > 3 && self.dice.chance(500_000) => Cut::Ring(who),
            5 => Cut::Bridge(who),
            _ => Cut::Halves(who),
        }
    }
}

impl Fault {
    /// Its kind.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Fault::Kill(_) => Kind::Kill,
            Fault::Pause(_) => Kind::Pause,
            Fault::Partition(_) => Kind::Partition,
            Fault::SlowLink(..) => Kind::SlowLink,
            Fault::DiskSlow(..) => Kind::DiskSlow,
            Fault::DiskFail(_) => Kind::DiskFail,
            Fault::DiskFull(_) => Kind::DiskFull,
            Fault::Clock(..) => Kind::Clock,
            Fault::Replace(_) | Fault::AddRemove(_) => Kind::Members,
            Fault::Rolling => Kind::Rolling,
            Fault::Power(_) => Kind::Power,
        }
    }

    /// Whether a quorum of healthy, connected nodes is left, so that clients must be served while it lasts.
    pub(crate) fn leaves_quorum(&self) -> bool {
        match self {
            Fault::Kill(who) | Fault::Power(who) => *who != Who::All,
            Fault::Pause(_)
            | Fault::Partition(_)
            | Fault::SlowLink(..)
            | Fault::DiskSlow(..)
            | Fault::DiskFail(_)
            | Fault::DiskFull(_)
            | Fault::Clock(..)
            | Fault::Replace(_)
            | Fault::AddRemove(_)
            | Fault::Rolling => true,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Jump(seconds) => match seconds.abs() {
                315_360_000 => write!(f, "{:+} years", seconds / 31_536_000),
                3_600 => write!(f, "{:+} h", seconds / 3_600),
                _ => write!(f, "{seconds:+} s"),
            },
            Wrong::Drift(rate) => write!(f, "drifts {:+} %", rate / 10_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episodes(seed: u64, count: usize) -> Vec<Episode> {
        let mut plan = Plan::new(seed, &Kind::ALL, 5);
        (0..count).map(|_| plan.draw()).collect()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(episodes(7, 40), episodes(7, 40));
        assert_ne!(episodes(7, 40), episodes(8, 40));
    }

    #[test]
    fn every_round_has_every_kind_once() {
        let drawn = episodes(3, 3 * Kind::ALL.len());
        for round in drawn.chunks(Kind::ALL.len()) {
            let mut kinds: Vec<Kind> = round.iter().map(|episode| episode.fault.kind()).collect();
            kinds.sort();
            assert_eq!(kinds, Kind::ALL);
        }
    }

    #[test]
    fn only_what_is_allowed_strikes_outside_and_inside() {
        let mut plan = Plan::new(1, &[Kind::Pause, Kind::Clock], 3);
        let drawn: Vec<Episode> = (0..200).map(|_| plan.draw()).collect();
        let seconds: Vec<Fault> = drawn.iter().filter_map(|episode| episode.second).collect();
        assert!(seconds.len() > 20, "{}", seconds.len());
        for fault in drawn.iter().map(|episode| episode.fault).chain(seconds) {
            assert!(matches!(fault.kind(), Kind::Pause | Kind::Clock), "{fault:?}");
        }
    }
}
