//! Hand-made histories: both judges of consistency accept what is right and reject what is wrong.

use quorate_sim::checkers::{linearizable, witness};
use quorate_sim::history::{
    Call, Change, ClientId, Found, History, Key, Moment, Operation, Outcome, Recall, Revision,
    Value,
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
        self.add(
            times,
            Call::Swap { key: Key(1), expected, value: Value(value), also: None },
            outcome,
        )
    }

    /// A transaction: register 1 from what is expected to a value, and another register with it.
    fn pair(
        self,
        times: (usize, u64, u64),
        values: (Option<u64>, u64),
        also: (u32, u64),
        outcome: Outcome,
    ) -> Book {
        let (expected, value) = (values.0.map(Value), Value(values.1));
        let also = Some((Key(also.0), Value(also.1)));
        self.add(times, Call::Swap { key: Key(1), expected, value, also }, outcome)
    }

    fn delete(self, times: (usize, u64, u64), key: u32, outcome: Outcome) -> Book {
        self.add(times, Call::Delete { key: Key(key) }, outcome)
    }

    fn deleted(self, times: (usize, u64, u64), key: u32, revision: u64) -> Book {
        self.delete(times, key, Outcome::Deleted(Revision(revision), true))
    }

    fn scan(
        self,
        times: (usize, u64, u64),
        range: (u32, u32),
        at: u64,
        held: &[(u32, Option<Found>)],
    ) -> Book {
        let held = held.iter().filter_map(|(key, found)| Some((Key(*key), (*found)?)));
        let call = Call::Scan { first: Key(range.0), end: Key(range.1) };
        self.add(times, call, Outcome::Scanned(Revision(at), held.collect()))
    }

    fn change(mut self, revision: u64, writes: &[(u32, Option<u64>)]) -> Book {
        let writes = writes.iter().map(|(key, value)| (Key(*key), value.map(Value))).collect();
        self.0.changes.push(Change { revision: Revision(revision), writes });
        self
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

/// The search must not try every set of them: it would give up, which is no verdict.
#[test]
fn a_stale_read_beside_many_deletes_of_unknown_outcome_is_judged() {
    let mut book = Book::default();
    for client in 2..32 {
        book = book.add((client, 0, 99), Call::Delete { key: Key(1) }, Outcome::Unknown);
    }
    let book = book.written((0, 1, 2), 1, 5, 1).written((0, 3, 4), 1, 6, 2);
    let history = book.get((1, 5, 6), 1, 2, found(5, 1)).0;
    let judged = linearizable::check(&history).map_err(|violation| violation.seen);
    assert!(judged.clone().is_err_and(|seen| seen.contains("has no legal order")), "{judged:?}");
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
        .add((3, 4, 9), Call::SCAN_ALL, Outcome::Scanned(Revision(3), all))
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

#[test]
fn deletes_and_transactions_and_ranges_in_order_are_right() {
    Book::default()
        .pair((1, 0, 1), (None, 10), (2, 20), Outcome::Written(Revision(2)))
        .scan((2, 2, 3), (1, 3), 2, &[(1, found(10, 2)), (2, found(20, 2))])
        .deleted((1, 4, 5), 1, 3)
        .get((2, 6, 7), 1, 3, None)
        .delete((1, 8, 9), 1, Outcome::Deleted(Revision(3), false))
        .scan((2, 10, 11), (2, 3), 3, &[(2, found(20, 2))])
        .pair((1, 12, 13), (Some(10), 11), (2, 21), Outcome::NotWritten(Revision(3), None))
        .add((1, 14, 15), Call::Compact { revision: Revision(3) }, Outcome::Compacted(Revision(3)))
        .right();
}

#[test]
fn a_delete_of_unknown_outcome_may_have_happened_or_not() {
    let begun =
        || Book::default().written((1, 0, 1), 1, 10, 2).delete((2, 2, 3), 1, Outcome::Unknown);
    begun().get((1, 4, 5), 1, 2, found(10, 2)).right();
    begun().get((1, 4, 5), 1, 3, None).right();
    begun().change(3, &[(1, None)]).get((1, 4, 5), 1, 3, None).right();
    begun().change(3, &[(1, None)]).get((1, 4, 5), 1, 3, found(10, 2)).wrong_by_witness();
}

/// The delete that was called first ended last: it is the one that can have happened before the read.
#[test]
fn of_two_deletes_of_unknown_outcome_the_one_called_first_may_have_happened() {
    let begun = || {
        Book::default().written((1, 0, 1), 1, 10, 2).get((3, 4, 5), 2, 3, None).delete(
            (4, 6, 7),
            1,
            Outcome::Unknown,
        )
    };
    begun().delete((2, 2, 8), 1, Outcome::Unknown).change(3, &[(1, None)]).right();
    begun().delete((2, 7, 8), 1, Outcome::Unknown).change(3, &[(1, None)]).wrong_by_witness();
}

#[test]
fn a_register_that_is_not_empty_after_its_delete_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .deleted((1, 2, 3), 1, 3)
        .get((2, 4, 5), 1, 3, found(10, 2))
        .wrong();
}

#[test]
fn a_register_that_empties_itself_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .get((2, 2, 3), 1, 2, found(10, 2))
        .get((2, 4, 5), 1, 3, None)
        .wrong();
}

