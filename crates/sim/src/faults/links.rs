//! What befalls links: who can reach whom, for how long.

use crate::network::ProcessId;
use crate::world::{Event, World};
use std::time::Duration;

/// A direction of a link.
pub(crate) type Link = (ProcessId, ProcessId);

/// How long links stay cut, at most.
const CUT_MAX: Duration = Duration::from_secs(6);

/// How long frames are held back, at most.
const CLOG_MAX: Duration = Duration::from_secs(4);

impl World {
    pub(crate) fn peer_of(&mut self, victim: ProcessId) -> ProcessId {
        let count = self.processes.len();
        let step = 1 + self.dice.faults.position(count - 1);
        ProcessId((victim.0 + step) % count)
    }

    pub(super) fn isolate(&mut self, victim: ProcessId) {
        self.cut(links_where(self.processes.len(), |from, to| from == victim.0 || to == victim.0));
    }

    pub(super) fn one_way_cut(&mut self, victim: ProcessId) {
        let peer = self.peer_of(victim);
        let to_peer = self.dice.faults.chance(500_000);
        self.cut(vec![if to_peer { (victim, peer) } else { (peer, victim) }]);
    }

    pub(super) fn deafen(&mut self, victim: ProcessId) {
        self.cut(links_where(self.processes.len(), |_, to| to == victim.0));
    }

    pub(super) fn mute(&mut self, victim: ProcessId) {
        self.cut(links_where(self.processes.len(), |from, _| from == victim.0));
    }

    pub(super) fn split(&mut self) {
        let place = self.places();
        let first_size = 1 + self.dice.faults.position(place.len() - 1);
        let is_first = |id: usize| place[id] < first_size;
        self.cut(links_where(place.len(), |from, to| is_first(from) != is_first(to)));
    }

    /// The machine in the middle of the order is in both halves.
    pub(super) fn bridge(&mut self) {
        let place = self.places();
        let middle = place.len() / 2;
        self.cut(links_where(place.len(), |from, to| {
            place[from].min(place[to]) < middle && place[from].max(place[to]) > middle
        }));
    }

    pub(super) fn star(&mut self, centre: ProcessId) {
        let count = self.processes.len();
        self.cut(links_where(count, |from, to| from != centre.0 && to != centre.0));
    }

    pub(super) fn chain(&mut self) {
        let place = self.places();
        self.cut(links_where(place.len(), |from, to| place[from].abs_diff(place[to]) > 1));
    }

    /// With three machines a ring is no different from a whole network.
    pub(super) fn ring(&mut self) -> bool {
        let place = self.places();
        let count = place.len();
        if count < 4 {
            return false;
        }
        self.cut(links_where(count, |from, to| {
            let distance = place[from].abs_diff(place[to]);
            distance > 1 && distance < count - 1
        }));
        true
    }

    /// A random order of the machines: the place of each.
    pub(crate) fn places(&mut self) -> Vec<usize> {
        let mut place: Vec<usize> = (0..self.processes.len()).collect();
        for last in (1..place.len()).rev() {
            let other = self.dice.faults.position(last + 1);
            place.swap(last, other);
        }
        place
    }

    fn cut(&mut self, links: Vec<Link>) {
        self.set_cuts(&links);
        let wait = self.dice.faults.duration(Duration::from_millis(50), CUT_MAX);
        self.plan_in(wait, Event::Mend(links));
    }

    /// Cuts links until somebody mends them.
    pub(crate) fn set_cuts(&mut self, links: &[Link]) {
        for (from, to) in links {
            self.network.set_cut(*from, *to, true);
        }
        // Some cuts are noticed because streams break, some are only silence.
        if self.dice.faults.chance(400_000) {
            for (from, to) in links {
                self.break_streams(*from, *to);
            }
        }
    }

    pub(super) fn clog(&mut self, victim: ProcessId) {
        let until = self.dice.faults.moment(self.now, Duration::from_millis(50), CLOG_MAX);
        self.clog_until(victim, until);
    }

    fn clog_until(&mut self, victim: ProcessId, until: quorate_types::Instant) {
        for (from, to) in
            links_where(self.processes.len(), |from, to| from == victim.0 || to == victim.0)
        {
            self.network.clog(from, to, until);
        }
    }

    /// A random subset is clogged one after the other, and freed in another order.
    pub(super) fn swizzle_clog(&mut self) {
        let victims = self.places();
        let count = 1 + self.dice.faults.position(victims.len());
        for victim in victims.into_iter().take(count).map(ProcessId) {
            let wait = self.dice.faults.duration(Duration::ZERO, Duration::from_secs(1));
            let until =
                self.dice.faults.moment(self.now, wait + Duration::from_millis(50), CLOG_MAX);
            self.plan_in(wait, Event::Clog(victim, until));
        }
    }

    /// A machine's links hold frames back from now on.
    pub(crate) fn begin_clog(&mut self, victim: ProcessId, until: quorate_types::Instant) {
        if self.faults_go_on() {
            self.trace.step(self.now, "clog", &[victim.0 as u64, until.0], |f| {
                write!(f, "n{} until {until}", victim.0 + 1)
            });
            self.clog_until(victim, until);
        }
    }

    /// Links that were cut carry frames again. A link that two faults cut is mended by the first that ends.
    pub(crate) fn mend(&mut self, links: &[Link]) {
        if !self.faults_go_on() {
            return;
        }
        for (from, to) in links {
            self.trace.step(self.now, "mend", &[from.0 as u64, to.0 as u64], |f| {
                write!(f, "n{}→n{}", from.0 + 1, to.0 + 1)
            });
            self.network.set_cut(*from, *to, false);
            for end in self.network.break_hung(*from, *to) {
                self.notice_broken(end, *from, *to);
            }
        }
    }

    /// Breaks every stream between two processes; both ends notice.
    pub(crate) fn break_streams(&mut self, one: ProcessId, two: ProcessId) {
        for end in self.network.break_between(one, two) {
            self.notice_broken(end, one, two);
        }
    }

    fn notice_broken(&mut self, end: crate::network::End, one: ProcessId, two: ProcessId) {
        let peer = if end.process == one { two } else { one };
        let wait = self.dice.network.duration(Duration::from_micros(50), Duration::from_millis(20));
        self.plan_in(wait, Event::Closed(end, peer));
    }
}

/// The directions between two of `count` machines for which this holds.
pub(crate) fn links_where(count: usize, holds: impl Fn(usize, usize) -> bool) -> Vec<Link> {
    let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    pairs
        .filter(|(from, to)| from != to && holds(*from, *to))
        .map(|(from, to)| (ProcessId(from), ProcessId(to)))
        .collect()
}
