//! Streams between processes over a network that loses, delays, reorders, repeats and cuts.
//!
//! A stream has two ends. Hellos, refusals and bulk frames keep their order on it, as they would on a real one; messages of
//! a group keep none, because nothing is promised for them: each is delayed and repeated on its own, and one that
//! outlives its stream may arrive on the next one between the same two processes. All but hellos and refusals may be lost
//! one by one, as from a queue that is full.

use crate::dice::{Dice, PartsPerMillion};
use quorate_node::{StreamId, StreamPurpose};
use quorate_types::{Frame, FrameKind, Instant};
use std::collections::BTreeMap;
use std::time::Duration;

/// One of the processes, by its position in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub usize);

/// One start of a process: what was meant for an earlier one is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(pub u64);

/// Where a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// At which process.
    pub process: ProcessId,
    /// In which of its lives.
    pub life: Life,
    /// Under which name.
    pub stream: StreamId,
}

/// Names one stream for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// The two ends of a connection, by who opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that dialled.
    Dialler,
    /// The end that was dialled.
    Listener,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }

    fn number(self) -> usize {
        match self {
            Side::Dialler => 0,
            Side::Listener => 1,
        }
    }
}

/// What the network does to frames, drawn anew for each seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// The shortest time between sending and arrival.
    pub latency_min: Duration,
    /// The longest, of frames that nothing befalls.
    pub latency_max: Duration,
    /// How many frames are lost.
    pub loss: PartsPerMillion,
    /// How many arrive twice.
    pub duplication: PartsPerMillion,
    /// How many are held back.
    pub delay: PartsPerMillion,
    /// For how long at most.
    pub delay_max: Duration,
    /// How many that outlive their stream arrive on the next one.
    pub replay: PartsPerMillion,
}

impl Weather {
    /// Nothing befalls any frame.
    #[must_use]
    pub fn fair() -> Weather {
        Weather {
            latency_min: Duration::from_micros(50),
            latency_max: Duration::from_micros(300),
            loss: 0,
            duplication: 0,
            delay: 0,
            delay_max: Duration::ZERO,
            replay: 0,
        }
    }
}

/// One stream.
#[derive(Clone, Debug)]
struct Connection {
    /// Both ends, the dialler's first.
    ends: [End; 2],
    /// What it is for.
    purpose: StreamPurpose,
    /// Until when ordered frames towards each end are on their way.
    ordered_until: [Instant; 2],
    /// When the hello towards each end arrives: nothing else may come first.
    hello_at: [Instant; 2],
    /// Whether it has.
    greeted: [bool; 2],
    /// Whether a hello or refusal towards an end was lost, so that nothing after it can arrive.
    hung: [bool; 2],
    /// Which end has closed it, once one has: what it sent before still arrives, until the other end notices.
    closed_by: Option<Side>,
}

impl Connection {
    /// The ends that do not know yet that it is closed.
    fn unaware_ends(&self) -> impl Iterator<Item = End> + use<> {
        let aware = self.closed_by.map(Side::number);
        let ends = self.ends.into_iter().enumerate();
        ends.filter(move |(number, _)| Some(*number) != aware).map(|(_, end)| end)
    }
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// On which stream.
    pub connection: ConnectionId,
    /// Towards which end.
    pub side: Side,
    /// What.
    pub frame: Frame,
    /// From where to where, for replays after the stream is gone.
    route: (ProcessId, ProcessId, StreamPurpose),
}

/// How many frames met which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Handed to the network.
    pub sent: u64,
    /// Lost, by chance or because the link was cut.
    pub lost: u64,
    /// Arrived a second time.
    pub duplicated: u64,
    /// Held back.
    pub delayed: u64,
    /// Arrived on a later stream than the one they were sent on.
    pub replayed: u64,
}

/// All links and streams.
#[derive(Debug)]
pub struct Network {
    /// What befalls frames now.
    weather: Weather,
    /// `cut[from][to]`: whether nothing gets from one to the other.
    cut: Vec<Vec<bool>>,
    /// `clogged[from][to]`: until when nothing from one arrives at the other; it is kept, not lost.
    clogged: Vec<Vec<Instant>>,
    /// The open streams.
    connections: BTreeMap<ConnectionId, Connection>,
    /// Which stream an end belongs to.
    by_end: BTreeMap<(ProcessId, StreamId), (ConnectionId, Side)>,
    /// The next connection.
    next: u64,
    /// How many frames met which fate.
    counts: NetworkCounts,
}

impl Network {
    /// A network without streams between `process_count` processes.
    #[must_use]
    pub fn new(process_count: usize, weather: Weather) -> Network {
        Network {
            weather,
            cut: vec![vec![false; process_count]; process_count],
            clogged: vec![vec![Instant::ZERO; process_count]; process_count],
            connections: BTreeMap::new(),
            by_end: BTreeMap::new(),
            next: 0,
            counts: NetworkCounts::default(),
        }
    }