#[test]
fn a_delete_that_found_nothing_where_something_stood_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .delete((2, 2, 3), 1, Outcome::Deleted(Revision(2), false))
        .wrong();
}

#[test]
fn a_delete_that_emptied_an_empty_register_is_wrong() {
    Book::default().deleted((1, 0, 1), 1, 2).wrong();
}

#[test]
fn two_deletes_of_one_value_are_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .deleted((2, 2, 9), 1, 3)
        .deleted((3, 2, 9), 1, 4)
        .wrong();
}

#[test]
fn half_a_transaction_is_wrong() {
    Book::default()
        .pair((1, 0, 1), (None, 10), (2, 20), Outcome::Written(Revision(2)))
        .scan((2, 2, 3), (1, 3), 2, &[(1, found(10, 2))])
        .wrong();
}

#[test]
fn a_transaction_in_two_revisions_is_wrong() {
    Book::default()
        .pair((1, 0, 1), (None, 10), (2, 20), Outcome::Written(Revision(2)))
        .get((2, 2, 3), 1, 3, found(10, 2))
        .get((2, 4, 5), 2, 3, found(20, 3))
        .wrong_by_witness();
}

#[test]
fn the_other_half_of_a_transaction_that_was_not_carried_out_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .pair((1, 2, 3), (None, 11), (2, 20), Outcome::NotWritten(Revision(2), found(10, 2)))
        .get((2, 4, 5), 2, 3, found(20, 3))
        .wrong();
}

#[test]
fn a_range_that_shows_what_lies_outside_of_it_or_leaves_out_what_lies_inside_is_wrong() {
    let written = || Book::default().written((1, 0, 1), 1, 10, 2).written((1, 2, 3), 2, 20, 3);
    written().scan((2, 4, 5), (1, 2), 3, &[(1, found(10, 2))]).right();
    written().scan((2, 4, 5), (1, 3), 3, &[(2, found(20, 3))]).wrong();
}

#[test]
fn a_change_that_nobody_asked_for_is_wrong() {
    Book::default().written((1, 0, 1), 1, 10, 2).change(3, &[(1, None)]).wrong_by_witness();
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .put((2, 2, 3), 1, 11, Outcome::Unknown)
        .change(3, &[(1, Some(11)), (2, None)])
        .wrong_by_witness();
}

#[test]
fn a_write_of_unknown_outcome_that_happened_twice_is_wrong() {
    let begun = Book::default().put((1, 0, 1), 1, 10, Outcome::Unknown);
    begun.change(2, &[(1, Some(10))]).change(3, &[(1, Some(10))]).wrong_by_witness();
}

#[test]
fn a_compaction_that_saw_less_than_an_earlier_write_is_wrong() {
    Book::default()
        .written((1, 0, 1), 1, 10, 2)
        .written((1, 2, 3), 1, 11, 3)
        .add((2, 4, 5), Call::Compact { revision: Revision(2) }, Outcome::Compacted(Revision(2)))
        .wrong_by_witness();
}

#[test]
fn an_answer_to_another_question_is_wrong() {
    Book::default().delete((1, 0, 1), 1, Outcome::Written(Revision(2))).wrong_by_witness();
}

