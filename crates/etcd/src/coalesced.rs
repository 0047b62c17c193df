//! A socket that lets what is ready be written together.
//!
//! The answers of one commit become ready at the same moment, each in a task of its own, and many of them belong to one
//! connection. A connection that wrote as soon as the first of them was there would make a system call and a packet of
//! each, for which its client wakes up every time. So what is written is gathered, and a flush waits until the
//! connection has gone once around the scheduler: the tasks that are ready by then have put their answers beside the first.
//!
//! HTTP/2 flushes after each frame that it does not copy into its own buffer (of 1 KiB and more), so one that must not
//! return before the bytes are gone would split the answers again. A flush is therefore answered at once and done in the
//! next turn, or with the next flush: large frames share a write by two.

use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The most bytes that are gathered; more make whoever writes wait for the socket.
const GATHERED_SIZE_MAX: usize = 64 * 1024;

/// The bytes of buffer that a connection keeps when there is nothing to write.
const KEPT_SIZE_MAX: usize = 4 * 1024;

/// A socket that gathers what is written until the connection's next turn.
///
/// It is for connections that flush in each turn, as those of hyper do.
///
/// # Invariants
/// 1. At most one flush between two that reach the socket is put off, and the task is queued again then: everything
///    written is on its way after one more turn, or after a shutdown.
/// 2. `0 <= gone <= gathered.len() <= GATHERED_SIZE_MAX`.
#[derive(Debug)]
pub(crate) struct Coalesced<S> {
    /// The socket.
    socket: S,
    /// What was written since the last flush that reached the socket.
    gathered: Vec<u8>,
    /// How much of it the socket has taken.
    gone: usize,
    /// Whether a flush was put off since then.
    put_off: bool,
}

impl<S> Coalesced<S> {
    /// Gathers what is written to `socket`.
    pub(crate) fn new(socket: S) -> Coalesced<S> {
        Coalesced { socket, gathered: Vec::new(), gone: 0, put_off: false }
    }
}

impl<S: Write + Unpin> Coalesced<S> {
    /// Gives the socket all that was gathered.
    fn write_out(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while self.gone < self.gathered.len() {
            let rest = &self.gathered[self.gone..];
            match ready!(Pin::new(&mut self.socket).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(Error::from(ErrorKind::WriteZero))),
                taken => self.gone += taken,
            }
        }
        self.gathered.clear();
        self.gathered.shrink_to(KEPT_SIZE_MAX);
        self.gone = 0;
        self.put_off = false;
        Poll::Ready(Ok(()))
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

/// Not vectored: HTTP/2 then copies small frames into one buffer, and flushes between large ones only.
impl<S: Write + Unpin> Write for Coalesced<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        if this.gathered.len() == GATHERED_SIZE_MAX {
            ready!(this.write_out(context))?;
        }
        let taken = bytes.len().min(GATHERED_SIZE_MAX - this.gathered.len());
        this.gathered.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if !this.gathered.is_empty() {
            if !this.put_off {
                this.put_off = true;
                // A task that wakes itself is queued behind those that are ready.
                context.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
            ready!(this.write_out(context))?;
        }
        Pin::new(&mut this.socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        ready!(this.write_out(context))?;
        Pin::new(&mut this.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::rt::TokioIo;
    use std::future::poll_fn;
    use std::io::Cursor;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use tokio::io::AsyncReadExt;

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_written_between_two_turns_leaves_together() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let mut socket = Coalesced::new(TokioIo::new(Vec::new()));
        for turn in 1..=3 {
            for bytes in [&b"one "[..], b"two "] {
                let written = Pin::new(&mut socket).poll_write(&mut context, bytes);
                assert!(matches!(written, Poll::Ready(Ok(4))));
                if bytes == b"one " {
                    assert!(Pin::new(&mut socket).poll_flush(&mut context).is_ready());
                    assert_eq!(wakes.0.load(Ordering::Relaxed), turn, "the task is queued again");
                    assert_eq!(socket.socket.inner().len(), 8 * (turn - 1), "put off");
                }
            }
            assert!(Pin::new(&mut socket).poll_flush(&mut context).is_ready());
            assert_eq!(socket.socket.inner().len(), 8 * turn, "gone by the next turn");
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 3);
        assert_eq!(socket.socket.into_inner(), b"one two one two one two ");
    }

    #[tokio::test]
    async fn a_slow_socket_makes_whoever_writes_wait_and_gets_everything_in_order() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let (near, mut far) = tokio::io::duplex(1000);
        let mut socket = Coalesced::new(TokioIo::new(near));
        let writing = async {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let write = poll_fn(|context| Pin::new(&mut socket).poll_write(context, rest));
                rest = &rest[write.await.expect("somebody reads")..];
                assert!(socket.gathered.len() <= GATHERED_SIZE_MAX);
            }
            // A shutdown needs no further turn.
            let shutdown = poll_fn(|context| Pin::new(&mut socket).poll_shutdown(context));
            shutdown.await.expect("somebody reads");
            socket
        };
        let mut received = Vec::new();
        let (socket, read) = tokio::join!(writing, far.read_to_end(&mut received));
        assert_eq!(read.ok(), Some(bytes.len()));
        assert!(received == bytes);
        assert!(socket.gathered.capacity() <= KEPT_SIZE_MAX, "memory is given back");
    }

