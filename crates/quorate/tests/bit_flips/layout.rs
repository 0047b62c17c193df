//! Where things lie in a segment, read from `docs/format/log.md` and not from the code that writes it.

/// Blocks begin at multiples of this.
const BLOCK_SIZE: usize = 512;

/// The size of a block's header in bytes.
pub(super) const HEADER_SIZE: usize = 96;

/// What a block begins with.
const MAGIC: &[u8] = b"QuorLog\0";

/// Where the chain value lies in a header.
pub(super) const CHAIN_AT: usize = 72;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Header and directory, followed by the entries.
    Head,
    /// Header and directory again.
    Tail,
    /// What says that the last batch is synced.
    Proof,
    /// What an earlier life of the file left in it.
    Remains,
}

/// One block, as its header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// What it is.
    pub(super) kind: Kind,
    /// Where it begins in the file.
    pub(super) at: usize,
    /// The size of its directory.
    pub(super) items_size: usize,
    /// The size of its batch's entries.
    pub(super) bodies_size: usize,
    /// The size of the whole batch.
    pub(super) total_size: usize,
}

impl Block {
    /// Where the entries of a batch begin, of which this is the head.
    pub(super) fn bodies_at(&self) -> usize {
        self.at + HEADER_SIZE + self.items_size
    }
}

/// Where the number of its segment lies in a header.
const SEGMENT_AT: usize = 24;

/// The number of the segment whose block begins here. A file that was prepared for its next life still begins with a
/// block of the one before, of another number.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    let number = bytes.get(SEGMENT_AT..SEGMENT_AT + 8)?.try_into().expect("eight bytes");
    bytes.starts_with(MAGIC).then(|| u64::from_le_bytes(number))
}

/// All blocks of a segment, in order, without those that an earlier life of the file left in it.
pub(super) fn blocks(segment: &[u8]) -> Vec<Block> {
    let word = |at: usize| {
        let bytes = segment[at..at + 4].try_into().expect("four bytes");
        usize::try_from(u32::from_le_bytes(bytes)).expect("32 bits fit")
    };
    let places = (0..segment.len()).step_by(BLOCK_SIZE);
    let own = number(segment);
    let begins = |at: &usize| own.is_some() && number(&segment[*at..]) == own;
    let block = |at: usize| {
        let kind = match segment[at + 16] {
            1 => Kind::Head,
            2 => Kind::Tail,
            3 => Kind::Proof,
            4 => Kind::Remains,
            other => panic!("a block of the unknown kind {other} at {at}"),
        };
        let (items_size, bodies_size, total_size) = (word(at + 20), word(at + 80), word(at + 84));
        Block { kind, at, items_size, bodies_size, total_size }
    };
    places.filter(begins).map(block).collect()
}

/// The heads of all batches of a segment that hold entries, in order.
pub(super) fn batches(segment: &[u8]) -> Vec<Block> {
    let mut found = blocks(segment);
    found.retain(|block| block.kind == Kind::Head && block.bodies_size > 0);
    found
}

/// Neighbours whose directories and entries are of one size, every tenth batch at most.
pub(super) fn twins(segment: &[u8]) -> Vec<(Block, Block)> {
    let batches = batches(segment);
    let pairs = batches.windows(2).step_by(10).map(|pair| (pair[0], pair[1]));
    let alike = |(one, other): &(Block, Block)| {
        one.items_size == other.items_size && one.bodies_size == other.bodies_size
    };
    pairs.filter(alike).collect()
}

/// Exchanges two ranges of one size.
pub(super) fn swap(segment: &mut [u8], one: usize, other: usize, size: usize) {
    assert!(one + size <= other, "two places");
    let (front, back) = segment.split_at_mut(other);
    front[one..one + size].swap_with_slice(&mut back[..size]);
}

/// Where the content of a segment ends.
pub(super) fn end(segment: &[u8]) -> usize {
    segment.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}
