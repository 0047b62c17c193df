//! What the disk gives at best: overwrite and sync in a file that was written before, which is what a log does.

use super::report::{Latency, latency_histogram, record};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The size of the file that is overwritten: small enough to be written in no time, larger than any cache line of
/// a disk.
const FILE_SIZE: usize = 16 * 1024 * 1024;

/// The sizes and numbers of writers that are tried.
const SHAPES: [(usize, usize); 4] = [(4096, 1), (4096, 3), (256, 1), (256, 3)];

/// One shape of overwriting and syncing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DiskResult {
    /// How many bytes are overwritten before each sync.
    pub(crate) write_size: usize,
    /// How many threads do so, each in a file of its own.
    pub(crate) writers: usize,
    /// Syncs a second of all writers together.
    pub(crate) rate: f64,
    /// From the write to the end of its sync.
    pub(crate) latency_us: Latency,
}

impl fmt::Display for DiskResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DiskResult { write_size, writers, rate, latency_us } = self;
        write!(f, "sync {write_size:>4} B × {writers}     {rate:>8.0} /s   {latency_us}")
    }
}

/// Tries all shapes in files under `folder`, each for `duration`.
///
/// # Errors
/// When the disk fails, as text.
pub(crate) fn probe(folder: &Path, duration: Duration) -> Result<Vec<DiskResult>, String> {
    let folder = tempfile::Builder::new().prefix("quorate-probe-").tempdir_in(folder);
    let folder = folder.map_err(|error| format!("no folder for the disk probe: {error}"))?;
    let run = |(write_size, writers)| shape(folder.path(), write_size, writers, duration);
    SHAPES.into_iter().map(run).collect()
}

fn shape(
    folder: &Path,
    write_size: usize,
    writers: usize,
    duration: Duration,
) -> Result<DiskResult, String> {
    let files = (0..writers).map(|number| prewritten(&folder.join(format!("{number}"))));
    let files: Vec<File> = files.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let begin = Instant::now();
    let results = std::thread::scope(|scope| {
        let threads =
            files.iter().map(|file| scope.spawn(|| write(file, write_size, begin + duration)));
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a writer returns its errors"))
            .collect()
    });
    let elapsed = begin.elapsed();
    let results: Vec<std::io::Result<Histogram<u64>>> = results;
    let mut all = latency_histogram();
    for result in results {
        let histogram = result.map_err(|error| format!("disk probe: {error}"))?;
        all.add(histogram).expect("all histograms have the same bounds");
    }
    let rate = (all.len() as f64 / elapsed.as_secs_f64()).round();
    Ok(DiskResult { write_size, writers, rate, latency_us: Latency::of(&all) })
}

/// A file whose blocks exist, so that a sync has no metadata to write.
fn prewritten(path: &Path) -> std::io::Result<File> {
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
    file.write_all(&vec![0x5a; FILE_SIZE])?;
    file.sync_all()?;
    Ok(file)
}

fn write(file: &File, size: usize, end: Instant) -> std::io::Result<Histogram<u64>> {
    let mut histogram = latency_histogram();
    let mut bytes = vec![0_u8; size];
    let mut offset = 0;
    while Instant::now() < end {
        let next = bytes[0].wrapping_add(1);
        bytes.fill(next);
        let begun = Instant::now();
        file.write_all_at(&bytes, offset as u64)?;
        file.sync_data()?;
        record(&mut histogram, begun.elapsed());
        offset = (offset + size) % FILE_SIZE;
    }
    Ok(histogram)
}
