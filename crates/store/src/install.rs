//! Taking a snapshot in, chunk by chunk, into a generation that is not live yet.

use crate::compaction::Sweep;
use crate::engine::{Batch, Table};
use crate::etcd::{KEY_SIZE_MAX, read_attributes};
use crate::keys::{Keys, Revision};
use crate::overlay::Changes;
use crate::record::{Record, Summary};
use crate::snapshot::{
    CHUNK_HEADER_SIZE, CHUNK_MAGIC, RECORD_CHANGE, RECORD_END, RECORD_MEMBER, RECORD_ORIGIN,
    RECORD_SUMMARY, chain_start, chunk_checksum,
};
use bytes::Bytes;
use quorate_types::{
    Applied, AppliedMembers, DecodeError, Incarnation, InstallFault, NodeId, OriginTable, Reader,
    SnapshotName,
};

/// A snapshot on its way in.
///
/// # Invariants
/// 1. What was taken so far is a prefix of the stream that the name promises, as far as checksums
///    and order can say.
/// 2. `finished` only after the last record, with everything counted.
pub(crate) struct Staging {
    /// The keys of the group.
    keys: Keys,
    /// What the name promises.
    expected: Applied,
    /// Who takes part there, as the name says.
    members: AppliedMembers,
    /// The summary, once the first record came.
    summary: Option<Summary>,
    /// How many chunks came.
    number: u32,
    /// The checksum of the last.
    checksum: u64,
    /// How many records came.
    count: u64,
    /// The kind of the last record: kinds come in order.
    kind: u8,
    /// The revision of the last change.
    last: Revision,
    /// Whether everything came and is synced.
    finished: bool,
}

impl Staging {
    pub(crate) fn new(name: &SnapshotName, keys: Keys) -> Staging {
        Staging {
            keys,
            expected: Applied { position: name.position, digest: name.digest },
            members: name.into(),
            summary: None,
            number: 0,
            checksum: chain_start(name.digest),
            count: 0,
            kind: 0,
            last: Revision::default(),
            finished: false,
        }
    }

    /// What a chunk adds to the staged generation.
    pub(crate) fn take(&mut self, chunk: Bytes) -> Result<Batch, InstallFault> {
        self.read_chunk(chunk).map_err(|error| content(self.number, &error))
    }

    fn read_chunk(&mut self, chunk: Bytes) -> Result<Batch, DecodeError> {
        let size = chunk.len().saturating_sub(CHUNK_HEADER_SIZE);
        let mut reader = Reader::new("snapshot chunk", chunk);
        let magic = reader.u32()?;
        if magic != CHUNK_MAGIC {
            return Err(DecodeError::Unknown { what: "snapshot chunk mark", value: magic.into() });
        }
        let number = reader.u32()?;
        if number != self.number {
            return Err(DecodeError::Invalid("it is not the next chunk"));
        }
        if reader.u32()? as usize != size {
            return Err(DecodeError::Invalid("its size is not what its header says"));
        }
        let expected = reader.u64()?;
        let records = reader.bytes(size)?;
        let found = chunk_checksum(self.checksum, number, &records);
        if expected != found {
            return Err(DecodeError::Checksum { what: "snapshot chunk", expected, found });
        }
        self.number += 1;
        self.checksum = found;
        let mut changes = Changes::default();
        let mut reader = Reader::new("snapshot record", records);
        while reader.left() > 0 {
            self.read_one(&mut reader, &mut changes)?;
        }
        Ok(changes.into_batch())
    }

