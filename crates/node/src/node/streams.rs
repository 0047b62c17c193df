//! Streams: hello, verdict, refusal, and whom a frame is for.

use super::{Node, SYSTEM_GROUP, Stage};
use crate::hello::{BEING_TAKEN_IN, Hello, Judge, Refusal};
use crate::identity::Remembered;
use crate::interface::{NodeEffect, StreamDirection, StreamId, StreamPurpose};
use crate::peers::{Speaker, Stream};
use bytes::Bytes;
use quorate_types::{Frame, FrameKind, GroupId, Intent, Member};

impl Node {
    pub(super) fn on_stream_opened(
        &mut self,
        id: StreamId,
        direction: StreamDirection,
        purpose: StreamPurpose,
    ) {
        let is_early = match self.stage {
            Stage::Starting { .. } | Stage::Resetting(_) | Stage::Admitted(_) => true,
            Stage::Joining => direction == StreamDirection::Incoming,
            Stage::Forming(_) | Stage::Bootstrapping(_) | Stage::Enrolling(_) | Stage::Running => {
                false
            }
        };
        if is_early {
            let reason = "this node is still starting".to_owned();
            self.out.push_back(NodeEffect::Close { stream: id, reason });
            return;
        }
        let is_outgoing = matches!(direction, StreamDirection::Outgoing { .. });
        if !self.peers.opened(self.now, id, direction, purpose) {
            let reason = "too many streams without a hello".to_owned();
            self.out.push_back(NodeEffect::Close { stream: id, reason });
        } else if is_outgoing {
            self.say_hello(id, purpose);
        }
    }

    fn say_hello(&mut self, stream: StreamId, purpose: StreamPurpose) {
        let mut hello = Hello::of(self.identity.identity(), purpose);
        hello.address = match &self.options.join {
            Some(join) if matches!(self.stage, Stage::Joining) => join.address.clone(),
            Some(_) | None => self.own_address(),
        };
        self.say(stream, FrameKind::Hello, hello.encode());
    }

    /// Answers a hello.
    fn answer_hello(&mut self, stream: StreamId, theirs: &Hello) {
        let mut hello = Hello::of(self.identity.identity(), theirs.purpose);
        hello.welcome = self.welcome(theirs);
        hello.address = self.own_address();
        self.say(stream, FrameKind::Hello, hello.encode());
    }

    /// Where peers reach this node, as the configuration in force says; empty while that does not name it.
    fn own_address(&self) -> String {
        let node = self.identity.identity().membership.map(|membership| membership.node);
        let own =
            node.zip(self.acquaintances()).and_then(|(node, all)| all.members.get(&node).cloned());
        own.map(|member| member.peer_address).unwrap_or_default()
    }

    /// A member of this cluster that the log here has yet to reach is talked to all the same.
    fn get_acquainted(&mut self, hello: &Hello) {
        let own = self.identity.identity();
        let (Some(membership), Some(theirs)) = (own.membership, hello.membership) else { return };
        if theirs.cluster != membership.cluster || hello.generation != own.generation {
            return;
        }
        let member = Member {
            incarnation: hello.incarnation,
            name: hello.name.clone(),
            peer_address: hello.address.clone(),
            voter: false,
            outgoing_voter: false,
            intent: Intent::Stay,
        };
        let group = self.groups.get_mut(&SYSTEM_GROUP);
        if group.is_some_and(|group| group.introduce(theirs.node, member)) {
            self.reassign_peers();
        }
    }

    fn say(&mut self, stream: StreamId, kind: FrameKind, payload: Bytes) {
        let frame = Frame { kind, group: GroupId(0), payload };
        self.out.push_back(NodeEffect::Send { stream, frame });
    }

    /// Closes a stream after what was said on it.
    pub(super) fn close(&mut self, stream: StreamId, reason: &str) {
        self.peers.closed(stream);
        self.out.push_back(NodeEffect::Close { stream, reason: reason.to_owned() });
    }

    pub(super) fn on_frame(&mut self, id: StreamId, frame: Frame) {
        let Some(stream) = self.peers.stream(id) else { return };
        let is_outgoing = stream.is_outgoing();
        let speaker = stream.speaker.clone();
        if let Some(speaker) = &speaker {
            self.peers.heard(self.now, &speaker.name);
        }
        match (frame.kind, &speaker) {
            (FrameKind::Refusal, _) => self.on_refusal(id, frame.payload),
            (FrameKind::Hello, None) => self.on_hello(id, frame.payload),
            (FrameKind::Formation | FrameKind::Consensus | FrameKind::Bulk, Some(speaker))
                if !is_outgoing =>
            {
                if !self.on_said(speaker, &frame) {
                    let reason = format!("{} sent bytes that are no message", speaker.name);
                    self.out.push_back(NodeEffect::Outside(reason.clone()));
                    self.close(id, &reason);
                }
            }
            (kind, _) => self.close(id, &format!("a {kind:?} frame has no place here")),
        }
    }

    /// What a known peer says. False when its bytes are no message.
    fn on_said(&mut self, speaker: &Speaker, frame: &Frame) -> bool {
        let mut is_good = true;
        match frame.kind {
            FrameKind::Formation => is_good = self.on_formation(speaker, frame),
            FrameKind::Bulk => self.with_group(frame.group, |group, ctx| {
                is_good = group.on_bulk(ctx, speaker, frame);
            }),
            FrameKind::Consensus => self.with_group(frame.group, |group, ctx| {
                is_good = group.on_message(ctx.now, speaker, frame);
            }),
            FrameKind::Hello | FrameKind::Refusal => {}
        }
        is_good
    }

