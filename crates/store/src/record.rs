//! What the engine's values hold: records of keys, and the summary of a group's state.

use crate::etcd::KeyValue;
use crate::keys::Revision;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::{Applied, ApplyFault, DecodeError, Digest, Reader, Writer};

/// The version of the layout of engine keys and values that this code writes.
pub const FORMAT_VERSION: u8 = 2;

/// The bytes of a record before key and value.
const RECORD_HEADER_SIZE: usize = 1 + 8 + 4 + 8 + 8 + 8 + 12 + 12 + 1 + 4;

const KIND_TOMBSTONE: u8 = 0;
const KIND_PUT: u8 = 1;

/// How many changes of a key lie between two that [`Links::far`] leads to.
const FAR_STEPS: u8 = 64;

/// Leads from a change to earlier ones of the same key.
///
/// ```text
///   a key's changes   c1 ◀─ c2 ◀─ ... ◀─ c64 ◀─ c65 ◀─ ... ◀─ c128 ◀─ c129      before
///                                        c64 ◀──────────────── all of c65..c128  far
///                                                              c128 ◀─ c129
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    /// The change before it, [`Revision::NONE`] for the first.
    pub(crate) before: Revision,
    /// The last one of the 64 changes before those it belongs to, for going far back in few steps.
    pub(crate) far: Revision,
    /// How many changes lie between `far` and it.
    pub(crate) steps: u8,
}

/// One version of a key. The same bytes stand in `History` and, while it is the newest, in
/// `Current`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Whether the key was deleted here; then of the version only key and mod revision say anything.
    pub(crate) deleted: bool,
    /// The position of the change inside its main revision.
    pub(crate) sub: u32,
    /// The changes of the key before it.
    pub(crate) links: Links,
    /// The version.
    pub(crate) kv: KeyValue,
}

impl Record {
    pub(crate) fn tombstone(key: Bytes, revision: Revision, links: Links) -> Record {
        let kv = KeyValue { key, mod_revision: revision.main, ..KeyValue::default() };
        Record { deleted: true, sub: revision.sub, links, kv }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision { main: self.kv.mod_revision, sub: self.sub }
    }

    /// The links of the change that follows this one.
    pub(crate) fn links_behind(&self) -> Links {
        let before = self.revision();
        match self.links.steps + 1 {
            FAR_STEPS => Links { before, far: before, steps: 0 },
            steps => Links { before, far: self.links.far, steps },
        }
    }

    /// The size of the encoding in bytes.
    pub(crate) fn encoded_size(&self) -> usize {
        RECORD_HEADER_SIZE + self.kv.key.len() + self.kv.value.len()
    }

    pub(crate) fn encode(&self, buffer: &mut BytesMut) {
        let kv = &self.kv;
        let mut header = [0; RECORD_HEADER_SIZE];
        let mut rest = &mut header[..];
        rest.put_u8(if self.deleted { KIND_TOMBSTONE } else { KIND_PUT });
        rest.put_i64_le(kv.mod_revision);
        rest.put_u32_le(self.sub);
        rest.put_i64_le(kv.create_revision);
        rest.put_i64_le(kv.version);
        rest.put_i64_le(kv.lease);
        for link in [self.links.before, self.links.far] {
            rest.put_i64_le(link.main);
            rest.put_u32_le(link.sub);
        }
        rest.put_u8(self.links.steps);
        rest.put_u32_le(u32::try_from(kv.key.len()).expect("keys are limited"));
        buffer.put_slice(&header);
        buffer.put_slice(&kv.key);
        buffer.put_slice(&kv.value);
    }