    /// Changes what befalls frames from now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Cuts or mends one direction of one link.
    pub fn set_cut(&mut self, from: ProcessId, to: ProcessId, cut: bool) {
        self.cut[from.0][to.0] = cut;
    }

    /// Whether nothing gets from one to the other.
    #[must_use]
    pub fn is_cut(&self, from: ProcessId, to: ProcessId) -> bool {
        self.cut[from.0][to.0]
    }

    /// Keeps what is sent from one to another from now on, and lets all of it through then.
    pub fn clog(&mut self, from: ProcessId, to: ProcessId, until: Instant) {
        self.clogged[from.0][to.0] = until;
    }

    /// Mends every link.
    pub fn mend_all(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.clogged.iter_mut().flatten().for_each(|until| *until = Instant::ZERO);
    }

    /// How many frames met which fate.
    #[must_use]
    pub fn counts(&self) -> NetworkCounts {
        self.counts
    }

    /// Opens a stream, unless the way there or back is cut.
    pub fn connect(
        &mut self,
        dialler: End,
        listener: End,
        purpose: StreamPurpose,
    ) -> Option<ConnectionId> {
        if self.is_cut(dialler.process, listener.process)
            || self.is_cut(listener.process, dialler.process)
        {
            return None;
        }
        let id = ConnectionId(self.next);
        self.next += 1;
        self.by_end.insert((dialler.process, dialler.stream), (id, Side::Dialler));
        self.by_end.insert((listener.process, listener.stream), (id, Side::Listener));
        let connection = Connection {
            ends: [dialler, listener],
            purpose,
            ordered_until: [Instant::ZERO; 2],
            hello_at: [Instant::ZERO; 2],
            greeted: [false; 2],
            hung: [false; 2],
            closed_by: None,
        };
        self.connections.insert(id, connection);
        Some(id)
    }

    /// Whether a stream that `from` dialled to `to` is open.
    #[must_use]
    pub fn is_open(&self, from: ProcessId, to: ProcessId, purpose: StreamPurpose) -> bool {
        self.find((from, to, purpose)).is_some()
    }

    fn find(&self, route: (ProcessId, ProcessId, StreamPurpose)) -> Option<ConnectionId> {
        let matches = |connection: &Connection| {
            let [dialler, listener] = &connection.ends;
            let found = (dialler.process, listener.process, connection.purpose);
            found == route && connection.closed_by.is_none()
        };
        self.connections.iter().find(|(_, connection)| matches(connection)).map(|(id, _)| *id)
    }

    /// Sends a frame from an end of a stream. Gives each arrival it will have, none when it is lost.
    pub fn send(
        &mut self,
        now: Instant,
        process: ProcessId,
        stream: StreamId,
        frame: Frame,
        dice: &mut Dice,
    ) -> Vec<(Instant, Packet)> {
        let Some((id, from_side)) = self.by_end.get(&(process, stream)).copied() else {
            return Vec::new();
        };
        self.counts.sent += 1;
        let side = from_side.other();
        let weather = self.weather;
        let connection = self.connections.get_mut(&id).expect("an end has its connection");
        let to = connection.ends[side.number()].process;
        let dialled = connection.ends.map(|end| end.process);
        let route = (dialled[0], dialled[1], connection.purpose);
        let ordered = keeps_order(frame.kind);
        let cut = self.cut[process.0][to.0];
        let precious = matches!(frame.kind, FrameKind::Hello | FrameKind::Refusal);
        connection.hung[side.number()] |= cut && precious;
        if connection.closed_by.is_some() {
            self.counts.lost += 1;
            return Vec::new();
        }
        if cut || connection.hung[side.number()] || (!precious && dice.chance(weather.loss)) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let is_hello = frame.kind == FrameKind::Hello;
        let packet = Packet { connection: id, side, frame, route };
        let open_at = now.max(self.clogged[process.0][to.0]);
        let mut at = dice.moment(open_at, weather.latency_min, weather.latency_max);
        at = at.max(connection.hello_at[side.number()] + Duration::from_nanos(1));
        if ordered {
            at = at.max(connection.ordered_until[side.number()] + Duration::from_nanos(1));
            connection.ordered_until[side.number()] = at;
            if is_hello {
                connection.hello_at[side.number()] = at;
            }
            return vec![(at, packet)];
        }
        if dice.chance(weather.delay) {
            self.counts.delayed += 1;
            at = dice.moment(at, Duration::ZERO, weather.delay_max);
        }
        let mut arrivals = Vec::with_capacity(2);
        if dice.chance(weather.duplication) {
            self.counts.duplicated += 1;
            let again = dice.moment(at, Duration::ZERO, weather.delay_max);
            arrivals.push((again, packet.clone()));
        }
        arrivals.push((at, packet));
        arrivals
    }

