//! What is agreed on: entries, their origins, and the slots that hold them.
//!
//! ```text
//!  0        4     5        6         8                 24
//!  +--------+-----+--------+---------+-----------------+
//!  | body   |kind |version | zero    | created epoch   |
//!  | size   |     |        |         | number | owner  |
//!  +--------+-----+--------+---------+-----------------+
//!  24                      48                 56       64
//!  +-----------------------+------------------+--------+---------
//!  | origin                | transaction id   | content| body ...
//!  | node |incarn.|sequence|                  | hash   |
//!  +-----------------------+------------------+--------+---------
//! ```
//! All integers are little-endian. The content hash is XXH3-64 over bytes 0..56 and the body, so it
//! is at once the entry's identity and the checksum of its body, made once and checked wherever
//! the entry comes off a disk or a wire.

use crate::codec::check_epoch_number;
use crate::{DecodeError, Epoch, Incarnation, Index, NodeId, Reader};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The size of an encoded entry before its body, in bytes.
pub const ENTRY_HEADER_SIZE: usize = 64;

/// The largest body of an entry, in bytes: above the 1.5 MiB request limit of etcd with its overhead,
/// and a quarter of a frame.
pub const BODY_SIZE_MAX: usize = 4 * 1024 * 1024;

/// The format version that this code writes into the entry header.
const ENTRY_VERSION: u8 = 1;

/// What an entry's body means to whoever applies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Nothing: a new leader's first entry, or a Paxos gap that was filled.
    Noop = 0,
    /// A [`crate::Configuration`].
    Configuration = 1,
    /// A command evaluated at apply.
    Command = 2,
    /// A validated write set.
    WriteSet = 3,
    /// Reserved for the first phase of a transaction over several groups.
    Prepared = 4,
    /// An [`Origin`], whose proposal is not to be applied any more if it was not before ([`crate::Fate`]).
    Settle = 5,
}

impl EntryKind {
    fn from_byte(byte: u8) -> Result<EntryKind, DecodeError> {
        match byte {
            0 => Ok(EntryKind::Noop),
            1 => Ok(EntryKind::Configuration),
            2 => Ok(EntryKind::Command),
            3 => Ok(EntryKind::WriteSet),
            4 => Ok(EntryKind::Prepared),
            5 => Ok(EntryKind::Settle),
            value => Err(DecodeError::Unknown { what: "entry kind", value: value.into() }),
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EntryKind::Noop => "noop",
            EntryKind::Configuration => "configuration",
            EntryKind::Command => "command",
            EntryKind::WriteSet => "write-set",
            EntryKind::Prepared => "prepared",
            EntryKind::Settle => "settle",
        })
    }
}

/// Which proposal an entry came from. The apply of an origin already seen does nothing, so a
/// proposal may be sent again without being applied twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node whose client proposed it; `NodeId(0)` for entries that a leader makes itself.
    pub node: NodeId,
    /// That node's incarnation.
    pub incarnation: Incarnation,
    /// Rises by one with each proposal of that incarnation, over restarts too. From 1.
    pub sequence: u64,
}

impl Origin {
    /// The origin of entries that no client waits for: no-ops and configurations. Never recorded in
    /// an origin table.
    pub const NONE: Origin = Origin { node: NodeId(0), incarnation: Incarnation(0), sequence: 0 };

    /// Appends the encoding: node, incarnation, sequence (`u64` each).
    pub fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_u64_le(self.node.0);
        buffer.put_u64_le(self.incarnation.0);
        buffer.put_u64_le(self.sequence);
    }

    /// Takes an origin off the front of `reader`.
    ///
    /// # Errors
    /// When bytes are missing.
    pub fn decode(reader: &mut Reader) -> Result<Origin, DecodeError> {
        let (node, incarnation) = (NodeId(reader.u64()?), Incarnation(reader.u64()?));
        Ok(Origin { node, incarnation, sequence: reader.u64()? })
    }

    /// Whether this is [`Origin::NONE`].
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.node == NodeId(0)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("-");
        }
        write!(f, "{}.{:04x}/{}", self.node, self.incarnation.0 & 0xffff, self.sequence)
    }
}

