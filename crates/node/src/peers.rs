//! Streams to and from peers, and whom they belong to.

use crate::hello::Hello;
use crate::identity::Remembered;
use crate::interface::{StreamDirection, StreamId, StreamPurpose};
use crate::status::PeerReach;
use quorate_types::{Incarnation, Instant};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a stream may be open without a hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The most streams that may be open without a hello: more than all members and their restarts need.
const UNKNOWN_STREAMS_MAX: usize = 256;

/// One open stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Who opened it.
    pub(crate) direction: StreamDirection,
    /// What it is for; of an incoming stream, what its hello says.
    pub(crate) purpose: StreamPurpose,
    /// Whose it is, once the hello was accepted.
    pub(crate) speaker: Option<Arc<Speaker>>,
    /// When it was opened.
    opened: Instant,
}

impl Stream {
    /// Whether this node opened it.
    pub(crate) fn is_outgoing(&self) -> bool {
        matches!(self.direction, StreamDirection::Outgoing { .. })
    }
}

/// Who speaks on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Speaker {
    /// Its name.
    pub(crate) name: String,
    /// Its data folder.
    pub(crate) incarnation: Incarnation,
}

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
struct Peer {
    /// Where it is dialled.
    address: String,
    /// Accepted streams that this node opened, by purpose.
    outgoing: BTreeMap<StreamPurpose, StreamId>,
    /// Accepted streams that the peer opened, by purpose.
    incoming: BTreeMap<StreamPurpose, StreamId>,
    /// The run that spoke last.
    run: Remembered,
    /// When anything was heard from it last.
    last_heard: Option<Instant>,
    /// Why it or this node was refused; cleared by an accepted hello.
    refusal: Option<String>,
    /// Whether its link was last told to be up.
    link_up: bool,
}

/// A link that came up or went down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkChange {
    /// Which peer.
    pub(crate) name: String,
    /// Under which incarnation it spoke.
    pub(crate) incarnation: Incarnation,
    /// Whether it is up now.
    pub(crate) up: bool,
}

/// All streams and peers of a node.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    streams: BTreeMap<StreamId, Stream>,
    peers: BTreeMap<String, Peer>,
}

impl Peers {
    /// Replaces the peers to be dialled: name and address, this node not among them. Gives the streams of peers that
    /// are none any more, which are to be closed.
    pub(crate) fn assign(&mut self, peers: &[(String, String)]) -> Vec<StreamId> {
        let is_kept = |name: &String| peers.iter().any(|(kept, _)| kept == name);
        self.peers.retain(|name, _| is_kept(name));
        for (name, address) in peers {
            self.peers.entry(name.clone()).or_default().address.clone_from(address);
        }
        let strange = |stream: &Stream| match (&stream.speaker, &stream.direction) {
            (Some(speaker), _) => !is_kept(&speaker.name),
            (None, StreamDirection::Outgoing { address }) => {
                !peers.iter().any(|(_, kept)| kept == address)
            }
            (None, StreamDirection::Incoming) => false,
        };
        self.streams.iter().filter(|(_, stream)| strange(stream)).map(|(id, _)| *id).collect()
    }

    /// Whether this node talks to a peer of that name.
    pub(crate) fn is_assigned(&self, name: &str) -> bool {
        self.peers.contains_key(name)
    }