    /// Where a packet that has come to its end goes; `None` when it goes nowhere.
    pub fn arrive(&mut self, packet: &Packet, dice: &mut Dice) -> Option<End> {
        let side = packet.side.number();
        if let Some(connection) = self.connections.get_mut(&packet.connection) {
            if connection.closed_by == Some(packet.side) {
                return None;
            }
            connection.greeted[side] |= packet.frame.kind == FrameKind::Hello;
            return Some(connection.ends[side]);
        }
        if keeps_order(packet.frame.kind) || !dice.chance(self.weather.replay) {
            return None;
        }
        let later = self.find(packet.route)?;
        let connection = &self.connections[&later];
        if !connection.greeted[side] {
            return None;
        }
        self.counts.replayed += 1;
        Some(connection.ends[side])
    }

    /// Closes a stream from one end. Gives the other end, which will notice, and until when frames are on their way there.
    pub fn close(&mut self, process: ProcessId, stream: StreamId) -> Option<(End, Instant)> {
        let (id, side) = self.by_end.remove(&(process, stream))?;
        let connection = self.connections.get_mut(&id).expect("an end has its connection");
        if connection.closed_by.is_some() {
            self.remove(id);
            return None;
        }
        connection.closed_by = Some(side);
        let other = side.other().number();
        Some((connection.ends[other], connection.ordered_until[other]))
    }

    /// An end has noticed that the other one closed the stream: nothing arrives on it any more.
    pub fn forget(&mut self, end: End) {
        let Some((id, _)) = self.by_end.get(&(end.process, end.stream)).copied() else { return };
        if self.connections[&id].closed_by.is_some() {
            self.remove(id);
        }
    }

    /// Closes every stream of a process. Gives the other ends.
    pub fn close_all(&mut self, process: ProcessId) -> Vec<End> {
        self.close_where(|ends| ends.iter().any(|end| end.process == process))
            .into_iter()
            .filter(|end| end.process != process)
            .collect()
    }

    /// Breaks the streams between two processes on which a cut took something that cannot be made up for. Gives both
    /// ends of each.
    pub fn break_hung(&mut self, one: ProcessId, two: ProcessId) -> Vec<End> {
        let hung: Vec<_> = self.connections.values().filter(|c| c.hung != [false; 2]).collect();
        let hung: Vec<[End; 2]> = hung.into_iter().map(|connection| connection.ends).collect();
        self.close_where(|ends| is_between(ends, one, two) && hung.contains(ends))
    }

    /// Breaks every stream between two processes. Gives both ends of each.
    pub fn break_between(&mut self, one: ProcessId, two: ProcessId) -> Vec<End> {
        self.close_where(|ends| is_between(ends, one, two))
    }

    /// Ends streams at once. Gives the ends that do not know yet.
    fn close_where(&mut self, matches: impl Fn(&[End; 2]) -> bool) -> Vec<End> {
        let ids: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| matches(&connection.ends))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().flat_map(|id| self.remove(id).unaware_ends()).collect()
    }

    fn remove(&mut self, id: ConnectionId) -> Connection {
        let connection = self.connections.remove(&id).expect("only open streams are removed");
        for end in &connection.ends {
            self.by_end.remove(&(end.process, end.stream));
        }
        connection
    }
}

fn is_between(ends: &[End; 2], one: ProcessId, two: ProcessId) -> bool {
    let pair = (ends[0].process, ends[1].process);
    pair == (one, two) || pair == (two, one)
}

