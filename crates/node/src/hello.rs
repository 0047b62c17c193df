//! Who speaks on a stream, and the verdict on it.

use crate::identity::{Identity, Membership, Remembered, read_runs, write_runs};
use crate::interface::StreamPurpose;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    ClusterId, Configuration, DecodeError, Generation, Incarnation, Intent, Member, NodeId,
    ProtocolName, Reader, StartNumber, Writer,
};

/// The oldest version of the messages inside frames that this code speaks.
const WIRE_MIN: u16 = 1;
/// The newest.
const WIRE_MAX: u16 = 1;

/// The largest hello, in bytes: a name, some numbers, a configuration of 64 members, and what later versions add.
const HELLO_SIZE_MAX: usize = 32 * 1024;

/// What a refusal ends with that is a step of every join and no fault.
pub(crate) const BEING_TAKEN_IN: &str = "is being taken in: ask again";

/// What a node says of itself, first on every stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The oldest version of messages that it speaks.
    pub(crate) wire_min: u16,
    /// The newest.
    pub(crate) wire_max: u16,
    /// The protocol of its groups.
    pub(crate) protocol: ProtocolName,
    /// What the stream is for.
    pub(crate) purpose: StreamPurpose,
    /// Its name.
    pub(crate) name: String,
    /// Its cluster and id, once formed.
    pub(crate) membership: Option<Membership>,
    /// The generation of its cluster.
    pub(crate) generation: Generation,
    /// Its data folder.
    pub(crate) incarnation: Incarnation,
    /// How often that was opened.
    pub(crate) start: StartNumber,
    /// Drawn at that start.
    pub(crate) run: u64,
    /// Where it is reached, as far as it knows; empty before it is a member, unless it joins.
    pub(crate) address: String,
    /// Who the other side is, where it joins.
    pub(crate) welcome: Option<Welcome>,
    /// The runs before this one, the latest first, as far as the folder keeps them in mind.
    pub(crate) earlier_runs: Vec<u64>,
}

/// What a newcomer is told once it is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// Its id.
    pub(crate) node: NodeId,
    /// The members, itself among them.
    pub(crate) configuration: Configuration,
}

impl Hello {
    /// What a node of this identity says.
    pub(crate) fn of(identity: &Identity, purpose: StreamPurpose) -> Hello {
        Hello {
            wire_min: WIRE_MIN,
            wire_max: WIRE_MAX,
            protocol: identity.protocol,
            purpose,
            name: identity.name.clone(),
            membership: identity.membership,
            generation: identity.generation,
            incarnation: identity.incarnation,
            start: identity.start,
            run: identity.run,
            address: String::new(),
            welcome: None,
            earlier_runs: identity.earlier_runs.clone(),
        }
    }

