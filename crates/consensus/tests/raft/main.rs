//! Raft from outside: golden scripts with an explicit network and disk, and random runs by seed.
#![expect(clippy::disallowed_methods, reason = "seeds and golden files come from outside")]
#![expect(clippy::print_stderr, reason = "figures, and on demand the trace of a seed")]

mod damage;
mod disk;
mod figures;
mod golden;
mod machine;
mod messages;
mod random;
mod replica;
mod topologies;