    /// Reads a record; key and value share memory with the source.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Record, DecodeError> {
        let short = |needed, left| DecodeError::Short { what: "record", needed, left };
        let Some(mut header) = bytes.get(..RECORD_HEADER_SIZE) else {
            return Err(short(RECORD_HEADER_SIZE, bytes.len()));
        };
        let deleted = match header.get_u8() {
            KIND_TOMBSTONE => true,
            KIND_PUT => false,
            value => return Err(DecodeError::Unknown { what: "record kind", value: value.into() }),
        };
        let (mod_revision, sub) = (header.get_i64_le(), header.get_u32_le());
        let (create_revision, version, lease) =
            (header.get_i64_le(), header.get_i64_le(), header.get_i64_le());
        let before = Revision { main: header.get_i64_le(), sub: header.get_u32_le() };
        let far = Revision { main: header.get_i64_le(), sub: header.get_u32_le() };
        let links = Links { before, far, steps: header.get_u8() };
        let key_size = header.get_u32_le() as usize;
        bytes.advance(RECORD_HEADER_SIZE);
        if key_size > bytes.len() {
            return Err(short(key_size, bytes.len()));
        }
        let key = bytes.split_to(key_size);
        let kv = KeyValue { key, create_revision, mod_revision, version, value: bytes, lease };
        let record = Record { deleted, sub, links, kv };
        let in_order = far <= before && before < record.revision() && far.main >= 0;
        if !in_order || links.steps >= FAR_STEPS {
            return Err(DecodeError::Invalid("a record's revisions contradict each other"));
        }
        Ok(record)
    }
}

/// Whether an encoded record says that its key was deleted.
pub(crate) fn is_tombstone(record: &[u8]) -> bool {
    record.first() == Some(&KIND_TOMBSTONE)
}

/// Reads a record that the engine gave: what does not decode is damage.
pub(crate) fn read_record(bytes: Bytes) -> Result<Record, ApplyFault> {
    Record::decode(bytes).map_err(|error| damaged(&error))
}

pub(crate) fn damaged(error: &DecodeError) -> ApplyFault {
    ApplyFault::Damaged(error.to_string())
}

/// Reads eight bytes as a signed integer.
pub(crate) fn read_i64(reader: &mut Reader) -> Result<i64, DecodeError> {
    Ok(reader.u64()?.cast_signed())
}

/// What is known of a group's state as a whole; one record, rewritten with each apply.
///
/// # Invariants
/// 1. `compacted <= revision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// How far the log is applied, and the digest chain there.
    pub(crate) applied: Applied,
    /// The revision of the last change; 1 while there was none.
    pub(crate) revision: i64,
    /// Reads below this revision are refused; -1 before the first compaction.
    pub(crate) compacted: i64,
}

impl Default for Summary {
    fn default() -> Summary {
        Summary { applied: Applied::default(), revision: 1, compacted: -1 }
    }
}

impl Summary {
    pub(crate) fn check(&self) {
        assert!(
            self.compacted <= self.revision,
            "compacted to {} above the revision {}",
            self.compacted,
            self.revision
        );
    }

