//! The envelope of everything that peers say to each other.
//!
//! ```text
//!  0       2         3      4          8            16          20          24
//!  +-------+---------+------+----------+------------+-----------+-----------+---------
//!  | "Qr"  | version | kind | payload  | group      | payload   | header    | payload
//!  |       |         |      | size     |            | crc32c    | crc32c    | ...
//!  +-------+---------+------+----------+------------+-----------+-----------+---------
//! ```
//! Little-endian. The header checksum covers bytes 0..20. Who speaks is fixed by the hello that opened the
//! stream, so frames do not repeat it.

use crate::{DecodeError, GroupId};
use bytes::{BufMut, Bytes, BytesMut};

/// The size of a frame before its payload, in bytes.
pub const FRAME_HEADER_SIZE: usize = 24;

/// The largest payload of a frame, in bytes: four of the largest bodies. A header that announces more is
/// refused before anything is reserved for it.
pub const FRAME_PAYLOAD_MAX: usize = 16 * 1024 * 1024;

/// The wire version that this code speaks.
pub const WIRE_VERSION: u8 = 1;

const MAGIC: [u8; 2] = *b"Qr";

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Who speaks; first on every stream, in both directions.
    Hello = 1,
    /// The answer to a hello that is refused, with the reason as text; the stream then ends.
    Refusal = 2,
    /// Formation of a cluster.
    Formation = 3,
    /// A message of a group's protocol.
    Consensus = 4,
    /// A piece of a snapshot or of catch-up; on bulk streams only.
    Bulk = 5,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Result<FrameKind, DecodeError> {
        match byte {
            1 => Ok(FrameKind::Hello),
            2 => Ok(FrameKind::Refusal),
            3 => Ok(FrameKind::Formation),
            4 => Ok(FrameKind::Consensus),
            5 => Ok(FrameKind::Bulk),
            value => Err(DecodeError::Unknown { what: "frame kind", value: value.into() }),
        }
    }
}

/// Why bytes from a peer are no frame; the stream must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not our protocol at all.
    #[error("the peer does not speak Quorate's peer protocol: first bytes {0:02x?}")]
    Magic([u8; 2]),
    /// Our protocol, another version.
    #[error("the peer speaks wire version {0}, this node speaks {WIRE_VERSION}")]
    Version(u8),
    /// Damaged, oversized or unknown.
    #[error("bad frame: {0}")]
    Bad(#[from] DecodeError),
}

/// The decoded header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload is.
    pub kind: FrameKind,
    /// Which group it concerns; 0 where none.
    pub group: GroupId,
    /// The size of the payload in bytes, at most [`FRAME_PAYLOAD_MAX`].
    pub payload_size: usize,
    /// The checksum of the payload.
    payload_crc: u32,
}

impl FrameHeader {
    /// Reads and verifies a header.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(bytes: &[u8; FRAME_HEADER_SIZE]) -> Result<FrameHeader, FrameError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..2] != MAGIC {
            return Err(FrameError::Magic([bytes[0], bytes[1]]));
        }
        if bytes[2] != WIRE_VERSION {
            return Err(FrameError::Version(bytes[2]));
        }
        let found = crc32c::crc32c(&bytes[..20]);
        let expected = word(20);
        if expected != found {
            return Err(FrameError::Bad(DecodeError::Checksum {
                what: "frame header",
                expected: expected.into(),
                found: found.into(),
            }));
        }
        let payload_size = word(4) as usize;
        if payload_size > FRAME_PAYLOAD_MAX {
            return Err(FrameError::Bad(DecodeError::TooLarge {
                what: "frame payload",
                value: payload_size as u64,
                limit: FRAME_PAYLOAD_MAX as u64,
            }));
        }
        let group = GroupId(u64::from(word(8)) | u64::from(word(12)) << 32);
        let kind = FrameKind::from_byte(bytes[3])?;
        Ok(FrameHeader { kind, group, payload_size, payload_crc: word(16) })
    }

    /// Joins the header with its payload, whose checksum is verified.
    ///
    /// # Errors
    /// `Bad` when the checksum does not match.
    pub fn with_payload(self, payload: Bytes) -> Result<Frame, FrameError> {
        let found = crc32c::crc32c(&payload);
        if found != self.payload_crc || payload.len() != self.payload_size {
            return Err(FrameError::Bad(DecodeError::Checksum {
                what: "frame payload",
                expected: self.payload_crc.into(),
                found: found.into(),
            }));
        }
        Ok(Frame { kind: self.kind, group: self.group, payload })
    }
}

/// One thing that a peer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// Which group it concerns; 0 where none.
    pub group: GroupId,
    /// What is said.
    pub payload: Bytes,
}

impl Frame {
    /// The header for this frame, to be followed by the payload.
    ///
    /// # Panics
    /// When the payload is above [`FRAME_PAYLOAD_MAX`]: whoever fills frames respects it.
    #[must_use]
    pub fn encoded_header(&self) -> [u8; FRAME_HEADER_SIZE] {
        assert!(
            self.payload.len() <= FRAME_PAYLOAD_MAX,
            "a payload of {} bytes",
            self.payload.len()
        );
        let mut header = [0; FRAME_HEADER_SIZE];
        let mut rest = &mut header[..20];
        rest.put_slice(&MAGIC);
        rest.put_u8(WIRE_VERSION);
        rest.put_u8(self.kind as u8);
        rest.put_u32_le(u32::try_from(self.payload.len()).expect("payloads are limited"));
        rest.put_u64_le(self.group.0);
        rest.put_u32_le(crc32c::crc32c(&self.payload));
        let crc = crc32c::crc32c(&header[..20]);
        header[20..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// Appends header and payload.
    pub fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_slice(&self.encoded_header());
        buffer.put_slice(&self.payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Frame {
        Frame {
            kind: FrameKind::Consensus,
            group: GroupId(1 << 40),
            payload: Bytes::from_static(b"abc"),
        }
    }

    #[test]
    fn a_frame_survives_its_encoding() {
        let header = FrameHeader::decode(&sample().encoded_header()).expect("own header");
        assert_eq!(header.with_payload(sample().payload), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_noticed() {
        let bytes = sample().encoded_header();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn four_gibibytes_are_refused_from_the_header_alone() {
        let mut bytes = sample().encoded_header();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        let refused = FrameHeader::decode(&bytes);
        assert!(
            matches!(refused, Err(FrameError::Bad(DecodeError::TooLarge { .. }))),
            "{refused:?}"
        );
    }
}