/// The transaction that an entry belongs to; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u64);

/// XXH3-64 over an entry's header fields and body: its identity for life, and its body checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub u64);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One thing to agree on. Cheap to clone: the body is reference-counted.
///
/// # Invariants
/// 1. `hash` is the content hash of the other fields: an entry is only made by [`Entry::new`] and
///    [`Entry::decode`].
/// 2. The body is at most [`BODY_SIZE_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    created: Epoch,
    kind: EntryKind,
    origin: Origin,
    transaction: TransactionId,
    hash: ContentHash,
    body: Bytes,
}

impl Entry {
    /// An entry created in `created`. The content hash is computed here, once.
    ///
    /// # Panics
    /// When the body is above [`BODY_SIZE_MAX`]: proposals are checked before they get this far.
    #[must_use]
    pub fn new(
        created: Epoch,
        kind: EntryKind,
        origin: Origin,
        transaction: TransactionId,
        body: Bytes,
    ) -> Entry {
        assert!(body.len() <= BODY_SIZE_MAX, "a body of {} bytes is above the limit", body.len());
        let mut entry =
            Entry { created, kind, origin, transaction, hash: ContentHash::default(), body };
        entry.hash = hash_of(&entry.hashed_header(), &entry.body);
        entry
    }

    /// The no-op that a new leader of `created` appends.
    #[must_use]
    pub fn noop(created: Epoch) -> Entry {
        Entry::new(created, EntryKind::Noop, Origin::NONE, TransactionId(0), Bytes::new())
    }

    /// The epoch in which this entry was first proposed; never changes.
    #[must_use]
    pub fn created(&self) -> Epoch {
        self.created
    }

    /// What the body means.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    /// Which proposal it came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The transaction it belongs to.
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// Its identity for life.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The encoded size in bytes, header and body.
    #[must_use]
    pub fn encoded_size(&self) -> usize {
        ENTRY_HEADER_SIZE + self.body.len()
    }

    fn hashed_header(&self) -> [u8; ENTRY_HEADER_SIZE - 8] {
        let mut header = [0; ENTRY_HEADER_SIZE - 8];
        let mut rest = &mut header[..];
        rest.put_u32_le(u32::try_from(self.body.len()).expect("bodies are limited"));
        rest.put_u8(self.kind as u8);
        rest.put_u8(ENTRY_VERSION);
        rest.put_u16_le(0);
        rest.put_u64_le(self.created.number);
        rest.put_u64_le(self.created.owner.0);
        rest.put_u64_le(self.origin.node.0);
        rest.put_u64_le(self.origin.incarnation.0);
        rest.put_u64_le(self.origin.sequence);
        rest.put_u64_le(self.transaction.0);
        header
    }

    /// The encoded header, to be followed by the body: for callers that gather slices.
    #[must_use]
    pub fn encoded_header(&self) -> [u8; ENTRY_HEADER_SIZE] {
        let mut header = [0; ENTRY_HEADER_SIZE];
        header[..ENTRY_HEADER_SIZE - 8].copy_from_slice(&self.hashed_header());
        header[ENTRY_HEADER_SIZE - 8..].copy_from_slice(&self.hash.0.to_le_bytes());
        header
    }

