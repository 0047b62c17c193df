//! Small files that are written whole: magic, format version, body, checksum.
//!
//! ```text
//!  0        4         6      8        12              12+size
//!  +--------+---------+------+--------+---------------+----------+
//!  | magic  | version | zero | size   | body          | xxh3-64  |
//!  +--------+---------+------+--------+---------------+----------+
//! ```
//! Little-endian. The checksum covers everything before it.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{DecodeError, Reader};
use xxhash_rust::xxh3::xxh3_64;

/// The largest sealed file, in bytes: identities and install records are a few kilobytes.
pub(crate) const SEALED_SIZE_MAX: u64 = 1024 * 1024;

/// Why a sealed file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not such a file at all.
    #[error("it does not begin with {expected:?}")]
    Magic {
        /// What such a file begins with.
        expected: String,
    },
    /// A later format than this code knows.
    #[error("it has format version {found}, this version of Quorate knows {known}")]
    Version {
        /// The version found.
        found: u16,
        /// The version known.
        known: u16,
    },
    /// Its bytes are damaged.
    #[error("it is damaged: {0}")]
    Damaged(#[from] DecodeError),
}

/// What distinguishes one kind of sealed file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    /// For errors.
    pub(crate) what: &'static str,
    /// What the file begins with.
    pub(crate) magic: [u8; 4],
    /// The format version that this code writes.
    pub(crate) version: u16,
}

impl Seal {
    /// The file around `body`.
    pub(crate) fn seal(self, body: &[u8]) -> Bytes {
        let mut buffer = BytesMut::with_capacity(body.len() + 20);
        buffer.put_slice(&self.magic);
        buffer.put_u16_le(self.version);
        buffer.put_u16_le(0);
        buffer.put_u32_le(u32::try_from(body.len()).expect("sealed files are small"));
        buffer.put_slice(body);
        let hash = xxh3_64(&buffer);
        buffer.put_u64_le(hash);
        buffer.freeze()
    }

    /// The body, verified. The version is read before the checksum is verified, because a later format may keep
    /// its checksum elsewhere.
    pub(crate) fn unseal(self, file: &Bytes) -> Result<Bytes, SealError> {
        self.unseal_versioned(file).map(|(_, body)| body)
    }

    /// As [`Seal::unseal`], with the version that the body is of: this one, or an earlier one.
    pub(crate) fn unseal_versioned(self, file: &Bytes) -> Result<(u16, Bytes), SealError> {
        let mut reader = Reader::new(self.what, file.clone());
        if reader.bytes(4).ok().as_deref() != Some(&self.magic[..]) {
            let expected = String::from_utf8_lossy(&self.magic).into_owned();
            return Err(SealError::Magic { expected });
        }
        let found_version = reader.u16()?;
        if found_version > self.version {
            return Err(SealError::Version { found: found_version, known: self.version });
        }
        reader.u16()?;
        let body = reader.blob()?;
        let expected = reader.u64()?;
        reader.finish()?;
        let found = xxh3_64(&file[..file.len() - 8]);
        if expected != found {
            return Err(DecodeError::Checksum { what: self.what, expected, found }.into());
        }
        Ok((found_version, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal { what: "sample", magic: *b"Smpl", version: 1 };

    #[test]
    fn a_body_survives_its_sealing_and_every_flipped_bit_is_noticed() {
        let file = SEAL.seal(b"hello");
        assert_eq!(SEAL.unseal(&file), Ok(Bytes::from_static(b"hello")));
        for bit in 0..file.len() * 8 {
            let mut damaged = file.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SEAL.unseal(&Bytes::from(damaged)).is_err(), "bit {bit}");
        }
        for size in 0..file.len() {
            assert!(SEAL.unseal(&file.slice(..size)).is_err(), "{size} bytes");
        }
    }

    #[test]
    fn a_later_version_is_named_before_anything_else_is_judged() {
        let mut file = SEAL.seal(b"hello").to_vec();
        file[4] = 9;
        let refused = SEAL.unseal(&Bytes::from(file));
        assert_eq!(refused, Err(SealError::Version { found: 9, known: 1 }));
    }
}
