//! A socket that lets what is ready be written together.
//!
//! The answers of one commit become ready at the same moment, each in a task of its own, and many of them belong to one
//! connection. A connection that wrote as soon as the first of them was there would make a system call and a packet of
//! each, for which its client wakes up every time. So the connection goes once around the scheduler before it
//! writes: the tasks that are ready by then have put their answers beside the first.

use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A socket whose writes stand back once behind what is ready.
///
/// # Invariants
/// 1. A write stands back at most once between two flushes, so everything written is on its way after one more turn.
#[derive(Debug)]
pub(crate) struct Coalesced<S> {
    /// The socket.
    socket: S,
    /// Whether the writes since the last flush have stood back.
    stood_back: bool,
}

impl<S> Coalesced<S> {
    pub(crate) fn new(socket: S) -> Coalesced<S> {
        Coalesced { socket, stood_back: false }
    }

    /// Goes once around the scheduler.
    fn stand_back(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.stood_back {
            return Poll::Ready(());
        }
        self.stood_back = true;
        // A task that wakes itself is queued behind those that are ready.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: Read + Unpin> Read for Coalesced<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(context, buffer)
    }
}

impl<S: Write + Unpin> Write for Coalesced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        ready!(this.stand_back(context));
        Pin::new(&mut this.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        ready!(this.stand_back(context));
        Pin::new(&mut this.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.socket).poll_flush(context))?;
        this.stood_back = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::rt::TokioIo;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_write_stands_back_once_between_two_flushes() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let mut socket = Coalesced::new(TokioIo::new(Vec::new()));
        let mut write = |socket: &mut Coalesced<TokioIo<Vec<u8>>>, bytes: &[u8]| {
            Pin::new(socket).poll_write(&mut context, bytes).map(|written| written.ok())
        };
        for turn in 1..=3 {
            assert_eq!(write(&mut socket, b"one "), Poll::Pending);
            assert_eq!(wakes.0.load(Ordering::Relaxed), turn, "whoever stands back is woken");
            assert_eq!(write(&mut socket, b"one "), Poll::Ready(Some(4)));
            assert_eq!(write(&mut socket, b"two "), Poll::Ready(Some(4)));
            let mut context = Context::from_waker(&waker);
            assert!(Pin::new(&mut socket).poll_flush(&mut context).is_ready());
        }
        assert_eq!(socket.socket.into_inner(), b"one two one two one two ");
    }

    /// As the door does it: the answers of many tasks that become ready at one moment are on one connection.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_becomes_ready_together_is_written_together() {
        const ANSWERS: usize = 50;
        let (answers, mut queue) = tokio::sync::mpsc::unbounded_channel::<()>();
        let connection = tokio::spawn(async move {
            let mut socket = Coalesced::new(TokioIo::new(Vec::new()));
            let (mut pending, mut writes) = (0, Vec::new());
            std::future::poll_fn(|context| {
                while let Poll::Ready(Some(())) = queue.poll_recv(context) {
                    pending += 1;
                }
                while pending > 0 {
                    let written = Pin::new(&mut socket).poll_write(context, &vec![0; pending]);
                    if written.is_pending() {
                        return Poll::Pending;
                    }
                    writes.push(std::mem::take(&mut pending));
                    assert!(Pin::new(&mut socket).poll_flush(context).is_ready());
                }
                let is_done = writes.iter().sum::<usize>() == ANSWERS;
                if is_done { Poll::Ready(std::mem::take(&mut writes)) } else { Poll::Pending }
            })
            .await
        });
        // All on the one worker, one after the other.
        tokio::spawn(async move {
            for _ in 0..ANSWERS {
                let answers = answers.clone();
                tokio::spawn(async move { answers.send(()) });
            }
        });
        let writes = connection.await.expect("it does not panic");
        assert!(writes.len() <= 3, "{ANSWERS} answers in the writes {writes:?}");
    }
}
