//! Some nodes with a reliable disk and a queue for a network, in one thread under a virtual clock.

use crate::counter::Counter;
use bytes::Bytes;
use quorate_consensus::{Control, Limits, RoleName, Timing, plan};
use quorate_log::LogOptions;
use quorate_node::{
    Answer, CommittedFor, Join, MachineDone, MachineRequest, Node, NodeEffect, NodeInput,
    NodeOptions, NodeStatus, OpenError, Phase, Request, RequestId, StopReason, StreamDirection,
    StreamId, StreamPurpose,
};
use quorate_types::{
    Applied, Configuration, DiskDone, DiskError, DiskOp, DiskOutput, DiskReader, DiskRequest,
    EntryKind, Fate, FileName, Frame, GroupId, Instant, Origin, ProtocolName, SnapshotSource,
    StateMachine,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

const GROUP: GroupId = GroupId(0);

/// How long a frame travels.
const DELAY: Duration = Duration::from_micros(100);

/// A disk on which everything is durable at once.
#[derive(Clone, Default)]
pub(crate) struct Disk(pub(crate) Rc<RefCell<BTreeMap<FileName, Vec<u8>>>>);

impl DiskReader for Disk {
    fn list(&self, folder: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        let is_in = |name: &str| match folder {
            "" => !name.contains('/'),
            folder => name
                .strip_prefix(folder)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|rest| !rest.contains('/')),
        };
        let files = self.0.borrow();
        let files = files.iter().filter(|(name, _)| is_in(name.as_str()));
        Ok(files.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        let files = self.0.borrow();
        let bytes = files.get(file).ok_or_else(|| DiskError::NotFound(file.clone()))?;
        let from = (offset as usize).min(bytes.len());
        let to = from.saturating_add(size as usize).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[from..to]))
    }
}

impl Disk {
    pub(crate) fn execute(&self, op: DiskOp) -> Result<DiskOutput, DiskError> {
        let missing = |file: &FileName| DiskError::NotFound(file.clone());
        match op {
            DiskOp::Read { file, offset, size } => {
                return self.read(&file, offset, size).map(DiskOutput::Read);
            }
            DiskOp::Allocate { file, size } => {
                self.0.borrow_mut().insert(file, vec![0; size as usize]);
            }
            DiskOp::Write { file, offset, data, .. } => {
                let mut files = self.0.borrow_mut();
                let bytes = files.get_mut(&file).ok_or_else(|| missing(&file))?;
                let mut at = offset as usize;
                for chunk in data {
                    bytes.resize(bytes.len().max(at + chunk.len()), 0);
                    bytes[at..at + chunk.len()].copy_from_slice(&chunk);
                    at += chunk.len();
                }
            }
            DiskOp::Rename { from, to } => {
                let mut files = self.0.borrow_mut();
                let bytes = files.remove(&from).ok_or_else(|| missing(&from))?;
                files.insert(to, bytes);
            }
            DiskOp::Delete { file } => {
                self.0.borrow_mut().remove(&file);
            }
            DiskOp::Replace { file, data } => {
                self.0.borrow_mut().insert(file, data.to_vec());
            }
        }
        Ok(DiskOutput::Done)
    }
}

/// One machine of the world.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) options: NodeOptions,
    pub(crate) node: Option<Node>,
    pub(crate) disk: Disk,
    pub(crate) counter: Counter,
    /// The state machine as a crash would leave it.
    pub(crate) synced: Counter,
    pub(crate) captured: Option<Box<dyn SnapshotSource>>,
    pub(crate) dial: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) answers: BTreeMap<RequestId, Answer>,
    pub(crate) replies: BTreeMap<RequestId, u64>,
    pub(crate) stopped: Option<StopReason>,
    /// Disk requests that wait because the disk is held.
    pub(crate) held_disk: Vec<DiskRequest>,
    /// Whether the disk does nothing for now.
    pub(crate) is_disk_held: bool,
    /// Whether the state machine fails to install.
    pub(crate) is_cut_before_install_ends: bool,
}

/// One end of a connection.
#[derive(Clone, Debug)]
struct End {
    host: String,
    peer: String,
    other: StreamId,
}

/// Something on its way.
enum Travelling {
    Frame(Frame),
    Opened(StreamDirection, StreamPurpose),
    Closed,
}