    pub(crate) fn encode(&self) -> Bytes {
        self.check();
        let mut buffer = BytesMut::with_capacity(49);
        buffer.put_u8(FORMAT_VERSION);
        buffer.write_position(self.applied.position);
        buffer.put_u64_le(self.applied.digest.0);
        buffer.put_i64_le(self.revision);
        buffer.put_i64_le(self.compacted);
        buffer.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Summary, DecodeError> {
        let mut reader = Reader::new("store summary", bytes);
        let version = reader.u8()?;
        if version != FORMAT_VERSION {
            return Err(DecodeError::Unknown { what: "store format", value: version.into() });
        }
        let applied = Applied { position: reader.position()?, digest: Digest(reader.u64()?) };
        let revision = read_i64(&mut reader)?;
        let compacted = read_i64(&mut reader)?;
        reader.finish()?;
        if revision < 1 || compacted > revision || compacted < -1 {
            return Err(DecodeError::Invalid("the store's revisions contradict each other"));
        }
        Ok(Summary { applied, revision, compacted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_encoding() {
        let kv = KeyValue {
            key: Bytes::from_static(b"k\0"),
            create_revision: 2,
            mod_revision: 9,
            version: 3,
            value: Bytes::from_static(b"value"),
            lease: 0,
        };
        let before = Revision { main: 8, sub: 1 };
        let links = Links { before, far: Revision { main: 3, sub: 0 }, steps: 9 };
        let put = Record { deleted: false, sub: 4, links, kv };
        let revision = Revision { main: 10, sub: 1 };
        let gone = Record::tombstone(Bytes::from_static(b"k"), revision, put.links_behind());
        for record in [put, gone] {
            let mut buffer = BytesMut::new();
            record.encode(&mut buffer);
            assert_eq!(buffer.len(), record.encoded_size());
            let encoded = buffer.freeze();
            assert_eq!(Record::decode(encoded.clone()), Ok(record));
            assert!(Record::decode(encoded.slice(..RECORD_HEADER_SIZE)).is_err());
        }
    }

    #[test]
    fn far_links_lead_to_every_64th_change() {
        let revision = |number: i64| Revision { main: 1 + number, sub: 0 };
        let mut record = Record::tombstone(Bytes::new(), revision(1), Links::default());
        for number in 2..1000 {
            record = Record::tombstone(Bytes::new(), revision(number), record.links_behind());
            let far = (number - 1) / 64 * 64;
            let expected = if far == 0 { Revision::NONE } else { revision(far) };
            assert_eq!(record.links.before, revision(number - 1));
            assert_eq!(record.links.far, expected, "of change {number}");
        }
    }

    #[test]
    fn a_summary_survives_its_encoding_and_a_later_format_is_refused() {
        let summary = Summary { revision: 7, compacted: 5, ..Summary::default() };
        assert_eq!(Summary::decode(summary.encode()), Ok(summary));
        let mut later = BytesMut::from(&summary.encode()[..]);
        later[0] = FORMAT_VERSION + 1;
        assert!(Summary::decode(later.freeze()).is_err());
    }

    #[test]
    fn a_record_whose_revisions_contradict_each_other_is_refused() {
        let check = |far: (i64, u32), before: (i64, u32), own: (i64, u32), steps, is_good| {
            let revision = |(main, sub)| Revision { main, sub };
            let links = Links { before: revision(before), far: revision(far), steps };
            let record = Record::tombstone(Bytes::from_static(b"k"), revision(own), links);
            let mut buffer = BytesMut::new();
            record.encode(&mut buffer);
            let decoded = Record::decode(buffer.freeze());
            assert_eq!(decoded.is_ok(), is_good, "{record:?}");
        };
        check((0, 0), (0, 0), (2, 0), 0, true);
        check((3, 0), (5, 1), (5, 2), 63, true);
        check((5, 1), (5, 1), (5, 2), 0, true);
        check((3, 0), (5, 1), (5, 2), 64, false);
        check((5, 2), (5, 1), (5, 3), 1, false);
        check((3, 0), (5, 2), (5, 2), 1, false);
        check((3, 0), (6, 0), (5, 2), 1, false);
        check((-1, 0), (4, 0), (5, 2), 1, false);
        check((-3, 0), (-2, 0), (-1, 0), 0, false);
    }

    #[test]
    fn a_summary_whose_revisions_contradict_each_other_is_neither_read_nor_written() {
        /// Where they stand: behind the version, the position and the digest.
        const REVISION_AT: usize = 1 + 24 + 8;
        let encoded = Summary::default().encode();
        let check = |revision: i64, compacted: i64, is_good| {
            let mut bytes = encoded.to_vec();
            bytes[REVISION_AT..][..8].copy_from_slice(&revision.to_le_bytes());
            bytes[REVISION_AT + 8..][..8].copy_from_slice(&compacted.to_le_bytes());
            let decoded = Summary::decode(bytes.into());
            assert_eq!(decoded.is_ok(), is_good, "{revision} {compacted}");
        };
        for (revision, compacted) in [(1, -1), (1, 0), (5, 4), (5, 5)] {
            check(revision, compacted, true);
        }
        for (revision, compacted) in [(0, -1), (-1, -1), (5, 6), (5, -2)] {
            check(revision, compacted, false);
        }
        let wrong = Summary { revision: 5, compacted: 6, ..Summary::default() };
        assert!(std::panic::catch_unwind(|| wrong.encode()).is_err());
    }
}
