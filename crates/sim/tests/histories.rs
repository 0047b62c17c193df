//! Hand-made histories: both judges of consistency accept what is right and reject what is wrong.

use quorate_sim::checkers::{linearizable, witness};
use quorate_sim::history::{
    Call, ClientId, Found, History, Key, Moment, Operation, Outcome, Recall, Revision, Value,
};
use std::collections::BTreeMap;

/// A history under construction. Each line is one operation: client, from, to.
#[derive(Default)]
struct Book(History);

fn found(value: u64, written_at: u64) -> Option<Found> {
    Some(Found { value: Value(value), written_at: Revision(written_at) })
}

impl Book {
    fn add(mut self, times: (usize, u64, u64), call: Call, outcome: Outcome) -> Book {
        let (client, called, ended) = times;
        self.0.operations.push(Operation {
            client: ClientId(client),
            call,
            called: Moment(called),
            ended: Moment(ended),
            outcome,
        });
        self
    }

    fn put(self, times: (usize, u64, u64), key: u32, value: u64, outcome: Outcome) -> Book {
        self.add(times, Call::Put { key: Key(key), value: Value(value) }, outcome)
    }

    fn written(self, times: (usize, u64, u64), key: u32, value: u64, revision: u64) -> Book {
        self.put(times, key, value, Outcome::Written(Revision(revision)))
    }

    fn get(self, times: (usize, u64, u64), key: u32, at: u64, held: Option<Found>) -> Book {
        self.add(times, Call::Get { key: Key(key) }, Outcome::Got(Revision(at), held))
    }

    fn swap(self, times: (usize, u64, u64), values: (u64, u64), outcome: Outcome) -> Book {
        let (expected, value) = values;
        let expected = Some(Value(expected));
        self.add(times, Call::Swap { key: Key(1), expected, value: Value(value) }, outcome)
    }

    fn recall(mut self, key: u32, revision: u64, held: Option<Found>) -> Book {
        let revision = Revision(revision);
        self.0.recalls.push(Recall { key: Key(key), revision, found: held });
        self
    }

    /// Both judges accept.
    fn right(&self) {
        assert_eq!(witness::check(&self.0), Ok(()));
        assert_eq!(linearizable::check(&self.0), Ok(()));
    }

    /// The witness rejects.
    fn wrong_by_witness(&self) {
        assert!(witness::check(&self.0).is_err());
    }

    /// Both reject.
    fn wrong(&self) {
        self.wrong_by_witness();
        assert!(linearizable::check(&self.0).is_err());
    }
}

#[test]
fn a_sequential_history_is_right() {
    Book::default()
        .get((1, 0, 1), 1, 1, None)
        .written((1, 2, 3), 1, 10, 2)
        .get((2, 4, 5), 1, 2, found(10, 2))
        .swap((1, 6, 7), (10, 11), Outcome::Written(Revision(3)))
        .swap((2, 8, 9), (10, 12), Outcome::NotWritten(Revision(3), found(11, 3)))
        .recall(1, 2, found(10, 2))
        .recall(1, 1, None)
        .right();
}

#[test]
fn concurrent_calls_may_take_effect_in_either_order() {
    Book::default()
        .written((1, 0, 9), 1, 10, 3)
        .written((2, 1, 8), 1, 11, 2)
        .get((3, 2, 7), 1, 2, found(11, 2))
        .get((3, 10, 11), 1, 3, found(10, 3))
        .right();
}

#[test]
fn an_unknown_write_may_happen_late_or_never() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .put((2, 2, 3), 1, 11, Outcome::Unknown)
        .put((2, 4, 5), 1, 12, Outcome::Unknown)
        .get((1, 6, 7), 1, 2, found(10, 2))
        .get((1, 8, 9), 1, 3, found(11, 3))
        .right();
}

#[test]
fn a_refused_write_that_nobody_saw_is_right() {
    Book::default().put((1, 0, 1), 1, 10, Outcome::Refused).get((1, 2, 3), 1, 1, None).right();
}

#[test]
fn a_stale_read_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .written((1, 2, 3), 1, 11, 3)
        .get((2, 4, 5), 1, 2, found(10, 2))
        .wrong();
}

#[test]
fn a_lost_write_is_wrong() {
    Book::default().written((1, 0, 1), 1, 10, 2).get((2, 2, 3), 1, 2, None).wrong();
}

#[test]
fn a_phantom_value_is_wrong() {
    Book::default().get((1, 0, 1), 1, 2, found(99, 2)).wrong();
}

#[test]
fn a_refused_write_that_is_seen_is_wrong() {
    Book::default()
        .put((1, 0, 1), 1, 10, Outcome::Refused)
        .get((1, 2, 3), 1, 2, found(10, 2))
        .wrong();
}

