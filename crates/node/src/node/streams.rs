//! Streams: hello, verdict, refusal, and whom a frame is for.

use super::{Node, SYSTEM_GROUP, Stage};
use crate::hello::{Hello, Judge, Refusal};
use crate::interface::{NodeEffect, StopReason, StreamDirection, StreamId, StreamPurpose};
use crate::peers::{Speaker, Stream};
use bytes::Bytes;
use quorate_types::{Frame, FrameKind, GroupId};

impl Node {
    pub(super) fn on_stream_opened(
        &mut self,
        id: StreamId,
        direction: StreamDirection,
        purpose: StreamPurpose,
    ) {
        if matches!(self.stage, Stage::Starting { .. } | Stage::Resetting(_)) {
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
        let payload = Hello::of(self.identity.identity(), purpose).encode();
        self.say(stream, FrameKind::Hello, payload);
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
        let Some(stream) = self.peers.stream(id).cloned() else { return };
        if let Some(speaker) = &stream.speaker {
            self.peers.heard(self.now, &speaker.name);
        }
        match (frame.kind, &stream.speaker) {
            (FrameKind::Refusal, _) => self.on_refusal(id, &stream, frame.payload),
            (FrameKind::Hello, None) => self.on_hello(id, &stream, frame.payload),
            (FrameKind::Formation | FrameKind::Consensus | FrameKind::Bulk, Some(speaker))
                if !stream.is_outgoing() =>
            {
                if !self.on_said(speaker, &frame) {
                    let reason = format!("{} sent bytes that are no message", speaker.name);
                    self.note(reason.clone());
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

    fn on_hello(&mut self, id: StreamId, stream: &Stream, payload: Bytes) {
        let hello = match Hello::decode(payload) {
            Ok(hello) => hello,
            Err(error) => {
                let cluster = self.identity.identity().membership.map(|own| own.cluster);
                let text = format!("{} cannot read the hello: {error}", self.options.name);
                self.refuse(id, None, &Refusal { is_final: false, cluster, text });
                return;
            }
        };
        let expected = match &stream.direction {
            StreamDirection::Outgoing { address } => self.peers.name_at(address).map(str::to_owned),
            StreamDirection::Incoming => None,
        };
        let configuration = self.configuration();
        let judge = Judge {
            identity: self.identity.identity(),
            list: &self.options.cluster,
            configuration: configuration.as_ref(),
        };
        if let Err(refusal) = judge.verdict(&hello, expected.as_deref()) {
            let name = expected.as_deref().unwrap_or(&hello.name);
            self.refuse(id, Some(name), &refusal);
            return;
        }
        if !stream.is_outgoing() {
            self.say_hello(id, hello.purpose);
        }
        if let Some(former) = self.peers.accepted(self.now, id, &hello) {
            self.close(former, "another stream took its place");
        }
        self.remember(&hello);
        if let Stage::Forming(forming) = &mut self.stage {
            forming.formation.on_hello(&hello.name, hello.incarnation);
            self.say_formation(Some(&hello.name));
        }
    }

    fn refuse(&mut self, id: StreamId, name: Option<&str>, refusal: &Refusal) {
        self.say(id, FrameKind::Refusal, refusal.encode());
        self.close(id, "refused");
        let is_news = name.is_none_or(|name| self.peers.refused(name, &refusal.text));
        if is_news {
            self.note(format!("refused a peer: {}", refusal.text));
        }
    }

    /// A peer refuses this node.
    fn on_refusal(&mut self, id: StreamId, stream: &Stream, payload: Bytes) {
        let name = match (&stream.speaker, &stream.direction) {
            (Some(speaker), _) => Some(speaker.name.clone()),
            (None, StreamDirection::Outgoing { address }) => {
                self.peers.name_at(address).map(str::to_owned)
            }
            (None, StreamDirection::Incoming) => None,
        };
        self.close(id, "refused");
        let Ok(refusal) = Refusal::decode(payload) else { return };
        let own = self.identity.identity().membership.map(|membership| membership.cluster);
        if refusal.is_final && (own.is_none() || own == refusal.cluster) {
            self.stop.get_or_insert(StopReason::Refused(refusal.text));
            return;
        }
        let is_news = name.as_ref().is_none_or(|name| self.peers.refused(name, &refusal.text));
        if is_news {
            let name = name.as_deref().unwrap_or("a peer");
            self.note(format!("{name} refuses this node: {}", refusal.text));
        }
    }

    /// Keeps the newest run of a member in mind, durably, so that an older image of it is known as such.
    fn remember(&mut self, hello: &Hello) {
        let Some(group) = self.groups.get(&SYSTEM_GROUP) else { return };
        let Some(configuration) = group.configuration() else { return };
        let mut members = configuration.members.iter();
        let Some((node, _)) = members.find(|(_, member)| member.name == hello.name) else { return };
        let (node, run) = (*node, hello.run());
        if self.identity.identity().remembered.get(&node) != Some(&run) {
            self.identity.change(|identity| {
                identity.remembered.insert(node, run);
            });
        }
    }
}
