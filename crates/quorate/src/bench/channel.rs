//! Unary gRPC calls over one HTTP/2 connection, which is made when it is first used and again when it was lost.
//!
//! The generator shares the processors with what it measures. A general client hands each call through a queue, a
//! pool and several tasks; here a call is a stream of the connection and nothing more, which takes about a third less
//! processor time for any server.

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::Status;

/// How long a connection may take to be made: on a network where that takes longer, nothing here means anything.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a server may send on one stream before it was read, in bytes.
const STREAM_WINDOW_SIZE: u32 = 1024 * 1024;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW_SIZE: u32 = 4 * 1024 * 1024;

/// What stands before a message: whether it is compressed, and its length.
const PREFIX_SIZE: usize = 5;

/// The largest answer that is taken in, in bytes: what is asked for is one pair, or nothing.
const ANSWER_SIZE_MAX: usize = 4 * 1024 * 1024;

/// An address of a server.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    authority: Authority,
    port: u16,
}

impl Endpoint {
    /// The endpoint of a text such as `127.0.0.1:2379` or `http://node1:2379`.
    ///
    /// # Errors
    /// When it is no address.
    pub(crate) fn parse(text: &str) -> Result<Endpoint, String> {
        let uri = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        if !uri.starts_with("http://") {
            return Err(format!(
                "`{text}` is not an http endpoint: only plaintext is spoken so far"
            ));
        }
        let uri: Uri = uri.parse().map_err(|error| format!("`{text}`: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("`{text}` names no host"))?.clone();
        let port = authority.port_u16();
        let port = port.ok_or_else(|| format!("`{text}` names no port; etcd's is 2379"))?;
        Ok(Endpoint { authority, port })
    }

    /// Makes a connection, which lives in a task of its own until it is lost or nobody uses it any more.
    ///
    /// # Errors
    /// In words, when nobody answers there or it is no HTTP/2 server.
    pub(crate) async fn connect(&self) -> Result<SendRequest<Bytes>, String> {
        let attempt = async {
            let host = self.authority.host().trim_matches(['[', ']']);
            let socket = TcpStream::connect((host, self.port)).await;
            let socket = socket.map_err(|error| error.to_string())?;
            socket.set_nodelay(true).map_err(|error| error.to_string())?;
            Builder::new()
                .initial_window_size(STREAM_WINDOW_SIZE)
                .initial_connection_window_size(CONNECTION_WINDOW_SIZE)
                .enable_push(false)
                .handshake(socket)
                .await
                .map_err(|error| error.to_string())
        };
        let made = tokio::time::timeout(CONNECT_TIMEOUT, attempt).await;
        let (sender, connection) = made.unwrap_or_else(|_| Err("no answer".into()))?;
        tokio::spawn(async move {
            // Each call on it learns of its end by itself.
            drop(connection.await);
        });
        Ok(sender)
    }
}

/// The way to one server. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub(crate) struct Channel(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    /// The connection, once there is one.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    /// Held while a connection is made, so that not every client makes one.
    connecting: tokio::sync::Mutex<()>,
}

impl Channel {
    pub(crate) fn new(endpoint: Endpoint) -> Channel {
        let (sender, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        Channel(Arc::new(Shared { endpoint, sender, connecting }))
    }

    fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.0.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A sender that may begin a stream.
    async fn ready(&self) -> Result<SendRequest<Bytes>, Status> {
        if let Some(sender) = self.sender()
            && let Ok(sender) = sender.ready().await
        {
            return Ok(sender);
        }
        let connecting = self.0.connecting.lock().await;
        if let Some(sender) = self.sender()
            && let Ok(sender) = sender.ready().await
        {
            return Ok(sender);
        }
        let sender = self.0.endpoint.connect().await.map_err(Status::unavailable)?;
        *self.0.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        drop(connecting);
        sender.ready().await.map_err(lost)
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// What the server says, or `Unavailable` when the connection is lost.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        question: &Q,
    ) -> Result<A, Status> {
        let mut sender = self.ready().await?;
        let request = self.request(path);
        let (answer, mut stream) = sender.send_request(request, false).map_err(lost)?;
        stream.send_data(framed(question), true).map_err(lost)?;
        let (head, mut body) = answer.await.map_err(lost)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Status::unavailable(format!("HTTP status {}", head.status)));
        }
        if head.headers.contains_key(Status::GRPC_STATUS) {
            // An answer without a body.
            check_status(&head.headers)?;
        }
        let mut bytes = Bytes::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(lost)?;
            // The window belongs to a stream that lives: this cannot fail before it ends.
            drop(body.flow_control().release_capacity(chunk.len()));
            bytes = match bytes.is_empty() {
                true => chunk,
                false => [&bytes[..], &chunk].concat().into(),
            };
            if bytes.len() > ANSWER_SIZE_MAX {
                return Err(Status::internal("the answer is larger than what was asked for"));
            }
        }
        let trailers = body.trailers().await.map_err(lost)?;
        check_status(&trailers.unwrap_or_default())?;
        unframed(bytes)
    }

    fn request(&self, path: &'static str) -> Request<()> {
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.0.endpoint.authority.clone())
            .path_and_query(PathAndQuery::from_static(path))
            .build();
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.expect("it has all of its parts");
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let content = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert(CONTENT_TYPE, content);
        request
    }
}