#[test]
fn a_value_that_comes_back_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .written((1, 2, 3), 1, 11, 3)
        .get((2, 4, 5), 1, 3, found(11, 3))
        .get((2, 6, 7), 1, 4, found(10, 4))
        .wrong();
}

#[test]
fn reads_that_see_two_writes_in_both_orders_are_wrong() {
    Book::default()
        .written((1, 0, 20), 1, 10, 2)
        .written((2, 0, 21), 1, 11, 3)
        .get((3, 1, 2), 1, 2, found(10, 2))
        .get((3, 3, 4), 1, 3, found(11, 3))
        .get((4, 5, 6), 1, 2, found(10, 2))
        .wrong();
}

#[test]
fn a_read_from_the_future_is_wrong() {
    Book::default().get((1, 0, 1), 1, 2, found(10, 2)).written((2, 2, 3), 1, 10, 2).wrong();
}

#[test]
fn a_swap_that_overwrote_something_else_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .written((1, 2, 3), 1, 11, 3)
        .swap((2, 4, 5), (10, 12), Outcome::Written(Revision(4)))
        .wrong();
}

#[test]
fn a_swap_that_did_not_write_although_it_must_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .swap((2, 2, 3), (10, 11), Outcome::NotWritten(Revision(2), found(10, 2)))
        .wrong();
}

#[test]
fn two_swaps_from_one_value_are_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .swap((2, 2, 9), (10, 11), Outcome::Written(Revision(3)))
        .swap((3, 2, 9), (10, 12), Outcome::Written(Revision(4)))
        .wrong();
}

#[test]
fn a_swap_from_a_value_of_unknown_outcome_is_right_only_if_a_revision_is_left_for_it() {
    let swapped = |revision| {
        Book::default().written((1, 0, 1), 1, 10, 2).put((2, 2, 3), 1, 11, Outcome::Unknown).swap(
            (3, 4, 5),
            (11, 12),
            Outcome::Written(Revision(revision)),
        )
    };
    swapped(4).right();
    swapped(3).wrong_by_witness();
}

#[test]
fn a_scan_that_mixes_two_moments_is_wrong() {
    let all = BTreeMap::from([(Key(1), found(10, 2)), (Key(2), found(21, 4))]);
    let all = all.into_iter().filter_map(|(key, held)| Some((key, held?))).collect();
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .written((1, 2, 3), 2, 20, 3)
        .written((2, 4, 9), 2, 21, 4)
        .add((3, 4, 9), Call::Scan, Outcome::Scanned(Revision(3), all))
        .wrong_by_witness();
}

#[test]
fn a_write_applied_twice_is_wrong() {
    // The second application made revision 3, which nobody can account for.
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .written((1, 2, 3), 2, 20, 4)
        .get((2, 4, 5), 1, 4, found(10, 2))
        .wrong_by_witness();
    // And seen: one value, two revisions.
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .get((2, 2, 3), 1, 2, found(10, 2))
        .get((2, 4, 5), 1, 3, found(10, 3))
        .wrong_by_witness();
}

#[test]
fn one_revision_given_to_two_writes_is_wrong() {
    Book::default().written((1, 0, 1), 1, 10, 2).written((2, 0, 1), 2, 20, 2).wrong_by_witness();
}

#[test]
fn revisions_that_run_against_time_are_wrong() {
    Book::default().written((1, 0, 1), 1, 10, 3).written((2, 2, 3), 2, 20, 2).wrong_by_witness();
}

#[test]
fn a_read_at_an_older_revision_than_an_earlier_read_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .written((1, 0, 9), 2, 20, 3)
        .get((2, 2, 3), 1, 3, found(10, 2))
        .get((2, 4, 5), 1, 2, found(10, 2))
        .wrong_by_witness();
}

#[test]
fn a_value_in_another_register_is_wrong() {
    Book::default().written((1, 0, 1), 1, 10, 2).get((2, 2, 3), 2, 2, found(10, 2)).wrong();
}

#[test]
fn a_replica_that_forgot_an_acknowledged_revision_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .written((1, 2, 3), 1, 11, 3)
        .recall(1, 2, None)
        .wrong_by_witness();
}

#[test]
fn a_long_contended_history_is_judged_quickly() {
    // 8 clients write at once, again and again; a reader sees the last one of each round. A tenth are unknown.
    let mut book = Book::default();
    let mut revision = 1;
    let mut time = 0;
    for round in 0..200_u64 {
        let mut last = None;
        for client in 0..8_u64 {
            let value = round * 8 + client;
            let times = (client as usize, time + client, time + 20 + client);
            let seen = client == 7 || value % 10 != 0;
            if seen {
                revision += 1;
                book = book.written(times, 1, value, revision);
                last = found(value, revision);
            } else {
                book = book.put(times, 1, value, Outcome::Unknown);
            }
        }
        book = book.get((8, time + 30, time + 31), 1, revision, last);
        time += 40;
    }
    book.right();
}
