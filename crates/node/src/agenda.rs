//! Moments at which something is due, many things at one moment.

use quorate_types::Instant;
use std::collections::BTreeMap;

/// What is due at one moment.
#[derive(Clone, Debug, Default)]
struct Due {
    /// How many of `members` were not removed.
    live: usize,
    /// Everything that was ever added.
    members: Vec<u64>,
}

/// Numbers of things that are due, by moment. What comes in one wake-up is due at one moment as a rule, so adding and
/// removing takes next to nothing; in return, a thing that was removed may still be handed out when its moment comes,
/// unless everything of that moment was removed. Whoever takes it out checks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agenda {
    moments: BTreeMap<Instant, Due>,
}

impl Agenda {
    /// Adds a thing.
    pub(crate) fn add(&mut self, at: Instant, member: u64) {
        let due = self.moments.entry(at).or_default();
        due.live += 1;
        due.members.push(member);
    }

    /// Removes one thing that was added for `at`; does nothing once that moment was taken out.
    pub(crate) fn remove(&mut self, at: Instant) {
        let Some(due) = self.moments.get_mut(&at) else { return };
        due.live -= 1;
        if due.live == 0 {
            self.moments.remove(&at);
        }
    }

    /// The first moment at which something is due.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.moments.first_key_value().map(|(at, _)| *at)
    }

    /// Takes the first moment out, if it has come by `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Instant, Vec<u64>)> {
        let first = self.moments.first_entry().filter(|first| *first.key() <= now)?;
        let (at, due) = first.remove_entry();
        Some((at, due.members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_due_while_anything_of_it_is_left() {
        let mut agenda = Agenda::default();
        let (early, late) = (Instant(10), Instant(20));
        agenda.add(late, 3);
        agenda.add(early, 1);
        agenda.add(early, 2);
        assert_eq!(agenda.first(), Some(early));
        agenda.remove(early);
        assert_eq!(agenda.first(), Some(early));
        assert_eq!(agenda.take_due(Instant(9)), None);
        agenda.remove(early);
        assert_eq!(agenda.first(), Some(late));
        assert_eq!(agenda.take_due(Instant(25)), Some((late, vec![3])));
        agenda.remove(late);
        assert_eq!(agenda.first(), None);
    }
}