fn lost(error: h2::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// A message behind its prefix.
fn framed(message: &impl Message) -> Bytes {
    let size = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_SIZE + size);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(size).expect("requests are limited"));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

fn unframed<A: Message + Default>(bytes: Bytes) -> Result<A, Status> {
    let whole = bytes.first_chunk::<PREFIX_SIZE>().filter(|prefix| {
        let size = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        prefix[0] == 0 && bytes.len() - PREFIX_SIZE == size as usize
    });
    if whole.is_none() {
        return Err(Status::internal("the answer is not one uncompressed message"));
    }
    let message = A::decode(bytes.slice(PREFIX_SIZE..));
    message.map_err(|error| Status::internal(format!("the answer cannot be read: {error}")))
}

/// The error that a server's last headers speak of, if they do not say that all is well.
fn check_status(headers: &HeaderMap) -> Result<(), Status> {
    if headers.get(Status::GRPC_STATUS).is_some_and(|status| status == "0") {
        return Ok(());
    }
    Err(Status::from_header_map(headers)
        .unwrap_or_else(|| Status::unknown("the server did not say how the call ended")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::wire::{PutRequest, WriteResponse};

    #[test]
    fn an_endpoint_needs_a_port_and_no_tls() {
        let check =
            |text: &str, good: bool| assert_eq!(Endpoint::parse(text).is_ok(), good, "{text}");
        check("127.0.0.1:2379", true);
        check("http://localhost:2379", true);
        check("[::1]:2379", true);
        check("localhost", false);
        check("https://localhost:2379", false);
        check("http://:2379:1", false);
    }

    #[test]
    fn a_message_is_read_back_only_whole() {
        let put = PutRequest { key: "k".into(), value: "v".into() };
        let bytes = framed(&put);
        assert_eq!(unframed::<PutRequest>(bytes.clone()).ok(), Some(put));
        for size in 0..bytes.len() {
            assert!(unframed::<PutRequest>(bytes.slice(..size)).is_err(), "{size} bytes");
        }
        let compressed = [&[1][..], &bytes[1..]].concat();
        assert!(unframed::<PutRequest>(compressed.into()).is_err());
    }

    #[test]
    fn only_a_status_of_zero_is_good() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            check_status(&pairs.collect()).map_err(|status| status.code())
        };
        assert_eq!(of(&[("grpc-status", "0")]), Ok(()));
        assert_eq!(of(&[]), Err(tonic::Code::Unknown));
        let refused = [("grpc-status", "14"), ("grpc-message", "etcdserver: no leader")];
        assert_eq!(of(&refused), Err(tonic::Code::Unavailable));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("bound").to_string();
        drop(free);
        let channel = Channel::new(Endpoint::parse(&address).expect("an address"));
        let put = PutRequest { key: "k".into(), value: "v".into() };
        let answer = channel.call::<_, WriteResponse>("/etcdserverpb.KV/Put", &put).await;
        assert_eq!(answer.map_err(|status| status.code()), Err(tonic::Code::Unavailable));
    }
}