    /// The payload of a hello frame.
    pub(crate) fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.put_u16_le(self.wire_min);
        buffer.put_u16_le(self.wire_max);
        buffer.put_u8(self.protocol as u8);
        buffer.write_bool(self.purpose == StreamPurpose::Bulk);
        buffer.write_blob(self.name.as_bytes());
        buffer.put_u64_le(self.membership.map_or(0, |membership| membership.cluster.0));
        buffer.put_u64_le(self.membership.map_or(0, |membership| membership.node.0));
        buffer.put_u64_le(self.generation.0);
        buffer.put_u64_le(self.incarnation.0);
        buffer.put_u64_le(self.start.0);
        buffer.put_u64_le(self.run);
        buffer.write_blob(self.address.as_bytes());
        // A newcomer of an earlier version takes node 0 for another one than itself, and asks again.
        let nobody = Welcome { node: NodeId(0), configuration: nobodys_configuration() };
        let welcome = self.welcome.as_ref().unwrap_or(&nobody);
        buffer.put_u64_le(welcome.node.0);
        buffer.write_blob(&welcome.configuration.encode());
        write_runs(&self.earlier_runs, &mut buffer);
        buffer.freeze()
    }

    /// Reads what [`Hello::encode`] wrote. Bytes that follow are of a later version, which may still speak ours.
    pub(crate) fn decode(bytes: Bytes) -> Result<Hello, DecodeError> {
        if bytes.len() > HELLO_SIZE_MAX {
            let (value, limit) = (bytes.len() as u64, HELLO_SIZE_MAX as u64);
            return Err(DecodeError::TooLarge { what: "hello", value, limit });
        }
        let mut reader = Reader::new("hello", bytes);
        let wire_min = reader.u16()?;
        let wire_max = reader.u16()?;
        let byte = reader.u8()?;
        let protocol = ProtocolName::from_byte(byte)
            .ok_or(DecodeError::Unknown { what: "protocol", value: byte.into() })?;
        let purpose = if reader.bool()? { StreamPurpose::Bulk } else { StreamPurpose::Messages };
        let name = reader.text()?;
        if name.chars().any(char::is_control) {
            return Err(DecodeError::Invalid("the name holds control characters"));
        }
        let cluster = reader.u64()?;
        let node = NodeId(reader.u64()?);
        let membership = (cluster != 0).then_some(Membership { cluster: ClusterId(cluster), node });
        let generation = Generation(reader.u64()?);
        let incarnation = Incarnation(reader.u64()?);
        let start = StartNumber(reader.u64()?);
        let run = reader.u64()?;
        let address = if reader.is_empty() { String::new() } else { reader.text()? };
        let welcome = if reader.is_empty() {
            None
        } else {
            let node = NodeId(reader.u64()?);
            let configuration = Configuration::decode(reader.blob()?)?;
            Some(Welcome { node, configuration }).filter(|_| node != NodeId(0))
        };
        let earlier_runs = if reader.is_empty() { Vec::new() } else { read_runs(&mut reader)? };
        Ok(Hello {
            wire_min,
            wire_max,
            protocol,
            purpose,
            name,
            membership,
            generation,
            incarnation,
            start,
            run,
            address,
            welcome,
            earlier_runs,
        })
    }

    /// Whether the folder was once opened as this run, as far as it can be known: it was, unless the folder keeps another run
    /// of that start in mind.
    fn descends_from(&self, remembered: &Remembered) -> bool {
        let Some(distance) = self.start.0.checked_sub(remembered.start.0) else { return false };
        let Some(place) = distance.checked_sub(1) else { return self.run == remembered.run };
        let known = usize::try_from(place).ok().and_then(|place| self.earlier_runs.get(place));
        known.is_none_or(|run| *run == remembered.run)
    }

    /// The run that speaks.
    pub(crate) fn run(&self) -> Remembered {
        Remembered { incarnation: self.incarnation, start: self.start, run: self.run }
    }
}

/// What the encoding holds in the place of the configuration in a hello that welcomes nobody: the least that every version can
/// read.
fn nobodys_configuration() -> Configuration {
    let member = Member {
        incarnation: Incarnation::UNBOUND,
        name: String::new(),
        peer_address: String::new(),
        voter: true,
        outgoing_voter: false,
        intent: Intent::Stay,
    };
    Configuration { members: [(NodeId(0), member)].into(), removed_max: NodeId(0) }
}

/// Why a hello is refused, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Whether the refused data folder can never take part: its node stops. Otherwise it may try again.
    pub(crate) is_final: bool,
    /// The cluster that refuses, once formed: a formed node stops only at a word of its own cluster.
    pub(crate) cluster: Option<ClusterId>,
    /// The text.
    pub(crate) text: String,
}

impl Refusal {
    /// The payload of a refusal frame.
    pub(crate) fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.write_bool(self.is_final);
        buffer.put_u64_le(self.cluster.map_or(0, |cluster| cluster.0));
        buffer.write_blob(self.text.as_bytes());
        buffer.freeze()
    }

    /// Reads what [`Refusal::encode`] wrote; control characters, which could confuse a terminal, are replaced.
    pub(crate) fn decode(bytes: Bytes) -> Result<Refusal, DecodeError> {
        /// The longest text that is shown, in characters.
        const TEXT_MAX: usize = 1_000;
        let mut reader = Reader::new("refusal", bytes);
        let is_final = reader.bool()?;
        let cluster = reader.u64()?;
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let text = reader.text()?.chars().take(TEXT_MAX).map(plain).collect();
        let cluster = (cluster != 0).then_some(ClusterId(cluster));
        Ok(Refusal { is_final, cluster, text })
    }
}