/// The whole.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) hosts: BTreeMap<String, Host>,
    pub(crate) list: Vec<(String, String)>,
    pub(crate) limits: Limits,
    ends: BTreeMap<StreamId, End>,
    /// When each connection may be dialled again.
    redials: BTreeMap<String, Instant>,
    travelling: VecDeque<(Instant, StreamId, Travelling)>,
    next_stream: u64,
    next_request: u64,
    next_entropy: u64,
    /// Which host answers at an address that is not its own name's.
    pub(crate) moved: BTreeMap<String, String>,
    /// Pairs of names between which nothing passes.
    pub(crate) cut: BTreeSet<(String, String)>,
    /// Drop every so many-th frame that is no hello; 0 for none.
    pub(crate) drop_every: u64,
    frame_count: u64,
}

impl World {
    /// A world of nodes that are not started.
    pub(crate) fn new(names: &[&str]) -> World {
        let list: Vec<(String, String)> =
            names.iter().map(|name| (name.to_string(), format!("{name}:1"))).collect();
        World {
            now: Instant::ZERO + Duration::from_secs(1),
            hosts: BTreeMap::new(),
            list,
            limits: Limits::default(),
            ends: BTreeMap::new(),
            redials: BTreeMap::new(),
            travelling: VecDeque::new(),
            next_stream: 1,
            next_request: 1,
            next_entropy: 0x5eed,
            moved: BTreeMap::new(),
            cut: BTreeSet::new(),
            drop_every: 0,
            frame_count: 0,
        }
    }

    /// A world whose nodes form a cluster and elect a leader.
    pub(crate) fn formed(names: &[&str]) -> World {
        let mut world = World::new(names);
        for name in names {
            world.start(name);
        }
        world.await_leader();
        world
    }

    pub(crate) fn options(&mut self, name: &str) -> NodeOptions {
        self.next_entropy = self.next_entropy.wrapping_mul(6_364_136_223_846_793_005) + 1;
        NodeOptions {
            name: name.to_owned(),
            cluster: self.list.clone(),
            join: None,
            protocol: ProtocolName::Raft,
            timing: Timing::default(),
            limits: self.limits,
            log: LogOptions { segment_size: 1024 * 1024, ..LogOptions::default() },
            entropy: self.next_entropy,
            request_timeout: Duration::from_secs(7),
        }
    }

