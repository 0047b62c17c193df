//! Little-endian fixed-width encoding with bounds checks, for everything of ours on disk and wire.

use crate::{Epoch, Index, NodeId, Position};
use bytes::{BufMut, Bytes, BytesMut};

/// Why bytes from a disk or a peer are not what they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{what} needs {needed} bytes, {left} are left")]
    Short {
        /// What was being read.
        what: &'static str,
        /// How many bytes it needs.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// A field holds a value that its type does not have.
    #[error("{what} has the unknown value {value}")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The value found.
        value: u64,
    },
    /// A length or count is above its limit.
    #[error("{what} is {value}, above the limit {limit}")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// The value found.
        value: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// A checksum does not match the bytes it covers.
    #[error("{what} does not match its checksum: expected {expected:#x}, found {found:#x}")]
    Checksum {
        /// What was being read.
        what: &'static str,
        /// The checksum stored.
        expected: u64,
        /// The checksum of the bytes.
        found: u64,
    },
    /// Fields contradict each other.
    #[error("{0}")]
    Invalid(&'static str),
    /// Bytes follow the value.
    #[error("{left} bytes follow {what}")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// How many bytes follow.
        left: usize,
    },
}

/// The highest number of an epoch. Epochs are counted one by one, so that none comes near; what claims a higher one could
/// not be followed by a next.
const EPOCH_NUMBER_MAX: u64 = u64::MAX / 2;

/// Refuses an epoch that nobody can have come to.
pub(crate) fn check_epoch_number(value: u64) -> Result<(), DecodeError> {
    let limit = EPOCH_NUMBER_MAX;
    if value <= limit {
        return Ok(());
    }
    Err(DecodeError::TooLarge { what: "epoch number", value, limit })
}

/// Takes values off the front of a byte slice; never reads past its end.
#[derive(Clone, Debug)]
pub struct Reader {
    /// What has not been read.
    bytes: Bytes,
    /// What is being read, for errors.
    what: &'static str,
}

impl Reader {
    /// A reader of `bytes`, which hold a `what`.
    #[must_use]
    pub fn new(what: &'static str, bytes: Bytes) -> Reader {
        Reader { bytes, what }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The next `size` bytes, sharing memory with the source.
    ///
    /// # Errors
    /// `Short` when fewer are left.
    pub fn bytes(&mut self, size: usize) -> Result<Bytes, DecodeError> {
        if self.bytes.len() < size {
            return Err(DecodeError::Short {
                what: self.what,
                needed: size,
                left: self.bytes.len(),
            });
        }
        Ok(self.bytes.split_to(size))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        if self.bytes.len() < N {
            return Err(DecodeError::Short { what: self.what, needed: N, left: self.bytes.len() });
        }
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[..N]);
        bytes::Buf::advance(&mut self.bytes, N);
        Ok(array)
    }

    /// The next byte.
    ///
    /// # Errors
    /// `Short` when none is left.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// The next byte as a truth value; only 0 and 1 are.
    ///
    /// # Errors
    /// `Short`, or `Unknown` for another byte.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown { what: self.what, value: value.into() }),
        }
    }

    /// The next two bytes.
    ///
    /// # Errors
    /// `Short` when fewer are left.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes.
    ///
    /// # Errors
    /// `Short` when fewer are left.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes.
    ///
    /// # Errors
    /// `Short` when fewer are left.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `item_size_min` bytes each: bounded by what is left, so
    /// that a hostile count never reserves memory.
    ///
    /// # Errors
    /// `Short`, or `TooLarge` when so many cannot follow.
    pub fn count(&mut self, item_size_min: usize) -> Result<usize, DecodeError> {
        let value = self.u32()?;
        let limit = self.left() / item_size_min.max(1);
        match usize::try_from(value) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(DecodeError::TooLarge {
                what: self.what,
                value: value.into(),
                limit: limit as u64,
            }),
        }
    }

    /// Bytes after their length (`u32`).
    ///
    /// # Errors
    /// `Short` or `TooLarge` when so many do not follow.
    pub fn blob(&mut self) -> Result<Bytes, DecodeError> {
        let size = self.count(1)?;
        self.bytes(size)
    }

    /// UTF-8 text after its length (`u32`).
    ///
    /// # Errors
    /// As [`Reader::blob`], or `Invalid` when it is not UTF-8.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        let blob = self.blob()?;
        String::from_utf8(blob.to_vec()).map_err(|_| DecodeError::Invalid("text is not UTF-8"))
    }

    /// The next 16 bytes as an epoch.
    ///
    /// # Errors
    /// `Short` when fewer are left, `TooLarge` when no epoch can have come to that number.
    pub fn epoch(&mut self) -> Result<Epoch, DecodeError> {
        let number = self.u64()?;
        check_epoch_number(number)?;
        Ok(Epoch { number, owner: NodeId(self.u64()?) })
    }

    /// The next 24 bytes as a position.
    ///
    /// # Errors
    /// `Short` when fewer are left.
    pub fn position(&mut self) -> Result<Position, DecodeError> {
        Ok(Position { index: Index(self.u64()?), epoch: self.epoch()? })
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Nothing must be left.
    ///
    /// # Errors
    /// `Trailing` when bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { what: self.what, left }),
        }
    }
}

/// Appends values to a buffer, in the encoding that [`Reader`] reads.
pub trait Writer {
    /// Appends a truth value as one byte.
    fn write_bool(&mut self, value: bool);
    /// Appends a length (`u32`) and the bytes.
    ///
    /// # Panics
    /// When there are 4 GiB or more; every blob of ours has a far lower limit.
    fn write_blob(&mut self, blob: &[u8]);
    /// Appends a count that [`Reader::count`] reads.
    ///
    /// # Panics
    /// When it does not fit in 32 bits; every list of ours has a far lower limit.
    fn write_count(&mut self, count: usize);
    /// Appends an epoch as 16 bytes.
    fn write_epoch(&mut self, epoch: Epoch);
    /// Appends a position as 24 bytes.
    fn write_position(&mut self, position: Position);
}

impl Writer for BytesMut {
    fn write_bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }

    fn write_blob(&mut self, blob: &[u8]) {
        self.write_count(blob.len());
        self.put_slice(blob);
    }

    fn write_count(&mut self, count: usize) {
        self.put_u32_le(u32::try_from(count).expect("counts and lengths have limits below 2^32"));
    }

    fn write_epoch(&mut self, epoch: Epoch) {
        self.put_u64_le(epoch.number);
        self.put_u64_le(epoch.owner.0);
    }

    fn write_position(&mut self, position: Position) {
        self.put_u64_le(position.index.0);
        self.write_epoch(position.epoch);
    }
}
