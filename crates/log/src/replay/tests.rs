//! Streams of batches made by hand: what is judged of every hole, contradiction and unreadable place.

use super::*;
use crate::format::{BlockKind, directory_size};
use crate::item::{EntryMark, Extent};
use crate::scan::BadEntry;
use quorate_types::{Configuration, Epoch, HardState, NodeId, Position, SlotFault};

const G: GroupId = GroupId(0);

/// Another group, which nothing happens to.
const OTHER: GroupId = GroupId(5);

fn epoch(number: u64) -> Epoch {
    Epoch::new(number, NodeId(1))
}

fn hard(number: u64) -> HardState {
    HardState { promised: epoch(number), voted_for: None, log_epoch: epoch(number) }
}

fn run(group: GroupId, first: u64, accepted: u64, check: u32) -> Item {
    let (created, accepted) = (epoch(1), epoch(accepted));
    let entries = vec![EntryMark { size: 64, check }];
    Item::Write(WriteRun { group, first: Index(first), created, accepted, offset: 0, entries })
}

/// How a group stands that has a hard state and slots up to `last`.
fn standing(group: GroupId, since: u64, lows: &[(u64, u64)], last: u64) -> Item {
    let lows = lows.iter().map(|(batch, low)| (BatchNumber(*batch), Index(*low))).collect();
    let hard = HardRecord::Known(hard(1));
    let purged = Position::default();
    Item::Standing(Standing {
        group,
        since: BatchNumber(since),
        lows,
        hard,
        purged,
        last: Index(last),
    })
}

/// Batches one after the other, each in a file of its own when it opens one.
#[derive(Default)]
struct Stream {
    segments: Vec<ScannedSegment>,
    last: Option<Header>,
}

impl Stream {
    fn header(&self, number: u64, synced: u64, opening: bool) -> Header {
        let at = self.last.map_or((0, 0), |last| (last.segment.0, last.end()));
        Header {
            kind: BlockKind::Head,
            opening,
            items_size: 0,
            segment: SegmentNumber(at.0 + u64::from(opening)),
            offset: if opening { 0 } else { at.1 },
            batch: BatchNumber(number),
            synced: BatchNumber(synced),
            previous_segment: SegmentNumber(at.0),
            previous_end: at.1,
            previous_chain: self.last.map_or(0, |last| last.chain()),
            items_crc: u32::try_from(number).expect("small"),
            bodies_size: 64,
            total_size: u32::try_from(2 * directory_size(0)).expect("small"),
        }
    }

    fn put(&mut self, header: Header, items: Vec<Item>) -> &mut ScannedBatch {
        if header.opening {
            let (number, size) = (header.segment, 65_536);
            let (batches, proofs) = (Vec::new(), Vec::new());
            let (prepared, lost_end, foreign) = (false, None, false);
            let segment =
                ScannedSegment { number, size, batches, proofs, prepared, lost_end, foreign };
            self.segments.push(segment);
        }
        self.last = Some(header);
        let segment = self.segments.last_mut().expect("the first batch opens one");
        segment.batches.push(ScannedBatch {
            header,
            items: Some(items),
            bad_copy: None,
            bad_entries: Vec::new(),
            configurations: Vec::new(),
            unwritten: false,
        });
        segment.batches.last_mut().expect("one was just put")
    }

    /// The first batch of a segment.
    fn open(&mut self, number: u64, synced: u64, items: Vec<Item>) -> &mut ScannedBatch {
        self.put(self.header(number, synced, true), items)
    }

    /// The next batch, after which the one before is synced.
    fn then(&mut self, number: u64, items: Vec<Item>) -> &mut ScannedBatch {
        self.put(self.header(number, number - 1, false), items)
    }

    /// A batch of which nothing is left.
    fn lose(&mut self, number: u64) {
        self.last = Some(self.header(number, number - 1, false));
    }

    fn prove(&mut self, number: u64, items: Vec<Item>) {
        let proof = Header { kind: BlockKind::Proof, ..self.header(number, number, false) };
        self.segments.last_mut().expect("there is one").proofs.push((proof, items));
    }

    fn replay(&self) -> Replay {
        replay(&self.segments).expect("made of what makes sense")
    }
}