    fn read_one(&mut self, reader: &mut Reader, changes: &mut Changes) -> Result<(), DecodeError> {
        let kind = reader.u8()?;
        let first = self.summary.is_none();
        if first != (kind == RECORD_SUMMARY) || kind < self.kind || self.kind == RECORD_END {
            return Err(DecodeError::Invalid("its records are out of order"));
        }
        self.kind = kind;
        match kind {
            RECORD_SUMMARY => {
                let summary = Summary::decode(reader.blob()?)?;
                if summary.applied != self.expected {
                    return Err(DecodeError::Invalid("it was taken at another position or digest"));
                }
                self.summary = Some(summary);
            }
            RECORD_ORIGIN => self.read_origin(reader, changes)?,
            RECORD_MEMBER => self.read_member(reader, changes)?,
            RECORD_CHANGE => self.read_change(reader, changes)?,
            RECORD_END => {
                if reader.u64()? != self.count {
                    return Err(DecodeError::Invalid("it lacks records or has too many"));
                }
                return Ok(());
            }
            value => {
                return Err(DecodeError::Unknown { what: "snapshot record", value: value.into() });
            }
        }
        self.count += 1;
        Ok(())
    }

    fn read_origin(&self, reader: &mut Reader, changes: &mut Changes) -> Result<(), DecodeError> {
        let key = reader.blob()?;
        let window = reader.blob()?;
        let id = key.get(1..).and_then(|id| id.try_into().ok()).map(u128::from_be_bytes);
        let id = id.ok_or(DecodeError::Invalid("an origin's key has another size"))?;
        let (node, incarnation) = (NodeId((id >> 64) as u64), Incarnation(id as u64));
        OriginTable::default().decode_window(node, incarnation, window.clone())?;
        changes.put(Table::State, self.keys.origin(node, incarnation), window);
        Ok(())
    }

