//! Entry points for what stands in log entries, in the engine and in snapshot streams, as fuzzers and the replay of their
//! corpora call them.

use crate::compaction::Sweep;
use crate::engine::{MemoryDisk, MemoryEngine};
use crate::etcd::{Command, RangeRequest, check};
use crate::record::{Record, Summary};
use crate::snapshot::{CHUNK_HEADER_SIZE, CHUNK_MAGIC, chain_start, chunk_checksum};
use crate::store::Store;
use bytes::{Buf, Bytes, BytesMut};
use quorate_types::{
    AppliedMembers, Committed, Configuration, Digest, Entry, EntryKind, Epoch, GroupId,
    Incarnation, Index, InstallFault, NodeId, Origin, Reader, SnapshotName, StateMachine,
    TransactionId,
};

/// A command, decoded and encoded again.
pub fn command(data: &[u8]) {
    let Ok(command) = Command::decode(Bytes::copy_from_slice(data)) else { return };
    let again = Command::decode(command.encode());
    assert_eq!(again.as_ref(), Ok(&command), "a command changes by its encoding");
    let _ = check(&command);
}

/// Commands one after the other, each behind its size (2), applied to a store one by one and to another all at once:
/// both must come to the same state.
pub fn apply(data: &[u8]) {
    /// So that one run stays short.
    const COMMANDS_MAX: usize = 32;
    let mut data = data;
    let mut entries: Vec<Committed> = Vec::new();
    while let Ok(size) = data.try_get_u16_le() {
        let body = data.copy_to_bytes(usize::from(size).min(data.len()));
        if entries.len() < COMMANDS_MAX && Command::decode(body.clone()).is_ok() {
            entries.push(committed(entries.len() as u64 + 1, body));
        }
    }
    let (mut stepwise, mut whole) = (empty(), empty());
    for entry in &entries {
        stepwise.apply(std::slice::from_ref(entry)).expect("commands that decode apply");
    }
    whole.apply(&entries).expect("commands that decode apply");
    assert_eq!(whole.applied(), stepwise.applied(), "batches change the state");
    while stepwise.tend().expect("memory does not fail") {}
    let all = RangeRequest { range_end: Bytes::from_static(b"\0"), ..all_keys() };
    let (one, other) = (stepwise.reader().range(&all), whole.reader().range(&all));
    assert_eq!(one, other, "how far a replica has swept shows");
}

/// A record of a key, the summary of a group, or the place of its sweep: values of the engine.
pub fn values(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(record) = Record::decode(bytes.clone()) {
        let mut again = BytesMut::new();
        record.encode(&mut again);
        assert_eq!(again, bytes, "a record changes by its encoding");
        let _ = record.links_behind();
    }
    if let Ok(members) = AppliedMembers::decode(bytes.clone()) {
        let again = AppliedMembers::decode(members.encode());
        assert_eq!(again, Ok(members), "the members change by their encoding");
    }
    if let Ok(summary) = Summary::decode(bytes.clone()) {
        assert_eq!(summary.encode(), bytes, "a summary changes by its encoding");
    }
    if let Ok(sweep) = Sweep::decode(bytes) {
        assert_eq!(Sweep::decode(sweep.encode()), Ok(sweep), "a sweep changes by its encoding");
    }
}

/// The chunks of a snapshot, one after the other, installed where they are well formed; the store must then go on.
pub fn snapshot(data: &[u8]) {
    let chunks = split(data);
    install(&chunks);
    let sealed = sealed(&chunks);
    install(&sealed);
}

fn all_keys() -> RangeRequest {
    RangeRequest { key: Bytes::from_static(b"\0"), ..RangeRequest::default() }
}

fn empty() -> Store<MemoryEngine> {
    Store::open(MemoryDisk::new().open(), GroupId(0)).expect("an empty engine")
}

fn committed(index: u64, body: Bytes) -> Committed {
    let origin = Origin { node: NodeId(1), incarnation: Incarnation(7), sequence: index };
    let (created, kind) = (Epoch::new(3, NodeId(1)), EntryKind::Command);
    let entry = Entry::new(created, kind, origin, TransactionId(0), body);
    Committed { index: Index(index), entry, wanted: true }
}

/// Chunks as their headers say; the last may be cut.
fn split(data: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let size = rest.get(8..12).map_or(0, |mut size| size.get_u32_le() as usize);
        let size = CHUNK_HEADER_SIZE.saturating_add(size).min(rest.len());
        chunks.push(rest[..size].to_vec());
        rest = &rest[size..];
    }
    chunks
}

/// The name that the summary in the first chunk asks for.
fn name_in(chunk: &[u8]) -> Option<SnapshotName> {
    let records = chunk.get(CHUNK_HEADER_SIZE + 1..)?;
    let mut reader = Reader::new("summary", Bytes::copy_from_slice(records));
    let summary = Summary::decode(reader.blob().ok()?).ok()?;
    let (position, digest) = (summary.applied.position, summary.applied.digest);
    Some(SnapshotName { position, digest, configuration: Configuration::default() })
}

/// The same chunks with the headers that belong to them.
fn sealed(chunks: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let name = chunks.first().and_then(|chunk| name_in(chunk));
    let mut checksum = chain_start(name.map_or(Digest(0), |name| name.digest));
    let mut sealed = chunks.to_vec();
    for (number, chunk) in (0..).zip(&mut sealed) {
        let Some((header, records)) = chunk.split_at_mut_checked(CHUNK_HEADER_SIZE) else { break };
        checksum = chunk_checksum(checksum, number, records);
        header[..4].copy_from_slice(&CHUNK_MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&number.to_le_bytes());
        let size = u32::try_from(records.len()).unwrap_or(u32::MAX);
        header[8..12].copy_from_slice(&size.to_le_bytes());
        header[12..].copy_from_slice(&checksum.to_le_bytes());
    }
    sealed
}

fn install(chunks: &[Vec<u8>]) {
    let Some(name) = chunks.first().and_then(|chunk| name_in(chunk)) else { return };
    let mut store = empty();
    let staged = stage(&mut store, &name, chunks);
    if staged.and_then(|()| store.install()).is_err() {
        return;
    }
    assert_eq!(store.applied().position, name.position, "another snapshot was installed");
    if store.reader().range(&all_keys()).is_ok() && name.position.index.0 < u64::MAX {
        let put = Bytes::from_static(&[
            1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 107, 0, 0, 0, 0,
        ]);
        let _ = store.apply(&[committed(name.position.index.0 + 1, put)]);
        let _ = store.tend();
    }
}

fn stage(
    store: &mut Store<MemoryEngine>,
    name: &SnapshotName,
    chunks: &[Vec<u8>],
) -> Result<(), InstallFault> {
    store.stage_begin(name)?;
    for chunk in chunks {
        store.stage_chunk(Bytes::copy_from_slice(chunk))?;
    }
    store.stage_finish()
}
