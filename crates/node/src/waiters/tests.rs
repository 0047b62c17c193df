//! Small cases of who waits.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn waiters() -> Waiters {
    Waiters::new(NodeId(1), Incarnation(7), StartNumber(3), SECOND)
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + SECOND * u32::try_from(seconds).expect("small")
}

fn propose(waiters: &mut Waiters, id: u64) -> Result<(), RefuseReason> {
    waiters.propose(RequestId(id), EntryKind::Command, Bytes::from_static(b"x"), at(10))
}

fn sent(waiters: &mut Waiters, now: Instant) -> Vec<Origin> {
    waiters.take_proposals(now).into_iter().map(|proposal| proposal.origin).collect()
}

fn nobody() -> Vec<String> {
    Vec::new()
}

#[test]
fn origins_begin_at_the_start_number_and_are_kept_when_sent_again() {
    let mut waiters = waiters();
    propose(&mut waiters, 1).expect("room");
    propose(&mut waiters, 2).expect("room");
    let first = sent(&mut waiters, at(0));
    assert_eq!(first[0].sequence, (3 << 40) + 1);
    assert_eq!(first[1].sequence, (3 << 40) + 2);
    assert!(sent(&mut waiters, at(0)).is_empty());
    waiters.resend_all();
    assert_eq!(sent(&mut waiters, at(0)), first);
    assert_eq!(waiters.waiting_for(first[1]), Some(RequestId(2)));
    let stranger = Origin { incarnation: Incarnation(8), ..first[1] };
    assert_eq!(waiters.waiting_for(stranger), None);
}

#[test]
fn what_may_be_in_a_log_is_never_refused() {
    let check = |sendings: u32, refusals: u32, reason, expected: Option<&str>| {
        let mut waiters = waiters();
        propose(&mut waiters, 1).expect("room");
        let mut now = at(0);
        let origin = sent(&mut waiters, now)[0];
        for _ in 1..sendings {
            waiters.resend_all();
            sent(&mut waiters, now);
        }
        let mut answers = Vec::new();
        for _ in 0..refusals {
            answers.extend(waiters.on_refused(now, origin, reason));
        }
        let is_early = !answers.is_empty();
        now = at(10);
        answers.extend(waiters.on_time(now, &nobody));
        assert_eq!(answers.len(), 1, "one answer");
        let found = match &answers[0].1 {
            Answer::Refused { .. } if is_early => "refused at once",
            Answer::Refused { .. } => "refused at the deadline",
            Answer::Unknown { .. } => "unknown",
            Answer::ReadReady { .. } | Answer::Settled(_) | Answer::Taken | Answer::Declined(_) => {
                "other"
            }
        };
        assert_eq!(Some(found), expected, "{sendings} {refusals} {reason:?}");
    };
    check(1, 0, RefuseReason::Busy, Some("unknown"));
    check(1, 1, RefuseReason::Busy, Some("refused at once"));
    check(1, 1, RefuseReason::NotReady, Some("refused at once"));
    check(1, 1, RefuseReason::NoLeader, Some("refused at the deadline"));
    check(1, 1, RefuseReason::Transferring, Some("refused at the deadline"));
    check(2, 1, RefuseReason::Busy, Some("unknown"));
    check(2, 2, RefuseReason::Busy, Some("unknown"));
    check(2, 2, RefuseReason::NotLeader, Some("unknown"));
}

#[test]
fn undecided_sequences_span_less_than_the_window() {
    let mut waiters = waiters();
    for id in 0..ORIGIN_WINDOW {
        propose(&mut waiters, id).expect("room");
    }
    assert_eq!(propose(&mut waiters, ORIGIN_WINDOW), Err(RefuseReason::Busy));
    // One in the middle is no help: the oldest still needs its place.
    waiters.on_applied(Index(5), &[RequestId(9)], &[RequestId(9)], &[]);
    assert_eq!(propose(&mut waiters, ORIGIN_WINDOW), Err(RefuseReason::Busy));
    waiters.on_applied(Index(6), &[RequestId(0)], &[RequestId(0)], &[]);
    assert_eq!(propose(&mut waiters, ORIGIN_WINDOW), Ok(()));
    assert_eq!(waiters.count(), usize::try_from(ORIGIN_WINDOW).expect("small") - 1);
}

#[test]
fn an_apply_whose_reply_is_lost_ends_unknown_and_once() {
    let mut waiters = waiters();
    propose(&mut waiters, 1).expect("room");
    let origin = Some(sent(&mut waiters, at(0))[0]);
    let answers = waiters.on_applied(Index(5), &[RequestId(1)], &[], &[]);
    assert_eq!(answers, vec![(RequestId(1), Answer::Unknown { origin, missing: Vec::new() })]);
    assert_eq!(waiters.on_applied(Index(6), &[RequestId(1)], &[], &[]), Vec::new());
    assert_eq!(waiters.on_time(at(20), &nobody), Vec::new());
    assert_eq!(waiters.next_deadline(true), None);
}

