//! The connections of a load run: which client uses which, and where it goes when an endpoint is gone.

use super::channel::{Channel, Endpoint};
use super::wire;
use bytes::Bytes;
use prost::Message;
use std::time::Duration;
use tonic::{Code, Status};

/// One connection slot: to its own endpoint at first, to the next when that one fails. Connections are made when
/// they are first used.
#[derive(Clone)]
pub(crate) struct Link {
    /// A channel to each endpoint, this slot's own first.
    channels: Vec<Channel>,
    /// Which of them is in use.
    current: usize,
    /// How long one attempt may take.
    attempt_timeout: Duration,
}

/// `connections` slots, spread over the endpoints.
pub(crate) fn links(
    endpoints: &[Endpoint],
    connections: usize,
    attempt_timeout: Duration,
) -> Vec<Link> {
    let slot = |own: usize| {
        let order = (0..endpoints.len()).map(|step| &endpoints[(own + step) % endpoints.len()]);
        Link { channels: order.cloned().map(Channel::new).collect(), current: 0, attempt_timeout }
    };
    (0..connections).map(slot).collect()
}

impl Link {
    /// Goes to the next endpoint.
    pub(crate) fn advance(&mut self) {
        self.current = (self.current + 1) % self.channels.len();
    }

    /// Puts one key.
    pub(crate) async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), Status> {
        let request = wire::PutRequest { key, value };
        self.call::<_, wire::WriteResponse>(wire::PUT_PATH, request).await?;
        Ok(())
    }

    /// Puts many keys in one transaction.
    pub(crate) async fn put_all(&mut self, puts: Vec<wire::PutRequest>) -> Result<(), Status> {
        let success = puts.into_iter().map(|put| wire::RequestOp { put: Some(put) }).collect();
        let request = wire::TxnRequest { success };
        self.call::<_, wire::WriteResponse>(wire::TXN_PATH, request).await?;
        Ok(())
    }

    /// Reads one key, which must be there: a fast answer that finds nothing is no answer.
    pub(crate) async fn get(&mut self, key: Bytes, serializable: bool) -> Result<(), Status> {
        let request = wire::RangeRequest { key, serializable };
        let response: wire::RangeResponse = self.call(wire::RANGE_PATH, request).await?;
        match response.count {
            1 => Ok(()),
            0 => Err(Status::not_found("a key that was put is not there")),
            count => Err(Status::internal(format!("{count} keys came back for one"))),
        }
    }

    async fn call<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        request: Q,
    ) -> Result<A, Status> {
        let attempt = self.channels[self.current].call(path, &request);
        match tokio::time::timeout(self.attempt_timeout, attempt).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "no answer within --timeout")),
        }
    }
}
