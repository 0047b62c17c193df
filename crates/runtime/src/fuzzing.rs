//! Entry points for the files of the engine, as fuzzers and the replay of their corpora call them. Their checksums are
//! tried as they are, and made right.

pub use crate::engine::fuzzing::{live, manifest, run};
