//! The disk of a node: requests in, completions out, on threads of its own.
//!
//! Writes have a thread to themselves, so that a log sync never queues behind the zeroing of a segment, a
//! long read or a delete. Both queues are bounded by whoever asks: the log keeps one batch in flight, one
//! segment in preparation and a fixed number of reads.

use crate::files::Files;
use crate::queue::Queue;
use crate::spin::Spin;
use quorate_types::{DiskDone, DiskOp, DiskRequest};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Who is told that a request is done.
pub(crate) type DoneSink = Arc<dyn Fn(DiskDone) + Send + Sync>;

/// Carries out disk requests on two threads.
#[derive(Debug)]
pub(crate) struct Disk {
    /// What only writes.
    writes: Arc<Queue<DiskRequest>>,
    /// Everything else.
    others: Arc<Queue<DiskRequest>>,
    threads: Vec<JoinHandle<()>>,
}

impl Disk {
    /// Starts the threads; `name` distinguishes them in lists of threads. The one that writes waits for more as `spin` says.
    pub(crate) fn start(
        name: &str,
        files: Files,
        done: &DoneSink,
        spin: &Spin,
    ) -> std::io::Result<Disk> {
        let files = Arc::new(files);
        let mut disk = Disk {
            writes: Arc::new(Queue::new()),
            others: Arc::new(Queue::new()),
            threads: Vec::new(),
        };
        let threads = [("log", &disk.writes, spin.clone()), ("disk", &disk.others, Spin::never())];
        for (what, queue, mut spin) in threads {
            let (queue, files, done) = (Arc::clone(queue), Arc::clone(&files), Arc::clone(done));
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{what}"))
                .spawn(move || run(&queue, &files, &done, &mut spin))?;
            disk.threads.push(thread);
        }
        Ok(disk)
    }