/// Whether frames of this kind keep their order on a stream.
fn keeps_order(kind: FrameKind) -> bool {
    match kind {
        FrameKind::Hello | FrameKind::Refusal | FrameKind::Bulk => true,
        FrameKind::Formation | FrameKind::Consensus => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_types::GroupId;

    const HOUR: Duration = Duration::from_secs(3600);

    fn end(process: usize, stream: u64) -> End {
        End { process: ProcessId(process), life: Life(1), stream: StreamId(stream) }
    }

    fn frame(kind: FrameKind, number: u8) -> Frame {
        Frame { kind, group: GroupId(0), payload: Bytes::from(vec![number]) }
    }

    fn network(weather: Weather) -> (Network, Dice) {
        let mut network = Network::new(2, weather);
        network.connect(end(0, 1), end(1, 9), StreamPurpose::Messages).expect("no cut");
        (network, Dice::new(1, "network"))
    }

    /// Sends 100 frames and gives their numbers in order of arrival.
    fn arrivals(weather: Weather, kind: FrameKind) -> Vec<u8> {
        let (mut network, mut dice) = network(weather);
        let mut arrivals = Vec::new();
        for number in 0..100 {
            let now = Instant(u64::from(number) * 1000);
            let frame = frame(kind, number);
            arrivals.extend(network.send(now, ProcessId(0), StreamId(1), frame, &mut dice));
        }
        arrivals.sort_by_key(|(at, _)| *at);
        for (_, packet) in &arrivals {
            assert_eq!(network.arrive(packet, &mut dice), Some(end(1, 9)));
        }
        arrivals.into_iter().map(|(_, packet)| packet.frame.payload[0]).collect()
    }

    #[test]
    fn messages_are_lost_repeated_and_reordered_as_the_weather_says() {
        let ordered: Vec<u8> = (0..100).collect();
        let stormy = Weather {
            loss: 200_000,
            duplication: 200_000,
            delay: 200_000,
            delay_max: HOUR,
            ..Weather::fair()
        };
        let found = arrivals(stormy, FrameKind::Consensus);
        let kinds: std::collections::BTreeSet<u8> = found.iter().copied().collect();
        assert!((60..95).contains(&kinds.len()), "{} of 100 arrived", kinds.len());
        assert!(found.len() > kinds.len(), "none arrived twice");
        assert!(!found.is_sorted());
        assert_eq!(arrivals(Weather { loss: 0, ..stormy }, FrameKind::Bulk), ordered);
        let bulk = arrivals(stormy, FrameKind::Bulk);
        assert!((60..95).contains(&bulk.len()) && bulk.is_sorted(), "{bulk:?}");
        assert_eq!(arrivals(stormy, FrameKind::Hello), ordered);
    }

    #[test]
    fn a_cut_stops_one_direction_and_new_streams() {
        let (mut network, mut dice) = network(Weather::fair());
        network.set_cut(ProcessId(0), ProcessId(1), true);
        let mut send = |process, stream| {
            let frame = frame(FrameKind::Consensus, 0);
            network.send(Instant(0), ProcessId(process), StreamId(stream), frame, &mut dice).len()
        };
        assert_eq!(send(0, 1), 0);
        assert_eq!(send(1, 9), 1);
        assert_eq!(network.connect(end(1, 2), end(0, 2), StreamPurpose::Bulk), None);
        network.mend_all();
        assert!(network.connect(end(1, 2), end(0, 2), StreamPurpose::Bulk).is_some());
    }

    #[test]
    fn a_stream_that_lost_its_hello_hangs_until_it_is_broken() {
        let (mut network, mut dice) = network(Weather::fair());
        network.set_cut(ProcessId(0), ProcessId(1), true);
        let mut send = |network: &mut Network, kind| {
            let frame = frame(kind, 0);
            network.send(Instant(0), ProcessId(0), StreamId(1), frame, &mut dice).len()
        };
        assert_eq!(send(&mut network, FrameKind::Hello), 0);
        network.mend_all();
        assert_eq!(send(&mut network, FrameKind::Consensus), 0);
        assert_eq!(network.break_hung(ProcessId(1), ProcessId(0)), vec![end(0, 1), end(1, 9)]);
        assert_eq!(network.break_hung(ProcessId(1), ProcessId(0)), vec![]);
    }

    #[test]
    fn a_message_may_outlive_its_stream_but_never_precede_a_hello() {
        let (mut network, mut dice) = network(Weather { replay: 1_000_000, ..Weather::fair() });
        let message = frame(FrameKind::Consensus, 0);
        let sent = network.send(Instant(0), ProcessId(0), StreamId(1), message, &mut dice);
        let late = &sent[0].1;
        assert_eq!(network.close(ProcessId(0), StreamId(1)), Some((end(1, 9), Instant::ZERO)));
        assert_eq!(network.arrive(late, &mut dice), Some(end(1, 9)), "nobody knows there yet");
        network.forget(end(1, 9));
        assert_eq!(network.arrive(late, &mut dice), None);
        network.connect(end(0, 2), end(1, 10), StreamPurpose::Messages).expect("no cut");
        assert_eq!(network.arrive(late, &mut dice), None);
        let hello = frame(FrameKind::Hello, 0);
        let sent = network.send(Instant(0), ProcessId(0), StreamId(2), hello, &mut dice);
        assert_eq!(network.arrive(&sent[0].1, &mut dice), Some(end(1, 10)));
        assert_eq!(network.arrive(late, &mut dice), Some(end(1, 10)));
        assert_eq!(network.counts().replayed, 1);
    }

    #[test]
    fn closing_a_process_tells_the_other_ends() {
        let (mut network, mut dice) = network(Weather::fair());
        assert_eq!(network.close_all(ProcessId(1)), vec![end(0, 1)]);
        assert!(!network.is_open(ProcessId(0), ProcessId(1), StreamPurpose::Messages));
        let frame = frame(FrameKind::Consensus, 0);
        let sent = network.send(Instant(0), ProcessId(0), StreamId(1), frame, &mut dice);
        assert!(sent.is_empty());
    }
}
