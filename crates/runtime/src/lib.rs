//! Real clock, disk, sockets, threads and engine: drives a node
