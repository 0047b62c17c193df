//! The thread that runs a group's state machine, and its helper that syncs.
//!
//! Its queue is bounded by the node, which keeps one request of each kind in flight beside applies, and by
//! the replica, which stops taking proposals when too much is committed and not applied.

use crate::inbound::{Inbound, Inbox, Replier};
use crate::metrics::Counters;
use crate::queue::{Drained, Queue, Then};
use crate::spin::Spin;
use crate::waiters::Waiters;
use quorate_node::{CommittedFor, MachineDone, MachineRequest, NodeInput, RequestId};
use quorate_types::{
    Applied, ApplyFault, GroupId, InstallFault, SnapshotSource, StateMachine, Syncer,
};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// Where a machine reports to.
pub(crate) struct Reports<R> {
    pub(crate) group: GroupId,
    pub(crate) queue: Arc<Inbox>,
    pub(crate) waiters: Arc<Waiters<R>>,
    pub(crate) replier: Replier,
    pub(crate) counters: Arc<Counters>,
}

impl<R> Reports<R> {
    fn done(&self, done: MachineDone) {
        self.queue.push(Inbound::Node(NodeInput::Machine { group: self.group, done }));
    }

    /// As [`Reports::done`] for what the node's thread need not wake for, unless it waits for that.
    fn applied(&self, done: MachineDone) {
        self.queue.push_quietly(Inbound::Node(NodeInput::Machine { group: self.group, done }));
    }
}

/// A state machine that runs.
#[derive(Debug)]
pub(crate) struct MachineThreads {
    pub(crate) requests: Arc<Queue<MachineRequest>>,
    apply: JoinHandle<()>,
}

impl MachineThreads {
    /// Starts the threads; `name` distinguishes them in lists of threads. The one that applies waits for more as `spin`
    /// says.
    pub(crate) fn start<M: StateMachine + 'static>(
        name: &str,
        machine: M,
        reports: Reports<M::Reply>,
        spin: Spin,
    ) -> std::io::Result<MachineThreads> {
        let requests = Arc::new(Queue::new());
        let syncs = Arc::new(Queue::new());
        let reports = Arc::new(reports);
        let (waiting, to) = (Arc::clone(&syncs), Arc::clone(&reports));
        let syncing = std::thread::Builder::new()
            .name(format!("{name}-sync"))
            .spawn(move || run_syncs(&waiting, &to))?;
        let waiting = Arc::clone(&requests);
        let apply = std::thread::Builder::new().name(format!("{name}-apply")).spawn(move || {
            let panicked = PanicReport(Arc::clone(&reports));
            let worker =
                Worker { machine, reports, syncs: Arc::clone(&syncs), captured: None, spin };
            worker.run(&waiting);
            syncs.close();
            // A sync in progress ends by itself; the machine must not be gone before it.
            drop(syncing.join());
            drop(panicked);
        })?;
        Ok(MachineThreads { requests, apply })
    }

    /// Does what waits, then ends the threads.
    pub(crate) fn stop(self) {
        self.requests.close();
        // A thread that panicked has said so; there is nothing left to save here.
        drop(self.apply.join());
    }
}

/// Stops the node when its state machine panics, where that does not end the process.
struct PanicReport<R>(Arc<Reports<R>>);

impl<R> Drop for PanicReport<R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the state machine panicked".to_owned();
            self.0.done(MachineDone::Failed(ApplyFault::Engine(reason)));
        }
    }
}

fn run_syncs<R>(syncs: &Queue<(Syncer, Applied)>, reports: &Reports<R>) {
    let mut waiting = Vec::new();
    while syncs.drain(&mut waiting, &mut Spin::never()) {
        // One sync covers everything applied before it, so the latest request stands for all that wait.
        if let Some((syncer, applied)) = waiting.drain(..).next_back() {
            let begin = Instant::now();
            let result = syncer();
            reports.counters.engine_sync.observe(begin.elapsed());
            reports.done(match result {
                Ok(()) => MachineDone::Synced(applied),
                Err(fault) => MachineDone::Failed(fault),
            });
        }
    }
}

