//! Reads in the midst of a write, which threads would hit only by chance.

use crate::harness::*;
use quorate_store::engine::*;
use quorate_store::{Store, StoreReader};
use quorate_types::*;
use std::sync::{Arc, Mutex};

type Hook = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// A memory engine that runs a hook when a write is visible and the store does not know it yet.
struct Interrupted {
    inner: MemoryEngine,
    hook: Hook,
}

impl Interrupted {
    fn interrupt(&self) {
        if let Some(hook) = self.hook.lock().expect("not poisoned").as_mut() {
            hook();
        }
    }
}

impl Engine for Interrupted {
    type Reader = MemoryReader;

    fn write(&mut self, batch: Batch) -> Result<(), EngineError> {
        self.inner.write(batch)?;
        self.interrupt();
        Ok(())
    }

    fn reader(&self) -> MemoryReader {
        self.inner.reader()
    }

    fn syncer(&self) -> Syncer {
        self.inner.syncer()
    }

    fn begin_generation(&mut self) -> Result<(), EngineError> {
        self.inner.begin_generation()
    }

    fn write_generation(&mut self, batch: Batch) -> Result<(), EngineError> {
        self.inner.write_generation(batch)
    }

    fn sync_generation(&mut self) -> Result<(), EngineError> {
        self.inner.sync_generation()
    }

    fn commit_generation(&mut self) -> Result<(), EngineError> {
        self.inner.commit_generation()?;
        self.interrupt();
        Ok(())
    }

    fn drop_generation(&mut self) -> Result<(), EngineError> {
        self.inner.drop_generation()
    }
}

/// Reads a key and checks that the answer is of one moment; its revision.
fn read_whole(reader: &StoreReader<Interrupted>) -> i64 {
    let response = reader.range(&range("a", "")).expect("readable");
    let newest = response.kvs.first().map_or(1, |kv| kv.mod_revision);
    assert_eq!(response.revision, newest, "the header and the key are of one moment");
    response.revision
}

#[test]
fn a_read_between_a_write_and_its_publication_is_of_one_moment() {
    let hook = Hook::default();
    let engine = Interrupted { inner: MemoryDisk::new().open(), hook: Arc::clone(&hook) };
    let mut store = Store::open(engine, GROUP).expect("an empty group");
    let (reader, seen) = (store.reader(), Arc::new(Mutex::new(Vec::new())));
    let (inner, list) = (reader.clone(), Arc::clone(&seen));
    let read = move || list.lock().expect("not poisoned").push(read_whole(&inner));
    *hook.lock().expect("not poisoned") = Some(Box::new(read));
    for index in 1..=3 {
        store.apply(&[entry(index, &put("a", "x"))]).expect("memory does not fail");
        assert_eq!(read_whole(&reader), 1 + index as i64);
    }
    // A snapshot from further on takes the place of everything, under readers too.
    let mut source = Client::new();
    for _ in 0..9 {
        source.put("a", "y");
    }
    let name = name_of(source.store.applied());
    store.stage_begin(&name).expect("memory does not fail");
    stream(&mut source.store).into_iter().for_each(|chunk| {
        store.stage_chunk(chunk).expect("its next chunk");
    });
    store.stage_finish().expect("complete");
    store.install().expect("complete");
    assert_eq!(read_whole(&reader), 10);
    assert_eq!(*seen.lock().expect("not poisoned"), [2, 3, 4, 10]);
}