/// A stream whose two groups have a hard state and a slot each; batch 3 is the last.
fn two_groups() -> Stream {
    let mut stream = Stream::default();
    stream.open(1, 0, vec![]);
    stream.then(2, vec![Item::HardState(G, hard(1)), run(G, 1, 1, 7)]);
    stream.then(3, vec![Item::HardState(OTHER, hard(1)), run(OTHER, 1, 1, 8)]);
    stream
}

fn faults(replay: &Replay, group: GroupId) -> Vec<SlotFault> {
    replay.groups[&group].summary().faults
}

fn whats(replay: &Replay) -> Vec<DamageWhat> {
    replay.reports.iter().map(|report| report.what.clone()).collect()
}

fn hole(first: u64, last: u64) -> DamageWhat {
    DamageWhat::Hole { first: BatchNumber(first), last: BatchNumber(last) }
}

#[test]
fn an_undamaged_stream_gives_what_it_says() {
    let mut stream = two_groups();
    stream.then(4, vec![standing(G, 1, &[(2, 1)], 1), run(G, 2, 1, 9)]);
    stream.prove(4, vec![standing(G, 1, &[(2, 1), (4, 2)], 2)]);
    let replay = stream.replay();
    assert_eq!(whats(&replay), []);
    assert_eq!((replay.batch_count, replay.proven, replay.highest.0), (4, BatchNumber(4), 4));
    assert_eq!(replay.groups[&G].bounds().last, Index(2));
}

#[test]
fn every_hole_is_told_and_only_what_it_may_have_changed_is_unknown() {
    let mut stream = two_groups();
    stream.lose(4);
    stream.lose(5);
    let lows = [(2, 1), (4, 2), (5, 3)];
    stream.then(6, vec![standing(G, 1, &lows, 3), standing(OTHER, 1, &[(3, 1)], 1)]);
    stream.lose(7);
    let lows = [(4, 2), (5, 3), (7, 4)];
    stream.then(8, vec![standing(G, 2, &lows, 4), standing(OTHER, 2, &[(3, 1)], 1)]);
    let replay = stream.replay();
    assert_eq!(whats(&replay), [hole(4, 5), hole(7, 7)]);
    let unknown = |index| SlotFault::DamagedUnknown(Index(index));
    assert_eq!(faults(&replay, G), [unknown(2), unknown(3), unknown(4)]);
    assert_eq!(faults(&replay, OTHER), []);
    assert_eq!(replay.groups[&G].hard, HardRecord::Known(hard(1)), "it was restated");
}

#[test]
fn a_hole_that_concerns_nobody_is_told_without_a_group() {
    let mut stream = two_groups();
    stream.lose(4);
    stream.then(5, vec![standing(G, 3, &[], 1)]);
    let replay = stream.replay();
    assert_eq!(whats(&replay), [hole(4, 4)]);
    assert_eq!((replay.reports[0].group, replay.reports[0].index), (None, None));
    assert_eq!([faults(&replay, G), faults(&replay, OTHER)], [[], []]);
}

#[test]
fn a_hole_that_the_next_standings_do_not_reach_back_over_may_have_changed_every_group() {
    let mut stream = two_groups();
    stream.lose(4);
    stream.then(5, vec![standing(G, 4, &[], 1)]);
    let replay = stream.replay();
    assert_eq!(whats(&replay)[..2], [hole(4, 4), hole(4, 4)]);
    let groups: Vec<_> = replay.reports.iter().map(|report| report.group).collect();
    assert_eq!(groups, [Some(G), Some(OTHER), Some(OTHER)]);
    let unknown = [SlotFault::DamagedUnknown(Index(1))];
    assert_eq!([faults(&replay, G), faults(&replay, OTHER)], [unknown, unknown]);
    assert_eq!(replay.groups[&OTHER].hard, HardRecord::Damaged);
    assert_eq!(replay.groups[&G].hard, HardRecord::Known(hard(1)));
    assert_eq!(replay.reports[2].what, DamageWhat::HardState);
}

#[test]
fn what_the_last_proof_says_bounds_a_lost_end() {
    let mut stream = two_groups();
    stream.lose(4);
    stream.prove(4, vec![standing(G, 1, &[(2, 1), (4, 2)], 2)]);
    let replay = stream.replay();
    assert_eq!(whats(&replay), [hole(4, 4)]);
    assert_eq!(faults(&replay, G), [SlotFault::DamagedUnknown(Index(2))]);
    assert_eq!(faults(&replay, OTHER), []);
}

