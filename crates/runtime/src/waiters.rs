//! The clients of this node that wait for an answer.

use crate::handle::RequestError;
use quorate_consensus::RefuseReason;
use quorate_node::{Answer, RequestId};
use quorate_types::{Fate, Index, SequenceMap};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Requests that may wait at one time; above it they are refused as busy. Four times as many proposals as an
/// origin's window holds, so that reads find room beside them.
const WAITING_MAX: usize = 16_384;

/// Where an answer goes.
type Promise<T> = oneshot::Sender<Result<T, RequestError>>;

/// Where the answers to a batch of proposals go, all at once.
type BatchPromise<R> = oneshot::Sender<Vec<Result<R, RequestError>>>;

/// Who waits, and for what.
#[derive(Debug)]
pub(crate) enum Waiter<R> {
    /// For the state machine's reply.
    Reply(Promise<R>),
    /// For an index to read at.
    Barrier(Promise<Index>),
    /// For what became of a proposal.
    Fate(Promise<Fate>),
    /// For a control request to be taken in.
    Control(Promise<()>),
}

/// An answer on its way, formed under the lock and given outside it.
#[derive(Debug)]
pub(crate) enum Delivery<R> {
    Reply(Promise<R>, Result<R, RequestError>),
    Batch(BatchPromise<R>, Vec<Result<R, RequestError>>),
    Barrier(Promise<Index>, Result<Index, RequestError>),
    Fate(Promise<Fate>, Result<Fate, RequestError>),
    Control(Promise<()>, Result<(), RequestError>),
}

impl<R> Delivery<R> {
    /// Gives the answer; a client that no longer waits misses it.
    pub(crate) fn send(self) {
        match self {
            Delivery::Reply(promise, result) => drop(promise.send(result)),
            Delivery::Batch(promise, results) => drop(promise.send(results)),
            Delivery::Barrier(promise, result) => drop(promise.send(result)),
            Delivery::Fate(promise, result) => drop(promise.send(result)),
            Delivery::Control(promise, result) => drop(promise.send(result)),
        }
    }
}

/// All that wait, by request.
#[derive(Debug)]
pub(crate) struct Waiters<R>(Mutex<State<R>>);

/// Somebody who waits for the answers to many proposals, whose requests are numbered in a row.
#[derive(Debug)]
struct Batch<R> {
    /// The number of the first request.
    first: u64,
    /// The answers so far.
    results: Vec<Option<Result<R, RequestError>>>,
    /// How many are missing.
    missing: usize,
    promise: BatchPromise<R>,
}

impl<R> Batch<R> {
    /// The place of a request's answer, if it is one of this batch.
    fn place(&self, id: RequestId) -> Option<usize> {
        let place = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        (place < self.results.len()).then_some(place)
    }

    /// Gives all answers; a missing one is `missing`.
    fn end(self, missing: &dyn Fn() -> RequestError) -> Delivery<R> {
        let results = self.results.into_iter();
        let results = results.map(|result| result.unwrap_or_else(|| Err(missing())));
        Delivery::Batch(self.promise, results.collect())
    }
}

#[derive(Debug)]
struct State<R> {
    /// The number of the next request.
    next: u64,
    /// Single requests, by number.
    waiting: SequenceMap<Waiter<R>>,
    /// Batches, in order of number.
    batches: VecDeque<Batch<R>>,
    /// Requests in them that are not answered.
    batched: usize,
    /// Why nobody can wait any more.
    stopped: Option<String>,
}

impl<R> State<R> {
    fn check_room(&self, count: usize) -> Result<(), RequestError> {
        if let Some(reason) = &self.stopped {
            return Err(RequestError::Stopped(reason.clone()));
        }
        if self.waiting.len() + self.batched + count > WAITING_MAX {
            return Err(RequestError::Refused { reason: RefuseReason::Busy, missing: Vec::new() });
        }
        Ok(())
    }

