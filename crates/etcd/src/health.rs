//! `grpc.health.v1.Health`: whether this member can serve. The one service it knows is the empty name, the member as
//! a whole.

use crate::door::Door;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_server::Health;
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::replica::Replica;
use quorate_store::engine::Engine;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::codegen::BoxStream;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// How often a watched member looks whether it still serves.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

#[tonic::async_trait]
impl<R: Replica, E: Engine> Health for Door<R, E> {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(self.serving())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<BoxStream<HealthCheckResponse>>, Status> {
        let mut interval = tokio::time::interval(WATCH_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let known = request.get_ref().service.is_empty();
        let watch = HealthWatch { door: self.clone(), known, interval, said: None };
        Ok(Response::new(Box::pin(watch)))
    }
}

impl<R: Replica, E: Engine> Door<R, E> {
    fn serving(&self) -> ServingStatus {
        match self.replica().leader() {
            Some(_) => ServingStatus::Serving,
            None => ServingStatus::NotServing,
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Says at once whether the member serves, and again whenever that changes; ends only with the client.
struct HealthWatch<R, E: Engine> {
    /// Whom it watches.
    door: Door<R, E>,
    /// Whether the service asked for exists.
    known: bool,
    /// When to look next.
    interval: Interval,
    /// What was said last.
    said: Option<ServingStatus>,
}

impl<R: Replica, E: Engine> Stream for HealthWatch<R, E> {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            ready!(self.interval.poll_tick(context));
            let status =
                if self.known { self.door.serving() } else { ServingStatus::ServiceUnknown };
            if self.said != Some(status) {
                self.said = Some(status);
                return Poll::Ready(Some(Ok(answer(status))));
            }
        }
    }
}
