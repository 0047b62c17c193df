//! A detour that takes its time: what comes in leaves a chosen delay later, and no faster than a chosen rate, in order, and
//! nothing is lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Bytes that are due at a time.
type Late = (Instant, Vec<u8>);

/// A port in front of another one.
pub(crate) struct Proxy {
    port: u16,
    way: Arc<Way>,
}

/// What the bytes of all connections meet with, in each direction.
#[derive(Default)]
struct Way {
    /// Milliseconds from a byte's coming to its leaving.
    delay: AtomicU64,
    /// Bytes a second on each connection; 0 for as many as come.
    rate: AtomicU64,
}

impl Proxy {
    /// Begins to forward to a port of this machine, without delay at first. It ends with the test's process.
    pub(crate) fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let way = Arc::new(Way::default());
        let shared = Arc::clone(&way);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Nobody listens behind it: the caller sees a connection that closes at once.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                forward(&client, &server, &shared);
                forward(&server, &client, &shared);
            }
        });
        Proxy { port: own, way }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How long bytes that come from now on take, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("a short while");
        self.way.delay.store(delay, Ordering::Relaxed);
    }

    /// How many bytes a second each connection takes from now on.
    pub(crate) fn rate(&self, rate: u64) {
        self.way.rate.store(rate, Ordering::Relaxed);
    }
}

/// Forwards one direction by two threads, so that one chunk's delay does not hold up the next one's reading.
fn forward(from: &TcpStream, to: &TcpStream, way: &Arc<Way>) {
    let mut from = from.try_clone().expect("another handle");
    let to = to.try_clone().expect("another handle");
    to.set_nodelay(true).expect("a socket");
    let way = Arc::clone(way);
    let (sender, late) = channel::<Late>();
    std::thread::spawn(move || deliver(to, &late));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(size) = from.read(&mut buffer) {
            let now = Instant::now();
            let due = now + Duration::from_millis(way.delay.load(Ordering::Relaxed));
            if let Some(nanos) =
                (size as u64 * 1_000_000_000).checked_div(way.rate.load(Ordering::Relaxed))
            {
                // Read no faster than that either, so that the sender's queue is where the bytes wait.
                std::thread::sleep(Duration::from_nanos(nanos));
            }
            if size == 0 || sender.send((due, buffer[..size].to_vec())).is_err() {
                return;
            }
        }
    });
}

fn deliver(mut to: TcpStream, late: &Receiver<Late>) {
    for (due, bytes) in late {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The end of one direction is the end of both: nodes never close half a connection.
    let _ = to.shutdown(Shutdown::Both);
}
