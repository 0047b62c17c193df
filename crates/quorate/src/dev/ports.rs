//! Which ports the nodes of `quorate dev` use. Clients find them where etcd's would be, or at the next that is
//! free; the peer ports of a folder that is kept are written down, since members know each other by them.

use crate::exit::Failure;
use crate::http;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The client ports of the first nodes, those of etcd's own examples.
const CLIENT_PORTS: [u16; 3] = [2379, 22379, 32379];

/// How many ports are tried above the one that should have been.
const TRIES_MAX: u16 = 200;

/// The file that a kept folder's layout is written to.
const LAYOUT_FILE: &str = "dev.toml";

/// How long whoever has port 2379 may take to say who it is.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// The nodes of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevLayout {
    /// The peer port of each node.
    peer_ports: Vec<u16>,
}

/// The bound ports of one node.
pub(crate) struct Claim {
    /// The node.
    pub(crate) name: String,
    /// Where peers connect.
    pub(crate) peer: TcpListener,
    /// Where clients connect.
    pub(crate) etcd: TcpListener,
}

impl DevLayout {
    /// The layout written down in a folder, or a new one.
    ///
    /// # Errors
    /// When the folder was made for another number of nodes, or cannot be used.
    pub(crate) fn open(home: &Path, asked: Option<u8>, count: u8) -> Result<DevLayout, Failure> {
        let path = home.join(LAYOUT_FILE);
        if path.exists() {
            let layout = DevLayout::read(&path)?;
            let found = layout.peer_ports.len();
            if let Some(asked) = asked.filter(|asked| usize::from(*asked) != found) {
                return Err(Failure::Usage(format!(
                    "--nodes {asked}: {} was made for {found} nodes; leave --nodes out, or give another --data-dir",
                    home.display()
                )));
            }
            return Ok(layout);
        }
        let mut peer_ports = Vec::new();
        for number in 0..usize::from(count) {
            // The listener is dropped again: the same port is bound once it is written down.
            let (port, _) = bind_from(client_port(number) + 1, &peer_ports)?;
            peer_ports.push(port);
        }
        let layout = DevLayout { peer_ports };
        layout.write(home, &path)?;
        Ok(layout)
    }

    fn read(path: &PathBuf) -> Result<DevLayout, Failure> {
        let failed =
            |text: String| Failure::Failed(format!("{} cannot be used: {text}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        toml::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    fn write(&self, home: &Path, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self).expect("a list of numbers can be written");
        std::fs::create_dir_all(home)
            .and_then(|()| std::fs::write(path, text))
            .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))
    }

    /// The members with their peer addresses.
    pub(crate) fn cluster(&self) -> Vec<(String, String)> {
        let ports = self.peer_ports.iter().enumerate();
        ports.map(|(number, port)| (name(number), format!("127.0.0.1:{port}"))).collect()
    }

    /// Binds the ports of all nodes, and warns when etcd's own is taken.
    ///
    /// # Errors
    /// When a peer port is taken, or no client port is free.
    pub(crate) async fn claim(&self) -> Result<Vec<Claim>, Failure> {
        let mut claims = Vec::new();
        for (number, peer_port) in self.peer_ports.iter().enumerate() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *peer_port));
            let peer = TcpListener::bind(address).map_err(|error| {
                Failure::Failed(format!(
                    "{} cannot listen for its peers at {address}: {error}; members know each other by this port: stop what uses it",
                    name(number)
                ))
            })?;
            let wanted = client_port(number);
            let (port, etcd) = bind_from(wanted, &self.peer_ports)?;
            if number == 0 && port != wanted {
                warn_of_stranger(wanted, port).await;
            }
            claims.push(Claim { name: name(number), peer, etcd });
        }
        Ok(claims)
    }
}

fn name(number: usize) -> String {
    format!("n{}", number + 1)
}

/// Where the clients of a node should find it.
fn client_port(number: usize) -> u16 {
    let beyond = u16::try_from(number.saturating_sub(2)).expect("there are few nodes");
    CLIENT_PORTS.get(number).copied().unwrap_or(CLIENT_PORTS[2] + 10 * beyond)
}

/// Binds the first free port from `first` on, except for those that peers need.
fn bind_from(first: u16, reserved: &[u16]) -> Result<(u16, TcpListener), Failure> {
    let mut last_error = String::new();
    for port in (first..first.saturating_add(TRIES_MAX)).filter(|port| !reserved.contains(port)) {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok((port, listener)),
            Err(error) => last_error = error.to_string(),
        }
    }
    Err(Failure::Failed(format!("no port from {first} on is free: {last_error}")))
}

/// Clients that are told nothing go to 2379: whoever answers there should be known.
async fn warn_of_stranger(wanted: u16, used: u16) {
    let answer = http::get(&format!("127.0.0.1:{wanted}"), "/version", ASK_TIMEOUT).await;
    let who = match answer {
        Ok((200, body)) if body.contains("etcdserver") => {
            format!("an etcd ({}) answers there", body.trim())
        }
        Ok(_) | Err(_) => "something else has it".to_owned(),
    };
    eprintln!(
        "warning: port {wanted} is taken: {who}. n1 is at {used}; clients that are not told so reach the other one"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_folder_keeps_its_peers() {
        let home = tempfile::tempdir().expect("a folder");
        let first = DevLayout::open(home.path(), None, 3).expect("ports are free");
        assert_eq!(first.cluster().len(), 3);
        assert_eq!(DevLayout::open(home.path(), Some(3), 3), Ok(first.clone()));
        assert_eq!(DevLayout::open(home.path(), None, 5), Ok(first));
        let refused = DevLayout::open(home.path(), Some(5), 5).expect_err("another number");
        assert!(refused.to_string().contains("made for 3 nodes"), "{refused}");
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("bound").port().min(u16::MAX - TRIES_MAX);
        let (found, _listener) = bind_from(port, &[port + 1]).expect("one is free");
        assert!(
            found > port + 1 || found == port && taken.local_addr().expect("bound").port() != port
        );
    }

    #[test]
    fn client_ports_begin_like_those_of_etcd() {
        let ports: Vec<u16> = (0..5).map(client_port).collect();
        assert_eq!(ports, [2379, 22379, 32379, 32389, 32399]);
    }
}
