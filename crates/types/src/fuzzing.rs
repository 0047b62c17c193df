//! Entry points for bytes from outside, as fuzzers and the replay of their corpora call them.
//!
//! Each takes any bytes. Nothing may panic, and what decodes must survive its own encoding. Checksums would hide the
//! decoders behind them from a fuzzer, so what has one is tried twice: as it is, and with its checksums made right.

use crate::{
    Configuration, ENTRY_HEADER_SIZE, Entry, FRAME_HEADER_SIZE, Frame, FrameHeader, Incarnation,
    MachineState, NodeId, Origin, OriginTable, Reader,
};
use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

/// A frame: header and payload.
pub fn frame(data: &[u8]) {
    let Some((header, payload)) = data.split_first_chunk::<FRAME_HEADER_SIZE>() else { return };
    let payload = Bytes::copy_from_slice(payload);
    check_frame(header, &payload);
    let mut sealed = *header;
    sealed[16..20].copy_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    let crc = crc32c::crc32c(&sealed[..20]);
    sealed[20..].copy_from_slice(&crc.to_le_bytes());
    check_frame(&sealed, &payload);
}

fn check_frame(header: &[u8; FRAME_HEADER_SIZE], payload: &Bytes) {
    let Ok(decoded) = FrameHeader::decode(header) else { return };
    let Ok(frame) = decoded.with_payload(payload.clone()) else { return };
    let mut again = BytesMut::new();
    frame.encode(&mut again);
    let (header, _) = again.split_first_chunk::<FRAME_HEADER_SIZE>().expect("a whole frame");
    let decoded = FrameHeader::decode(header).expect("own encoding");
    let same: Result<Frame, _> = decoded.with_payload(payload.clone());
    assert_eq!(same, Ok(frame), "a frame changes by its encoding");
}

/// An entry of the log.
pub fn entry(data: &[u8]) {
    check_entry(Bytes::copy_from_slice(data));
    check_entry(Bytes::from(sealed_entry(data)));
}

/// The bytes of an entry with the hash that belongs to them.
#[must_use]
pub fn sealed_entry(data: &[u8]) -> Vec<u8> {
    let mut sealed = data.to_vec();
    if sealed.len() >= ENTRY_HEADER_SIZE {
        let at = ENTRY_HEADER_SIZE - 8;
        let body = u32::try_from(sealed.len() - ENTRY_HEADER_SIZE).unwrap_or(u32::MAX);
        sealed[..4].copy_from_slice(&body.to_le_bytes());
        let hashed = [&sealed[..at], &sealed[ENTRY_HEADER_SIZE..]].concat();
        sealed[at..ENTRY_HEADER_SIZE].copy_from_slice(&xxh3_64(&hashed).to_le_bytes());
    }
    sealed
}

fn check_entry(bytes: Bytes) {
    let mut reader = Reader::new("entry", bytes.clone());
    let Ok(entry) = Entry::decode(&mut reader) else { return };
    let mut again = BytesMut::new();
    entry.encode(&mut again);
    assert_eq!(again[..], bytes[..again.len()], "an entry changes by its encoding");
    assert_eq!(entry.encoded_size(), again.len(), "an entry has another size than it says");
}

/// A configuration, as bodies of entries and welcomes hold it.
pub fn configuration(data: &[u8]) {
    let Ok(decoded) = Configuration::decode(Bytes::copy_from_slice(data)) else { return };
    let again = Configuration::decode(decoded.encode());
    assert_eq!(again.as_ref(), Ok(&decoded), "a configuration changes by its encoding");
}

/// How far a state machine has come, and who took part there.
pub fn machine_state(data: &[u8]) {
    let Ok(decoded) = MachineState::decode(Bytes::copy_from_slice(data)) else { return };
    let again = MachineState::decode(decoded.encode());
    assert_eq!(again.as_ref(), Ok(&decoded), "a state changes by its encoding");
}

/// A table of origins; what was read must take in whatever comes next.
pub fn origins(data: &[u8]) {
    let Ok(mut table) = OriginTable::decode(Bytes::copy_from_slice(data)) else { return };
    let again = OriginTable::decode(table.encode()).expect("own encoding");
    assert_eq!(again.encode(), table.encode(), "a table of origins changes by its encoding");
    let known: Vec<(NodeId, Incarnation)> = table.incarnations().collect();
    let stranger = (NodeId(u64::MAX), Incarnation(1));
    for (node, incarnation) in known.into_iter().chain([stranger]) {
        for sequence in [0, 1, u64::MAX - 1, u64::MAX] {
            let _ = table.record(Origin { node, incarnation, sequence });
        }
    }
}

/// Changes bytes as the seed says, like a fuzzer does: flips, overwrites, cuts, copies, joins with `other`.
#[must_use]
pub fn mutated(seed: u64, data: &[u8], other: &[u8]) -> Vec<u8> {
    /// Values that lie at the edges of fields.
    const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
    let mut state = seed;
    let mut below = |bound: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let drawn = xxh3_64(&state.to_le_bytes());
        usize::try_from(drawn % (bound.max(1) as u64)).expect("below a size in memory")
    };
    let mut bytes = data.to_vec();
    for _ in 0..1 + below(4) {
        let at = below(bytes.len());
        let size = 1 + below(8);
        let end = (at + size).min(bytes.len());
        match below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            1 if !bytes.is_empty() => bytes[at] = u8::try_from(below(256)).expect("a byte"),
            2 => {
                let edge = EDGES[below(EDGES.len())].to_le_bytes();
                bytes[at.min(end)..end].copy_from_slice(&edge[..end - at.min(end)]);
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at.min(end)..end)),
            5 => {
                let copy = bytes[at.min(end)..end].to_vec();
                let place = below(bytes.len() + 1);
                bytes.splice(place..place, copy);
            }
            6 => {
                let from = below(other.len());
                let to = (from + below(64)).min(other.len());
                bytes.splice(at.min(end)..end, other[from.min(to)..to].iter().copied());
            }
            _ => bytes.push(u8::try_from(below(256)).expect("a byte")),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_a_mutation_and_most_change_something() {
        let (data, other) =
            (b"some bytes that stand for a file".as_slice(), b"and others".as_slice());
        let changed = (0..1000).filter(|seed| mutated(*seed, data, other) != data).count();
        assert!(changed > 900, "{changed} of 1000");
        assert_eq!(mutated(7, data, other), mutated(7, data, other));
        assert!((0..1000).all(|seed| mutated(seed, b"", b"").len() < 100));
    }
}
