//! The admin API: what operators and `quorate status` ask a node, as JSON over HTTP on the client port. It is
//! answered from what the node last made known of itself, so it needs no quorum and never waits for one. Only a change of
//! members is more than a question, and needs one.

mod members;
mod report;

pub(crate) use members::{Change, MEMBERS_PATH, MembersReport};
pub(crate) use report::{GroupReport, NodeReport, PeerReport, SyncReport};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use quorate_runtime::NodeHandle;

/// The path of the status.
pub(crate) const STATUS_PATH: &str = "/quorate/v1/status";

/// The paths of the admin API for one node.
pub(crate) fn routes<R: Send + 'static>(node: NodeHandle<R>) -> Router {
    Router::new()
        .route(STATUS_PATH, get(status::<R>))
        .route(MEMBERS_PATH, get(members::list::<R>).post(members::change::<R>))
        .with_state(node)
}

async fn status<R: Send + 'static>(State(node): State<NodeHandle<R>>) -> Json<NodeReport> {
    // The node's thread answers with the state of this moment; one that has stopped leaves its last word.
    let status = node.status().await;
    let last = node.latest_status();
    Json(NodeReport::new(status.as_ref().unwrap_or(&last), &node.metrics()))
}
