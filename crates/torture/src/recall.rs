//! What every node still knows at the end: each acknowledged write at its revision, what it holds now, and what became of
//! the revisions that no client was told of.

use crate::Result;
use crate::etcd::{self, Connection, View};
use quorate_sim::history::{Call, Change, Found, History, Key, Outcome, Recall, Revision, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many reads are under way at one node.
const READ_COUNT: usize = 32;

/// How long one read is tried, and how often.
const READ_MAX: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(50);

/// The revision of the first change: an empty store is at revision 1.
const FIRST_CHANGE: u64 = 2;

/// A register at a revision.
type Place = (Key, Revision);

/// What one node showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Its name.
    pub(crate) name: String,
    /// Its revision.
    pub(crate) revision: Revision,
    /// All registers at that revision.
    pub(crate) now: BTreeMap<Key, Found>,
    /// Registers as they were after each acknowledged write to them.
    pub(crate) past: BTreeMap<Place, Option<Found>>,
}

/// A client of one node.
struct Reader {
    connection: Connection,
}

impl Reader {
    async fn connect(address: &str) -> Result<Reader> {
        let begin = Instant::now();
        loop {
            match etcd::connect(address).await {
                Ok(channel) => return Ok(Reader { connection: etcd::key_values(channel) }),
                Err(error) if begin.elapsed() > READ_MAX => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn read(&mut self, call: Call, view: View) -> Result<Outcome> {
        let begin = Instant::now();
        loop {
            let answer = etcd::call(&mut self.connection, call, view).await;
            match answer.failure {
                None => return Ok(answer.outcome),
                Some(status) if begin.elapsed() > READ_MAX => {
                    return Err(format!("{call}: {status}"));
                }
                Some(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn scan(&mut self, view: View) -> Result<(Revision, BTreeMap<Key, Found>)> {
        let Outcome::Scanned(revision, all) = self.read(Call::SCAN_ALL, view).await? else {
            return Err("a scan was answered as if it were none".into());
        };
        Ok((revision, all))
    }
}

/// Waits until a node answers a linearizable read; gives how long it took.
pub(crate) async fn wait_ready(address: &str, patience: Duration) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        let error = match etcd::connect(address).await {
            Ok(channel) => {
                let mut connection = etcd::key_values(channel);
                let call = Call::Get { key: Key(0) };
                let answer = etcd::call(&mut connection, call, View::Linearizable).await;
                match answer.failure {
                    None => return Ok(begin.elapsed()),
                    Some(status) => format!("{address}: {}", status.message()),
                }
            }
            Err(error) => error,
        };
        if begin.elapsed() > patience {
            return Err(format!("no linearizable read within {patience:?}: {error}"));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Where acknowledged writes left something that can be read.
pub(crate) fn places(history: &History) -> Vec<Place> {
    let mut places = BTreeSet::new();
    for operation in &history.operations {
        let (Outcome::Written(revision) | Outcome::Deleted(revision, true)) = operation.outcome
        else {
            continue;
        };
        places.extend(operation.call.writes().into_iter().map(|(key, _)| (key, revision)));
    }
    places.into_iter().collect()
}

/// Asks a node for everything.
pub(crate) async fn show(name: &str, address: &str, places: Arc<Vec<Place>>) -> Result<Shown> {
    let mut reader = Reader::connect(address).await?;
    // It shows all that was acknowledged before, so that a node that lags is not taken for one that lost something.
    let (revision, _) = reader.scan(View::Linearizable).await?;
    let (_, now) = reader.scan(View::At(revision)).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..READ_COUNT {
        let (places, next) = (Arc::clone(&places), Arc::clone(&next));
        let mut reader = Reader { connection: reader.connection.clone() };
        tasks.spawn(async move {
            let mut found = Vec::new();
            while let Some((key, revision)) =
                places.get(next.fetch_add(1, Ordering::Relaxed)).copied()
            {
                let call = Call::Get { key };
                let Outcome::Got(_, held) = reader.read(call, View::At(revision)).await? else {
                    return Err(format!("{call} was answered as if it were none"));
                };
                found.push(((key, revision), held));
            }
            Ok(found)
        });
    }
    let mut past = BTreeMap::new();
    while let Some(ended) = tasks.join_next().await {
        past.extend(ended.expect("a reader does not panic")?);
    }
    Ok(Shown { name: name.to_owned(), revision, now, past })
}

/// What a node shows, as the checkers take it.
pub(crate) fn recalls(shown: &Shown) -> impl Iterator<Item = Recall> {
    let recall = |((key, revision), found): (&Place, &Option<Found>)| Recall {
        key: *key,
        revision: *revision,
        found: *found,
    };
    shown.past.iter().map(recall)
}

/// Finds out what each revision did that no client was told of.
pub(crate) async fn explain(address: &str, history: &History) -> Result<Vec<Change>> {
    let told = revisions_told(history);
    let mut reader = Reader::connect(address).await?;
    let (highest, _) = reader.scan(View::Linearizable).await?;
    let mut changes = Vec::new();
    let mut before: Option<(u64, BTreeMap<Key, Found>)> = None;
    for revision in FIRST_CHANGE..=highest.0 {
        if told.contains(&Revision(revision)) {
            continue;
        }
        let earlier = match before.take() {
            Some((at, all)) if at == revision - 1 => all,
            Some(_) | None => reader.scan(View::At(Revision(revision - 1))).await?.1,
        };
        let (_, later) = reader.scan(View::At(Revision(revision))).await?;
        changes.push(Change { revision: Revision(revision), writes: difference(&earlier, &later) });
        before = Some((revision, later));
    }
    Ok(changes)
}

fn revisions_told(history: &History) -> BTreeSet<Revision> {
    let mut told = BTreeSet::new();
    for operation in &history.operations {
        if let Outcome::Written(revision) | Outcome::Deleted(revision, true) = operation.outcome {
            told.insert(revision);
        }
        let found = operation.outcome.found(operation.call);
        told.extend(found.into_iter().map(|(_, found)| found.written_at));
    }
    let recalled = history.recalls.iter().filter_map(|recall| recall.found);
    told.extend(recalled.map(|found| found.written_at));
    told
}

fn difference(
    before: &BTreeMap<Key, Found>,
    after: &BTreeMap<Key, Found>,
) -> BTreeMap<Key, Option<Value>> {
    let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (*key, None));
    let changed = after.iter().filter(|(key, found)| before.get(key) != Some(found));
    gone.chain(changed.map(|(key, found)| (*key, Some(found.value)))).collect()
}
