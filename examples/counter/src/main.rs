//! Three replicas of a counter on loopback: additions through every node, one node stops and comes back, all agree.

mod counter;

use bytes::Bytes;
use counter::Counter;
use quorate_runtime::{DataFolder, NodeHandle, PeerListener, RequestError, RuntimeOptions, start};
use quorate_types::{EntryKind, GroupId};
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use tokio::time::sleep;

/// Starts the n-th member of these addresses; what it knew before is in its folder.
fn member(root: &Path, n: usize, peers: &[SocketAddr]) -> Result<NodeHandle<u64>, Box<dyn Error>> {
    let name = |n: usize| format!("n{}", n + 1);
    let folder = DataFolder::lock(&root.join(name(n)), &name(n))?;
    let counter = Counter::open(&root.join(name(n)).join("counter"))?;
    let cluster = (0..peers.len()).map(|n| (name(n), peers[n].to_string())).collect();
    let listener = PeerListener::Address(peers[n]);
    Ok(start(RuntimeOptions::new(name(n), cluster, folder, listener), counter)?)
}

/// Adds to the counter through one node: durable on a quorum when this returns. A refusal is definite, so it may be tried again.
async fn add(node: &NodeHandle<u64>, amount: u64) -> Result<u64, RequestError> {
    let body = Bytes::copy_from_slice(&amount.to_le_bytes());
    loop {
        match node.propose(GroupId(0), EntryKind::Command, body.clone(), None).await {
            Err(RequestError::Refused { .. }) => sleep(std::time::Duration::from_millis(50)).await,
            ended => return ended,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::temp_dir().join(format!("quorate-counter-{}", std::process::id()));
    let bind = |_| TcpListener::bind("127.0.0.1:0");
    let ports: Vec<_> = (0..3).map(bind).collect::<Result<_, _>>()?;
    let peers: Vec<_> = ports.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    drop(ports);
    let nodes: Vec<_> = (0..3).map(|n| member(&root, n, &peers)).collect::<Result<_, _>>()?;
    for (n, node) in nodes.iter().enumerate() {
        println!("5 more through n{}: {}", n + 1, add(node, 5).await?);
    }
    nodes[0].shutdown().await;
    nodes[0].stopped().await;
    println!("n1 has stopped; 10 more through n2: {}", add(&nodes[1], 10).await?);
    let again = member(&root, 0, &peers)?;
    let sum = add(&again, 1).await?;
    assert_eq!(sum, 26, "every addition is applied once");
    println!("n1 is back; 1 more through it: {sum}");
    for node in [&again, &nodes[1], &nodes[2]] {
        node.shutdown().await;
        node.stopped().await;
    }
    Ok(std::fs::remove_dir_all(root)?)
}
