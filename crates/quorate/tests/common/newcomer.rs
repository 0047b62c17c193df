//! A node beside the first three, which joins them.

use super::{Cluster, Node, free_ports};

/// Its name, and ports and a folder of its own.
pub(crate) struct Newcomer {
    /// Its name.
    pub(crate) name: String,
    /// Where peers reach it.
    pub(crate) peer: String,
    /// Where clients reach it.
    pub(crate) endpoint: String,
    /// Its data folder.
    pub(crate) data_dir: String,
}

impl Newcomer {
    /// One that is still to be started.
    pub(crate) fn new(cluster: &Cluster, name: &str) -> Newcomer {
        let [peer, client] = free_ports();
        Newcomer {
            name: name.to_owned(),
            peer: format!("127.0.0.1:{peer}"),
            endpoint: format!("127.0.0.1:{client}"),
            data_dir: cluster.scratch().join(name).display().to_string(),
        }
    }

    /// `NAME=HOST:PORT`, as `quorate member` is told of it.
    pub(crate) fn pair(&self) -> String {
        format!("{}={}", self.name, self.peer)
    }

    /// Starts it with the address of the first node's peer port.
    pub(crate) fn start(&self, cluster: &mut Cluster) -> Node {
        let contact = format!("127.0.0.1:{}", cluster.peer_port(0));
        self.start_at(cluster, &contact)
    }

    /// Starts it with the peer address of a member.
    pub(crate) fn start_at(&self, cluster: &mut Cluster, contact: &str) -> Node {
        let pairs = [
            ("--name", self.name.as_str()),
            ("--join", contact),
            ("--data-dir", &self.data_dir),
            ("--listen-peer", &self.peer),
            ("--listen-etcd", &self.endpoint),
        ];
        let words = pairs.into_iter().flat_map(|(flag, value)| [flag, value]);
        let arguments: Vec<&str> = std::iter::once("start").chain(words).collect();
        cluster.start_other(&self.name, &arguments)
    }
}