/// What a hello is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    /// This node.
    pub(crate) identity: &'a Identity,
    /// The members to form a cluster of; used while none is formed.
    pub(crate) list: &'a [(String, String)],
    /// The configuration in force, once formed.
    pub(crate) configuration: Option<&'a Configuration>,
    /// Whether that is committed.
    pub(crate) is_committed: bool,
}

impl Judge<'_> {
    /// Whether the peer may speak; `expected` is the name that belongs to the address dialled, if it was dialled.
    pub(crate) fn verdict(&self, hello: &Hello, expected: Option<&str>) -> Result<(), Refusal> {
        let own = &self.identity.name;
        let name = &hello.name;
        if hello.wire_min > WIRE_MAX || hello.wire_max < WIRE_MIN {
            return Err(self.later(format!(
                "{name} speaks peer messages of versions {} to {}, {own} speaks {WIRE_MIN} to {WIRE_MAX}: \
                 upgrade the older one",
                hello.wire_min, hello.wire_max
            )));
        }
        if hello.protocol != self.identity.protocol {
            return Err(self.later(format!(
                "{name} runs {}, {own} runs {}: all nodes of a cluster run one protocol",
                hello.protocol, self.identity.protocol
            )));
        }
        if let Some(expected) = expected
            && expected != name
        {
            return Err(self.later(format!(
                "{own} expects {expected} at the address where {name} answers: correct the peer addresses"
            )));
        }
        match (self.identity.membership, self.configuration) {
            (Some(membership), Some(configuration)) => {
                self.verdict_when_formed(hello, membership, configuration)
            }
            (Some(_), None) | (None, _) => self.verdict_when_forming(hello),
        }
    }

    fn verdict_when_formed(
        &self,
        hello: &Hello,
        membership: Membership,
        configuration: &Configuration,
    ) -> Result<(), Refusal> {
        let own = &self.identity.name;
        let name = &hello.name;
        let named = configuration.members.iter().find(|(_, member)| member.name == *name);
        if let Some(theirs) = hello.membership {
            if theirs.cluster != membership.cluster {
                return Err(self.later(format!(
                    "{name} belongs to cluster {}, {own} to cluster {}: one of them has a foreign data folder or \
                     a wrong address",
                    theirs.cluster, membership.cluster
                )));
            }
            if hello.generation != self.identity.generation {
                return Err(self.later(format!(
                    "{name} is of {}, {own} of {}: the cluster was recovered by force without one of them",
                    hello.generation, self.identity.generation
                )));
            }
        }
        if self.newcomer(hello).is_some() {
            return Err(self.later(format!("{name} {BEING_TAKEN_IN}")));
        }
        let Some((node, member)) = named else {
            let removed = configuration.removed_max;
            let is_removed = hello.membership.is_some_and(|theirs| theirs.node <= removed);
            if is_removed && self.is_committed {
                return Err(Refusal {
                    is_final: true,
                    ..self.later(format!(
                        "{name} was removed from this cluster: to take part again it joins as a new member, with an \
                         empty folder"
                    ))
                });
            }
            return Err(self.later(format!(
                "this cluster has no member {name}; its members are {}. To take it in, add it as a member",
                names(configuration.members.values().map(|member| member.name.as_str()))
            )));
        };
        if hello.membership.is_some_and(|theirs| theirs.node != *node) {
            return Err(self.later(format!("{name} is {node} in this cluster, not another node")));
        }
        if member.incarnation != hello.incarnation {
            return Err(Refusal {
                // A formed peer may know a newer configuration than this node does.
                is_final: hello.membership.is_none(),
                ..self.later(format!(
                    "this cluster was formed with another data folder of {name} (incarnation {}, this one is {}): \
                     put the former data folder back. A member whose folder is lost for good must be replaced: \
                     quorate member replace {name} --with NAME=HOST:PORT; an empty folder cannot take its place, \
                     because it has forgotten its votes",
                    member.incarnation, hello.incarnation
                ))
            });
        }
        if *name == *own {
            return Err(self.later(format!("a second process speaks as {own}: stop one of them")));
        }
        self.verdict_on_run(hello, *node)
    }

    /// The member that was added for whoever says this hello, and that no folder was recorded for yet. Nobody is taken in
    /// under a name that another member has: peers are told apart by their names.
    pub(crate) fn newcomer(&self, hello: &Hello) -> Option<NodeId> {
        let fits = |member: &Member| {
            member.incarnation == Incarnation::UNBOUND
                && (member.name == hello.name
                    || member.name.is_empty() && member.peer_address == hello.address)
        };
        let is_new = hello.membership.is_none() && self.identity.membership.is_some();
        let members = &self.configuration.filter(|_| is_new)?.members;
        let (node, _) = members.iter().find(|(_, member)| fits(member))?;
        let is_taken = members.iter().any(|(id, member)| id != node && member.name == hello.name);
        (!is_taken).then_some(*node)
    }

    /// Refuses an image that was rolled back, or of which a second copy runs.
    fn verdict_on_run(&self, hello: &Hello, node: NodeId) -> Result<(), Refusal> {
        let Some(remembered) = self.identity.remembered.get(&node) else { return Ok(()) };
        let name = &hello.name;
        if remembered.incarnation != hello.incarnation || hello.descends_from(remembered) {
            return Ok(());
        }
        Err(Refusal {
            is_final: true,
            ..self.later(format!(
                "the data folder of {name} is an older image or a second copy: this is its start {}, {} has heard of \
                 a start {} that it knows nothing of. It may have forgotten what it promised: put the newest image back, \
                 or replace the member: quorate member replace {name} --with NAME=HOST:PORT",
                hello.start.0, self.identity.name, remembered.start.0
            ))
        })
    }

    fn verdict_when_forming(&self, hello: &Hello) -> Result<(), Refusal> {
        let own = &self.identity.name;
        let name = &hello.name;
        if name == own {
            return Err(self.later(format!(
                "two nodes are named {own}, or {own} has reached itself: names and addresses must differ"
            )));
        }
        if let Some(roster) = &self.identity.roster {
            let Some(founder) = roster.find(name) else {
                return Err(
                    self.later(format!("{own} is forming a cluster without {name}: {roster}"))
                );
            };
            if founder.incarnation != hello.incarnation {
                return Err(self.later(format!(
                    "{own} has recorded another data folder of {name} (incarnation {}, this one is {}): put the \
                     former data folder back; or, if this cluster has never served, delete the data folders of all \
                     its members and start them again",
                    founder.incarnation, hello.incarnation
                )));
            }
        } else if !self.list.iter().any(|(listed, _)| listed == name) {
            return Err(self.later(format!(
                "{name} is not in the --cluster list of {own}, which names {}: give all nodes the same list",
                names(self.list.iter().map(|(listed, _)| listed.as_str()))
            )));
        }
        Ok(())
    }

    /// A refusal after which the peer may try again.
    fn later(&self, text: String) -> Refusal {
        let cluster = self.identity.membership.map(|membership| membership.cluster);
        Refusal { is_final: false, cluster, text }
    }
}

