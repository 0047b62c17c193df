//! Raft from outside: golden scripts with an explicit network and disk, and random runs by seed.

mod disk;
mod machine;
mod random;
mod replica;
