//! What a node runs with, checked: settings become addresses, names and folders, or a sentence that says what to
//! change.

use crate::config::{SPIN_MAX, StartSettings};
use crate::exit::Failure;
use quorate_node::Join;
use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// The longest name of a node: it stands in every log line and table.
const NAME_SIZE_MAX: usize = 64;

/// Everything that `quorate start` needs, checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerConfig {
    /// The name of this node.
    pub(crate) name: String,
    /// Where its data lies.
    pub(crate) data_dir: PathBuf,
    /// The members to form a cluster of, with their peer addresses, in the order given.
    pub(crate) cluster: Vec<(String, String)>,
    /// How to join a cluster that is formed already.
    pub(crate) join: Option<Join>,
    /// Where clients connect, as given.
    pub(crate) listen_etcd: String,
    /// Where peers connect, as given.
    pub(crate) listen_peer: String,
    /// The client URLs that member lists show; empty for those of the address that was bound.
    pub(crate) advertise_etcd: Vec<String>,
    /// Whether plaintext may leave this machine.
    pub(crate) insecure: bool,
    /// How long a thread that has run out of work looks for more before it sleeps.
    pub(crate) spin: Duration,
}

impl ServerConfig {
    /// Checks settings that were merged from all sources.
    ///
    /// # Errors
    /// `Usage`, with what is wrong and what would be right.
    pub(crate) fn new(settings: &StartSettings) -> Result<ServerConfig, Failure> {
        let name = needed("name", settings.name.clone())?;
        check_name(&name)?;
        let data_dir = needed("data-dir", settings.data_dir.clone())?;
        let Peering { cluster, join, listen_peer } = match &settings.join {
            Some(contacts) => joining(contacts, settings)?,
            None => forming(&name, settings)?,
        };
        let listen_etcd = needed("listen-etcd", settings.listen_etcd.clone())?;
        check_address("listen-etcd", &listen_etcd, true)?;
        if listen_etcd == listen_peer && !listen_etcd.ends_with(":0") {
            return Err(Failure::Usage(format!(
                "--listen-etcd and the peer address are both {listen_etcd}; clients and peers need a port each"
            )));
        }
        let advertise_etcd =
            settings.advertise_etcd.as_deref().map_or(Ok(Vec::new()), client_urls)?;
        Ok(ServerConfig {
            name,
            data_dir,
            cluster,
            join,
            listen_etcd,
            listen_peer,
            advertise_etcd,
            insecure: settings.insecure.unwrap_or(false),
            spin: spin(settings.spin)?,
        })
    }

    /// The addresses to bind for clients.
    ///
    /// # Errors
    /// As [`resolve`].
    pub(crate) fn etcd_addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        resolve("listen-etcd", &self.listen_etcd, self.insecure)
    }

    /// The addresses to bind for peers.
    ///
    /// # Errors
    /// As [`resolve`].
    pub(crate) fn peer_addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        resolve("listen-peer", &self.listen_peer, self.insecure)
    }
}

/// The file may say what no flag may.
fn spin(given: Option<u32>) -> Result<Duration, Failure> {
    let micros = needed("spin", given)?;
    if i64::from(micros) > SPIN_MAX {
        return Err(Failure::Usage(format!("--spin {micros}: at most {SPIN_MAX} microseconds")));
    }
    Ok(Duration::from_micros(micros.into()))
}

/// How a node finds its peers and is found by them.
struct Peering {
    cluster: Vec<(String, String)>,
    join: Option<Join>,
    listen_peer: String,
}

/// A node that forms a cluster with those of the list, or is a member already.
fn forming(name: &str, settings: &StartSettings) -> Result<Peering, Failure> {
    let mut cluster = parse_cluster(&needed("cluster", settings.cluster.clone())?)?;
    let Some(own) = cluster.iter_mut().find(|(member, _)| *member == name) else {
        let members: Vec<&str> = cluster.iter().map(|(member, _)| member.as_str()).collect();
        return Err(Failure::Usage(format!(
            "--cluster does not name this node: --name is {name}, the members are {}; add `{name}=HOST:PORT` to --cluster on every node, or correct --name",
            members.join(", ")
        )));
    };
    let listen_peer = settings.listen_peer.clone().unwrap_or_else(|| own.1.clone());
    check_address("listen-peer", &listen_peer, true)?;
    if let Some(address) = &settings.advertise_peer {
        check_address("advertise-peer", address, false)?;
        own.1.clone_from(address);
    }
    Ok(Peering { cluster, join: None, listen_peer })
}

