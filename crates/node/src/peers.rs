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

    /// The addresses to dial.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.peers.values().map(|peer| peer.address.clone()).collect()
    }

    /// The name that belongs to a dialled address.
    pub(crate) fn name_at(&self, address: &str) -> Option<&str> {
        let mut peers = self.peers.iter();
        peers.find(|(_, peer)| peer.address == address).map(|(name, _)| name.as_str())
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