#[test]
fn a_standing_that_contradicts_what_was_read_is_told_of_its_group() {
    let contradiction = |batch| DamageWhat::Contradiction(BatchNumber(batch));
    let mut stream = two_groups();
    stream.then(4, vec![standing(G, 1, &[(2, 1)], 2), standing(OTHER, 1, &[(3, 1)], 1)]);
    let replay = stream.replay();
    assert_eq!(whats(&replay), [contradiction(3)]);
    assert_eq!((replay.reports[0].group, replay.reports[0].index), (Some(G), Some(Index(1))));
    let unknown = |index| SlotFault::DamagedUnknown(Index(index));
    assert_eq!(faults(&replay, G), [unknown(1), unknown(2)]);
    assert_eq!(faults(&replay, OTHER), []);
    let mut stream = two_groups();
    stream.prove(3, vec![standing(G, 1, &[(2, 1)], 2)]);
    assert_eq!(whats(&stream.replay()), [contradiction(3)]);
}

#[test]
fn a_batch_that_does_not_continue_the_one_before_is_told_once() {
    let told = |replay: &Replay| {
        assert_eq!(whats(replay), [DamageWhat::Contradiction(BatchNumber(3))]);
        replay.reports[0].group
    };
    let broken = |items: Vec<Item>| {
        let mut stream = two_groups();
        let header = stream.header(4, 3, false);
        stream.put(Header { previous_chain: header.previous_chain ^ 1, ..header }, items);
        stream.replay()
    };
    assert_eq!(told(&broken(vec![standing(G, 1, &[(2, 1)], 1)])), None);
    assert_eq!(told(&broken(vec![standing(G, 1, &[(2, 1)], 2)])), Some(G));
    // Without a standing it is the chain alone that tells.
    assert_eq!(told(&broken(vec![])), None);
}

#[test]
fn a_lost_hard_state_is_taken_from_the_next_batch_that_restates_it() {
    let restated = |damaged: HardRecord| {
        let mut stream = Stream::default();
        let checkpoint = Checkpoint { group: G, hard: damaged, ..Checkpoint::default() };
        stream.open(1, 0, vec![Item::Checkpoint(checkpoint)]);
        stream.then(2, vec![standing(G, 0, &[], 0)]);
        let replay = stream.replay();
        (replay.groups[&G].hard, replay.reports.len())
    };
    assert_eq!(restated(HardRecord::Damaged), (HardRecord::Known(hard(1)), 0));
    let (hard, report_count) = restated(HardRecord::Known(HardState::default()));
    assert_eq!((hard, report_count), (HardRecord::Known(self::hard(1)), 1), "a contradiction");
}

#[test]
fn what_an_opening_wrote_again_stays_unproven() {
    let mut stream = two_groups();
    stream.open(5, 2, vec![]);
    stream.then(6, vec![]);
    stream.open(7, 6, vec![]);
    let replay = stream.replay();
    let proven = (1..=7).filter(|number| replay.is_proven(BatchNumber(*number)));
    assert_eq!(proven.collect::<Vec<_>>(), [1, 2, 5, 6]);
}

/// Slot 1 in batch 4, unreadable there, over what batch 2 put there.
fn written_again(again: Item) -> Replay {
    let mut stream = two_groups();
    let batch = stream.then(4, vec![again]);
    let what = DamageWhat::Missing;
    batch.bad_entries.push(BadEntry { item: 0, place: 0, offset: 9, what });
    stream.prove(4, vec![]);
    stream.replay()
}

#[test]
fn an_unreadable_entry_is_as_good_as_a_copy_of_the_same_entry_before_it() {
    let replay = written_again(run(G, 1, 1, 7));
    assert_eq!((faults(&replay, G), replay.damage.len()), (vec![], 0));
    assert_eq!(
        (whats(&replay), replay.reports[0].index),
        (vec![DamageWhat::Missing], Some(Index(1)))
    );
    let lost = [SlotFault::DamagedKnown(Position::new(Index(1), epoch(1)))];
    for another in [run(G, 1, 2, 7), run(G, 1, 1, 8)] {
        let replay = written_again(another);
        assert_eq!((faults(&replay, G), replay.damage.len()), (lost.to_vec(), 1));
    }
    // One that is lost itself is no copy.
    let mut stream = two_groups();
    for number in [4, 5] {
        let batch = stream.then(number, vec![run(G, 1, 3, 0)]);
        let what = DamageWhat::Missing;
        batch.bad_entries.push(BadEntry { item: 0, place: 0, offset: 9, what });
    }
    stream.prove(5, vec![]);
    assert_eq!(faults(&stream.replay(), G), lost);
}

