//! The door over loopback: with the generated client, with bare sockets, and with the real `etcdctl`.

mod double;

mod api;
mod etcdctl;
mod node;
