//! Whatever is thrown at the ports of a cluster that serves, it goes on serving, in bounded memory, and says what it
//! refused.

use crate::common::{Client, Cluster, Metrics, wait_for};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How much larger a node may be afterwards.
const GROWTH_MAX: u64 = 64 * 1024 * 1024;

/// Connections that say nonsense, one after the other.
const FLOOD_COUNT: usize = 400;

/// Connections that say nothing, or not enough, and stay open.
const SILENT_COUNT: usize = 100;

/// Rounds of garbage on each port.
const GARBAGE_COUNT: u64 = 20;

/// The bytes of one round of garbage.
const GARBAGE_SIZE: usize = 256 * 1024;

/// How long a port may take to answer or to close.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the port still accepts");
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a socket");
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).expect("a socket");
    stream
}

/// Sends bytes and gives all that is answered until the other side closes.
fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    // The other side may have seen enough before it has seen all.
    let _ = stream.write_all(bytes);
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(size) => answer.extend_from_slice(&buffer[..size]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("port {port} neither answers nor closes")
            }
            // Reset: it closed with bytes of ours unread.
            Err(_) => return answer,
        }
    }
}

fn garbage(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let draw = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..GARBAGE_SIZE).map(draw).collect()
}

/// What opens a connection between peers, and a frame's header as `docs/format/wire.md` draws it.
fn peer_frame(kind: u8, payload_size: u32) -> Vec<u8> {
    let mut header = vec![b'Q', b'r', 1, kind];
    header.extend(payload_size.to_le_bytes());
    header.extend([0; 12]);
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    [b"Qr\0\x01", &header[..]].concat()
}

/// A gRPC put, as HTTP/2 writes it, whose message announces 4 GiB.
fn oversized_put() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
        [&size[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Put"),
        (":authority", "here"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    // Each a literal that is not indexed.
    let field = |text: &str| {
        let size = u8::try_from(text.len()).expect("short");
        [&[size], text.as_bytes()].concat()
    };
    let headers: Vec<u8> = headers
        .iter()
        .flat_map(|(name, value)| [vec![0], field(name), field(value)].concat())
        .collect();
    let settings = frame(4, 0, 0, &[]);
    let headers = frame(1, 4, 1, &headers);
    let message = frame(0, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &headers, &message].concat()
}

fn malformed(cluster: &Cluster, node: usize) -> f64 {
    let metrics = Metrics::scrape(&cluster.endpoint(node)).expect("it serves");
    metrics.value("quorate_streams_malformed_total", &[])
}

/// A put and a read of it through every node.
fn check_serving(client: &mut Client, what: &str) {
    for member in 0..3 {
        let put = client.put_at(member, "served", what, ANSWER_TIMEOUT);
        put.unwrap_or_else(|status| panic!("after {what}: {status:?}"));
        let found = client.get_at(member, "served", false);
        let found = found.unwrap_or_else(|status| panic!("after {what}: {status:?}"));
        assert_eq!(found.as_deref(), Some(what));
    }
}

#[test]
fn a_cluster_serves_on_under_frames_of_4_gib_and_garbage_on_every_port() {
    let mut cluster = Cluster::formed();
    let leader = cluster.leader();
    let mut client = cluster.client();
    check_serving(&mut client, "nothing yet");
    let before: Vec<u64> = (0..3).map(|node| cluster.resident_size(node)).collect();
    let mut silent = Vec::new();
    for node in 0..3 {
        let (peer, door) = (cluster.peer_port(node), cluster.client_port(node));
        let refused = malformed(&cluster, node);
        for kind in [1, 4, 5] {
            let answer = exchange(peer, &peer_frame(kind, u32::MAX));
            assert!(answer.len() < 1024, "a stranger is told {} bytes", answer.len());
        }
        exchange(peer, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
        for seed in 0..GARBAGE_COUNT {
            exchange(peer, &garbage(seed));
        }
        check_serving(&mut client, "garbage for a peer");
        let expected = refused + 4.0 + GARBAGE_COUNT as f64;
        wait_for("the refusals to be counted", || {
            (malformed(&cluster, node) >= expected).then_some(())
        });

        for seed in 0..GARBAGE_COUNT {
            exchange(door, &garbage(seed));
        }
        let long =
            [b"GET /health HTTP/1.1\r\nX: ", &vec![b'x'; 1024 * 1024][..], b"\r\n\r\n"].concat();
        let answer = exchange(door, &long);
        let answer = String::from_utf8_lossy(&answer[..answer.len().min(64)]).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        check_oversized_put(door);
        check_serving(&mut client, "garbage at the door");
        for _ in 0..FLOOD_COUNT {
            exchange(peer, b"junk");
        }
        silent.extend((0..SILENT_COUNT).map(|_| connect(peer)));
        silent.extend((0..SILENT_COUNT).map(|_| connect(door)));
    }
    check_serving(&mut client, "connections that say nothing");
    assert_eq!(cluster.leader(), leader, "nobody lost its leader over it");
    for (node, before) in before.into_iter().enumerate() {
        let after = cluster.resident_size(node);
        println!("n{}: {} KiB before, {} KiB after", node + 1, before / 1024, after / 1024);
        assert!(after < before + GROWTH_MAX, "n{} grew to {after} bytes", node + 1);
        let log = cluster.node(node).log();
        for part in ["not Quorate's peer protocol", "above the limit"] {
            assert!(log.contains(part), "`{part}` is not in the log of n{}:\n{log}", node + 1);
        }
        assert!(!log.contains("panicked"), "{log}");
        let lines = log.lines().filter(|line| line.contains("on the peer port")).count();
        assert!(lines < FLOOD_COUNT / 2, "{lines} lines tell of strangers");
        wait_for("the count of what was left out", || {
            exchange(cluster.peer_port(node), b"junk");
            cluster.node(node).log().contains("suppressed=").then_some(())
        });
        assert!(log.len() < 1024 * 1024, "garbage is no reason for a log of {} bytes", log.len());
    }
}

/// The put is refused as gRPC refuses, or its connection is closed; nothing waits for what was announced.
fn check_oversized_put(port: u16) {
    let mut stream = connect(port);
    stream.write_all(&oversized_put()).expect("it is short");
    // Frames of HTTP/2: the size in three bytes, the kind, flags, the stream in four bytes.
    let mut header = [0; 9];
    while stream.read_exact(&mut header).is_ok() {
        let size = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let size = usize::try_from(size).expect("24 bits fit");
        let mut payload = vec![0; size];
        stream.read_exact(&mut payload).expect("a whole frame");
        let is_answer = header[3] == 1 && header[8] == 1;
        if is_answer && header[4] & 1 == 1 {
            // Headers that end the stream: the answer is a status alone.
            return;
        }
        assert_ne!(header[3], 7, "the connection is kept: {payload:?}");
    }
    panic!("port {port} closed the connection or did not answer an oversized put");
}