/// A node that joins the cluster of those that it is told of.
fn joining(contacts: &str, settings: &StartSettings) -> Result<Peering, Failure> {
    let contacts = contacts.split(',').map(str::trim).filter(|contact| !contact.is_empty());
    let contacts: Vec<String> = contacts.map(str::to_owned).collect();
    if contacts.is_empty() {
        return Err(Failure::Usage("--join names no member".into()));
    }
    for contact in &contacts {
        check_address("join", contact, false)?;
    }
    let listen_peer = settings.listen_peer.clone().unwrap_or_else(|| JOIN_LISTEN_PEER.into());
    check_address("listen-peer", &listen_peer, true)?;
    let address = settings.advertise_peer.clone().unwrap_or_else(|| listen_peer.clone());
    check_address("advertise-peer", &address, false)?;
    Ok(Peering { cluster: Vec::new(), join: Some(Join { contacts, address }), listen_peer })
}

/// Where a node that joins listens for peers unless told otherwise.
const JOIN_LISTEN_PEER: &str = "127.0.0.1:2380";

/// What the name of an address stands for now.
///
/// # Errors
/// When it stands for nothing, or for something that other machines can reach while plaintext may not.
fn resolve(flag: &str, address: &str, insecure: bool) -> Result<Vec<SocketAddr>, Failure> {
    let found = address.to_socket_addrs();
    let found = found.map_err(|error| Failure::Usage(format!("--{flag} {address}: {error}")))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() {
        return Err(Failure::Usage(format!("--{flag} {address}: the name has no address")));
    }
    if !insecure && let Some(open) = found.iter().find(|found| !found.ip().is_loopback()) {
        return Err(Failure::Usage(format!(
            "--{flag} {address}: other machines can reach {open}, and what is said there is not encrypted; listen on 127.0.0.1, or say --insecure if the network itself is trusted"
        )));
    }
    Ok(found)
}

/// A setting without which nothing works.
fn needed<T>(flag: &str, value: Option<T>) -> Result<T, Failure> {
    let variable = flag.replace('-', "_").to_uppercase();
    value.ok_or_else(|| {
        Failure::Usage(format!(
            "--{flag} is missing; give it as a flag, as QUORATE_{variable}, or as `{flag}` under [start] in the file of --config"
        ))
    })
}

pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > NAME_SIZE_MAX || !name.bytes().all(fits) {
        return Err(Failure::Usage(format!(
            "`{name}` is no name for a node: 1 to {NAME_SIZE_MAX} letters, digits, dots, dashes and underscores"
        )));
    }
    Ok(())
}

/// The members of `n1=127.0.0.1:7101,n2=…`.
fn parse_cluster(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut members: Vec<(String, String)> = Vec::new();
    let mut addresses = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, address)) = part.split_once('=') else {
            return Err(Failure::Usage(format!("--cluster: `{part}` is not NAME=HOST:PORT")));
        };
        check_name(name)?;
        check_address("cluster", address, false)?;
        if members.iter().any(|(member, _)| member == name) {
            return Err(Failure::Usage(format!("--cluster names {name} twice")));
        }
        if !addresses.insert(address.to_owned()) {
            return Err(Failure::Usage(format!("--cluster gives {address} to two members")));
        }
        members.push((name.to_owned(), address.to_owned()));
    }
    match members.is_empty() {
        true => Err(Failure::Usage("--cluster names no member".into())),
        false => Ok(members),
    }
}

/// Whether this is `host:port`; the host may be a name.
pub(crate) fn check_address(flag: &str, address: &str, any_port: bool) -> Result<(), Failure> {
    address_fault(address, any_port).map_or(Ok(()), |why| {
        Err(Failure::Usage(format!("--{flag}: `{address}` is not HOST:PORT: {why}")))
    })
}

/// Why this is not `host:port`.
pub(crate) fn address_fault(address: &str, any_port: bool) -> Option<&'static str> {
    let Some((host, port)) = address.rsplit_once(':') else { return Some("there is no port") };
    if host.is_empty() || host.contains(['/', '=', ' ']) {
        return Some("that is no host");
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Some("an IPv6 address stands in brackets");
    }
    match port.parse::<u16>() {
        Err(_) => Some("a port is a number from 1 to 65535"),
        Ok(0) if !any_port => Some("peers cannot find port 0"),
        Ok(_) => None,
    }
}

