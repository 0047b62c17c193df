//! One HTTP request for a small page, as `quorate status`, `quorate member` and `quorate dev` make them.

use axum::body::{Body, to_bytes};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::time::Duration;
use tokio::net::TcpStream;

/// The most bytes that an answer may have; a status of 64 members is far below.
const ANSWER_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Gets `path` from `host:port`, and gives the code and the body.
///
/// # Errors
/// When there is no answer within `patience`, or what answers does not speak HTTP; as text.
pub(crate) async fn get(
    address: &str,
    path: &str,
    patience: Duration,
) -> Result<(u16, String), String> {
    let request = http::Request::get(path).header(http::header::HOST, address).body(Body::empty());
    within(patience, exchange(address, request)).await
}

/// Posts JSON to `path` at `host:port`, and gives the code and the body.
///
/// # Errors
/// As [`get`].
pub(crate) async fn post(
    address: &str,
    path: &str,
    json: String,
    patience: Duration,
) -> Result<(u16, String), String> {
    let request = http::Request::post(path)
        .header(http::header::HOST, address)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Body::from(json));
    within(patience, exchange(address, request)).await
}

async fn within(
    patience: Duration,
    exchange: impl Future<Output = Result<(u16, String), String>>,
) -> Result<(u16, String), String> {
    match tokio::time::timeout(patience, exchange).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} ms", patience.as_millis())),
    }
}

async fn exchange(
    address: &str,
    request: http::Result<http::Request<Body>>,
) -> Result<(u16, String), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let odd = |error: hyper::Error| format!("what answers there does not speak HTTP: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(odd)?;
    let connection = tokio::spawn(connection);
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(odd)?;
    let code = response.status().as_u16();
    let body = to_bytes(Body::new(response.into_body()), ANSWER_SIZE_MAX).await;
    connection.abort();
    let body = body.map_err(|error| format!("the answer broke off: {error}"))?;
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}
