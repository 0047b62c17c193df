//! Writers that remember what was acknowledged, and the check that all of it is there.

use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::{PutRequest, RangeRequest};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// How many writers run at once.
const WRITERS: usize = 64;

/// How many keys the writers of one node overwrite again and again; every other put makes a new key.
const SHARED_KEYS: u64 = 8;

/// How many old revisions are read again after each cut, on each node.
const HISTORY_READS: usize = 200;

/// One acknowledged put.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Acknowledged {
    key: String,
    value: String,
    revision: i64,
}

/// Everything that was acknowledged so far.
#[derive(Default)]
pub(crate) struct Ledger {
    puts: Vec<Acknowledged>,
}

/// What a check found.
pub(crate) enum Verdict {
    /// Everything acknowledged is there.
    Kept,
    /// Something is not.
    Lost(String),
}

async fn client(address: &str) -> Result<KvClient<Channel>, String> {
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(5));
    let channel = endpoint.connect().await.map_err(|error| format!("{address}: {error}"))?;
    Ok(KvClient::new(channel).max_decoding_message_size(1 << 30))
}

impl Ledger {
    /// How many puts were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.puts.len() as u64
    }

    /// Waits until each node answers a linearizable read: it then holds everything acknowledged before.
    pub(crate) async fn wait_ready(
        &self,
        clients: &[String],
        deadline: Instant,
    ) -> Result<(), String> {
        for address in clients {
            loop {
                let answer = match client(address).await {
                    Ok(mut client) => {
                        client.range(RangeRequest { key: "k".into(), ..Default::default() }).await
                    }
                    Err(error) => Err(tonic::Status::unavailable(error)),
                };
                match answer {
                    Ok(_) => break,
                    Err(error) if Instant::now() > deadline => {
                        return Err(format!("{address}: {error}"));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
        Ok(())
    }

    /// Runs the writers for a while, calls `cut`, and takes in what was acknowledged until then.
    pub(crate) async fn write_while(
        &mut self,
        clients: &[String],
        round: u32,
        run: Duration,
        cut: impl FnOnce(),
    ) {
        let done = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let address = clients[writer % clients.len()].clone();
            let (done, acknowledged) = (done.clone(), acknowledged.clone());
            writers
                .spawn(async move { write(&address, round, writer, &done, &acknowledged).await });
        }
        tokio::time::sleep(run).await;
        cut();
        done.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.join_next().await {
            ended.expect("a writer does not panic");
        }
        self.puts.append(&mut acknowledged.lock().expect("no writer panicked"));
    }

    /// Whether each node holds every acknowledged put at its revision, by serializable reads.
    pub(crate) async fn check(&self, clients: &[String]) -> Verdict {
        for address in clients {
            match self.check_node(address).await {
                Ok(None) => {}
                Ok(Some(lost)) => return Verdict::Lost(format!("on {address}: {lost}")),
                Err(error) => return Verdict::Lost(format!("on {address}: {error}")),
            }
        }
        Verdict::Kept
    }

    async fn check_node(&self, address: &str) -> Result<Option<String>, String> {
        let mut client = client(address).await?;
        let all = RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            serializable: true,
            ..Default::default()
        };
        let answer = client.range(all).await.map_err(|error| error.to_string())?.into_inner();
        let held: BTreeMap<_, _> =
            answer.kvs.into_iter().map(|kv| (kv.key, (kv.value, kv.mod_revision))).collect();
        for put in &self.puts {
            let Some((value, revision)) = held.get(put.key.as_bytes()) else {
                return Ok(Some(format!("{put:?} is not there")));
            };
            let same = *revision == put.revision && value == put.value.as_bytes();
            let overwritten = put.key.starts_with("k/shared") && *revision > put.revision;
            if !same && !overwritten {
                return Ok(Some(format!("{put:?} is at revision {revision} with another value")));
            }
        }
        let step = (self.puts.len() / HISTORY_READS).max(1);
        for put in self.puts.iter().rev().step_by(step) {
            let then = RangeRequest {
                key: put.key.clone().into(),
                revision: put.revision,
                serializable: true,
                ..Default::default()
            };
            let answer =
                client.range(then).await.map_err(|error| format!("{put:?}: {error}"))?.into_inner();
            let value = answer.kvs.first().map(|kv| kv.value.clone());
            if value.as_deref() != Some(put.value.as_bytes()) {
                return Ok(Some(format!("{put:?} cannot be read at its revision")));
            }
        }
        Ok(None)
    }
}

async fn write(
    address: &str,
    round: u32,
    writer: usize,
    done: &AtomicBool,
    acknowledged: &Mutex<Vec<Acknowledged>>,
) {
    let Ok(mut client) = client(address).await else { return };
    for count in 0_u64.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let key = match count % 4 {
            0 => format!("k/shared/{}", (count / 4 + writer as u64) % SHARED_KEYS),
            _ => format!("k/{round:03}/{writer:02}/{count:06}"),
        };
        let value = format!("{round}/{writer}/{count}/{}", "x".repeat(writer * 16));
        let put = PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            ..Default::default()
        };
        match client.put(put).await {
            Ok(answer) => {
                let revision = answer.into_inner().header.map_or(0, |header| header.revision);
                let put = Acknowledged { key, value, revision };
                acknowledged.lock().expect("no writer panicked").push(put);
            }
            // Unknown: it may be there or not. The next one has another key or value.
            Err(_) if done.load(Ordering::Relaxed) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