mod members {
    //! Histories of members.

    use quorate_consensus::{Metrics, PeerStatus, RoleName, Status};
    use quorate_sim::checkers::Violation;
    use quorate_sim::checkers::configuration::Configurations;
    use quorate_sim::network::ProcessId;
    use quorate_types::{
        AppliedMembers, Configuration, Epoch, GroupId, Incarnation, Index, Intent, Member, NodeId,
        Position,
    };

    /// The voters, and those of the configuration before in a joint one.
    fn configuration(voters: &[u64], outgoing: &[u64]) -> Configuration {
        let ids = voters.iter().chain(outgoing).copied();
        let member = |id: u64| Member {
            incarnation: Incarnation(id),
            name: format!("n{id}"),
            peer_address: format!("n{id}:1"),
            voter: voters.contains(&id),
            outgoing_voter: outgoing.contains(&id),
            intent: Intent::Stay,
        };
        let members = ids.map(|id| (NodeId(id), member(id))).collect();
        Configuration { members, removed_max: NodeId(0) }
    }

    /// The committed configurations in order, from index 1 on, ten apart.
    fn committed(steps: &[Configuration]) -> Result<Configurations, Violation> {
        let mut configurations = Configurations::default();
        for (place, step) in steps.iter().enumerate() {
            configurations.on_committed(Index(1 + 10 * place as u64), step.clone())?;
        }
        Ok(configurations)
    }

    fn check(steps: &[Configuration], legal: bool) {
        assert_eq!(committed(steps).is_ok(), legal, "{steps:?}");
    }

    /// What n1 says that leads, with what it takes for committed and what n2 and n3 have acknowledged.
    fn leader(of: &Configuration, committed: u64, matched: [u64; 2]) -> Status {
        let epoch = Epoch::new(3, NodeId(1));
        let peer = |matched: u64| PeerStatus {
            matched: Index(matched),
            next: Index(matched + 1),
            in_flight_size: 0,
            snapshot: false,
            last_contact: None,
            link_up: true,
        };
        let peers = [(NodeId(2), peer(matched[0])), (NodeId(3), peer(matched[1]))];
        Status {
            group: GroupId(0),
            node: NodeId(1),
            role: RoleName::Leader,
            epoch,
            leader: Some(NodeId(1)),
            last: Position::new(Index(99), epoch),
            durable: Index(99),
            committed: Index(committed),
            applied: Index(1),
            synced: Index(1),
            configuration: of.clone(),
            peers: peers.into_iter().collect(),
            why_not: None,
            metrics: Metrics::default(),
        }
    }

    const N1: ProcessId = ProcessId(0);

    #[test]
    fn steps_whose_quorums_meet_are_right() {
        let three = configuration(&[1, 2, 3], &[]);
        let joint = configuration(&[1, 4, 5], &[1, 2, 3]);
        check(&[three.clone(), joint, configuration(&[1, 4, 5], &[])], true);
        check(&[three.clone(), configuration(&[1, 2, 3, 4], &[])], true);
        check(&[three.clone(), three], true);
    }

    #[test]
    fn voters_that_are_exchanged_without_a_joint_step_are_wrong() {
        let three = configuration(&[1, 2, 3], &[]);
        check(&[three.clone(), configuration(&[1, 2, 4], &[])], false);
        check(&[three.clone(), configuration(&[1, 2, 3, 4, 5], &[])], false);
        check(&[three, configuration(&[4, 5, 6], &[])], false);
    }

    #[test]
    fn a_joint_step_that_forgets_the_former_voters_is_wrong() {
        let three = configuration(&[1, 2, 3], &[]);
        check(&[three.clone(), configuration(&[1, 4, 5], &[1, 4, 5])], false);
        let joint = configuration(&[1, 4, 5], &[1, 2, 3]);
        check(&[three, joint, configuration(&[1, 2, 6], &[])], false);
    }

    #[test]
    fn two_configurations_at_one_index_are_wrong() {
        let three = configuration(&[1, 2, 3], &[]);
        let mut configurations = committed(std::slice::from_ref(&three)).expect("one is right");
        assert_eq!(configurations.on_committed(Index(1), three), Ok(false));
        assert!(configurations.on_committed(Index(1), configuration(&[1, 2], &[])).is_err());
    }

