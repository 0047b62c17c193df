//! Plain HTTP on the client port: what probes, dashboards and people with `curl` ask.

use crate::door::{Door, ETCD_VERSION};
use crate::metrics;
use crate::replica::Replica;
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use quorate_store::engine::Engine;
use quorate_store::etcd::RangeRequest;
use serde::Serialize;
use std::fmt::Write as _;
use tonic::Status;

/// What `key=value` pairs the client put behind the question mark.
type Parameters = Query<Vec<(String, String)>>;

/// The paths that are not gRPC.
pub(crate) fn routes<R: Replica, E: Engine>(door: Door<R, E>) -> Router {
    Router::new()
        .route("/health", get(health::<R, E>))
        .route("/livez", get(livez::<R, E>))
        .route("/livez/{check}", get(livez_check::<R, E>))
        .route("/readyz", get(readyz::<R, E>))
        .route("/readyz/{check}", get(readyz_check::<R, E>))
        .route("/version", get(version))
        .route("/metrics", get(metrics_text::<R, E>))
        .with_state(door)
}

/// Anything else: a method that this door does not have, or a page that nobody has.
pub(crate) async fn unknown(request: Request) -> Response {
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    let mut path = request.uri().path().rsplitn(2, '/');
    let method = path.next().unwrap_or_default();
    let service = path.next().unwrap_or_default().trim_start_matches('/');
    let text = format!("unknown method {method} for service {service}");
    Status::unimplemented(text).into_http::<axum::body::Body>()
}

/// The answer of `/health`.
#[derive(Debug, Serialize)]
struct Health {
    /// `true` or `false`, as text.
    health: &'static str,
    /// Why it is not.
    reason: String,
}

async fn health<R: Replica, E: Engine>(
    State(door): State<Door<R, E>>,
    Query(parameters): Parameters,
) -> Response {
    let serializable =
        parameters.iter().any(|(name, value)| name == "serializable" && value == "true");
    let reason = if !serializable && door.replica().leader().is_none() {
        Some("RAFT NO LEADER".to_string())
    } else {
        let read = read(&door, serializable).await;
        read.err().map(|error| format!("RANGE ERROR:{}", error.message()))
    };
    let (code, answer) = match reason {
        None => (StatusCode::OK, Health { health: "true", reason: String::new() }),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Health { health: "false", reason }),
    };
    (code, axum::Json(answer)).into_response()
}

/// Reads as a client would, without needing a key to be there.
async fn read<R: Replica, E: Engine>(door: &Door<R, E>, serializable: bool) -> Result<(), Status> {
    door.barrier(serializable, None).await?;
    door.read(RangeRequest { key: "health".into(), ..RangeRequest::default() }).await?;
    Ok(())
}

/// One thing that `/livez` or `/readyz` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// No corruption was found.
    DataCorruption,
    /// The local store can be read.
    SerializableRead,
    /// A quorum confirms reads.
    LinearizableRead,
    /// This member votes, so it may serve everything.
    NonLearner,
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];

const READYZ: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run<R: Replica, E: Engine>(self, door: &Door<R, E>) -> Result<(), String> {
        match self {
            // A node that finds corruption stops; one that answers has found none.
            Check::DataCorruption => Ok(()),
            // A node that waits for its state lives, and must not be ended for it.
            Check::SerializableRead if door.replica().is_awaiting_snapshot() => Ok(()),
            Check::SerializableRead => read(door, true).await.map_err(|error| text_of(&error)),
            Check::LinearizableRead => read(door, false).await.map_err(|error| {
                let missing = door.missing();
                match &missing[..] {
                    [] => text_of(&error),
                    _ => format!("{}; missing members: {}", text_of(&error), missing.join(", ")),
                }
            }),
            Check::NonLearner if door.is_learner() => Err("not supported for learner".into()),
            Check::NonLearner => Ok(()),
        }
    }
}

fn text_of(status: &Status) -> String {
    status.message().to_string()
}

async fn livez<R: Replica, E: Engine>(
    State(door): State<Door<R, E>>,
    Query(parameters): Parameters,
) -> Response {
    probe(&door, &LIVEZ, &parameters).await
}

async fn readyz<R: Replica, E: Engine>(
    State(door): State<Door<R, E>>,
    Query(parameters): Parameters,
) -> Response {
    probe(&door, &READYZ, &parameters).await
}

async fn livez_check<R: Replica, E: Engine>(
    State(door): State<Door<R, E>>,
    Path(name): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    one(&door, &LIVEZ, &name, &parameters).await
}

async fn readyz_check<R: Replica, E: Engine>(
    State(door): State<Door<R, E>>,
    Path(name): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    one(&door, &READYZ, &name, &parameters).await
}

async fn one<R: Replica, E: Engine>(
    door: &Door<R, E>,
    checks: &[Check],
    name: &str,
    parameters: &[(String, String)],
) -> Response {
    match checks.iter().find(|check| check.name() == name) {
        Some(check) => probe(door, &[*check], parameters).await,
        None => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
    }
}

/// Runs checks and says how they ended: in detail when asked to, and always when one failed.
async fn probe<R: Replica, E: Engine>(
    door: &Door<R, E>,
    checks: &[Check],
    parameters: &[(String, String)],
) -> Response {
    let excluded = |check: &Check| {
        parameters.iter().any(|(name, value)| name == "exclude" && value == check.name())
    };
    let mut text = String::new();
    let mut failed = false;
    for check in checks.iter().filter(|check| !excluded(check)) {
        let line = match check.run(door).await {
            Ok(()) => format!("[+]{} ok", check.name()),
            Err(reason) => {
                failed = true;
                format!("[-]{} failed: {reason}", check.name())
            }
        };
        let _ = writeln!(text, "{line}");
    }
    if failed {
        return plain(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let verbose = parameters.iter().any(|(name, _)| name == "verbose");
    plain(StatusCode::OK, if verbose { text + "ok\n" } else { "ok\n".into() })
}

fn plain(code: StatusCode, text: String) -> Response {
    let nosniff = (HeaderName::from_static("x-content-type-options"), "nosniff");
    (code, [nosniff], text).into_response()
}

/// The answer of `/version`: digits and dots only, because clients parse each part.
#[derive(Debug, Serialize)]
struct Version {
    etcdserver: &'static str,
    etcdcluster: &'static str,
    storage: &'static str,
}

async fn version() -> Response {
    let version =
        Version { etcdserver: ETCD_VERSION, etcdcluster: ETCD_VERSION, storage: ETCD_VERSION };
    axum::Json(version).into_response()
}

async fn metrics_text<R: Replica, E: Engine>(State(door): State<Door<R, E>>) -> Response {
    let text = metrics::render(&door);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], text).into_response()
}