    /// Appends the encoding: the same bytes on wire, on disk and at apply.
    pub fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_slice(&self.encoded_header());
        buffer.put_slice(&self.body);
    }

    /// Takes an entry off the front of `reader` and verifies its content hash. The body shares memory
    /// with the source.
    ///
    /// # Errors
    /// When bytes are missing, a field is unknown, or the hash does not match.
    pub fn decode(reader: &mut Reader) -> Result<Entry, DecodeError> {
        let header = reader.array::<ENTRY_HEADER_SIZE>()?;
        let word = |at: usize| {
            u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes are eight bytes"))
        };
        let size = (word(0) & u64::from(u32::MAX)) as usize;
        if size > BODY_SIZE_MAX {
            return Err(DecodeError::TooLarge {
                what: "entry body",
                value: size as u64,
                limit: BODY_SIZE_MAX as u64,
            });
        }
        let body = reader.bytes(size)?;
        let found = hash_of(&header[..ENTRY_HEADER_SIZE - 8], &body);
        let (kind, version) = (header[4], header[5]);
        let zero = u16::from_le_bytes([header[6], header[7]]);
        let created = Epoch { number: word(8), owner: NodeId(word(16)) };
        let origin = Origin {
            node: NodeId(word(24)),
            incarnation: Incarnation(word(32)),
            sequence: word(40),
        };
        let transaction = TransactionId(word(48));
        let hash = ContentHash(word(56));
        if hash != found {
            return Err(DecodeError::Checksum { what: "entry", expected: hash.0, found: found.0 });
        }
        if version != ENTRY_VERSION {
            return Err(DecodeError::Unknown { what: "entry version", value: version.into() });
        }
        if zero != 0 {
            return Err(DecodeError::Unknown { what: "entry reserved field", value: zero.into() });
        }
        let kind = EntryKind::from_byte(kind)?;
        check_epoch_number(created.number)?;
        Ok(Entry { created, kind, origin, transaction, hash, body })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}B", self.kind, self.origin, self.body.len())
    }
}

/// Entries up to this size are hashed in one piece from the stack: the state of a streaming hasher is larger than
/// they are.
const HASHED_AT_ONCE_MAX: usize = 512;

fn hash_of(header: &[u8], body: &[u8]) -> ContentHash {
    let size = header.len() + body.len();
    if size <= HASHED_AT_ONCE_MAX {
        let mut whole = [0; HASHED_AT_ONCE_MAX];
        whole[..header.len()].copy_from_slice(header);
        whole[header.len()..size].copy_from_slice(body);
        return ContentHash(xxh3_64(&whole[..size]));
    }
    let mut hasher = Xxh3::new();
    hasher.update(header);
    hasher.update(body);
    ContentHash(hasher.digest())
}

/// One place of a log with the entry in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where.
    pub index: Index,
    /// The epoch in which this replica accepted the entry: equal to or above `entry.created()`.
    pub accepted: Epoch,
    /// What.
    pub entry: Entry,
}

impl Slot {
    /// Index and created epoch.
    #[must_use]
    pub fn position(&self) -> crate::Position {
        crate::Position::new(self.index, self.entry.created())
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.position(), self.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        Entry::new(
            Epoch::new(7, NodeId(2)),
            EntryKind::Command,
            Origin { node: NodeId(1), incarnation: Incarnation(0xabcd), sequence: 12 },
            TransactionId(5),
            Bytes::from_static(b"hello"),
        )
    }

    #[test]
    fn an_entry_survives_its_encoding() {
        let mut buffer = BytesMut::new();
        sample().encode(&mut buffer);
        assert_eq!(buffer.len(), sample().encoded_size());
        let mut reader = Reader::new("test", buffer.freeze());
        assert_eq!(Entry::decode(&mut reader), Ok(sample()));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn small_and_large_entries_are_hashed_alike() {
        for size in [0, 8, 200, HASHED_AT_ONCE_MAX - 57, HASHED_AT_ONCE_MAX - 56, 455, 457, 5000] {
            let (header, body) = ([7; 56], vec![9; size]);
            let mut streamed = Xxh3::new();
            streamed.update(&header);
            streamed.update(&body);
            assert_eq!(hash_of(&header, &body), ContentHash(streamed.digest()), "{size}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut buffer = BytesMut::new();
        sample().encode(&mut buffer);
        for bit in 0..buffer.len() * 8 {
            let mut damaged = buffer.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = Entry::decode(&mut Reader::new("test", damaged.freeze()));
            assert!(decoded.is_err(), "bit {bit} was not noticed");
        }
    }
}