    /// Starts a node on whatever its disk holds.
    pub(crate) fn start(&mut self, name: &str) {
        self.try_start(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    pub(crate) fn try_start(&mut self, name: &str) -> Result<(), OpenError> {
        let options = self.options(name);
        self.start_with(options)
    }

    /// Starts a node that joins the cluster by a member.
    pub(crate) fn start_joining(&mut self, name: &str, contact: &str) {
        self.start_joining_at(name, contact, &format!("{name}:1"));
    }

    /// Starts a node that joins the cluster by a member, and is reached at this address.
    pub(crate) fn start_joining_at(&mut self, name: &str, contact: &str, address: &str) {
        let mut options = self.options(name);
        options.cluster.clear();
        let contacts = vec![format!("{contact}:1")];
        self.moved.insert(address.to_owned(), name.to_owned());
        options.join = Some(Join { contacts, address: address.to_owned() });
        self.start_with(options).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Asks a node for other members, and waits for the answer.
    pub(crate) fn change(&mut self, name: &str, edit: impl FnOnce(&mut Configuration)) -> Answer {
        let base = self.status(name).groups[&GROUP].configuration.clone();
        let mut target = plan::aim(&base);
        edit(&mut target);
        let control = Control::TargetMembership { base, target };
        let id = self.request(name, Request::Control { group: GROUP, control });
        self.await_that("answer", |world| world.is_over(name, id));
        self.host(name).answers[&id].clone()
    }

    /// The names of the voters as a node knows them; with a mark while a change is under way.
    pub(crate) fn voters(&self, name: &str) -> String {
        let status = self.status(name);
        let Some(group) = status.groups.get(&GROUP) else { return String::new() };
        let configuration = &group.configuration;
        let is_settled = *configuration == plan::aim(configuration);
        let voters = configuration.members.values().filter(|member| member.voter);
        let voters: Vec<&str> = voters.map(|member| member.name.as_str()).collect();
        format!("{}{}", voters.join(","), if is_settled { "" } else { " changing" })
    }

    pub(crate) fn start_with(&mut self, options: NodeOptions) -> Result<(), OpenError> {
        let name = options.name.clone();
        let host = self.hosts.entry(name.clone()).or_insert_with(|| Host {
            name: name.clone(),
            options: options.clone(),
            node: None,
            disk: Disk::default(),
            counter: Counter::default(),
            synced: Counter::default(),
            captured: None,
            dial: Vec::new(),
            notes: Vec::new(),
            answers: BTreeMap::new(),
            replies: BTreeMap::new(),
            stopped: None,
            held_disk: Vec::new(),
            is_disk_held: false,
            is_cut_before_install_ends: false,
        });
        host.options = options.clone();
        host.stopped = None;
        host.notes.clear();
        host.counter = host.synced.clone();
        let machines = BTreeMap::from([(GROUP, host.counter.state())]);
        host.node = Some(Node::open(self.now, options, &host.disk, machines)?);
        self.pump(&name);
        Ok(())
    }

    /// Ends a node at once: the disk stays, the state machine falls back to what it synced.
    pub(crate) fn kill(&mut self, name: &str) {
        let host = self.host_mut(name);
        host.node = None;
        host.dial.clear();
        host.held_disk.clear();
        host.is_disk_held = false;
        let streams: Vec<StreamId> = self
            .ends
            .iter()
            .filter(|(_, end)| end.host == name)
            .map(|(stream, _)| *stream)
            .collect();
        for stream in streams {
            self.close(stream);
        }
    }

    /// The disk of a node does what it was asked meanwhile, and goes on.
    pub(crate) fn release_disk(&mut self, name: &str) {
        let host = self.host_mut(name);
        host.is_disk_held = false;
        for request in std::mem::take(&mut host.held_disk) {
            self.on_disk(name, request);
        }
        self.pump(name);
    }

    /// The disk of a node does what it was asked meanwhile, and is held again.
    pub(crate) fn release_disk_once(&mut self, name: &str) {
        let held = std::mem::take(&mut self.host_mut(name).held_disk);
        self.host_mut(name).is_disk_held = false;
        for request in held {
            self.on_disk(name, request);
        }
        self.host_mut(name).is_disk_held = true;
        self.pump(name);
    }

    /// Deletes a killed node's data folder.
    pub(crate) fn wipe(&mut self, name: &str) {
        let host = self.host_mut(name);
        assert!(host.node.is_none(), "{name} runs");
        host.disk = Disk::default();
        host.synced = Counter::default();
    }

    /// Damages every record in a log that names a member: all configurations that it was in.
    pub(crate) fn lose_configurations(&mut self, name: &str, member: &str) {
        let address = format!("{member}:1");
        let mut damaged_count = 0;
        for (file, bytes) in self.host(name).disk.0.borrow_mut().iter_mut() {
            let is_there = |at: &usize| bytes[*at..].starts_with(address.as_bytes());
            let places: Vec<usize> = (0..bytes.len()).filter(is_there).collect();
            for at in places.into_iter().filter(|_| file.as_str().starts_with("log/")) {
                bytes[at] ^= 1;
                damaged_count += 1;
            }
        }
        assert!(damaged_count > 0, "no configuration names {member}");
    }

    pub(crate) fn host(&self, name: &str) -> &Host {
        &self.hosts[name]
    }

    pub(crate) fn host_mut(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(name).expect("known")
    }

    pub(crate) fn status(&self, name: &str) -> NodeStatus {
        self.host(name).node.as_ref().expect("it runs").status(self.now)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let listed = self.list.iter().map(|(name, _)| name.clone());
        listed.chain(self.hosts.keys().cloned()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The node that leads, if all live nodes agree on one.
    pub(crate) fn leader(&self) -> Option<String> {
        let live = self.hosts.values().filter(|host| host.node.is_some());
        let statuses: Vec<NodeStatus> = live.map(|host| self.status(&host.name)).collect();
        let leads = |status: &&NodeStatus| {
            status.groups.get(&GROUP).is_some_and(|group| group.role == RoleName::Leader)
        };
        let leader = statuses.iter().find(leads)?;
        let agrees = |status: &NodeStatus| {
            status.groups.get(&GROUP).is_some_and(|group| group.leader == leader.node)
        };
        statuses.iter().all(agrees).then(|| leader.name.clone())
    }

    pub(crate) fn await_leader(&mut self) -> String {
        self.await_that("a leader", |world| world.leader().is_some());
        self.leader().expect("just seen")
    }

    /// Runs until `is_so`, at most a minute of virtual time.
    pub(crate) fn await_that(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let deadline = self.now + Duration::from_secs(60);
        while !is_so(self) {
            if self.now >= deadline {
                panic!("no {what} within a minute:\n{}", self.picture());
            }
            self.step();
        }
    }

    fn picture(&self) -> String {
        let host = |host: &Host| {
            let status = host.node.as_ref().map(|node| node.status(self.now));
            format!("{}: {:?} {:#?} {status:#?}\n", host.name, host.stopped, host.notes)
        };
        self.hosts.values().map(host).collect()
    }

    /// Runs for this long.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    pub(crate) fn request(&mut self, name: &str, request: Request) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.tell(name, NodeInput::Request { id, request });
        id
    }

    pub(crate) fn propose(&mut self, name: &str, amount: u64) -> RequestId {
        let body = Bytes::copy_from_slice(&amount.to_le_bytes());
        let request =
            Request::Propose { group: GROUP, kind: EntryKind::Command, body, deadline: None };
        self.request(name, request)
    }

    pub(crate) fn read(&mut self, name: &str) -> RequestId {
        self.request(name, Request::Read { group: GROUP, deadline: None })
    }

    /// Proposes and waits for the reply.
    pub(crate) fn add(&mut self, name: &str, amount: u64) -> u64 {
        let id = self.propose(name, amount);
        self.await_that("reply", |world| world.is_over(name, id));
        let host = self.host(name);
        *host.replies.get(&id).unwrap_or_else(|| panic!("{:?}", host.answers.get(&id)))
    }

    /// Reads the sum linearizably.
    pub(crate) fn sum(&mut self, name: &str) -> u64 {
        let id = self.read(name);
        self.await_that("read", |world| world.is_over(name, id));
        let host = self.host(name);
        let answer = &host.answers[&id];
        assert!(matches!(answer, Answer::ReadReady { .. }), "{answer:?}");
        host.counter.sum
    }

    pub(crate) fn settle(&mut self, name: &str, origin: Origin) -> Fate {
        let id = self.request(name, Request::Settle { group: GROUP, origin, deadline: None });
        let name = name.to_owned();
        self.await_that("fate", |world| world.is_over(&name, id));
        let answer = &self.host(&name).answers[&id];
        let Answer::Settled(fate) = answer else { panic!("{name} answers {answer:?}") };
        *fate
    }

    pub(crate) fn is_over(&self, name: &str, id: RequestId) -> bool {
        let host = self.host(name);
        host.replies.contains_key(&id) || host.answers.contains_key(&id)
    }

    pub(crate) fn is_running(&self, name: &str) -> bool {
        let host = self.host(name);
        host.node.is_some() && self.status(name).phase == Phase::Running
    }

    pub(crate) fn has_note(&self, name: &str, part: &str) -> bool {
        self.host(name).notes.iter().any(|note| note.contains(part))
    }

    /// Tells a node something, then carries out what it asks for.
    pub(crate) fn tell(&mut self, name: &str, input: NodeInput) {
        let now = self.now;
        if let Some(node) = &mut self.host_mut(name).node {
            node.handle(now, input);
            self.pump(name);
        }
    }

    /// Advances to the next thing that happens.
    pub(crate) fn step(&mut self) {
        self.connect();
        let arrival = self.travelling.iter().map(|(at, ..)| *at).min();
        let deadlines = self.hosts.values().filter_map(|host| host.node.as_ref()?.next_deadline());
        let redial = self.now + Duration::from_millis(20);
        let next = deadlines.chain(arrival).chain([redial]).min().expect("redial");
        self.now = self.now.max(next);
        while let Some(place) = self.travelling.iter().position(|(at, ..)| *at <= self.now) {
            let (_, stream, what) = self.travelling.remove(place).expect("found");
            self.arrive(stream, what);
        }
        for name in self.hosts.keys().cloned().collect::<Vec<_>>() {
            let Some(host) = self.hosts.get(&name) else { continue };
            let deadline = host.node.as_ref().and_then(Node::next_deadline);
            if deadline.is_some_and(|at| at <= self.now) {
                self.tell(&name, NodeInput::Tick);
            }
        }
    }

    fn arrive(&mut self, stream: StreamId, what: Travelling) {
        let Some(end) = self.ends.get(&stream).cloned() else { return };
        let input = match what {
            Travelling::Frame(frame) => NodeInput::Frame { stream, frame },
            Travelling::Opened(direction, purpose) => {
                NodeInput::StreamOpened { stream, direction, purpose }
            }
            Travelling::Closed => {
                self.ends.remove(&stream);
                NodeInput::StreamClosed { stream, reason: "closed".into() }
            }
        };
        self.tell(&end.host, input);
    }

    fn travel(&mut self, stream: StreamId, what: Travelling) {
        self.travelling.push_back((self.now + DELAY, stream, what));
    }

    /// Keeps the connections that nodes dial.
    fn connect(&mut self) {
        let mut wanted = Vec::new();
        for host in self.hosts.values().filter(|host| host.node.is_some()) {
            for address in &host.dial {
                for purpose in [StreamPurpose::Messages, StreamPurpose::Bulk] {
                    wanted.push((host.name.clone(), address.clone(), purpose));
                }
            }
        }
        for (from, address, purpose) in wanted {
            let named = || address.strip_suffix(":1").map(str::to_owned);
            let Some(to) = self.moved.get(&address).cloned().or_else(named) else { continue };
            let is_live = self.hosts.get(&to).is_some_and(|host| host.node.is_some());
            let key = format!("{from}>{to}>{purpose:?}");
            if !is_live || self.is_cut(&from, &to) || self.ends.values().any(|end| end.peer == key)
            {
                continue;
            }
            if self.redials.get(&key).is_some_and(|at| *at > self.now) {
                continue;
            }
            self.redials.insert(key.clone(), self.now + Duration::from_millis(50));
            let (near, far) = (StreamId(self.next_stream), StreamId(self.next_stream + 1));
            self.next_stream += 2;
            self.ends.insert(near, End { host: from.clone(), peer: key, other: far });
            self.ends.insert(far, End { host: to, peer: String::new(), other: near });
            self.travel(near, Travelling::Opened(StreamDirection::Outgoing { address }, purpose));
            self.travel(
                far,
                Travelling::Opened(StreamDirection::Incoming, StreamPurpose::Messages),
            );
        }
    }

    fn is_cut(&self, a: &str, b: &str) -> bool {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        self.cut.contains(&pair(a, b)) || self.cut.contains(&pair(b, a))
    }

    /// Ends the connections that one node has opened to another, which it opens again after a while.
    pub(crate) fn hang_up(&mut self, from: &str, to: &str, wait: Duration) {
        let pair = format!("{from}>{to}>");
        let ends = self.ends.iter().filter(|(_, end)| end.peer.starts_with(&pair));
        let ends: Vec<_> = ends.map(|(id, end)| (*id, end.other, end.peer.clone())).collect();
        assert!(!ends.is_empty(), "{from} reaches {to}");
        for (near, far, key) in ends {
            self.redials.insert(key, self.now + wait);
            self.travel(near, Travelling::Closed);
            self.travel(far, Travelling::Closed);
        }
    }

    /// Cuts a node off, closing its connections.
    pub(crate) fn isolate(&mut self, name: &str) {
        for other in self.names() {
            if other != name {
                self.cut.insert((name.to_owned(), other));
            }
        }
        let streams: Vec<StreamId> = self
            .ends
            .iter()
            .filter(|(_, end)| {
                let other = self.ends.get(&end.other);
                end.host == name || other.is_some_and(|other| other.host == name)
            })
            .map(|(stream, _)| *stream)
            .collect();
        for stream in streams {
            self.travel(stream, Travelling::Closed);
        }
    }

    fn close(&mut self, stream: StreamId) {
        if let Some(end) = self.ends.remove(&stream) {
            self.travel(end.other, Travelling::Closed);
        }
    }

    /// Lets a node say what it wants, and does it.
    pub(crate) fn pump(&mut self, name: &str) {
        loop {
            let host = self.host_mut(name);
            let Some(effect) = host.node.as_mut().and_then(Node::poll) else { return };
            match effect {
                NodeEffect::Disk(request) => self.on_disk(name, request),
                NodeEffect::Dial(addresses) => host.dial = addresses,
                NodeEffect::Send { stream, frame } => self.on_send(stream, frame),
                NodeEffect::Close { stream, .. } => self.close(stream),
                NodeEffect::Machine { request, .. } => self.on_machine(name, request),
                NodeEffect::Answer { id, answer } => {
                    let is_first = host.answers.insert(id, answer).is_none();
                    assert!(is_first, "{name} answers {id:?} twice");
                }
                NodeEffect::Event { .. } => {}
                NodeEffect::Note(note) | NodeEffect::Warning(note) | NodeEffect::Outside(note) => {
                    host.notes.push(note);
                }
                NodeEffect::Stop(reason) => {
                    host.stopped = Some(reason);
                    self.kill(name);
                }
            }
        }
    }

    fn on_send(&mut self, stream: StreamId, frame: Frame) {
        let Some(end) = self.ends.get(&stream) else { return };
        self.frame_count += 1;
        let is_dropped = self.drop_every > 0
            && self.frame_count.is_multiple_of(self.drop_every)
            && !matches!(
                frame.kind,
                quorate_types::FrameKind::Hello | quorate_types::FrameKind::Refusal
            );
        if !is_dropped {
            self.travel(end.other, Travelling::Frame(frame));
        }
    }

    fn on_disk(&mut self, name: &str, request: DiskRequest) {
        let now = self.now;
        let host = self.host_mut(name);
        if host.is_disk_held {
            host.held_disk.push(request);
            return;
        }
        let result = host.disk.execute(request.op);
        if let Some(node) = &mut host.node {
            node.handle(now, NodeInput::Disk(DiskDone { id: request.id, result }));
        }
    }

    fn on_machine(&mut self, name: &str, request: MachineRequest) {
        let now = self.now;
        let host = self.host_mut(name);
        let done = match request {
            MachineRequest::Apply(entries) => Some(host.apply(entries)),
            MachineRequest::Sync => {
                host.synced = host.counter.clone();
                Some(MachineDone::Synced(host.counter.applied))
            }
            MachineRequest::Capture => Some(MachineDone::Captured(match host.counter.capture() {
                Ok(source) => {
                    let applied: Applied = source.applied();
                    host.captured = Some(source);
                    Ok(applied)
                }
                Err(fault) => Err(fault),
            })),
            MachineRequest::NextChunk => {
                let source = host.captured.as_mut().expect("captured");
                Some(MachineDone::Chunk(source.next_chunk()))
            }
            MachineRequest::DropCapture => {
                host.captured = None;
                None
            }
            MachineRequest::StageBegin(snapshot) => {
                host.counter.stage_begin(&snapshot).err().map(|e| MachineDone::Staged(Err(e)))
            }
            MachineRequest::StageChunk(chunk) => {
                Some(MachineDone::ChunkStaged(host.counter.stage_chunk(chunk)))
            }
            MachineRequest::StageFinish => Some(MachineDone::Staged(host.counter.stage_finish())),
            MachineRequest::Install => {
                let installed = host.counter.install();
                host.synced = host.counter.clone();
                if host.is_cut_before_install_ends {
                    host.is_cut_before_install_ends = false;
                    return self.kill(name);
                }
                Some(MachineDone::Installed(installed))
            }
        };
        if let (Some(done), Some(node)) = (done, &mut host.node) {
            node.handle(now, NodeInput::Machine { group: GROUP, done });
        }
    }
}

impl Host {
    fn apply(&mut self, entries: Vec<CommittedFor>) -> MachineDone {
        let settling: Vec<_> = entries.iter().filter_map(CommittedFor::settles).collect();
        let (committed, requests): (Vec<_>, Vec<_>) =
            entries.into_iter().map(|entry| (entry.committed, entry.request)).unzip();
        let replies = match self.counter.apply(&committed) {
            Ok(replies) => replies,
            Err(fault) => return MachineDone::Failed(fault),
        };
        let mut answered = Vec::new();
        for (request, reply) in requests.into_iter().zip(replies) {
            if let (Some(id), Some(reply)) = (request, reply) {
                if !self.answers.contains_key(&id) {
                    self.replies.insert(id, reply);
                }
                answered.push(id);
            }
        }
        let fate = |(request, origin)| (request, self.counter.fate(origin));
        let settled = settling.into_iter().map(fate).collect();
        MachineDone::Applied { applied: self.counter.applied, answered, settled }
    }
}
