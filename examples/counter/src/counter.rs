//! A counter as a replicated state machine. Its whole state is one small file, replaced atomically by the syncer.
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Everything that apply can see, always as of `at`.
#[derive(Clone, Default)]
struct State {
    value: u64,
    at: MachineState,
    origins: OriginTable,
}

impl State {
    fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.put_u64_le(self.value);
        buffer.write_blob(&self.at.encode());
        buffer.write_blob(&self.origins.encode());
        buffer.freeze()
    }

    fn decode(bytes: Bytes) -> Result<State, DecodeError> {
        let mut reader = Reader::new("counter", bytes);
        let value = reader.u64()?;
        let at = MachineState::decode(reader.blob()?)?;
        Ok(State { value, at, origins: OriginTable::decode(reader.blob()?)? })
    }
}

pub struct Counter {
    file: PathBuf,
    state: Arc<Mutex<State>>,
    staged: Option<BytesMut>,
}

impl Counter {
    /// Opens what the file holds; a missing file is a counter at 0.
    pub fn open(file: &Path) -> Result<Counter, ApplyFault> {
        let state = match std::fs::read(file) {
            Ok(bytes) => State::decode(bytes.into()).map_err(damage)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(engine(error)),
        };
        Ok(Counter { file: file.to_owned(), state: Arc::new(Mutex::new(state)), staged: None })
    }
}

/// Replaces a file so that a crash leaves the old content or the new.
fn replace(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = file.with_extension("new");
    let mut new = std::fs::File::create(&temporary)?;
    new.write_all(content)?;
    new.sync_all()?;
    std::fs::rename(&temporary, file)?;
    std::fs::File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn damage(error: DecodeError) -> ApplyFault {
    ApplyFault::Damaged(error.to_string())
}

fn engine(error: std::io::Error) -> ApplyFault {
    ApplyFault::Engine(error.to_string())
}

impl StateMachine for Counter {
    type Reply = u64;

    fn state(&self) -> MachineState {
        self.state.lock().expect("nobody panics with it").at.clone()
    }

    fn fate(&self, origin: Origin) -> Fate {
        self.state.lock().expect("nobody panics with it").origins.fate(origin)
    }

    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Option<u64>>, ApplyFault> {
        let mut state = self.state.lock().expect("nobody panics with it");
        let mut replies = Vec::new();
        for committed @ Committed { entry, wanted, .. } in entries {
            let new = state.origins.admit(entry).map_err(damage)?;
            if new && let Ok(amount) = Reader::new("amount", entry.body().clone()).u64() {
                state.value = state.value.wrapping_add(amount);
            }
            let digest = Digest(state.value);
            state.at.advance(committed, digest)?;
            replies.push((new && *wanted).then_some(state.value));
        }
        Ok(replies)
    }

    fn syncer(&self) -> Syncer {
        let (file, state) = (self.file.clone(), self.state.clone());
        let content = move || state.lock().expect("nobody panics with it").encode();
        Arc::new(move || replace(&file, &content()).map_err(engine))
    }

    fn capture(&mut self) -> Result<Box<dyn SnapshotSource>, ApplyFault> {
        let state = self.state.lock().expect("nobody panics with it");
        Ok(Box::new(Capture { applied: state.at.applied, content: Some(state.encode()) }))
    }

    fn stage_begin(&mut self, _: &SnapshotName) -> Result<(), InstallFault> {
        self.staged = Some(BytesMut::new());
        Ok(())
    }

    fn stage_chunk(&mut self, chunk: Bytes) -> Result<(), InstallFault> {
        self.staged.get_or_insert_default().extend_from_slice(&chunk);
        Ok(())
    }

    fn stage_finish(&mut self) -> Result<(), InstallFault> {
        let staged = self.staged.clone().unwrap_or_default().freeze();
        Ok(State::decode(staged).map(drop).map_err(damage)?)
    }

    fn install(&mut self) -> Result<Applied, InstallFault> {
        let staged = self.staged.take().unwrap_or_default().freeze();
        let state = State::decode(staged.clone()).map_err(damage)?;
        replace(&self.file, &staged).map_err(engine)?;
        *self.state.lock().expect("nobody panics with it") = state.clone();
        Ok(state.at.applied)
    }
}

struct Capture {
    applied: Applied,
    content: Option<Bytes>,
}

impl SnapshotSource for Capture {
    fn applied(&self) -> Applied {
        self.applied
    }
    fn next_chunk(&mut self) -> Result<Option<Bytes>, ApplyFault> {
        Ok(self.content.take())
    }
}
