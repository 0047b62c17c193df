//! The layout of engine keys (`docs/format/store.md`). Integers in keys are big-endian, so that
//! their order is the order of the engine.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{GroupId, Incarnation, NodeId};

/// The size of the group that every key begins with.
pub(crate) const GROUP_SIZE: usize = 8;

/// The size of a revision inside a key: main (8) and sub (4).
pub(crate) const REVISION_SIZE: usize = 12;

const TAG_SUMMARY: u8 = 1;
const TAG_ORIGIN: u8 = 2;
const TAG_MEMBER: u8 = 3;
const TAG_SWEPT: u8 = 4;
const TAG_CONFIGURATION: u8 = 5;

/// A place in history: the revision of a transaction and the position of a change inside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Revision {
    /// The revision that clients see.
    pub(crate) main: i64,
    /// Counts the changes of one main revision, from 0.
    pub(crate) sub: u32,
}

impl Revision {
    /// No change has it: the first is made at main revision 2.
    pub(crate) const NONE: Revision = Revision { main: 0, sub: 0 };
}

/// The size of a `History` key.
pub(crate) const HISTORY_KEY_SIZE: usize = GROUP_SIZE + REVISION_SIZE;

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

    /// The key of `Current`, made in `buffer` and split off it.
    pub(crate) fn place(self, key: &[u8], buffer: &mut BytesMut) -> Bytes {
        buffer.reserve(GROUP_SIZE + key.len());
        buffer.put_u64(self.group.0);
        buffer.put_slice(key);
        buffer.split().freeze()
    }

    /// The key of `History` for one change, made in `buffer` and split off it.
    pub(crate) fn change(self, revision: Revision, buffer: &mut BytesMut) -> Bytes {
        buffer.put_u64(self.group.0);
        put_revision(buffer, revision);
        buffer.split().freeze()
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

    /// `State`: how far unreachable changes were removed.
    pub(crate) fn swept(self) -> Bytes {
        let mut buffer = self.start(1);
        buffer.put_u8(TAG_SWEPT);
        buffer.freeze()
    }

    /// `State`: the configuration in force.
    pub(crate) fn configuration(self) -> Bytes {
        let mut buffer = self.start(1);
        buffer.put_u8(TAG_CONFIGURATION);
        buffer.freeze()
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
