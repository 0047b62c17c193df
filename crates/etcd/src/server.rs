//! The client port: gRPC and plain HTTP, told apart by how a connection begins.
//!
//! A connection that sends garbage is closed and nothing else happens. Everything that a client can make grow
//! has a bound: connections, streams, headers, windows, messages.

use crate::coalesced::Coalesced;
use crate::door::{Door, REQUEST_OVERHEAD_MAX, REQUEST_SIZE_MAX};
use crate::http_routes;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::health::health_server::HealthServer;
use crate::replica::Replica;
use axum::Router;
use axum::routing::future::RouteFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use quorate_runtime::warn_outside;
use quorate_store::engine::Engine;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;

/// The most connections at once. One more is closed at once, so that a client tries another member.
const CONNECTION_COUNT_MAX: usize = 4096;

/// The most streams of one connection at once; a client's next one waits until one ends.
const STREAM_COUNT_MAX: u32 = 1024;

/// The most bytes of one stream that are received before anybody reads them: half of the largest request.
const STREAM_WINDOW_SIZE: u32 = 1024 * 1024;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW_SIZE: u32 = 4 * 1024 * 1024;

/// The most bytes of one request's headers. Tokens are what is large in them.
const HEADER_SIZE_MAX: usize = 16 * 1024;

/// How long a connection may say nothing at first, and an HTTP/1 client take for its headers.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a silent HTTP/2 client is left alone before it is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(60);

/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long connections may take to finish what they do when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait after the system refused to accept, which mostly means that it lacks file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the API on `listener` until `shutdown` resolves; then lets running requests end, for a bounded time.
///
/// # Errors
/// When the listener has no address any more, which means that it is no listener.
pub async fn serve<R: Replica, E: Engine>(
    listener: TcpListener,
    door: Door<R, E>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_with(listener, door, Router::new(), shutdown).await
}

/// As [`serve`], with more pages on the same port: those of an admin API.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with<R: Replica, E: Engine>(
    listener: TcpListener,
    door: Door<R, E>,
    pages: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let gate = Gate::new(door, pages);
    let builder = connection_builder();
    let permits = Arc::new(Semaphore::new(CONNECTION_COUNT_MAX));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    tracing::info!(%address, "the etcd door is open");
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn_outside(format_args!("a client's connection was not accepted: {error}"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => {
                let (gate, builder, stopped) = (gate.clone(), builder.clone(), stopped.clone());
                connections.spawn(converse(stream, gate, builder, stopped, permit));
            }
            Err(_) => warn_outside(format_args!(
                "{CONNECTION_COUNT_MAX} connections of clients are open; another was closed"
            )),
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let drained =
        timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::debug!(count = connections.len(), "connections were cut off");
    }
    Ok(())
}

/// How connections are spoken to. Public for measurements, which compare like with like.
#[must_use]
pub fn connection_builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_BYTE_TIMEOUT)
        .max_buf_size(HEADER_SIZE_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAM_COUNT_MAX)
        .initial_stream_window_size(STREAM_WINDOW_SIZE)
        .initial_connection_window_size(CONNECTION_WINDOW_SIZE)
        .max_header_list_size(u32::try_from(HEADER_SIZE_MAX).expect("a small constant"))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// How a client's socket is read and written. Public for measurements, which compare like with like.
#[must_use]
pub fn socket(stream: TcpStream) -> impl hyper::rt::Read + hyper::rt::Write + Unpin + Send {
    Coalesced::new(TokioIo::new(stream))
}

/// Serves one connection to its end.
async fn converse<R: Replica, E: Engine>(
    stream: TcpStream,
    gate: Gate<R, E>,
    builder: Builder<TokioExecutor>,
    mut stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    // Without this a small answer could wait for the client's acknowledgement of the one before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    tokio::select! {
        first = timeout(FIRST_BYTE_TIMEOUT, stream.readable()) => {
            if !matches!(first, Ok(Ok(()))) {
                return;
            }
        }
        () = stop(&mut stopped) => return,
    }
    let mut connection = pin!(builder.serve_connection(socket(stream), gate));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a client's connection ended badly");
    }
}

/// Resolves when the server stops.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Where a request goes: to the service that carries the load directly, to all others through a router.
struct Gate<R, E: Engine> {
    kv: KvServer<Door<R, E>>,
    router: Router,
}

impl<R, E: Engine> Clone for Gate<R, E> {
    fn clone(&self) -> Gate<R, E> {
        Gate { kv: self.kv.clone(), router: self.router.clone() }
    }
}

impl<R: Replica, E: Engine> Gate<R, E> {
    fn new(door: Door<R, E>, pages: Router) -> Gate<R, E> {
        let size_max = REQUEST_SIZE_MAX + REQUEST_OVERHEAD_MAX;
        let cluster = ClusterServer::new(door.clone()).max_decoding_message_size(size_max);
        let maintenance = MaintenanceServer::new(door.clone()).max_decoding_message_size(size_max);
        let health = HealthServer::new(door.clone()).max_decoding_message_size(size_max);
        let services = Routes::new(cluster).add_service(maintenance).add_service(health);
        let router = services
            .into_axum_router()
            .merge(http_routes::routes(door.clone()))
            .merge(pages)
            .fallback(http_routes::unknown)
            .with_state(());
        Gate { kv: KvServer::new(door).max_decoding_message_size(size_max), router }
    }
}

impl<R: Replica, E: Engine> hyper::service::Service<Request<Incoming>> for Gate<R, E> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        if request.uri().path().starts_with("/etcdserverpb.KV/") {
            return Answer::Kv(self.kv.clone().call(request));
        }
        Answer::Routed(Box::new(self.router.clone().call(request)))
    }
}

/// The answer on its way.
enum Answer {
    /// From the KV service.
    Kv(Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>),
    /// From anything else.
    Routed(Box<RouteFuture<Infallible>>),
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.get_mut() {
            Answer::Kv(future) => ready!(future.as_mut().poll(context))?,
            Answer::Routed(future) => {
                ready!(Pin::new(future.as_mut()).poll(context))?.map(Body::new)
            }
        };
        Poll::Ready(Ok(as_etcd_says(response)))
    }
}

/// Gives the refusal of an oversized message the code and text that it has in etcd; all else is as it was.
fn as_etcd_says(response: Response<Body>) -> Response<Body> {
    let refused = response.headers().get(Status::GRPC_STATUS).is_some_and(|code| code == "11");
    if !refused {
        return response;
    }
    let oversize = Status::from_header_map(response.headers())
        .and_then(|status| oversize_of(status.message()));
    match oversize {
        Some(size) => {
            let limit = REQUEST_SIZE_MAX + REQUEST_OVERHEAD_MAX;
            let text = format!("grpc: received message larger than max ({size} vs. {limit})");
            Status::new(Code::ResourceExhausted, text).into_http()
        }
        None => response,
    }
}

/// The size that the gRPC library found too large, out of its message.
fn oversize_of(message: &str) -> Option<u64> {
    let rest = message.strip_prefix("Error, decoded message length too large: found ")?;
    rest.split(' ').next()?.parse().ok()
}