#[test]
fn what_settles_a_proposal_is_one_itself_and_ends_with_its_fate() {
    let mut waiters = waiters();
    propose(&mut waiters, 1).expect("room");
    let origin = sent(&mut waiters, at(0))[0];
    let unknown = Answer::Unknown { origin: Some(origin), missing: Vec::new() };
    assert_eq!(waiters.on_time(at(10), &nobody), vec![(RequestId(1), unknown)]);
    let never_given = Origin { sequence: origin.sequence + 1, ..origin };
    for wrong in [never_given, Origin::NONE] {
        assert!(!waiters.may_exist(wrong), "{wrong}");
    }
    let elsewhere = Origin { node: NodeId(2), ..never_given };
    for (id, target) in [(2, origin), (3, elsewhere)] {
        assert_eq!(waiters.settle(RequestId(id), target, at(20)), Ok(()));
    }
    let proposals = waiters.take_proposals(at(10));
    assert!(proposals.iter().all(|proposal| proposal.kind == EntryKind::Settle));
    let settled = [(RequestId(2), Fate::Never)];
    let answers = waiters.on_applied(Index(5), &[RequestId(2)], &[], &settled);
    assert_eq!(answers, vec![(RequestId(2), Answer::Settled(Fate::Never))]);
    assert_eq!(waiters.on_applied(Index(6), &[RequestId(2)], &[], &settled), Vec::new());
    let unknown = Answer::Unknown { origin: None, missing: Vec::new() };
    assert_eq!(waiters.on_time(at(20), &nobody), vec![(RequestId(3), unknown)]);
    assert_eq!(waiters.count(), 0);
}

#[test]
fn reads_share_a_barrier_and_wait_for_its_index() {
    let mut waiters = waiters();
    waiters.read(RequestId(1), at(10)).expect("room");
    waiters.read(RequestId(2), at(2)).expect("room");
    let id = waiters.take_read(at(0)).expect("due");
    assert_eq!(waiters.take_read(at(0)), None);
    assert_eq!(waiters.on_read_ready(id, Index(7), Index(6)), Vec::new());
    assert_eq!(waiters.on_read_ready(id, Index(7), Index(7)), Vec::new(), "a copy");
    let late = waiters.on_time(at(2), &|| vec!["n2".into()]);
    let unknown = Answer::Unknown { origin: None, missing: vec!["n2".into()] };
    assert_eq!(late, vec![(RequestId(2), unknown)]);
    let ready = waiters.on_applied(Index(7), &[], &[], &[]);
    assert_eq!(ready, vec![(RequestId(1), Answer::ReadReady { index: Index(7) })]);
    assert_eq!(waiters.count(), 0);
}

#[test]
fn a_barrier_that_fails_or_is_not_heard_of_is_asked_for_again() {
    let mut waiters = waiters();
    waiters.read(RequestId(1), at(10)).expect("room");
    let first = waiters.take_read(at(0)).expect("due");
    waiters.on_read_failed(at(0), first);
    assert_eq!(waiters.take_read(at(0)), None, "not at once");
    let second = waiters.take_read(at(1)).expect("after a pause");
    assert_eq!(waiters.on_time(at(3), &nobody), Vec::new());
    let third = waiters.take_read(at(3)).expect("nothing was heard");
    assert_eq!(waiters.on_read_ready(second, Index(1), Index(1)), Vec::new(), "too late");
    assert_eq!(waiters.on_read_ready(third, Index(1), Index(1)).len(), 1);
}

/// Proposes so many bytes, which are one allocation for all.
fn propose_bytes(waiters: &mut Waiters, id: u64, body: Bytes) -> Result<(), RefuseReason> {
    waiters.propose(RequestId(id), EntryKind::Command, body, at(10))
}

#[test]
fn bytes_that_wait_are_bounded() {
    let largest = Bytes::from(vec![0; BODY_SIZE_MAX]);
    let mut waiters = waiters();
    let larger = Bytes::from(vec![0; BODY_SIZE_MAX + 1]);
    assert_eq!(propose_bytes(&mut waiters, 1, larger), Err(RefuseReason::TooLarge));
    let (count, rest) = (WAITING_SIZE_MAX / BODY_SIZE_MAX, WAITING_SIZE_MAX % BODY_SIZE_MAX);
    for id in 0..count as u64 {
        assert_eq!(propose_bytes(&mut waiters, id, largest.clone()), Ok(()));
    }
    let over = propose_bytes(&mut waiters, 900, largest.slice(..rest + 1));
    assert_eq!(over, Err(RefuseReason::Busy));
    assert_eq!(propose_bytes(&mut waiters, 900, largest.slice(..rest)), Ok(()));
    assert_eq!(propose(&mut waiters, 901), Err(RefuseReason::Busy));
    waiters.on_applied(Index(5), &[RequestId(0)], &[RequestId(0)], &[]);
    assert_eq!(propose_bytes(&mut waiters, 901, largest.clone()), Ok(()));
    assert_eq!(propose(&mut waiters, 902), Err(RefuseReason::Busy));
}

