//! The connections of a load run: which client uses which, and where it goes when an endpoint is gone.

use super::wire;
use bytes::Bytes;
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// How long a connection may take to be made: on a network where that takes longer, nothing here means anything.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The endpoint of a text such as `127.0.0.1:2379` or `http://node1:2379`.
///
/// # Errors
/// When it is no address.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let uri = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    if !uri.starts_with("http://") {
        return Err(format!("`{text}` is not an http endpoint: only plaintext is spoken so far"));
    }
    let endpoint = Endpoint::from_shared(uri).map_err(|error| format!("`{text}`: {error}"))?;
    if endpoint.uri().port_u16().is_none() {
        return Err(format!("`{text}` names no port; etcd's is 2379"));
    }
    Ok(endpoint.tcp_nodelay(true).connect_timeout(CONNECT_TIMEOUT))
}

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
        Link { channels: order.map(Endpoint::connect_lazy).collect(), current: 0, attempt_timeout }
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

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channels[self.current].clone());
        let attempt = async {
            client.ready().await.map_err(|error| Status::unavailable(text_of(&error)))?;
            let path = PathAndQuery::from_static(path);
            client.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await
        };
        match tokio::time::timeout(self.attempt_timeout, attempt).await {
            Ok(response) => response.map(tonic::Response::into_inner),
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "no answer within --timeout")),
        }
    }
}

/// An error with its causes: transport errors say little by themselves.
pub(crate) fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_needs_a_port_and_no_tls() {
        let check = |text, good: bool| assert_eq!(endpoint(text).is_ok(), good, "{text}");
        check("127.0.0.1:2379", true);
        check("http://localhost:2379", true);
        check("localhost", false);
        check("https://localhost:2379", false);
        check("http://:2379:1", false);
    }
}