/// The URLs of `http://node1:2379,http://…`.
fn client_urls(text: &str) -> Result<Vec<String>, Failure> {
    let mut urls = Vec::new();
    for url in text.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        let Some(address) = url.strip_prefix("http://") else {
            return Err(Failure::Usage(format!(
                "--advertise-etcd: `{url}` is not a URL such as http://node1:2379"
            )));
        };
        check_address("advertise-etcd", address.trim_end_matches('/'), false)?;
        urls.push(url.trim_end_matches('/').to_owned());
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(cluster: &str) -> StartSettings {
        StartSettings {
            name: Some("n1".into()),
            data_dir: Some("data".into()),
            cluster: Some(cluster.into()),
            listen_etcd: Some("127.0.0.1:2101".into()),
            spin: Some(200),
            ..StartSettings::default()
        }
    }

    fn refusal(settings: &StartSettings) -> String {
        match ServerConfig::new(settings) {
            Err(Failure::Usage(text)) => text,
            other => panic!("taken: {other:?}"),
        }
    }

    #[test]
    fn a_thread_looks_for_work_as_long_as_it_is_told_within_reason() {
        let with = |spin| StartSettings { spin: Some(spin), ..settings("n1=127.0.0.1:7101") };
        let spin = |micros| ServerConfig::new(&with(micros)).map(|config| config.spin).ok();
        assert_eq!(spin(0), Some(Duration::ZERO));
        assert_eq!(spin(10_000), Some(Duration::from_millis(10)));
        assert!(refusal(&with(10_001)).contains("at most 10000 microseconds"));
    }

    #[test]
    fn a_node_joins_where_it_is_told_to() {
        let joining = |listen_peer: Option<&str>| StartSettings {
            join: Some("127.0.0.1:7101, 127.0.0.1:7201".into()),
            listen_peer: listen_peer.map(str::to_owned),
            cluster: None,
            ..settings("")
        };
        let config = ServerConfig::new(&joining(Some("127.0.0.1:7401"))).expect("good settings");
        let join = config.join.expect("it joins");
        assert_eq!(join.contacts, ["127.0.0.1:7101", "127.0.0.1:7201"]);
        assert_eq!(join.address, "127.0.0.1:7401");
        assert_eq!(config.cluster, []);
        let config = ServerConfig::new(&joining(None)).expect("good settings");
        assert_eq!(config.listen_peer, "127.0.0.1:2380");
        let nowhere = StartSettings { join: Some(" ,".into()), ..joining(None) };
        assert!(refusal(&nowhere).contains("names no member"));
    }

    #[test]
    fn peers_are_heard_at_the_own_entry_of_the_cluster() {
        let config = ServerConfig::new(&settings("n1=127.0.0.1:7101,n2=db.example:7201"));
        let config = config.expect("good settings");
        assert_eq!(config.listen_peer, "127.0.0.1:7101");
        assert_eq!(config.cluster[1], ("n2".into(), "db.example:7201".into()));
    }

    #[test]
    fn each_mistake_in_the_cluster_is_named() {
        let check = |cluster, part: &str| {
            let text = refusal(&settings(cluster));
            assert!(text.contains(part), "{cluster}: {text}");
        };
        check("n2=127.0.0.1:7201", "--name is n1, the members are n2");
        check("", "names no member");
        check("n1=127.0.0.1:7101,n1=127.0.0.1:7102", "names n1 twice");
        check("n1=127.0.0.1:7101,n2=127.0.0.1:7101", "to two members");
        check("n1", "`n1` is not NAME=HOST:PORT");
        check("n1=127.0.0.1", "there is no port");
        check("n1=127.0.0.1:70000", "from 1 to 65535");
        check("n1=127.0.0.1:0", "port 0");
        check("n1=::1:7101", "in brackets");
        check("n 1=127.0.0.1:7101", "no name for a node");
    }

    #[test]
    fn a_missing_setting_says_all_the_ways_to_give_it() {
        let text = refusal(&StartSettings::default());
        assert!(text.contains("--name") && text.contains("QUORATE_NAME"), "{text}");
    }

    #[test]
    fn plaintext_beyond_this_machine_must_be_asked_for() {
        let mut open = settings("n1=127.0.0.1:7101");
        open.listen_etcd = Some("0.0.0.0:2101".into());
        let config = ServerConfig::new(&open).expect("well formed");
        let Err(Failure::Usage(text)) = config.etcd_addresses() else { panic!("taken") };
        assert!(text.contains("--insecure"), "{text}");
        assert!(config.peer_addresses().is_ok());
        open.insecure = Some(true);
        let config = ServerConfig::new(&open).expect("well formed");
        assert!(config.etcd_addresses().is_ok());
    }

    #[test]
    fn clients_and_peers_need_a_port_each() {
        let mut same = settings("n1=127.0.0.1:2101");
        same.listen_peer = None;
        assert!(refusal(&same).contains("a port each"));
    }
}
