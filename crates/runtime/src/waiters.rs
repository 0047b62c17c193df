//! The clients of this node that wait for an answer.

use crate::handle::RequestError;
use quorate_consensus::RefuseReason;
use quorate_node::{Answer, RequestId};
use quorate_types::Index;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Requests that may wait at one time; above it they are refused as busy. Four times as many proposals as an
/// origin's window holds, so that reads find room beside them.
const WAITING_MAX: usize = 16_384;

/// Where an answer goes.
type Promise<T> = oneshot::Sender<Result<T, RequestError>>;

/// Who waits, and for what.
#[derive(Debug)]
pub(crate) enum Waiter<R> {
    /// For the state machine's reply.
    Reply(Promise<R>),
    /// For an index to read at.
    Barrier(Promise<Index>),
    /// For a control request to be taken in.
    Control(Promise<()>),
}

/// An answer on its way, formed under the lock and given outside it.
#[derive(Debug)]
pub(crate) enum Delivery<R> {
    Reply(Promise<R>, Result<R, RequestError>),
    Barrier(Promise<Index>, Result<Index, RequestError>),
    Control(Promise<()>, Result<(), RequestError>),
}

impl<R> Delivery<R> {
    /// Gives the answer; a client that no longer waits misses it.
    pub(crate) fn send(self) {
        match self {
            Delivery::Reply(promise, result) => drop(promise.send(result)),
            Delivery::Barrier(promise, result) => drop(promise.send(result)),
            Delivery::Control(promise, result) => drop(promise.send(result)),
        }
    }
}

/// All that wait, by request.
#[derive(Debug)]
pub(crate) struct Waiters<R>(Mutex<State<R>>);

#[derive(Debug)]
struct State<R> {
    /// The number of the next request.
    next: u64,
    waiting: BTreeMap<RequestId, Waiter<R>>,
    /// Why nobody can wait any more.
    stopped: Option<String>,
}

impl<R> State<R> {
    fn check_room(&self, count: usize) -> Result<(), RequestError> {
        if let Some(reason) = &self.stopped {
            return Err(RequestError::Stopped(reason.clone()));
        }
        if self.waiting.len() + count > WAITING_MAX {
            return Err(RequestError::Refused { reason: RefuseReason::Busy, missing: Vec::new() });
        }
        Ok(())
    }

    fn enter(&mut self, waiter: Waiter<R>) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.waiting.insert(id, waiter);
        id
    }
}

impl<R> Waiters<R> {
    pub(crate) fn new() -> Waiters<R> {
        Waiters(Mutex::new(State { next: 1, waiting: BTreeMap::new(), stopped: None }))
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

    /// Takes all or none of these in and names their requests, under one lock.
    pub(crate) fn enter_all(
        &self,
        waiters: impl ExactSizeIterator<Item = Waiter<R>>,
    ) -> Result<Vec<RequestId>, RequestError> {
        let mut state = self.lock();
        state.check_room(waiters.len())?;
        Ok(waiters.map(|waiter| state.enter(waiter)).collect())
    }

    /// Pairs the state machine's replies with who waits for them, for all under one lock.
    pub(crate) fn replies(
        &self,
        replies: impl Iterator<Item = (RequestId, R)>,
    ) -> Vec<Delivery<R>> {
        let mut state = self.lock();
        replies
            .filter_map(|(id, reply)| match state.waiting.remove(&id)? {
                Waiter::Reply(promise) => Some(Delivery::Reply(promise, Ok(reply))),
                // Only proposals have entries, and only entries have replies.
                Waiter::Barrier(_) | Waiter::Control(_) => None,
            })
            .collect()
    }

    /// Pairs the node's answers with who waits for them.
    pub(crate) fn answers(&self, answers: &mut Vec<(RequestId, Answer)>) -> Vec<Delivery<R>> {
        let mut state = self.lock();
        answers
            .drain(..)
            .filter_map(|(id, answer)| Some(delivery(state.waiting.remove(&id)?, answer)))
            .collect()
    }

    /// Ends every wait, now and from now on.
    pub(crate) fn stop(&self, reason: &str) {
        let mut state = self.lock();
        state.stopped = Some(reason.to_owned());
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        let stopped = || RequestError::Stopped(reason.to_owned());
        for waiter in waiting.into_values() {
            fail(waiter, stopped()).send();
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }
}

fn fail<R>(waiter: Waiter<R>, error: RequestError) -> Delivery<R> {
    match waiter {
        Waiter::Reply(promise) => Delivery::Reply(promise, Err(error)),
        Waiter::Barrier(promise) => Delivery::Barrier(promise, Err(error)),
        Waiter::Control(promise) => Delivery::Control(promise, Err(error)),
    }
}

fn delivery<R>(waiter: Waiter<R>, answer: Answer) -> Delivery<R> {
    match answer {
        Answer::Refused { reason, missing } => {
            fail(waiter, RequestError::Refused { reason, missing })
        }
        Answer::Unknown { missing } => fail(waiter, RequestError::Unknown { missing }),
        Answer::ReadReady { index } => match waiter {
            Waiter::Barrier(promise) => Delivery::Barrier(promise, Ok(index)),
            Waiter::Reply(_) | Waiter::Control(_) => {
                panic!("a read barrier answers only who asked for one")
            }
        },
        Answer::Taken => match waiter {
            Waiter::Control(promise) => Delivery::Control(promise, Ok(())),
            Waiter::Reply(_) | Waiter::Barrier(_) => {
                panic!("a control request answers only who asked for one")
            }
        },
    }
}