    fn enter(&mut self, waiter: Waiter<R>) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.waiting.insert(id.0, waiter);
        id
    }

    /// Takes the answer to one request of a batch in; gives it back when it is of none. Some delivery comes of the last
    /// one.
    fn answer_batch(
        &mut self,
        id: RequestId,
        result: Result<R, RequestError>,
    ) -> Result<Option<Delivery<R>>, Result<R, RequestError>> {
        let after = self.batches.partition_point(|batch| batch.first <= id.0);
        let number = after.checked_sub(1);
        let found = number.and_then(|number| {
            let place = self.batches[number].place(id)?;
            Some((number, place))
        });
        let Some((number, place)) = found else { return Err(result) };
        let batch = &mut self.batches[number];
        if batch.results[place].is_none() {
            batch.results[place] = Some(result);
            batch.missing -= 1;
            self.batched -= 1;
        }
        if batch.missing > 0 {
            return Ok(None);
        }
        let batch = self.batches.remove(number).expect("it was just found");
        Ok(Some(batch.end(&|| unreachable!("no answer is missing"))))
    }
}

impl<R> Waiters<R> {
    pub(crate) fn new() -> Waiters<R> {
        Waiters(Mutex::new(State {
            next: 1,
            waiting: SequenceMap::default(),
            batches: VecDeque::new(),
            batched: 0,
            stopped: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a waiter in and names its request.
    pub(crate) fn enter(&self, waiter: Waiter<R>) -> Result<RequestId, RequestError> {
        let mut state = self.lock();
        state.check_room(1)?;
        Ok(state.enter(waiter))
    }

    /// Takes in who waits for this many proposals, or refuses them all; gives the number of the first.
    pub(crate) fn enter_batch(
        &self,
        count: usize,
        promise: BatchPromise<R>,
    ) -> Result<RequestId, RequestError> {
        let mut state = self.lock();
        state.check_room(count)?;
        let first = state.next;
        state.next += count as u64;
        state.batched += count;
        let results = std::iter::repeat_with(|| None).take(count).collect();
        state.batches.push_back(Batch { first, results, missing: count, promise });
        Ok(RequestId(first))
    }

    /// Pairs the state machine's replies with who waits for them, for all under one lock.
    pub(crate) fn replies(
        &self,
        replies: impl Iterator<Item = (RequestId, R)>,
    ) -> Vec<Delivery<R>> {
        let mut state = self.lock();
        replies
            .filter_map(|(id, reply)| match state.answer_batch(id, Ok(reply)) {
                Ok(delivery) => delivery,
                Err(reply) => match state.waiting.remove(id.0)? {
                    Waiter::Reply(promise) => Some(Delivery::Reply(promise, reply)),
                    // Only proposals have entries, and only entries have replies.
                    Waiter::Barrier(_) | Waiter::Fate(_) | Waiter::Control(_) => None,
                },
            })
            .collect()
    }

    /// Pairs the node's answers with who waits for them.
    pub(crate) fn answers(&self, answers: &mut Vec<(RequestId, Answer)>) -> Vec<Delivery<R>> {
        let mut state = self.lock();
        answers
            .drain(..)
            .filter_map(|(id, answer)| match state.waiting.remove(id.0) {
                Some(waiter) => Some(delivery(waiter, answer)),
                None => state.answer_batch(id, Err(error_of(answer))).ok().flatten(),
            })
            .collect()
    }

    /// Ends every wait, now and from now on.
    pub(crate) fn stop(&self, reason: &str) {
        let mut state = self.lock();
        state.stopped = Some(reason.to_owned());
        let waiting = std::mem::take(&mut state.waiting);
        let batches = std::mem::take(&mut state.batches);
        state.batched = 0;
        drop(state);
        let stopped = || RequestError::Stopped(reason.to_owned());
        for waiter in waiting.into_values() {
            fail(waiter, stopped()).send();
        }
        for batch in batches {
            batch.end(&stopped).send();
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.batched
    }
}

fn fail<R>(waiter: Waiter<R>, error: RequestError) -> Delivery<R> {
    match waiter {
        Waiter::Reply(promise) => Delivery::Reply(promise, Err(error)),
        Waiter::Barrier(promise) => Delivery::Barrier(promise, Err(error)),
        Waiter::Fate(promise) => Delivery::Fate(promise, Err(error)),
        Waiter::Control(promise) => Delivery::Control(promise, Err(error)),
    }
}

/// What an answer that is no success tells a client.
fn error_of(answer: Answer) -> RequestError {
    match answer {
        Answer::Refused { reason, missing } => RequestError::Refused { reason, missing },
        Answer::Unknown { origin, missing } => RequestError::Unknown { origin, missing },
        Answer::Declined(reason) => RequestError::Declined(reason),
        Answer::ReadReady { .. } | Answer::Settled(_) | Answer::Taken => {
            panic!("a proposal succeeds by the state machine's reply")
        }
    }
}

fn delivery<R>(waiter: Waiter<R>, answer: Answer) -> Delivery<R> {
    match (answer, waiter) {
        (Answer::ReadReady { index }, Waiter::Barrier(promise)) => {
            Delivery::Barrier(promise, Ok(index))
        }
        (Answer::Settled(fate), Waiter::Fate(promise)) => Delivery::Fate(promise, Ok(fate)),
        (Answer::Taken, Waiter::Control(promise)) => Delivery::Control(promise, Ok(())),
        (
            answer @ (Answer::Refused { .. } | Answer::Unknown { .. } | Answer::Declined(_)),
            waiter,
        ) => fail(waiter, error_of(answer)),
        (Answer::ReadReady { .. } | Answer::Settled(_) | Answer::Taken, _) => {
            panic!("an answer is of the kind that was asked for")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> Answer {
        Answer::Unknown { origin: None, missing: Vec::new() }
    }

    #[test]
    fn a_batch_is_answered_once_all_of_it_is() {
        let waiters: Waiters<u8> = Waiters::new();
        let (promise, mut before) = oneshot::channel();
        let single = waiters.enter(Waiter::Reply(promise)).expect("room");
        let (promise, mut answers) = oneshot::channel();
        let first = waiters.enter_batch(3, promise).expect("room");
        assert_eq!(waiters.len(), 4);
        let id = |place: u64| RequestId(first.0 + place);
        let replies = [(id(2), 12), (id(0), 10), (id(3), 99), (id(2), 98), (single, 7)];
        waiters.replies(replies.into_iter()).into_iter().for_each(Delivery::send);
        assert_eq!(before.try_recv(), Ok(Ok(7)));
        assert!(answers.try_recv().is_err(), "one is missing");
        assert_eq!(waiters.len(), 1);
        let mut last = vec![(id(1), unknown())];
        waiters.answers(&mut last).into_iter().for_each(Delivery::send);
        let missing = RequestError::Unknown { origin: None, missing: Vec::new() };
        assert_eq!(answers.try_recv(), Ok(vec![Ok(10), Err(missing), Ok(12)]));
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn a_stop_ends_what_is_left_of_a_batch() {
        let waiters: Waiters<u8> = Waiters::new();
        let (promise, mut answers) = oneshot::channel();
        let first = waiters.enter_batch(2, promise).expect("room");
        waiters.replies([(first, 10)].into_iter()).into_iter().for_each(Delivery::send);
        waiters.stop("gone");
        assert_eq!(answers.try_recv(), Ok(vec![Ok(10), Err(RequestError::Stopped("gone".into()))]));
        let (promise, _) = oneshot::channel();
        assert!(waiters.enter_batch(1, promise).is_err());
    }

    #[test]
    fn a_batch_that_does_not_fit_is_refused_whole() {
        let waiters: Waiters<u8> = Waiters::new();
        let (promise, _kept) = oneshot::channel();
        waiters.enter_batch(WAITING_MAX, promise).expect("room");
        let (promise, _kept) = oneshot::channel();
        assert!(waiters.enter_batch(1, promise).is_err());
    }
}
