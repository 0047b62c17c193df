//! The layout of engine keys (`docs/format/store.md`). Integers in keys are big-endian, so that
//! their order is the order of the engine.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{ApplyFault, GroupId, Incarnation, NodeId};

/// The size of the group that every key begins with.
pub(crate) const GROUP_SIZE: usize = 8;

/// The size of a revision inside a key: main (8) and sub (4).
pub(crate) const REVISION_SIZE: usize = 12;

const TAG_SUMMARY: u8 = 1;
const TAG_ORIGIN: u8 = 2;
const TAG_MEMBER: u8 = 3;

/// A place in history: the revision of a transaction and the position of a change inside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Revision {
    /// The revision that clients see.
    pub(crate) main: i64,
    /// Counts the changes of one main revision, from 0.
    pub(crate) sub: u32,
}

/// How many bytes the keys of one change need besides the key itself, when it holds no zero bytes.
pub(crate) const CHANGE_KEYS_SIZE: usize = 2 * (GROUP_SIZE + REVISION_SIZE) + 2;

/// Makes the engine keys of one group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    group: GroupId,
}

/// A range of engine keys: `start <= key < end`.
#[derive(Clone, Debug)]
pub(crate) struct KeyRange {
    /// The first key inside.
    pub(crate) start: Bytes,
    /// The first key behind.
    pub(crate) end: Bytes,
}

impl Keys {
    pub(crate) fn new(group: GroupId) -> Keys {
        assert!(group.0 < u64::MAX, "the last group id has no key behind it");
        Keys { group }
    }

    /// Appends the keys of `History` and `Versions` for one change to `buffer`, and splits them off
    /// it.
    pub(crate) fn change(
        self,
        key: &[u8],
        revision: Revision,
        buffer: &mut BytesMut,
    ) -> (Bytes, Bytes) {
        buffer.put_u64(self.group.0);
        put_revision(buffer, revision);
        let history = buffer.split().freeze();
        buffer.put_u64(self.group.0);
        put_escaped(buffer, key);
        put_revision(buffer, revision);
        (history, buffer.split().freeze())
    }

    fn start(self, size: usize) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(GROUP_SIZE + size);
        buffer.put_u64(self.group.0);
        buffer
    }

    /// The first key of the group.
    fn first(self) -> Bytes {
        self.start(0).freeze()
    }

    /// The first key behind the group.
    fn behind(self) -> Bytes {
        Bytes::copy_from_slice(&(self.group.0 + 1).to_be_bytes())
    }

    /// Every key of the group.
    pub(crate) fn all(self) -> KeyRange {
        KeyRange { start: self.first(), end: self.behind() }
    }

    /// `Current`: the group and the key as it is.
    pub(crate) fn current(self, key: &[u8]) -> Bytes {
        let mut buffer = self.start(key.len());
        buffer.put_slice(key);
        buffer.freeze()
    }

    /// `Current`: the keys from `key` to before `end`, or to the last when `end` is `None`.
    pub(crate) fn current_range(self, key: &[u8], end: Option<&[u8]>) -> KeyRange {
        let end = end.map_or_else(|| self.behind(), |end| self.current(end));
        KeyRange { start: self.current(key), end }
    }

    /// `History`: the group and the revision.
    pub(crate) fn history(self, revision: Revision) -> Bytes {
        let mut buffer = self.start(REVISION_SIZE);
        put_revision(&mut buffer, revision);
        buffer.freeze()
    }

    /// `History`: from `start` to before `end`.
    pub(crate) fn history_range(self, start: Revision, end: Revision) -> KeyRange {
        KeyRange { start: self.history(start), end: self.history(end) }
    }

    /// `Versions`: the group, the escaped and terminated key, the revision.
    pub(crate) fn version(self, key: &[u8], revision: Revision) -> Bytes {
        let mut buffer = self.start(key.len() + 2 + REVISION_SIZE);
        put_escaped(&mut buffer, key);
        put_revision(&mut buffer, revision);
        buffer.freeze()
    }

    /// `Versions`: every version of the keys from `key` to before `end`, or to the last when `end`
    /// is `None`.
    pub(crate) fn versions_range(self, key: &[u8], end: Option<&[u8]>) -> KeyRange {
        let place = |key: &[u8]| {
            let mut buffer = self.start(key.len() + 2);
            put_escaped(&mut buffer, key);
            buffer.freeze()
        };
        KeyRange { start: place(key), end: end.map_or_else(|| self.behind(), place) }
    }

    /// `Versions`: the versions of one key before a revision.
    pub(crate) fn versions_before(self, key: &[u8], revision: Revision) -> KeyRange {
        KeyRange { start: self.version(key, Revision::default()), end: self.version(key, revision) }
    }

    /// `State`: applied position, revisions, digest.
    pub(crate) fn summary(self) -> Bytes {
        let mut buffer = self.start(1);
        buffer.put_u8(TAG_SUMMARY);
        buffer.freeze()
    }

    /// `State`: the window of one incarnation.
    pub(crate) fn origin(self, node: NodeId, incarnation: Incarnation) -> Bytes {
        let mut buffer = self.start(17);
        buffer.put_u8(TAG_ORIGIN);
        buffer.put_u64(node.0);
        buffer.put_u64(incarnation.0);
        buffer.freeze()
    }

    /// `State`: every origin window.
    pub(crate) fn origins(self) -> KeyRange {
        self.tagged(TAG_ORIGIN)
    }

    /// `State`: the attributes of one member.
    pub(crate) fn member(self, member: NodeId) -> Bytes {
        let mut buffer = self.start(9);
        buffer.put_u8(TAG_MEMBER);
        buffer.put_u64(member.0);
        buffer.freeze()
    }

    /// `State`: the attributes of every member.
    pub(crate) fn members(self) -> KeyRange {
        self.tagged(TAG_MEMBER)
    }

    fn tagged(self, tag: u8) -> KeyRange {
        let place = |tag: u8| {
            let mut buffer = self.start(1);
            buffer.put_u8(tag);
            buffer.freeze()
        };
        KeyRange { start: place(tag), end: place(tag + 1) }
    }
}

