//! A store on a memory engine that is fed commands as a log would feed them.

use bytes::Bytes;
use quorate_store::engine::{MemoryDisk, MemoryEngine};
use quorate_store::etcd::*;
use quorate_store::{ReadError, Store, StoreReader};
use quorate_types::*;

pub(crate) const GROUP: GroupId = GroupId(0);

pub(crate) type TestStore = Store<MemoryEngine>;

/// A store and what it takes to make its next entry.
pub(crate) struct Client {
    pub(crate) disk: MemoryDisk,
    pub(crate) store: TestStore,
    /// Every entry so far.
    pub(crate) log: Vec<Committed>,
}

impl Client {
    pub(crate) fn new() -> Client {
        let disk = MemoryDisk::new();
        let store = open(&disk);
        Client { disk, store, log: Vec::new() }
    }

    pub(crate) fn reader(&self) -> StoreReader<MemoryEngine> {
        self.store.reader()
    }

    /// Applies one command and gives its reply.
    pub(crate) fn run(&mut self, command: Command) -> Reply {
        let committed = entry(self.log.len() as u64 + 1, &command);
        self.log.push(committed.clone());
        let mut replies = self.store.apply(&[committed]).expect("memory does not fail");
        replies.pop().expect("one reply an entry").expect("it is wanted and new")
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        let reply = self.run(put(key, value));
        let Reply::Put(response) = reply else { panic!("a put got {reply:?}") };
        response.revision
    }

    pub(crate) fn delete(&mut self, key: &str, range_end: &str) -> DeleteRangeResponse {
        let reply = self.run(delete(key, range_end));
        let Reply::DeleteRange(response) = reply else { panic!("a delete got {reply:?}") };
        response
    }

    pub(crate) fn txn(&mut self, txn: TxnRequest) -> TxnResponse {
        let reply = self.run(Command::Txn(txn));
        let Reply::Txn(response) = reply else { panic!("a transaction got {reply:?}") };
        response
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<i64, KvError> {
        let reply = self.run(Command::Compact(CompactRequest { revision }));
        if let Reply::Error(error) = reply {
            return Err(error);
        }
        let Reply::Compact(response) = reply else { panic!("a compaction got {reply:?}") };
        Ok(response.revision)
    }

    pub(crate) fn refusal(&mut self, command: Command) -> KvError {
        let reply = self.run(command);
        let Reply::Error(error) = reply else { panic!("expected a refusal, got {reply:?}") };
        error
    }

    /// `key=value` of a range, space between.
    pub(crate) fn show(&self, key: &str, range_end: &str, revision: i64) -> String {
        let request = RangeRequest { revision, ..range(key, range_end) };
        match self.reader().range(&request) {
            Ok(response) => texts(&response.kvs),
            Err(ReadError::Refused(error)) => error.to_string(),
            Err(ReadError::Fault(fault)) => panic!("{fault}"),
        }
    }

    pub(crate) fn kv(&self, key: &str) -> KeyValue {
        let response = self.reader().range(&range(key, "")).expect("readable");
        response.kvs.into_iter().next().expect("the key is there")
    }
}

pub(crate) fn open(disk: &MemoryDisk) -> TestStore {
    Store::open(disk.open(), GROUP).expect("its own state")
}

pub(crate) fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn texts(kvs: &[KeyValue]) -> String {
    let pairs = kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value)));
    pairs.collect::<Vec<_>>().join(" ")
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The entry of a command at an index, from the origin with that sequence.
pub(crate) fn entry(index: u64, command: &Command) -> Committed {
    let origin = Origin { node: NodeId(1), incarnation: Incarnation(7), sequence: index };
    committed(index, origin, EntryKind::Command, command.encode())
}

pub(crate) fn committed(index: u64, origin: Origin, kind: EntryKind, body: Bytes) -> Committed {
    let created = Epoch::new(3, NodeId(1));
    let entry = Entry::new(created, kind, origin, TransactionId(0), body);
    Committed { index: Index(index), entry, wanted: true }
}

pub(crate) fn put_request(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    Command::Put(put_request(key, value))
}

pub(crate) fn delete_request(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

pub(crate) fn delete(key: &str, range_end: &str) -> Command {
    Command::DeleteRange(delete_request(key, range_end))
}

pub(crate) fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(range_end), ..RangeRequest::default() }
}

pub(crate) fn compare(key: &str, result: CompareResult, target: CompareTarget) -> Compare {
    Compare { key: bytes(key), range_end: Bytes::new(), result, target }
}

/// The name of a snapshot at what a store has applied.
pub(crate) fn name_of(applied: Applied) -> SnapshotName {
    let configuration = Configuration::default();
    SnapshotName { position: applied.position, digest: applied.digest, configuration }
}

/// Every chunk of a snapshot.
pub(crate) fn stream(store: &mut TestStore) -> Vec<Bytes> {
    let mut source = store.capture().expect("memory does not fail");
    let mut chunks = Vec::new();
    while let Some(chunk) = source.next_chunk().expect("memory does not fail") {
        chunks.push(chunk);
    }
    chunks
}

/// Installs chunks under a name.
pub(crate) fn install(
    store: &mut TestStore,
    name: &SnapshotName,
    chunks: &[Bytes],
) -> Result<Applied, InstallFault> {
    store.stage_begin(name)?;
    for chunk in chunks {
        store.stage_chunk(chunk.clone())?;
    }
    store.stage_finish()?;
    store.install()
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