    fn read_member(&self, reader: &mut Reader, changes: &mut Changes) -> Result<(), DecodeError> {
        let key = reader.blob()?;
        let attributes = reader.blob()?;
        let id = key.get(1..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
        let id = id.ok_or(DecodeError::Invalid("a member's key has another size"))?;
        let mut inner = Reader::new("member attributes", attributes.clone());
        read_attributes(&mut inner)?;
        inner.finish()?;
        changes.put(Table::State, self.keys.member(NodeId(id)), attributes);
        Ok(())
    }

    /// A change goes into history as it is, and as the newest of its key for now.
    fn read_change(
        &mut self,
        reader: &mut Reader,
        changes: &mut Changes,
    ) -> Result<(), DecodeError> {
        let encoded = reader.blob()?;
        let record = Record::decode(encoded.clone())?;
        let revision = record.revision();
        let newest = self.summary.map_or(0, |summary| summary.revision);
        if revision <= self.last || revision.main > newest {
            return Err(DecodeError::Invalid("its changes are out of order"));
        }
        let key = &record.kv.key;
        if key.is_empty() || key.len() > KEY_SIZE_MAX {
            return Err(DecodeError::Invalid("a key is empty or too long"));
        }
        self.last = revision;
        changes.put(Table::Current, self.keys.current(key), encoded.clone());
        changes.put(Table::History, self.keys.history(revision), encoded);
        Ok(())
    }

    /// The last batch: what makes the generation a state. Only when the whole stream came.
    pub(crate) fn finish(&mut self) -> Result<Batch, InstallFault> {
        let Some(summary) = self.summary.filter(|_| self.kind == RECORD_END) else {
            return Err(content(self.number, &DecodeError::Invalid("the stream ends too early")));
        };
        let mut changes = Changes::default();
        changes.put(Table::State, self.keys.summary(), summary.encode());
        changes.put(Table::State, self.keys.configuration(), self.members.encode());
        let sweep = Sweep::done(summary.compacted);
        changes.put(Table::State, self.keys.swept(), sweep.encode());
        self.finished = true;
        Ok(changes.into_batch())
    }

    /// What a complete snapshot brings the store to.
    pub(crate) fn complete(&self) -> Result<Applied, InstallFault> {
        if self.finished {
            return Ok(self.expected);
        }
        Err(InstallFault::Content("it is not finished".into()))
    }
}

fn content(number: u32, error: &DecodeError) -> InstallFault {
    InstallFault::Content(format!("chunk {number}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::KeyValue;
    use crate::record::Links;
    use bytes::{BufMut, BytesMut};
    use quorate_types::{Configuration, Digest, Epoch, GroupId, Index, Position, Writer};

    fn applied() -> Applied {
        let position = Position::new(Index(9), Epoch::new(2, NodeId(1)));
        Applied { position, digest: Digest(77) }
    }

    fn summary(applied: Applied) -> (u8, Bytes) {
        (RECORD_SUMMARY, Summary { applied, revision: 5, ..Summary::default() }.encode())
    }

    fn change(key: &'static str, main: i64) -> (u8, Bytes) {
        let key = Bytes::from_static(key.as_bytes());
        let kv = KeyValue { key, mod_revision: main, ..KeyValue::default() };
        let mut buffer = BytesMut::new();
        Record { deleted: false, sub: 0, links: Links::default(), kv }.encode(&mut buffer);
        (RECORD_CHANGE, buffer.freeze())
    }

    /// A chunk whose checksum is right, whatever it says: what a faulty peer could send.
    fn forge(records: &[(u8, Bytes)], count: u64) -> Bytes {
        let mut body = BytesMut::new();
        for (kind, value) in records {
            body.put_u8(*kind);
            body.write_blob(value);
        }
        body.put_u8(RECORD_END);
        body.put_u64_le(count);
        let mut chunk = BytesMut::new();
        chunk.put_u32_le(CHUNK_MAGIC);
        chunk.put_u32_le(0);
        chunk.put_u32_le(u32::try_from(body.len()).expect("small"));
        chunk.put_u64_le(chunk_checksum(chain_start(applied().digest), 0, &body));
        chunk.put_slice(&body);
        chunk.freeze()
    }

    #[test]
    fn a_stream_with_right_checksums_and_wrong_content_is_refused() {
        let check = |records: &[(u8, Bytes)], count, usable: bool| {
            let Applied { position, digest } = applied();
            let name = SnapshotName { position, digest, configuration: Configuration::default() };
            let mut staging = Staging::new(&name, Keys::new(GroupId(0)));
            let taken = staging.take(forge(records, count)).and_then(|_| staging.finish());
            assert_eq!(taken.is_ok(), usable, "{records:?}: {:?}", taken.err());
        };
        let good = summary(applied());
        check(&[good.clone(), change("a", 2), change("a", 3)], 3, true);
        check(&[good.clone(), change("a", 2), change("a", 3)], 2, false);
        check(&[good.clone(), change("a", 3), change("a", 2)], 3, false);
        check(&[good.clone(), change("a", 3), change("b", 3)], 3, false);
        check(&[good.clone(), change("a", 6)], 2, false);
        check(&[good.clone(), change("", 2)], 2, false);
        check(&[good.clone(), good.clone()], 2, false);
        check(&[change("a", 2)], 1, false);
        check(&[good.clone(), (9, Bytes::new())], 2, false);
        check(&[good.clone(), (RECORD_CHANGE, Bytes::from_static(b"short"))], 2, false);
        let elsewhere = Position { index: Index(8), ..applied().position };
        check(&[summary(Applied { position: elsewhere, ..applied() })], 1, false);
        check(&[summary(Applied { digest: Digest(78), ..applied() })], 1, false);
    }

    #[test]
    fn a_key_of_the_largest_size_is_taken_and_a_larger_one_is_refused() {
        for (size, usable) in [(KEY_SIZE_MAX, true), (KEY_SIZE_MAX + 1, false)] {
            let Applied { position, digest } = applied();
            let name = SnapshotName { position, digest, configuration: Configuration::default() };
            let mut staging = Staging::new(&name, Keys::new(GroupId(0)));
            let records = [summary(applied()), change("k".repeat(size).leak(), 2)];
            assert_eq!(staging.take(forge(&records, 2)).is_ok(), usable, "{size} bytes");
        }
    }
}