fn put_revision(buffer: &mut BytesMut, revision: Revision) {
    let main = u64::try_from(revision.main).expect("revisions of changes are positive");
    buffer.put_u64(main);
    buffer.put_u32(revision.sub);
}

/// Writes a key so that it ends in itself: `00` becomes `00 ff`, the end is `00 00`. Order is kept,
/// and no key's versions lie between those of another.
fn put_escaped(buffer: &mut BytesMut, key: &[u8]) {
    for byte in key {
        buffer.put_u8(*byte);
        if *byte == 0 {
            buffer.put_u8(0xff);
        }
    }
    buffer.put_slice(&[0, 0]);
}

/// Splits a `Versions` key into what names the key and the revision.
///
/// # Errors
/// When it cannot be such a key.
pub(crate) fn split_version(key: &Bytes) -> Result<(Bytes, Revision), ApplyFault> {
    let parse = || {
        let at = key.len().checked_sub(REVISION_SIZE)?;
        Some((key.slice(..at), parse_revision(&key[at..])?))
    };
    parse().ok_or_else(|| ApplyFault::Damaged("a key of the versions table is malformed".into()))
}

/// Reads a revision from the last bytes of a key.
fn parse_revision(bytes: &[u8]) -> Option<Revision> {
    let (main, sub) = bytes.split_at_checked(8)?;
    Some(Revision {
        main: i64::try_from(u64::from_be_bytes(main.try_into().ok()?)).ok()?,
        sub: u32::from_be_bytes(sub.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_keys_keep_the_order_of_keys_and_never_mix() {
        let keys = Keys::new(GroupId(3));
        let mut names: Vec<&[u8]> = vec![
            b"", b"\0", b"\0\0", b"\0\xff", b"\0a", b"a", b"a\0", b"a\0\0", b"a\x01", b"a\xff",
            b"b",
        ];
        names.sort_unstable();
        let revisions = [
            Revision { main: 1, sub: 0 },
            Revision { main: 1, sub: 1 },
            Revision { main: 256, sub: 0 },
        ];
        let made: Vec<Bytes> = names
            .iter()
            .flat_map(|name| revisions.iter().map(move |revision| keys.version(name, *revision)))
            .collect();
        assert!(made.is_sorted());
        for (place, key) in made.iter().enumerate() {
            let (_, revision) = split_version(key).expect("long enough");
            assert_eq!(revision, revisions[place % 3]);
            let range = keys.versions_range(names[place / 3], names.get(place / 3 + 1).copied());
            let inside: Vec<_> =
                made.iter().filter(|key| range.start <= **key && **key < range.end).collect();
            assert_eq!(inside.len(), 3, "{:?}", names[place / 3]);
        }
    }
}
