//! Bad input from the network: nothing a peer says breaks a node.

use crate::world::World;
use bytes::Bytes;
use quorate_node::{NodeEffect, NodeInput, StreamDirection, StreamId, StreamPurpose};
use quorate_types::{Frame, FrameKind, GroupId};
use std::time::Duration;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

const KINDS: [FrameKind; 5] = [
    FrameKind::Hello,
    FrameKind::Refusal,
    FrameKind::Formation,
    FrameKind::Consensus,
    FrameKind::Bulk,
];

/// What a node says on a stream of ours when told this.
fn told(world: &mut World, name: &str, stream: StreamId, input: NodeInput) -> Vec<NodeEffect> {
    let now = world.now;
    let node = world.host_mut(name).node.as_mut().expect("it runs");
    node.handle(now, input);
    let mut said = Vec::new();
    while let Some(effect) = node.poll() {
        let is_ours = match &effect {
            NodeEffect::Send { stream: to, .. } | NodeEffect::Close { stream: to, .. } => {
                *to == stream
            }
            NodeEffect::Note(_) | NodeEffect::Warning(_) | NodeEffect::Outside(_) => true,
            NodeEffect::Disk(_)
            | NodeEffect::Dial(_)
            | NodeEffect::Machine { .. }
            | NodeEffect::Answer { .. }
            | NodeEffect::Event { .. }
            | NodeEffect::Stop(_) => false,
        };
        if is_ours {
            said.push(effect);
        }
    }
    said
}

fn opened(world: &mut World, name: &str, stream: StreamId) {
    let (direction, purpose) = (StreamDirection::Incoming, StreamPurpose::Messages);
    told(world, name, stream, NodeInput::StreamOpened { stream, direction, purpose });
}

fn is_closed(said: &[NodeEffect]) -> bool {
    said.iter().any(|effect| matches!(effect, NodeEffect::Close { .. }))
}

#[test]
fn garbage_instead_of_a_hello_closes_the_stream() {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(1));
    let mut random = 1_u64;
    for round in 0..2_000_u64 {
        let stream = StreamId(1_000_000 + round);
        opened(&mut world, "n1", stream);
        let kind = KINDS[round as usize % KINDS.len()];
        let payload: Vec<u8> = (0..round % 120)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                (random >> 56) as u8
            })
            .collect();
        let frame = Frame { kind, group: GroupId(round % 2), payload: Bytes::from(payload) };
        let said = told(&mut world, "n1", stream, NodeInput::Frame { stream, frame });
        assert!(is_closed(&said), "round {round}: {said:?}");
    }
    world.await_leader();
}

#[test]
fn a_hello_that_never_comes_is_not_waited_for() {
    let mut world = World::formed(&NAMES);
    let stream = StreamId(1_000_000);
    opened(&mut world, "n1", stream);
    world.now += Duration::from_secs(6);
    let now = world.now;
    let node = world.host_mut("n1").node.as_mut().expect("it runs");
    node.handle(now, NodeInput::Tick);
    let effects: Vec<NodeEffect> = std::iter::from_fn(|| node.poll()).collect();
    let is_ours = |effect: &NodeEffect| matches!(effect, NodeEffect::Close { stream: closed, .. } if *closed == stream);
    assert!(effects.iter().any(is_ours), "{effects:?}");
}

#[test]
fn streams_without_a_hello_are_bounded() {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(1));
    let closed = (0..1_000)
        .filter(|count| {
            let stream = StreamId(1_000_000 + count);
            let (direction, purpose) = (StreamDirection::Incoming, StreamPurpose::Messages);
            let input = NodeInput::StreamOpened { stream, direction, purpose };
            is_closed(&told(&mut world, "n1", stream, input))
        })
        .count();
    assert!(closed > 700, "{closed}");
}