    /// The addresses to dial.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.peers.values().map(|peer| peer.address.clone()).collect()
    }

    /// The name that belongs to a dialled address. While a member takes the place of another at its address there are
    /// two; then it is the one that answers there and says it is `said`.
    pub(crate) fn name_at(&self, address: &str, said: Option<&str>) -> Option<&str> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.address == address);
        let mut names = peers.map(|(name, _)| name.as_str());
        names.clone().find(|name| said == Some(*name)).or_else(|| names.next())
    }

    /// A stream was opened; false when there are too many without a hello, and it is to be closed.
    pub(crate) fn opened(
        &mut self,
        now: Instant,
        id: StreamId,
        direction: StreamDirection,
        purpose: StreamPurpose,
    ) -> bool {
        let unknown = self.streams.values().filter(|stream| stream.speaker.is_none()).count();
        if unknown >= UNKNOWN_STREAMS_MAX {
            return false;
        }
        self.streams.insert(id, Stream { direction, purpose, speaker: None, opened: now });
        true
    }

    /// The stream of this id, if it is open.
    pub(crate) fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// A stream is gone, or is being closed.
    pub(crate) fn closed(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        let Some(speaker) = stream.speaker else { return };
        let Some(peer) = self.peers.get_mut(&speaker.name) else { return };
        for side in [&mut peer.outgoing, &mut peer.incoming] {
            side.retain(|_, stream| *stream != id);
        }
    }

    /// The hello on a stream was accepted. Gives the stream whose place it takes, which is to be closed.
    pub(crate) fn accepted(
        &mut self,
        now: Instant,
        id: StreamId,
        hello: &Hello,
    ) -> Option<StreamId> {
        let stream = self.streams.get_mut(&id)?;
        let peer = self.peers.get_mut(&hello.name)?;
        let side = if stream.is_outgoing() {
            &mut peer.outgoing
        } else {
            stream.purpose = hello.purpose;
            &mut peer.incoming
        };
        let speaker = Speaker { name: hello.name.clone(), incarnation: hello.incarnation };
        stream.speaker = Some(Arc::new(speaker));
        peer.last_heard = Some(now);
        peer.refusal = None;
        peer.run = hello.run();
        side.insert(stream.purpose, id).filter(|former| *former != id)
    }

    /// Something was heard on an accepted stream.
    pub(crate) fn heard(&mut self, now: Instant, name: &str) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.last_heard = Some(now);
        }
    }

    /// A peer was refused, or refuses this node. Whether that is news; `None` when it is no peer.
    pub(crate) fn refused(&mut self, name: &str, text: &str) -> Option<bool> {
        let peer = self.peers.get_mut(name)?;
        let is_news = peer.refusal.as_deref() != Some(text);
        peer.refusal = Some(text.to_owned());
        Some(is_news)
    }

    /// Where to say something to a peer; `None` when it cannot be reached.
    pub(crate) fn way_to(&self, name: &str, purpose: StreamPurpose) -> Option<StreamId> {
        self.peers.get(name)?.outgoing.get(&purpose).copied()
    }

    /// The peers with whom messages do not flow both ways, by name.
    pub(crate) fn missing(&self) -> Vec<String> {
        let down = self.peers.iter().filter(|(_, peer)| !peer.is_up());
        down.map(|(name, _)| name.clone()).collect()
    }

    /// The links that came up or went down since this was last asked.
    pub(crate) fn take_link_changes(&mut self) -> Vec<LinkChange> {
        let mut changes = Vec::new();
        for (name, peer) in &mut self.peers {
            let up = peer.is_up();
            if up != peer.link_up {
                peer.link_up = up;
                let incarnation = peer.run.incarnation;
                changes.push(LinkChange { name: name.clone(), incarnation, up });
            }
        }
        changes
    }

    /// Every link as it was last told, for a replica that was only now opened.
    pub(crate) fn links_up(&self) -> Vec<LinkChange> {
        let up = self.peers.iter().filter(|(_, peer)| peer.link_up);
        let change = |(name, peer): (&String, &Peer)| LinkChange {
            name: name.clone(),
            incarnation: peer.run.incarnation,
            up: true,
        };
        up.map(change).collect()
    }

    /// The runs that spoke last, of the peers that spoke at all.
    pub(crate) fn runs(&self) -> Vec<(String, Remembered)> {
        let spoke = self.peers.iter().filter(|(_, peer)| peer.run != Remembered::default());
        spoke.map(|(name, peer)| (name.clone(), peer.run)).collect()
    }

    /// Streams that have been open for too long without a hello.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<StreamId> {
        let late =
            |stream: &Stream| stream.speaker.is_none() && stream.opened + HELLO_TIMEOUT <= now;
        self.streams.iter().filter(|(_, stream)| late(stream)).map(|(id, _)| *id).collect()
    }

    /// When the next stream without a hello is overdue.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let unknown = self.streams.values().filter(|stream| stream.speaker.is_none());
        unknown.map(|stream| stream.opened + HELLO_TIMEOUT).min()
    }

    /// What is known of the peers, as plain data.
    pub(crate) fn reach(&self, now: Instant) -> BTreeMap<String, PeerReach> {
        let reach = |(name, peer): (&String, &Peer)| {
            let reach = PeerReach {
                name: name.clone(),
                address: peer.address.clone(),
                outgoing: peer.outgoing.contains_key(&StreamPurpose::Messages),
                incoming: peer.incoming.contains_key(&StreamPurpose::Messages),
                last_heard: peer.last_heard.map(|heard| now.since(heard)),
                refusal: peer.refusal.clone(),
            };
            (name.clone(), reach)
        };
        self.peers.iter().map(reach).collect()
    }
}