    /// Begins a request; it completes on another thread.
    pub(crate) fn submit(&self, request: DiskRequest) {
        match request.op {
            DiskOp::Write { .. } => self.writes.push(request),
            DiskOp::Allocate { .. }
            | DiskOp::Read { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Delete { .. }
            | DiskOp::Replace { .. } => self.others.push(request),
        };
    }

    /// Does what waits, then ends the threads.
    pub(crate) fn stop(self) {
        self.writes.close();
        self.others.close();
        for thread in self.threads {
            // A thread that panicked has said so; there is nothing left to save here.
            drop(thread.join());
        }
    }
}

fn run(queue: &Queue<DiskRequest>, files: &Files, done: &DoneSink, spin: &mut Spin) {
    let mut requests = Vec::new();
    let mut gather = Vec::new();
    while queue.drain(&mut requests, spin) {
        for request in requests.drain(..) {
            let result = files.execute(&request.op, &mut gather);
            done(DiskDone { id: request.id, result });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::FileReader;
    use crate::metrics::Counters;
    use bytes::Bytes;
    use quorate_types::{DiskError, DiskId, DiskOutput, DiskReader, FileName};
    use std::path::Path;

    struct Bench {
        folder: tempfile::TempDir,
        disk: Disk,
        done: Arc<Queue<DiskDone>>,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().expect("a folder");
            let done = Arc::new(Queue::new());
            let sink = Arc::clone(&done);
            let sink: DoneSink = Arc::new(move |one| {
                sink.push(one);
            });
            let files = Files::new(folder.path(), Arc::new(Counters::default()));
            let disk = Disk::start("test", files, &sink, &Spin::never()).expect("threads");
            Bench { folder, disk, done }
        }

        fn root(&self) -> &Path {
            self.folder.path()
        }

        fn run(&self, op: DiskOp) -> Result<DiskOutput, DiskError> {
            self.disk.submit(DiskRequest { id: DiskId(7), op });
            let mut done = Vec::new();
            assert!(self.done.drain(&mut done, &mut Spin::never()));
            let one = done.pop().expect("one request, one completion");
            assert!(done.is_empty(), "one request, one completion");
            assert_eq!(one.id, DiskId(7));
            one.result
        }
    }

    fn name(text: &str) -> FileName {
        FileName::new(text)
    }

    fn write(file: &str, offset: u64, data: Vec<Bytes>) -> DiskOp {
        DiskOp::Write { file: name(file), offset, data, sync: true }
    }

    #[test]
    fn an_allocated_file_is_zero_and_holds_what_is_written() {
        let bench = Bench::new();
        let size = 5 * 1024 * 1024 + 3;
        let allocate = DiskOp::Allocate { file: name("log/1"), size };
        assert_eq!(bench.run(allocate), Ok(DiskOutput::Done));
        let on_disk = std::fs::read(bench.root().join("log/1")).expect("present");
        assert_eq!(on_disk.len() as u64, size);
        assert!(on_disk.iter().all(|byte| *byte == 0));

        let small: Vec<Bytes> =
            (0..2000u32).map(|n| Bytes::from(n.to_le_bytes().repeat(50))).collect();
        let large = Bytes::from(vec![7; 300 * 1024]);
        let mut chunks = small.clone();
        chunks.insert(700, large);
        let expected = chunks.concat();
        assert_eq!(bench.run(write("log/1", 100, chunks)), Ok(DiskOutput::Done));
        let read = DiskOp::Read { file: name("log/1"), offset: 100, size: expected.len() as u64 };
        assert_eq!(bench.run(read), Ok(DiskOutput::Read(Bytes::from(expected))));
        let past = DiskOp::Read { file: name("log/1"), offset: size - 1, size: 1 << 50 };
        assert_eq!(bench.run(past), Ok(DiskOutput::Read(Bytes::from_static(&[0]))));
        bench.disk.stop();
    }

    #[test]
    fn a_name_that_changes_hands_is_opened_anew() {
        let bench = Bench::new();
        for file in ["a", "b"] {
            bench.run(DiskOp::Allocate { file: name(file), size: 4 }).expect("made");
            bench.run(write(file, 0, vec![Bytes::from(file.repeat(4))])).expect("written");
        }
        bench.run(DiskOp::Rename { from: name("a"), to: name("b") }).expect("renamed");
        bench.run(write("b", 0, vec![Bytes::from_static(b"x")])).expect("written");
        assert_eq!(std::fs::read(bench.root().join("b")).expect("present"), b"xaaa");
        let missing = bench.run(write("a", 0, vec![Bytes::from_static(b"x")]));
        assert_eq!(missing, Err(DiskError::NotFound(name("a"))));

        bench.run(DiskOp::Delete { file: name("b") }).expect("deleted");
        bench.run(DiskOp::Delete { file: name("b") }).expect("a missing file is no error");
        bench.run(DiskOp::Allocate { file: name("b"), size: 2 }).expect("made");
        bench.run(write("b", 1, vec![Bytes::from_static(b"y")])).expect("written");
        assert_eq!(std::fs::read(bench.root().join("b")).expect("present"), b"\0y");
    }

    #[test]
    fn a_replaced_file_holds_exactly_the_new_content() {
        let bench = Bench::new();
        for content in ["first and long", "second"] {
            let data = Bytes::from(content);
            bench.run(DiskOp::Replace { file: name("meta/identity"), data }).expect("replaced");
            let found = std::fs::read(bench.root().join("meta/identity")).expect("present");
            assert_eq!(found, content.as_bytes());
        }
        let files = FileReader::new(bench.root()).list("meta").expect("listed");
        assert_eq!(files.len(), 1, "no temporary file stays");
    }

    #[test]
    fn a_full_device_is_told_from_a_broken_one() {
        let bench = Bench::new();
        std::os::unix::fs::symlink("/dev/full", bench.root().join("full")).expect("linked");
        let full = bench.run(write("full", 0, vec![Bytes::from_static(b"x")]));
        assert_eq!(full, Err(DiskError::NoSpace(name("full"))));
        std::fs::create_dir(bench.root().join("folder")).expect("made");
        let broken = bench.run(write("folder", 0, vec![Bytes::from_static(b"x")]));
        assert!(matches!(broken, Err(DiskError::Io { .. })), "{broken:?}");
    }
}