    fn on_hello(&mut self, id: StreamId, payload: Bytes) {
        let Some(stream) = self.peers.stream(id) else { return };
        let is_outgoing = stream.is_outgoing();
        let dialled = stream.clone();
        let hello = match Hello::decode(payload) {
            Ok(hello) => hello,
            Err(error) => {
                let cluster = self.identity.identity().membership.map(|own| own.cluster);
                let text = format!("{} cannot read the hello: {error}", self.options.name);
                self.refuse(id, None, &Refusal { is_final: false, cluster, text });
                return;
            }
        };
        if matches!(self.stage, Stage::Joining) && is_outgoing {
            return self.on_hello_while_joining(id, hello);
        }
        let expected = self.dialled_name(&dialled, Some(&hello.name));
        self.get_acquainted(&hello);
        let configuration = self.acquaintances();
        let group = self.groups.get(&SYSTEM_GROUP);
        let judge = Judge {
            identity: self.identity.identity(),
            list: &self.options.cluster,
            configuration: configuration.as_ref(),
            is_committed: group.is_some_and(|group| group.is_configuration_committed()),
        };
        if let Err(refusal) = judge.verdict(&hello, expected.as_deref()) {
            let newcomer = judge.newcomer(&hello).filter(|_| !refusal.is_final);
            if let Some(node) = newcomer {
                self.bind(node, &hello);
                return self.turn_away(id, &refusal);
            }
            let name = expected.as_deref().unwrap_or(&hello.name);
            self.refuse(id, Some(name), &refusal);
            return;
        }
        if !self.peers.is_assigned(&hello.name) {
            // An answer would make it say things that would not be heard.
            return self.close(id, "this node does not talk to it yet");
        }
        if !is_outgoing {
            self.answer_hello(id, &hello);
        }
        if let Some(former) = self.peers.accepted(self.now, id, &hello) {
            self.close(former, "another stream took its place");
        }
        self.remember(&hello.name, hello.run());
        if let Stage::Forming(forming) = &mut self.stage {
            forming.formation.on_hello(&hello.name, hello.incarnation);
            self.say_formation(Some(&hello.name));
        }
    }

    /// Says why a peer cannot speak here.
    fn turn_away(&mut self, id: StreamId, refusal: &Refusal) {
        self.say(id, FrameKind::Refusal, refusal.encode());
        self.close(id, "refused");
    }

    fn refuse(&mut self, id: StreamId, name: Option<&str>, refusal: &Refusal) {
        self.turn_away(id, refusal);
        self.note_refusal(name, &refusal.text, format!("refused a peer: {}", refusal.text));
    }

    /// Notes a refusal, but not the same one again and again.
    pub(super) fn note_refusal(&mut self, name: Option<&str>, text: &str, note: String) {
        /// How many refusals of strangers are kept in mind.
        const NOTED_MAX: usize = 64;
        let is_news = match name.and_then(|name| self.peers.refused(name, text)) {
            Some(is_news) => is_news,
            None => {
                if self.noted.len() >= NOTED_MAX {
                    self.noted.clear();
                }
                self.noted.insert(text.to_owned())
            }
        };
        if is_news {
            self.out.push_back(NodeEffect::Outside(note));
        }
    }

    /// The name that belongs to the address of a stream that this node opened, where whoever answers is called `said`.
    fn dialled_name(&self, stream: &Stream, said: Option<&str>) -> Option<String> {
        match &stream.direction {
            StreamDirection::Outgoing { address } => {
                self.peers.name_at(address, said).map(str::to_owned)
            }
            StreamDirection::Incoming => None,
        }
    }

    /// A peer refuses this node.
    fn on_refusal(&mut self, id: StreamId, payload: Bytes) {
        let Some(stream) = self.peers.stream(id) else { return };
        let speaker = stream.speaker.as_ref().map(|speaker| speaker.name.clone());
        let name = speaker.or_else(|| self.dialled_name(stream, None));
        self.close(id, "refused");
        let Ok(refusal) = Refusal::decode(payload) else { return };
        let own = self.identity.identity().membership.map(|membership| membership.cluster);
        if refusal.is_final && (own.is_none() || own == refusal.cluster) {
            return self.on_final_refusal(refusal.text);
        }
        if matches!(self.stage, Stage::Joining) && refusal.text.ends_with(BEING_TAKEN_IN) {
            // A step of every join, which the members speak of when it is recorded.
            name.and_then(|name| self.peers.refused(&name, &refusal.text));
            return;
        }
        let shown = name.as_deref().unwrap_or("a peer");
        let note = format!("{shown} refuses this node: {}", refusal.text);
        self.note_refusal(name.as_deref(), &refusal.text, note);
    }

    /// Keeps the newest run of a member in mind, durably, so that an older image of it is known as such.
    pub(super) fn remember(&mut self, name: &str, run: Remembered) {
        let Some(group) = self.groups.get(&SYSTEM_GROUP) else { return };
        let Some(configuration) = group.configuration() else { return };
        let mut members = configuration.members.iter();
        let Some((node, _)) = members.find(|(_, member)| member.name == name) else { return };
        let node = *node;
        if self.identity.identity().remembered.get(&node) != Some(&run) {
            self.identity.change(|identity| {
                identity.remembered.insert(node, run);
            });
        }
    }
}
