//! Entry points for a node's own files and for what peers say outside of consensus, as fuzzers and the replay of their
//! corpora call them. Files have a checksum; each is also tried with the right one.

use crate::formation::FormationMessage;
use crate::hello::{Hello, Refusal};
use crate::identity::Identity;
use crate::install::{decode_install, encode_install};
use crate::transfer::BulkMessage;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// A hello, or a refusal of one.
pub fn hello(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(hello) = Hello::decode(bytes.clone()) {
        assert_eq!(Hello::decode(hello.encode()), Ok(hello), "a hello changes by its encoding");
    }
    if let Ok(refusal) = Refusal::decode(bytes) {
        assert_eq!(Refusal::decode(refusal.encode()), Ok(refusal), "a refusal changes");
    }
}

/// What members say while they form a cluster.
pub fn formation(data: &[u8]) {
    let Ok(message) = FormationMessage::decode(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(FormationMessage::decode(message.encode()), Ok(message), "a message changes");
}

/// What goes on the bulk stream beside catch-up.
pub fn bulk(data: &[u8]) {
    check_bulk(data);
    let mut sealed = data.to_vec();
    if sealed.len() > 25 && sealed[0] == 2 {
        let hash = xxh3_64(&sealed[25..]);
        sealed[17..25].copy_from_slice(&hash.to_le_bytes());
        check_bulk(&sealed);
    }
}

fn check_bulk(data: &[u8]) {
    let Ok(message) = BulkMessage::decode(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(BulkMessage::decode(message.encode()), Ok(message), "a bulk message changes");
}

/// The identity file.
pub fn identity(data: &[u8]) {
    for file in [Bytes::copy_from_slice(data), sealed(data)] {
        let Ok(identity) = Identity::decode(&file) else { continue };
        assert_eq!(Identity::decode(&identity.encode()), Ok(identity), "an identity changes");
    }
}

/// The file that records an install under way.
pub fn install(data: &[u8]) {
    for file in [Bytes::copy_from_slice(data), sealed(data)] {
        let Ok(name) = decode_install(&file) else { continue };
        assert_eq!(decode_install(&encode_install(&name)), Ok(name), "an install changes");
    }
}

/// A file with the size and the checksum that belong to it.
fn sealed(data: &[u8]) -> Bytes {
    /// Magic, version and size before the body; the checksum behind it.
    const OVERHEAD: usize = 20;
    let mut file = data.to_vec();
    if let Some(body) = file.len().checked_sub(OVERHEAD) {
        let size = u32::try_from(body).unwrap_or(u32::MAX);
        file[8..12].copy_from_slice(&size.to_le_bytes());
        let at = file.len() - 8;
        let hash = xxh3_64(&file[..at]);
        file[at..].copy_from_slice(&hash.to_le_bytes());
    }
    Bytes::from(file)
}
