//! What [`crate::fuzzing`] offers of the engine.

use super::block;
use super::manifest::parse;
use super::run::{BlockCache, BlockSize, Run, RunFile};
use super::{live_text, parse_live};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quorate_store::engine::{EngineError, Table};
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// A manifest.
pub fn manifest(data: &[u8]) {
    let _ = parse(data);
    if let Some((body, _)) = data.split_last_chunk::<8>() {
        let sealed = [body, &xxh3_64(body).to_le_bytes()].concat();
        let _ = parse(&sealed);
    }
}

/// The file that names the live generation: what is taken is what would be written.
pub fn live(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(number) = parse_live(&text) {
        assert_eq!(text, live_text(number), "another text names the generation as well");
    }
}

/// The file of a run, in a folder of its caller's that is used over and over.
pub fn run(folder: &Path, data: &[u8]) {
    read(folder, data);
    let mut sealed = data.to_vec();
    if seal(&mut sealed).is_some() {
        read(folder, &sealed);
    }
}

/// The bytes of a footer, and where what it says stands in it.
const FOOTER_SIZE: usize = 80;

/// Makes the checksums of footer, index and blocks right, where they are found.
fn seal(data: &mut [u8]) -> Option<()> {
    let at = data.len().checked_sub(FOOTER_SIZE)?;
    let (body, footer) = data.split_at_mut(at);
    let number = |footer: &[u8], at: usize| {
        footer.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
    };
    footer[..5].copy_from_slice(b"QRUN\x01");
    footer[6..16].copy_from_slice(&[0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let index_at = usize::try_from(number(footer, 16)?).ok()?;
    seal_blocks(body, index_at, number(footer, 24)?);
    let checksum = xxh3_64(body.get(index_at..)?);
    footer[64..72].copy_from_slice(&checksum.to_le_bytes());
    let checksum = xxh3_64(&footer[..72]);
    footer[72..].copy_from_slice(&checksum.to_le_bytes());
    Some(())
}

/// Makes the checksums of the blocks right that the index names, as far as it can be followed.
fn seal_blocks(body: &mut [u8], index_at: usize, sizes: u64) {
    let mut at = index_at;
    for _ in 0..sizes >> 32 {
        let Some(entry) = body.get(at..at.saturating_add(22)) else { return };
        let word =
            |at: usize| entry[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let (offset, size) = (word(0) as usize, word(8) as usize);
        let key_size = usize::from(u16::from_le_bytes([entry[20], entry[21]]));
        let Some(block) = body.get(offset..offset.saturating_add(size)) else { return };
        let checksum = xxh3_64(block);
        body[at + 12..at + 20].copy_from_slice(&checksum.to_le_bytes());
        at += 22 + key_size;
    }
}

fn read(folder: &Path, data: &[u8]) {
    if std::fs::write(RunFile::path(folder, 1), data).is_err() {
        return;
    }
    let Ok(file) = RunFile::open(folder, 1) else { return };
    for table in Table::ALL {
        if let Ok(run) = Run::open(Arc::clone(&file), table, data.len() as u64) {
            let _ = walk(&run);
        }
    }
}

/// Reads everything that a run holds, in each of the ways in which it is read.
fn walk(run: &Run) -> Result<(), EngineError> {
    let lifecycle = DefaultLifecycle::default();
    let cache: BlockCache = Cache::with(16, 1 << 20, BlockSize, Default::default(), lifecycle);
    let _ = run.find(run.last(), &cache)?;
    for at in 0..run.block_count() {
        let _ = run.find(run.first(at), &cache)?;
        let _ = run.block_of(run.first(at));
        let block = run.block(at, &cache)?;
        for start in block::starts(&block).map_err(|()| run.malformed(at))? {
            let entry = block::entry_at(&block, start).expect("it was found there");
            drop(entry.slice(&block));
        }
    }
    for piece in run.blocks(0, 1 << 16)? {
        let _ = block::starts(&piece.block);
    }
    Ok(())
}