struct Worker<M: StateMachine> {
    machine: M,
    reports: Arc<Reports<M::Reply>>,
    syncs: Arc<Queue<(Syncer, Applied)>>,
    /// The view that is being streamed.
    captured: Option<Box<dyn SnapshotSource>>,
    /// How it waits for more.
    spin: Spin,
}

impl<M: StateMachine> Worker<M> {
    fn run(mut self, requests: &Queue<MachineRequest>) {
        let mut waiting = Vec::new();
        let mut tends = true;
        loop {
            if tends {
                // Only when there is nothing else to do.
                tends = match requests.take(&mut waiting, Then::GoOn) {
                    Drained::Closed => return,
                    Drained::Items => true,
                    Drained::Nothing => match self.machine.tend() {
                        Ok(more) => more,
                        Err(fault) => {
                            self.reports.done(MachineDone::Failed(fault));
                            requests.close();
                            return;
                        }
                    },
                };
            } else if requests.drain(&mut waiting, &mut self.spin) {
                tends = true;
            } else {
                return;
            }
            for request in waiting.drain(..) {
                if self.execute(request).is_err() {
                    requests.close();
                    return;
                }
            }
        }
    }

    /// Does one thing; fails when the machine must not be used any more, which was then reported.
    fn execute(&mut self, request: MachineRequest) -> Result<(), ()> {
        let done = match request {
            MachineRequest::Apply(entries) => return self.apply(entries),
            MachineRequest::Sync => {
                self.syncs.push((self.machine.syncer(), self.machine.applied()));
                return Ok(());
            }
            MachineRequest::Capture => MachineDone::Captured(self.machine.capture().map(|view| {
                let applied = view.applied();
                self.captured = Some(view);
                applied
            })),
            MachineRequest::NextChunk => MachineDone::Chunk(match &mut self.captured {
                Some(view) => view.next_chunk(),
                None => Err(ApplyFault::Engine("no view is captured".to_owned())),
            }),
            MachineRequest::DropCapture => {
                self.captured = None;
                return Ok(());
            }
            MachineRequest::StageBegin(name) => match self.machine.stage_begin(&name) {
                Ok(()) => return Ok(()),
                Err(fault) => MachineDone::Staged(Err(fault)),
            },
            MachineRequest::StageChunk(chunk) => {
                MachineDone::ChunkStaged(self.machine.stage_chunk(chunk))
            }
            MachineRequest::StageFinish => MachineDone::Staged(self.machine.stage_finish()),
            MachineRequest::Install => MachineDone::Installed(self.install()),
        };
        self.reports.done(done);
        Ok(())
    }

    fn install(&mut self) -> Result<Applied, InstallFault> {
        self.captured = None;
        self.machine.install()
    }

    fn apply(&mut self, entries: Vec<CommittedFor>) -> Result<(), ()> {
        let begin = Instant::now();
        let count = entries.len();
        let settling: Vec<_> = entries.iter().filter_map(CommittedFor::settles).collect();
        let mut requests: Vec<Option<RequestId>> = Vec::with_capacity(count);
        let committed: Vec<_> = entries
            .into_iter()
            .map(|entry| {
                requests.push(entry.request);
                entry.committed
            })
            .collect();
        let replies = match self.machine.apply(&committed) {
            Ok(replies) => replies,
            Err(fault) => {
                self.reports.done(MachineDone::Failed(fault));
                return Err(());
            }
        };
        assert_eq!(replies.len(), count, "one reply for each entry");
        let replies: Vec<_> = requests
            .into_iter()
            .zip(replies)
            .filter_map(|(request, reply)| Some((request?, reply?)))
            .collect();
        let answered = replies.iter().map(|(request, _)| *request).collect();
        self.reports.counters.apply.observe(begin.elapsed());
        self.reports.counters.applied_count.add(count);
        let fate = |(request, origin)| (request, self.machine.fate(origin));
        let settled = settling.into_iter().map(fate).collect();
        let applied = self.machine.applied();
        self.reports.applied(MachineDone::Applied { applied, answered, settled });
        let deliveries = self.reports.waiters.replies(replies.into_iter());
        self.reports.replier.deliver(deliveries);
        Ok(())
    }
}