#[test]
fn a_known_peer_that_sends_garbage_or_speaks_out_of_turn_is_cut_off() {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(1));
    let mut next = 2_000_000;
    let mut greeted = |world: &mut World| {
        next += 1;
        let stream = StreamId(next);
        let direction = StreamDirection::Outgoing { address: "n1:1".into() };
        let input = NodeInput::StreamOpened { stream, direction, purpose: StreamPurpose::Messages };
        let said = told(world, "n2", stream, input);
        let [NodeEffect::Send { frame, .. }] = &said[..] else { panic!("no hello: {said:?}") };
        opened(world, "n1", stream);
        let input = NodeInput::Frame { stream, frame: frame.clone() };
        let answer = told(world, "n1", stream, input);
        let [NodeEffect::Send { frame: answer, .. }] = &answer[..] else {
            panic!("no answer: {answer:?}")
        };
        assert_eq!(answer.kind, FrameKind::Hello);
        (stream, frame.clone(), answer.clone())
    };
    for kind in [FrameKind::Formation, FrameKind::Consensus, FrameKind::Bulk] {
        let (stream, _, answer) = greeted(&mut world);
        let garbage = Frame { kind, group: GroupId(0), payload: Bytes::from_static(b"\xff\x01") };
        // Only who opened a stream speaks on it, beside the answer to the hello.
        told(&mut world, "n2", stream, NodeInput::Frame { stream, frame: answer });
        let input = NodeInput::Frame { stream, frame: garbage.clone() };
        assert!(is_closed(&told(&mut world, "n2", stream, input)), "{kind:?} out of turn");
        let said = told(&mut world, "n1", stream, NodeInput::Frame { stream, frame: garbage });
        assert!(is_closed(&said), "{kind:?}: {said:?}");
    }
    let (stream, hello, _) = greeted(&mut world);
    let said = told(&mut world, "n1", stream, NodeInput::Frame { stream, frame: hello });
    assert!(is_closed(&said), "a second hello");
}

/// What a node says first on a stream that it opens to this address.
fn hello_of(world: &mut World, name: &str, stream: StreamId, address: &str) -> Frame {
    let direction = StreamDirection::Outgoing { address: address.into() };
    let input = NodeInput::StreamOpened { stream, direction, purpose: StreamPurpose::Messages };
    let said = told(world, name, stream, input);
    let [NodeEffect::Send { frame, .. }] = &said[..] else { panic!("no hello: {said:?}") };
    frame.clone()
}

#[test]
fn who_answers_a_stream_may_say_nothing_else_on_it() {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(1));
    let stream = StreamId(3_000_000);
    let hello = hello_of(&mut world, "n2", stream, "n1:1");
    opened(&mut world, "n1", stream);
    let answer = told(&mut world, "n1", stream, NodeInput::Frame { stream, frame: hello });
    let [NodeEffect::Send { frame: answer, .. }] = &answer[..] else { panic!("{answer:?}") };
    told(&mut world, "n2", stream, NodeInput::Frame { stream, frame: answer.clone() });
    // A message that is good on a stream of its own: it wants a snapshot.
    let payload = Bytes::from_static(&[6, 0, 0, 0, 0, 0, 0, 0, 0]);
    let frame = Frame { kind: FrameKind::Bulk, group: GroupId(0), payload };
    let input = |frame: &Frame| NodeInput::Frame { stream, frame: frame.clone() };
    assert!(!is_closed(&told(&mut world, "n1", stream, input(&frame))));
    assert!(is_closed(&told(&mut world, "n2", stream, input(&frame))));
}

#[test]
fn another_than_the_one_that_was_dialled_is_refused_by_name() {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(1));
    let hello = hello_of(&mut world, "n3", StreamId(3_000_000), "n1:1");
    let stream = StreamId(3_000_001);
    hello_of(&mut world, "n1", stream, "n2:1");
    let said = told(&mut world, "n1", stream, NodeInput::Frame { stream, frame: hello });
    assert!(is_closed(&said));
    let expected = "n1 expects n2 at the address where n3 answers";
    let is_it = |effect: &NodeEffect| matches!(effect, NodeEffect::Outside(text) if text.contains(expected));
    assert!(said.iter().any(is_it), "{said:?}");
}

#[test]
fn a_stranger_is_noted_once() {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(1));
    for round in 0..9 {
        let stream = StreamId(3_000_000 + round);
        opened(&mut world, "n1", stream);
        let payload = Bytes::from_static(b"no hello");
        let frame = Frame { kind: FrameKind::Hello, group: GroupId(0), payload };
        let said = told(&mut world, "n1", stream, NodeInput::Frame { stream, frame });
        let is_noted = said.iter().any(|effect| matches!(effect, NodeEffect::Outside(_)));
        assert_eq!(is_noted, round == 0, "{said:?}");
    }
}

#[test]
fn a_member_of_another_cluster_is_not_dialled() {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(1));
    let mut foreign = World::formed(&["m1", "m2", "m3", "m4"]);
    foreign.run(Duration::from_secs(1));
    let hello = hello_of(&mut foreign, "m4", StreamId(3_000_000), "m1:1");
    let stream = StreamId(3_000_000);
    opened(&mut world, "n1", stream);
    let now = world.now;
    let node = world.host_mut("n1").node.as_mut().expect("it runs");
    node.handle(now, NodeInput::Frame { stream, frame: hello });
    let effects: Vec<NodeEffect> = std::iter::from_fn(|| node.poll()).collect();
    assert!(is_closed(&effects));
    assert!(!effects.iter().any(|effect| matches!(effect, NodeEffect::Dial(_))), "{effects:?}");
}