#[test]
fn an_unreadable_entry_that_was_purged_is_none() {
    let mut stream = two_groups();
    let purge = Item::Purge(G, Position::new(Index(1), epoch(1)));
    let batch = stream.then(4, vec![purge, run(G, 1, 2, 9)]);
    let what = DamageWhat::Missing;
    batch.bad_entries.push(BadEntry { item: 1, place: 0, offset: 9, what });
    stream.prove(4, vec![]);
    let replay = stream.replay();
    assert_eq!((faults(&replay, G), replay.damage.len()), (vec![], 0));
}

#[test]
fn a_checkpoint_with_more_slots_than_can_be_is_refused() {
    let open = |extents: Vec<(u64, u64)>, unknown: Vec<(u64, u64)>| {
        let place = |(first, count)| (Index(first), count);
        let extent = |(first, count)| Extent {
            first: Index(first),
            count,
            created: epoch(1),
            accepted: epoch(1),
        };
        let checkpoint = Checkpoint {
            group: G,
            configurations: vec![(Index(0), Configuration::default())],
            extents: extents.into_iter().map(extent).collect(),
            unknown: unknown.into_iter().map(place).collect(),
            ..Checkpoint::default()
        };
        let mut stream = Stream::default();
        stream.open(1, 0, vec![Item::Checkpoint(checkpoint)]);
        replay(&stream.segments)
    };
    let replay = open(vec![(1, 2), (5, 1)], vec![(3, 2), (6, 3)]).expect("it makes sense");
    let known = |index| SlotFault::DamagedKnown(Position::new(Index(index), epoch(1)));
    let unknown = |index| SlotFault::DamagedUnknown(Index(index));
    let expected = [1, 2, 5].map(known).into_iter().chain([3, 4, 6, 7, 8].map(unknown));
    let mut expected: Vec<_> = expected.collect();
    expected.sort_by_key(|fault| fault.index());
    assert_eq!(faults(&replay, G), expected);
    for many in [(1, EXTENT_COUNT_MAX + 1), (1, EXTENT_COUNT_MAX + 2), (u64::MAX, 1)] {
        assert!(matches!(open(vec![many], vec![]), Err(OpenError::Structure { .. })), "{many:?}");
        assert!(matches!(open(vec![], vec![many]), Err(OpenError::Structure { .. })), "{many:?}");
    }
}

#[test]
fn a_copy_that_is_damaged_and_not_torn_is_told_with_what_the_batch_changes() {
    let told = |number: u64, unwritten: bool, proven: bool| {
        let mut stream = two_groups();
        for number in 4..=6 {
            stream.then(number, vec![standing(G, 1, &[], number - 3), run(G, number - 2, 1, 9)]);
        }
        let place = usize::try_from(number - 1).expect("small");
        let batch = &mut stream.segments[0].batches[place];
        (batch.bad_copy, batch.unwritten) = (Some(7), unwritten);
        if proven {
            stream.prove(6, vec![]);
        }
        let replay = stream.replay();
        assert_eq!(replay.groups[&G].bounds().last, Index(4), "nothing is lost by it");
        replay.reports.iter().map(|report| (report.offset, report.index)).collect::<Vec<_>>()
    };
    let copy = [(7, Some(Index(3)))];
    assert_eq!(told(5, false, true), copy);
    assert_eq!(told(5, true, true), copy, "it was synced, so it is not torn");
    let last = [(7, Some(Index(4)))];
    assert_eq!(told(6, false, true), last);
    assert_eq!(told(6, false, false), last, "no torn write leaves that");
    assert_eq!(told(6, true, false), []);
    assert_eq!(told(6, true, true), [], "an open found it whole, and wrote it again");
}
