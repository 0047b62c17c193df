//! Reads in the midst of a write, which threads would hit only by chance.

use crate::harness::*;
use quorate_store::engine::*;
use quorate_store::{Store, StoreReader};
use quorate_types::*;
use std::sync::{Arc, Mutex};

type Hook = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// Runs once, when a view is asked for, before it is taken.
type ViewHook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A reader of a memory engine that runs a hook before it takes a view.
#[derive(Clone)]
struct LateReader {
    inner: MemoryReader,
    hook: ViewHook,
}

impl EngineReader for LateReader {
    type View = MemoryView;

    fn view(&self) -> Result<MemoryView, EngineError> {
        let hook = self.hook.lock().expect("not poisoned").take();
        if let Some(hook) = hook {
            hook();
        }
        self.inner.view()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }
}

/// A memory engine that runs a hook when a write is visible and the store does not know it yet.
struct Interrupted {
    inner: MemoryEngine,
    hook: Hook,
    view_hook: ViewHook,
}

impl Interrupted {
    fn interrupt(&self) {
        if let Some(hook) = self.hook.lock().expect("not poisoned").as_mut() {
            hook();
        }
    }
}

impl Engine for Interrupted {
    type Reader = LateReader;

    fn write(&mut self, batch: Batch) -> Result<(), EngineError> {
        self.inner.write(batch)?;
        self.interrupt();
        Ok(())
    }

    fn reader(&self) -> LateReader {
        LateReader { inner: self.inner.reader(), hook: Arc::clone(&self.view_hook) }
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
    let engine = Interrupted {
        inner: MemoryDisk::new().open(),
        hook: Arc::clone(&hook),
        view_hook: ViewHook::default(),
    };
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

#[test]
fn a_whole_write_between_the_summary_and_the_view_is_noticed() {
    let view_hook = ViewHook::default();
    let engine = Interrupted {
        inner: MemoryDisk::new().open(),
        hook: Hook::default(),
        view_hook: Arc::clone(&view_hook),
    };
    let store = Arc::new(Mutex::new(Store::open(engine, GROUP).expect("an empty group")));
    let reader = store.lock().expect("not poisoned").reader();
    for index in 1..=6 {
        let store = Arc::clone(&store);
        let write = move || {
            let batch = [entry(index, &put("a", "x"))];
            store.lock().expect("not poisoned").apply(&batch).expect("memory does not fail");
        };
        *view_hook.lock().expect("not poisoned") = Some(Box::new(write));
        assert_eq!(read_whole(&reader), 1 + index as i64);
    }
}

#[test]
fn the_size_is_about_what_is_stored() {
    let mut client = Client::new();
    let before = client.reader().size();
    client.put("a", &"x".repeat(10_000));
    let added = client.reader().size() - before;
    assert!((10_000..40_000).contains(&added), "{added} bytes");
    client.put("a", "");
    client.compact(3).expect("above");
    while client.store.tend().expect("memory does not fail") {}
    let left = client.reader().size() - before;
    assert!(left < 10_000, "{left} bytes");
}