/// Names with commas between them.
pub(crate) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::{Founder, Roster};

    fn roster() -> Roster {
        let founder = |name: &str, incarnation| Founder {
            name: name.into(),
            address: format!("{name}:1"),
            incarnation: Incarnation(incarnation),
        };
        Roster::new(vec![founder("n1", 0x11), founder("n2", 0x22), founder("n3", 0x33)])
    }

    fn identity(name: &str, incarnation: u64, formed: bool) -> Identity {
        let mut identity =
            Identity::fresh(name.into(), ProtocolName::Raft, Incarnation(incarnation));
        identity.start = StartNumber(5);
        identity.run = 50;
        if formed {
            let node = roster().node(name).unwrap_or(NodeId(9));
            identity.roster = Some(roster());
            identity.membership = Some(Membership { cluster: roster().cluster(), node });
        }
        identity
    }

    fn list() -> Vec<(String, String)> {
        roster().founders().iter().map(|f| (f.name.clone(), f.address.clone())).collect()
    }

    fn judge(ours: &Identity, hello: &Hello) -> Result<(), Refusal> {
        let configuration = ours.membership.map(|_| roster().configuration());
        let judge = Judge {
            identity: ours,
            list: &list(),
            configuration: configuration.as_ref(),
            is_committed: true,
        };
        judge.verdict(hello, None)
    }

    #[test]
    fn a_hello_and_a_refusal_survive_their_encoding() {
        for formed in [false, true] {
            let hello = Hello::of(&identity("n2", 0x22, formed), StreamPurpose::Bulk);
            assert_eq!(Hello::decode(hello.encode()), Ok(hello.clone()));
            // Hellos of earlier versions end sooner; what they lack is nothing.
            let (address, welcome) = (hello.encode().len() - 50, hello.encode().len() - 46);
            let runs = hello.encode().len() - 4;
            for size in 0..hello.encode().len() {
                let is_whole = [address, welcome, runs].contains(&size);
                let decoded = Hello::decode(hello.encode().slice(..size));
                assert_eq!(decoded, if is_whole { Ok(hello.clone()) } else { decoded.clone() });
                assert_eq!(decoded.is_ok(), is_whole, "{size} bytes");
            }
        }
        let refusal =
            Refusal { is_final: true, cluster: Some(ClusterId(4)), text: "a\u{1b}[31m".into() };
        let decoded = Refusal::decode(refusal.encode()).expect("own encoding");
        assert_eq!(decoded.text, "a [31m");
        assert!(decoded.is_final);
    }

    #[test]
    fn each_wrong_hello_is_refused_with_what_to_do() {
        let formed = identity("n1", 0x11, true);
        let fresh = identity("n1", 0x11, false);
        let good = Hello::of(&identity("n2", 0x22, true), StreamPurpose::Messages);
        let unformed = Hello { membership: None, ..good.clone() };
        let check = |ours: &Identity, hello: Hello, is_final: bool, part: &str| {
            let refusal = judge(ours, &hello).expect_err(part);
            assert!(refusal.text.contains(part), "{part:?} is not in {:?}", refusal.text);
            assert_eq!(refusal.is_final, is_final, "{part}");
        };
        assert_eq!(judge(&formed, &good), Ok(()));
        assert_eq!(judge(&formed, &unformed), Ok(()), "a late founder");
        assert_eq!(judge(&fresh, &unformed), Ok(()));
        let foreign = Membership { cluster: ClusterId(77), node: NodeId(2) };
        check(
            &formed,
            Hello { membership: Some(foreign), ..good.clone() },
            false,
            "foreign data folder",
        );
        check(
            &formed,
            Hello { protocol: ProtocolName::Zab, ..good.clone() },
            false,
            "n2 runs zab, n1 runs raft",
        );
        check(&formed, Hello { wire_min: 2, wire_max: 3, ..good.clone() }, false, "upgrade");
        check(
            &formed,
            Hello { generation: Generation(1), ..good.clone() },
            false,
            "recovered by force",
        );
        check(
            &formed,
            Hello { incarnation: Incarnation(0x99), ..unformed.clone() },
            true,
            "formed with another data folder of n2 (incarnation 0000000000000022, this one is \
             0000000000000099)",
        );
        check(
            &formed,
            Hello { name: "n7".into(), ..unformed.clone() },
            false,
            "no member n7; its members are n1, n2, n3",
        );
        check(
            &fresh,
            Hello { name: "n7".into(), ..unformed.clone() },
            false,
            "not in the --cluster list of n1, which names n1, n2, n3",
        );
        check(&fresh, Hello { name: "n1".into(), ..unformed.clone() }, false, "two nodes");
        let mut recorded = identity("n1", 0x11, false);
        recorded.roster = Some(roster());
        check(
            &recorded,
            Hello { incarnation: Incarnation(0x99), ..unformed },
            false,
            "recorded another data folder of n2",
        );
    }

    #[test]
    fn a_rolled_back_or_copied_image_is_refused() {
        let mut ours = identity("n1", 0x11, true);
        let remembered =
            Remembered { incarnation: Incarnation(0x22), start: StartNumber(5), run: 50 };
        ours.remembered.insert(NodeId(2), remembered);
        let good = Hello::of(&identity("n2", 0x22, true), StreamPurpose::Messages);
        assert_eq!(judge(&ours, &good), Ok(()));
        assert_eq!(judge(&ours, &Hello { start: StartNumber(6), run: 1, ..good.clone() }), Ok(()));
        for wrong in
            [Hello { start: StartNumber(4), ..good.clone() }, Hello { run: 51, ..good.clone() }]
        {
            let refusal = judge(&ours, &wrong).expect_err("rolled back");
            assert!(refusal.is_final);
            assert!(refusal.text.contains("older image"), "{}", refusal.text);
            assert!(refusal.text.contains("member replace n2 --with"), "{}", refusal.text);
        }
    }

    #[test]
    fn a_rolled_back_image_is_refused_however_often_it_is_started() {
        let mut ours = identity("n1", 0x11, true);
        let mut theirs = identity("n2", 0x22, true);
        let image = theirs.clone();
        for run in 51..54 {
            theirs.begin_run(run);
        }
        let hello = |identity: &Identity| Hello::of(identity, StreamPurpose::Messages);
        ours.remembered.insert(NodeId(2), hello(&theirs).run());
        let newest = theirs.clone();
        let mut rolled_back = image;
        for run in 151..171 {
            rolled_back.begin_run(run);
            let refusal = judge(&ours, &hello(&rolled_back)).expect_err("rolled back");
            assert!(refusal.is_final);
        }
        theirs.begin_run(99);
        assert_eq!(judge(&ours, &hello(&theirs)), Ok(()), "the newest image, put back");
        let mut older = newest;
        for run in 1_000..1_200 {
            older.begin_run(run);
        }
        assert_eq!(judge(&ours, &hello(&older)), Ok(()), "it is too long ago to be known");
        let unknown = Hello { earlier_runs: Vec::new(), ..hello(&theirs) };
        assert_eq!(judge(&ours, &unknown), Ok(()), "of a version that does not say");
    }

    #[test]
    fn what_later_versions_add_is_taken_up_to_the_bound() {
        let hello = Hello::of(&identity("n2", 0x22, true), StreamPurpose::Messages);
        let with_more = |size: usize| {
            let mut bytes = hello.encode().to_vec();
            bytes.resize(size, 0);
            Hello::decode(bytes.into())
        };
        assert_eq!(with_more(HELLO_SIZE_MAX), Ok(hello.clone()));
        for size in [HELLO_SIZE_MAX + 1, HELLO_SIZE_MAX + 9] {
            assert!(matches!(with_more(size), Err(DecodeError::TooLarge { .. })), "{size}");
        }
    }

    #[test]
    fn versions_that_overlap_speak_with_each_other() {
        let formed = identity("n1", 0x11, true);
        let good = Hello::of(&identity("n2", 0x22, true), StreamPurpose::Messages);
        for (wire_min, wire_max, is_good) in
            [(1, 1, true), (0, 1, true), (1, 3, true), (0, 0, false), (2, 3, false)]
        {
            let hello = Hello { wire_min, wire_max, ..good.clone() };
            assert_eq!(judge(&formed, &hello).is_ok(), is_good, "{wire_min} to {wire_max}");
        }
    }

    #[test]
    fn a_newcomer_is_whoever_has_the_name_or_the_address_of_a_member_without_a_folder() {
        let mut configuration = roster().configuration();
        let mut add = |node, name: &str| {
            let incarnation = Incarnation::UNBOUND;
            let (name, peer_address) = (name.to_owned(), format!("n{node}:1"));
            let former = &configuration.members[&NodeId(1)];
            let member = Member { incarnation, name, peer_address, ..former.clone() };
            configuration.members.insert(NodeId(node), member);
        };
        add(4, "n4");
        add(5, "");
        let newcomer = |formed: bool, hello: &Hello| {
            let (list, identity) = (list(), identity("n1", 0x11, formed));
            let configuration = Some(&configuration);
            Judge { identity: &identity, list: &list, configuration, is_committed: true }
                .newcomer(hello)
        };
        let hello = |name: &str, address: &str, is_member: bool| Hello {
            address: address.into(),
            ..Hello::of(&identity(name, 0x44, is_member), StreamPurpose::Messages)
        };
        assert_eq!(newcomer(true, &hello("n4", "elsewhere:1", false)), Some(NodeId(4)));
        assert_eq!(newcomer(true, &hello("n7", "n5:1", false)), Some(NodeId(5)));
        assert_eq!(newcomer(true, &hello("n7", "n4:1", false)), None, "that one has a name");
        assert_eq!(newcomer(true, &hello("n2", "n2:1", false)), None, "that one has a folder");
        assert_eq!(newcomer(true, &hello("n4", "n4:1", true)), None, "it is a member already");
        assert_eq!(newcomer(false, &hello("n4", "n4:1", false)), None, "no member takes it in");
    }
}
