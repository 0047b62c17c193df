//! What the loopback network gives at best: one small message there and back, again and again.

use super::report::{Latency, latency_histogram, record};
use serde::Serialize;
use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The size of a message: about that of a small append with its frame.
const MESSAGE_SIZE: usize = 256;

/// Messages there and back over one connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LoopbackResult {
    /// The size of a message in bytes.
    pub(crate) message_size: usize,
    /// Round trips a second.
    pub(crate) rate: f64,
    /// From sending to having the answer.
    pub(crate) latency_us: Latency,
}

impl fmt::Display for LoopbackResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LoopbackResult { message_size, rate, latency_us } = self;
        write!(f, "loopback {message_size} B      {rate:>8.0} /s   {latency_us}")
    }
}

/// Plays ping-pong between two threads for `duration`.
///
/// # Errors
/// When the system gives no socket, as text.
pub(crate) fn probe(duration: Duration) -> Result<LoopbackResult, String> {
    play(duration).map_err(|error| format!("loopback probe: {error}"))
}

fn play(duration: Duration) -> std::io::Result<LoopbackResult> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || answer(&listener));
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut message = [7_u8; MESSAGE_SIZE];
    let mut histogram = latency_histogram();
    let begin = Instant::now();
    while begin.elapsed() < duration {
        let begun = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        record(&mut histogram, begun.elapsed());
    }
    let rate = (histogram.len() as f64 / begin.elapsed().as_secs_f64()).round();
    drop(stream);
    echo.join().expect("the answering thread returns its errors")?;
    Ok(LoopbackResult { message_size: MESSAGE_SIZE, rate, latency_us: Latency::of(&histogram) })
}

/// Sends back what comes until the other side closes.
fn answer(listener: &TcpListener) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut message = [0_u8; MESSAGE_SIZE];
    loop {
        match stream.read_exact(&mut message) {
            Ok(()) => stream.write_all(&message)?,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let result = probe(Duration::from_millis(50)).expect("loopback works");
        assert!(result.latency_us.count > 10, "{result:?}");
    }
}