#[test]
fn reads_that_wait_are_bounded_beside_the_proposals() {
    let mut waiters = waiters();
    for id in 0..10 {
        propose(&mut waiters, id).expect("room");
    }
    for id in 10..10 + READS_MAX as u64 {
        assert_eq!(waiters.read(RequestId(id), at(10)), Ok(()));
        if id == 10 {
            assert_eq!(waiters.read(RequestId(id), at(10)), Err(RefuseReason::Busy), "twice");
        }
    }
    assert_eq!(waiters.read(RequestId(900_000), at(10)), Err(RefuseReason::Busy));
    assert_eq!(waiters.give_up_all().len(), 10 + READS_MAX);
    assert_eq!(waiters.count(), 0);
}

#[test]
fn what_is_not_heard_of_is_sent_again_after_longer_and_longer() {
    let mut waiters = waiters();
    let body = Bytes::from_static(b"x");
    waiters.propose(RequestId(1), EntryKind::Command, body, at(900)).expect("room");
    let mut now = at(0);
    for pause in [1, 2, 4, 8, 16, 32, 32, 32] {
        assert_eq!(sent(&mut waiters, now).len(), 1);
        let due = waiters.next_deadline(true).expect("it is to be sent again");
        assert_eq!(due, now + SECOND * pause);
        assert_eq!(waiters.on_time(due, &nobody), Vec::new());
        now = due;
    }
    assert_eq!(sent(&mut waiters, now).len(), 1);
    assert_eq!(waiters.on_time(at(900), &nobody).len(), 1);
    assert_eq!(waiters.next_deadline(true), None);
}

#[test]
fn an_answer_or_another_leader_ends_the_growth_of_waits() {
    let check = |what: fn(&mut Waiters, Origin)| {
        let mut waiters = waiters();
        propose(&mut waiters, 1).expect("room");
        let mut now = at(0);
        let mut send = |waiters: &mut Waiters, expected: Duration| {
            let origin = sent(waiters, now)[0];
            let due = waiters.next_deadline(true).expect("it is to be sent again");
            assert_eq!(due, now + expected);
            assert_eq!(waiters.on_time(due, &nobody), Vec::new());
            now = due;
            origin
        };
        send(&mut waiters, SECOND);
        let origin = send(&mut waiters, 2 * SECOND);
        what(&mut waiters, origin);
        send(&mut waiters, SECOND);
        send(&mut waiters, 2 * SECOND);
    };
    check(|waiters, _| waiters.resend_all());
    check(|waiters, origin| {
        for reason in [RefuseReason::Transferring, RefuseReason::NotLeader] {
            assert_eq!(waiters.on_refused(at(0), origin, reason), None);
        }
    });
}

#[test]
fn what_was_refused_for_now_pauses_and_is_due_only_while_there_is_a_leader() {
    let mut waiters = waiters();
    propose(&mut waiters, 1).expect("room");
    waiters.read(RequestId(2), at(10)).expect("room");
    let origin = sent(&mut waiters, at(0))[0];
    let stranger = Origin { incarnation: Incarnation(8), ..origin };
    assert_eq!(waiters.on_refused(at(0), stranger, RefuseReason::Busy), None);
    let other = Origin { node: NodeId(9), ..origin };
    assert_eq!(waiters.on_refused(at(0), other, RefuseReason::Busy), None);
    assert_eq!(waiters.count(), 2);
    assert_eq!(waiters.on_refused(at(0), origin, RefuseReason::NotLeader), None);
    let due = at(0) + RETRY_INTERVAL;
    assert_eq!(waiters.next_deadline(true), Some(due));
    assert_eq!(waiters.next_deadline(false), Some(at(1)), "no leader to send it to");
    let early = at(0) + RETRY_INTERVAL / 2;
    assert_eq!(sent(&mut waiters, early), []);
    assert_eq!(sent(&mut waiters, due), [origin]);

    let read = waiters.take_read(at(0)).expect("due");
    waiters.on_read_failed(at(0), read);
    let due = at(0) + RETRY_INTERVAL;
    assert_eq!(waiters.next_deadline(true), Some(due));
    assert!(waiters.next_deadline(false) > Some(due));
    assert_eq!(waiters.take_read(early), None);
    assert!(waiters.take_read(due).is_some());
    // Nothing waits to be sent: no pause is due.
    assert!(waiters.next_deadline(true) > Some(due));
}