impl Peer {
    fn is_up(&self) -> bool {
        self.outgoing.contains_key(&StreamPurpose::Messages)
            && self.incoming.contains_key(&StreamPurpose::Messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use quorate_types::ProtocolName;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn assigned(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| (name.to_string(), format!("{name}:1"))).collect()
    }

    fn peers(names: &[&str]) -> Peers {
        let mut peers = Peers::default();
        assert_eq!(peers.assign(&assigned(names)), []);
        peers
    }

    fn hello(name: &str, incarnation: u64, purpose: StreamPurpose) -> Hello {
        let incarnation = Incarnation(incarnation);
        let mut identity = Identity::fresh(name.into(), ProtocolName::Raft, incarnation);
        identity.begin_run(5);
        Hello::of(&identity, purpose)
    }

    fn outgoing(name: &str) -> StreamDirection {
        StreamDirection::Outgoing { address: format!("{name}:1") }
    }

    /// Opens a stream and lets its hello be accepted.
    fn accept(
        peers: &mut Peers,
        id: u64,
        direction: StreamDirection,
        name: &str,
        purpose: StreamPurpose,
    ) -> Option<StreamId> {
        // What an incoming stream is for, only its hello says.
        let first = match direction {
            StreamDirection::Outgoing { .. } => purpose,
            StreamDirection::Incoming => StreamPurpose::Messages,
        };
        assert!(peers.opened(at(1), StreamId(id), direction, first));
        peers.accepted(at(2), StreamId(id), &hello(name, 2, purpose))
    }

    fn changes(peers: &mut Peers) -> Vec<(String, bool)> {
        let changes = peers.take_link_changes();
        assert!(changes.iter().all(|change| change.incarnation == Incarnation(2)));
        changes.into_iter().map(|change| (change.name, change.up)).collect()
    }

    #[test]
    fn a_link_is_up_while_messages_flow_both_ways() {
        use StreamPurpose::*;
        let mut peers = peers(&["n2", "n3"]);
        assert_eq!(peers.missing(), ["n2", "n3"]);
        assert_eq!(accept(&mut peers, 1, outgoing("n2"), "n2", Messages), None);
        assert_eq!(accept(&mut peers, 2, outgoing("n2"), "n2", Bulk), None);
        assert_eq!(accept(&mut peers, 3, StreamDirection::Incoming, "n2", Bulk), None);
        assert_eq!(changes(&mut peers), []);
        assert_eq!(accept(&mut peers, 4, StreamDirection::Incoming, "n2", Messages), None);
        assert_eq!(changes(&mut peers), [("n2".to_owned(), true)]);
        assert_eq!(changes(&mut peers), []);
        assert_eq!(peers.links_up().len(), 1);
        assert_eq!(peers.missing(), ["n3"]);
        assert_eq!(peers.way_to("n2", Messages), Some(StreamId(1)));
        assert_eq!(peers.way_to("n2", Bulk), Some(StreamId(2)));
        assert_eq!(peers.way_to("n3", Messages), None);
        let reach = peers.reach(at(6));
        assert!(reach["n2"].outgoing && reach["n2"].incoming);
        assert!(!reach["n3"].outgoing && !reach["n3"].incoming);
        assert_eq!(reach["n2"].last_heard, Some(Duration::from_secs(4)));
        assert_eq!(reach["n3"].last_heard, None);
        peers.heard(at(5), "n2");
        assert_eq!(peers.reach(at(6))["n2"].last_heard, Some(Duration::from_secs(1)));
        peers.closed(StreamId(4));
        assert_eq!(changes(&mut peers), [("n2".to_owned(), false)]);
        assert_eq!(peers.links_up(), []);
        let runs: Vec<_> = peers.runs().into_iter().map(|(name, _)| name).collect();
        assert_eq!(runs, ["n2"], "of those that spoke");
    }

    #[test]
    fn a_stream_takes_the_place_of_the_one_before_and_not_of_itself() {
        let mut peers = peers(&["n2"]);
        let accept = |peers: &mut Peers, id| {
            accept(peers, id, outgoing("n2"), "n2", StreamPurpose::Messages)
        };
        assert_eq!(accept(&mut peers, 1), None);
        assert_eq!(accept(&mut peers, 2), Some(StreamId(1)));
        peers.closed(StreamId(1));
        assert_eq!(peers.way_to("n2", StreamPurpose::Messages), Some(StreamId(2)));
        let again = hello("n2", 2, StreamPurpose::Messages);
        assert_eq!(peers.accepted(at(3), StreamId(2), &again), None);
        peers.closed(StreamId(2));
        assert_eq!(peers.way_to("n2", StreamPurpose::Messages), None);
    }

    #[test]
    fn streams_of_those_who_are_no_peers_any_more_are_to_be_closed() {
        let mut peers = peers(&["n2", "n3"]);
        accept(&mut peers, 1, outgoing("n2"), "n2", StreamPurpose::Messages);
        accept(&mut peers, 2, StreamDirection::Incoming, "n3", StreamPurpose::Messages);
        for (id, direction) in
            [(3, outgoing("n2")), (4, outgoing("n3")), (5, StreamDirection::Incoming)]
        {
            peers.opened(at(1), StreamId(id), direction, StreamPurpose::Bulk);
        }
        assert_eq!(peers.assign(&assigned(&["n2", "n4"])), [StreamId(2), StreamId(4)]);
        assert_eq!(peers.addresses(), ["n2:1", "n4:1"]);
        assert_eq!(peers.name_at("n4:1", None), Some("n4"));
        assert_eq!(peers.name_at("n3:1", Some("n3")), None);
    }

    #[test]
    fn of_two_at_one_address_the_one_that_answers_is_meant() {
        let mut peers = peers(&["n2", "n4"]);
        let pair = |name: &str| (name.to_owned(), "n2:1".to_owned());
        assert_eq!(peers.assign(&[pair("n2"), pair("n4")]), []);
        assert_eq!(peers.name_at("n2:1", Some("n4")), Some("n4"));
        assert_eq!(peers.name_at("n2:1", Some("n2")), Some("n2"));
        assert_eq!(peers.name_at("n2:1", Some("n9")), Some("n2"), "a stranger is not expected");
        assert_eq!(peers.name_at("n2:1", None), Some("n2"));
    }

    #[test]
    fn streams_without_a_hello_are_few_and_do_not_last() {
        let mut peers = peers(&["n2"]);
        let open = |peers: &mut Peers, id| {
            peers.opened(at(1), StreamId(id), StreamDirection::Incoming, StreamPurpose::Messages)
        };
        assert_eq!(peers.next_deadline(), None);
        let most = UNKNOWN_STREAMS_MAX as u64;
        assert!((0..most).all(|id| open(&mut peers, id)));
        assert!(!open(&mut peers, most));
        assert!(peers.stream(StreamId(most)).is_none());
        peers.accepted(at(2), StreamId(7), &hello("n2", 2, StreamPurpose::Messages));
        assert!(open(&mut peers, most), "one has said who it is");
        assert_eq!(peers.next_deadline(), Some(at(6)));
        assert_eq!(peers.overdue(at(5)), []);
        let overdue = peers.overdue(at(6));
        assert_eq!(overdue.len(), UNKNOWN_STREAMS_MAX);
        assert!(!overdue.contains(&StreamId(7)));
    }

    #[test]
    fn a_refusal_is_news_once_and_forgotten_with_an_accepted_hello() {
        let mut peers = peers(&["n2"]);
        assert_eq!(peers.refused("n2", "why"), Some(true));
        assert_eq!(peers.refused("n2", "why"), Some(false));
        assert_eq!(peers.refused("n2", "why else"), Some(true));
        assert_eq!(peers.refused("n7", "why"), None);
        assert_eq!(peers.reach(at(1))["n2"].refusal.as_deref(), Some("why else"));
        accept(&mut peers, 1, outgoing("n2"), "n2", StreamPurpose::Messages);
        assert_eq!(peers.reach(at(1))["n2"].refusal, None);
    }
}