    #[test]
    fn a_socket_that_takes_nothing_is_an_error() {
        let mut context = Context::from_waker(Waker::noop());
        let mut socket = Coalesced::new(TokioIo::new(Cursor::new(&mut [][..])));
        assert!(Pin::new(&mut socket).poll_write(&mut context, b"lost").is_ready());
        let ended = Pin::new(&mut socket).poll_shutdown(&mut context);
        assert!(matches!(ended, Poll::Ready(Err(error)) if error.kind() == ErrorKind::WriteZero));
    }

    /// A stream that counts how often it is written to.
    struct Counted<S>(S, Arc<AtomicUsize>);

    impl<S: Read + Unpin> Read for Counted<S> {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: ReadBufCursor<'_>,
        ) -> Poll<Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
        }
    }

    impl<S: Write + Unpin> Write for Counted<S> {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_flush(context)
        }

        fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_shutdown(context)
        }
    }

    /// How many writes a connection makes of 64 answers of `size` bytes that become ready at one moment.
    async fn write_count(size: usize) -> usize {
        const ANSWER_COUNT: usize = 64;
        let (near, far) = tokio::io::duplex(1024 * 1024);
        let writes = Arc::new(AtomicUsize::new(0));
        let socket = Coalesced::new(Counted(TokioIo::new(far), Arc::clone(&writes)));
        let moment = Arc::new(tokio::sync::Barrier::new(ANSWER_COUNT));
        let service = hyper::service::service_fn(move |_| {
            let moment = Arc::clone(&moment);
            async move {
                moment.wait().await;
                let body = axum::body::Body::from(vec![0; size]);
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        let serving = crate::connection_builder();
        tokio::spawn(async move { serving.serve_connection(socket, service).await.is_ok() });
        // Windows for everything, since the answers are read one after the other.
        let connecting =
            h2::client::Builder::new().initial_connection_window_size(1 << 20).handshake(near);
        let (mut client, connection): (h2::client::SendRequest<bytes::Bytes>, _) =
            connecting.await.expect("it answers");
        tokio::spawn(async move { connection.await.is_ok() });
        let mut calls = Vec::new();
        for _ in 0..ANSWER_COUNT {
            client = client.ready().await.expect("there is room for all");
            let request = http::Request::new(());
            calls.push(client.send_request(request, true).expect("the connection lives").0);
        }
        for call in calls {
            let mut body = call.await.expect("it is answered").into_body();
            let mut received = 0;
            while let Some(bytes) = body.data().await {
                received += bytes.expect("the connection lives").len();
            }
            assert_eq!(received, size);
        }
        writes.load(Ordering::Relaxed)
    }

    /// Frames of 256 B and more used to be written one by one, so that most gets cost a system call each.
    #[tokio::test]
    async fn answers_of_one_moment_leave_in_few_writes_whatever_their_size() {
        for (size, count_max) in [(16, 16), (300, 16), (1000, 16), (2000, 48)] {
            let count = write_count(size).await;
            assert!(count <= count_max, "64 answers of {size} B in {count} writes");
        }
    }
}