    #[test]
    fn an_id_that_comes_back_after_it_was_removed_is_wrong() {
        let two = Configuration { removed_max: NodeId(3), ..configuration(&[1, 2], &[]) };
        let back = Configuration { removed_max: NodeId(3), ..configuration(&[1, 2, 3], &[]) };
        check(&[two, back], false);
    }

    #[test]
    fn a_leader_changes_members_after_its_own_entry_and_one_step_at_a_time() {
        let three = configuration(&[1, 2, 3], &[]);
        let next = configuration(&[1, 2, 3, 4], &[]);
        let begun = || {
            let mut configurations = committed(std::slice::from_ref(&three)).expect("it is right");
            let status = leader(&three, 5, [0, 0]);
            assert_eq!(configurations.on_role(N1, RoleName::Leader, &status), Ok(()));
            configurations
        };
        let append = |configurations: &mut Configurations, index: u64, committed: u64| {
            let status = leader(&next, committed, [committed, 0]);
            configurations.on_appended(N1, Index(index), &next, &status)
        };
        assert!(append(&mut begun(), 7, 5).is_err(), "nothing of its own is committed");
        let mut configurations = begun();
        assert_eq!(append(&mut configurations, 8, 6), Ok(()));
        assert!(append(&mut configurations, 10, 7).is_err(), "the one at 8 is not committed");
        assert_eq!(append(&mut configurations, 12, 11), Ok(()));
    }

    #[test]
    fn a_leader_without_a_vote_is_wrong() {
        let mut configurations = committed(&[
            configuration(&[1, 2, 3], &[]),
            configuration(&[2, 3, 4], &[1, 2, 3]),
            configuration(&[2, 3, 4], &[]),
        ])
        .expect("they are right");
        let now = configuration(&[2, 3, 4], &[]);
        let lead = |configurations: &mut Configurations, of: &Configuration| {
            configurations.on_role(N1, RoleName::Leader, &leader(of, 5, [0, 0]))
        };
        assert_eq!(lead(&mut configurations, &now), Ok(()), "it may be about to leave");
        let later = configurations.on_committed(Index(41), now.clone());
        assert_eq!(later, Ok(true));
        assert!(lead(&mut configurations, &now).is_err());
    }

    #[test]
    fn what_is_committed_without_a_quorum_is_wrong() {
        let joint = configuration(&[1, 2], &[1, 2, 3]);
        let mut configurations =
            committed(&[configuration(&[1, 2, 3], &[]), joint.clone()]).expect("they are right");
        let begin = leader(&joint, 11, [0, 0]);
        assert_eq!(configurations.on_role(N1, RoleName::Leader, &begin), Ok(()));
        let check = |committed: u64, matched, legal: bool| {
            let status = leader(&joint, committed, matched);
            assert_eq!(configurations.on_status(N1, &status, true).is_ok(), legal, "{matched:?}");
        };
        check(20, [20, 0], true);
        check(20, [19, 20], false);
        check(20, [0, 0], false);
        check(11, [0, 0], true);
        let lost = leader(&joint, 20, [0, 0]);
        assert_eq!(configurations.on_status(N1, &lost, false), Ok(()), "somebody lost something");
    }

    #[test]
    fn members_older_than_what_was_applied_are_wrong() {
        let (first, second) = (configuration(&[1, 2, 3], &[]), configuration(&[1, 2], &[]));
        let joint = configuration(&[1, 2], &[1, 2, 3]);
        let all = [first.clone(), joint.clone(), second.clone()];
        let configurations = committed(&all).expect("they are right");
        // Applied are the one at `place` and everything up to `applied`.
        let check = |in_force: &Configuration, place: usize, applied: u64, legal: bool| {
            let index = Index(1 + 10 * place as u64);
            let members = AppliedMembers { index, configuration: all[place].clone() };
            let status = Status { applied: Index(applied), ..leader(in_force, 40, [0, 0]) };
            assert_eq!(configurations.on_members(&status, &members).is_ok(), legal, "{in_force}");
        };
        check(&second, 2, 40, true);
        check(&joint, 2, 40, false);
        check(&first, 2, 40, false);
        check(&first, 1, 40, false);
        check(&second, 1, 40, true);
        check(&first, 2, 20, true);
    }
}
