//! The `identity` file: who a data folder is, and what it remembers of its peers.
//!
//! The file is replaced whole. The incarnation and the raised start number are durable before anything is said to a
//! peer and before any origin is used; the roster is durable before a peer is told so; the formed state is durable only
//! after the log holds the first configuration.

use crate::roster::Roster;
use crate::sealed::{Seal, SealError};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    ClusterId, DecodeError, DiskDone, DiskError, DiskId, DiskOp, DiskRequest, FileName, Generation,
    Incarnation, NodeId, ProtocolName, Reader, StartNumber, Writer,
};
use std::collections::BTreeMap;

/// The name of the file in the data folder.
pub(crate) const IDENTITY_FILE: &str = "identity";

const SEAL: Seal = Seal { what: "identity file", magic: *b"QrId", version: 2 };

/// How many runs before the current one a folder keeps in mind: more than a node is started while one of its peers is away.
/// A peer that was away for longer judges by the number of the start alone.
const EARLIER_RUNS_MAX: usize = 64;

/// The longest text of a refusal that is kept, in bytes.
const REFUSED_SIZE_MAX: usize = 4_096;

/// The newest run of a peer that this node has heard of. An older one is an image that was rolled back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The data folder.
    pub(crate) incarnation: Incarnation,
    /// How often it was opened.
    pub(crate) start: StartNumber,
    /// The random number drawn at that start: two starts of one number are two copies of one image.
    pub(crate) run: u64,
}

/// Which cluster a data folder belongs to, and as whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// This node.
    pub(crate) node: NodeId,
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Which protocol the folder was made for.
    pub(crate) protocol: ProtocolName,
    /// The node's name.
    pub(crate) name: String,
    /// Drawn when the folder was made.
    pub(crate) incarnation: Incarnation,
    /// How often the folder was opened.
    pub(crate) start: StartNumber,
    /// Drawn at this start.
    pub(crate) run: u64,
    /// What was drawn at the starts before, the latest first: an image that was rolled back and started anew has other runs
    /// than those that its peers have heard of. Shorter than the history in a folder that version 1 began.
    pub(crate) earlier_runs: Vec<u64>,
    /// Why the cluster has refused this folder for good, if it has.
    pub(crate) refused: Option<String>,
    /// Raised when the cluster is recovered by force.
    pub(crate) generation: Generation,
    /// Whom the cluster is formed of, once every incarnation is known. Never changes afterwards.
    pub(crate) roster: Option<Roster>,
    /// Set once the cluster is formed and the log holds its first configuration.
    pub(crate) membership: Option<Membership>,
    /// What is remembered of peers.
    pub(crate) remembered: BTreeMap<NodeId, Remembered>,
}

impl Identity {
    /// A new data folder's identity, before its first start.
    pub(crate) fn fresh(
        name: String,
        protocol: ProtocolName,
        incarnation: Incarnation,
    ) -> Identity {
        Identity {
            protocol,
            name,
            incarnation,
            start: StartNumber(0),
            run: 0,
            earlier_runs: Vec::new(),
            refused: None,
            generation: Generation(0),
            roster: None,
            membership: None,
            remembered: BTreeMap::new(),
        }
    }

    /// A new start of the folder, under a number of its own.
    pub(crate) fn begin_run(&mut self, run: u64) {
        if self.start > StartNumber(0) {
            self.earlier_runs.insert(0, self.run);
            self.earlier_runs.truncate(EARLIER_RUNS_MAX);
        }
        self.start.0 += 1;
        self.run = run;
    }

    /// The cluster refuses this folder for good.
    pub(crate) fn refuse(&mut self, text: &str) {
        let mut size = text.len().min(REFUSED_SIZE_MAX);
        while !text.is_char_boundary(size) {
            size -= 1;
        }
        self.refused = Some(text[..size].to_owned());
    }

    /// The file.
    pub(crate) fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.put_u8(self.protocol as u8);
        buffer.write_blob(self.name.as_bytes());
        buffer.put_u64_le(self.incarnation.0);
        buffer.put_u64_le(self.start.0);
        buffer.put_u64_le(self.run);
        buffer.put_u64_le(self.generation.0);
        buffer.write_bool(self.roster.is_some());
        if let Some(roster) = &self.roster {
            buffer.put_slice(&roster.encode());
        }
        buffer.write_bool(self.membership.is_some());
        if let Some(membership) = &self.membership {
            buffer.put_u64_le(membership.cluster.0);
            buffer.put_u64_le(membership.node.0);
        }
        buffer.write_count(self.remembered.len());
        for (node, remembered) in &self.remembered {
            buffer.put_u64_le(node.0);
            buffer.put_u64_le(remembered.incarnation.0);
            buffer.put_u64_le(remembered.start.0);
            buffer.put_u64_le(remembered.run);
        }
        write_runs(&self.earlier_runs, &mut buffer);
        buffer.write_bool(self.refused.is_some());
        if let Some(text) = &self.refused {
            buffer.write_blob(text.as_bytes());
        }
        SEAL.seal(&buffer)
    }

    /// Reads what [`Identity::encode`] wrote.
    pub(crate) fn decode(file: &Bytes) -> Result<Identity, SealError> {
        let (version, body) = SEAL.unseal_versioned(file)?;
        let mut reader = Reader::new("identity", body);
        let byte = reader.u8()?;
        let protocol = ProtocolName::from_byte(byte)
            .ok_or(DecodeError::Unknown { what: "protocol", value: byte.into() })?;
        let name = reader.text()?;
        let incarnation = Incarnation(reader.u64()?);
        let start = StartNumber(reader.u64()?);
        let run = reader.u64()?;
        let generation = Generation(reader.u64()?);
        let roster = if reader.bool()? { Some(Roster::decode(&mut reader)?) } else { None };
        let membership = if reader.bool()? {
            let cluster = ClusterId(reader.u64()?);
            Some(Membership { cluster, node: NodeId(reader.u64()?) })
        } else {
            None
        };
        let mut remembered = BTreeMap::new();
        for _ in 0..reader.count(32)? {
            let node = NodeId(reader.u64()?);
            let incarnation = Incarnation(reader.u64()?);
            let start = StartNumber(reader.u64()?);
            remembered.insert(node, Remembered { incarnation, start, run: reader.u64()? });
        }
        let (mut earlier_runs, mut refused) = (Vec::new(), None);
        if version >= 2 {
            earlier_runs = read_runs(&mut reader)?;
            refused = if reader.bool()? { Some(reader.text()?) } else { None };
        }
        reader.finish()?;
        Ok(Identity {
            protocol,
            name,
            incarnation,
            start,
            run,
            earlier_runs,
            refused,
            generation,
            roster,
            membership,
            remembered,
        })
    }
}

/// Appends runs: their count, then each.
pub(crate) fn write_runs(runs: &[u64], buffer: &mut BytesMut) {
    buffer.write_count(runs.len());
    runs.iter().for_each(|run| buffer.put_u64_le(*run));
}

/// Takes off what [`write_runs`] appended.
pub(crate) fn read_runs(reader: &mut Reader) -> Result<Vec<u64>, DecodeError> {
    let count = reader.count(8)?;
    (0..count).map(|_| reader.u64()).collect()
}

/// The version of the identity's content; rises by one with each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IdentityVersion(u64);

impl IdentityVersion {
    /// The content as it was at open, with this start's number.
    pub(crate) const FIRST: IdentityVersion = IdentityVersion(1);
}

/// The identity in memory and on its way to disk.
///
/// # Invariants
/// 1. At most one write is in flight, so that a later content is never replaced by an earlier one.
#[derive(Debug)]
pub(crate) struct IdentityStore {
    identity: Identity,
    /// The version in memory.
    version: IdentityVersion,
    /// The version known durable.
    durable: IdentityVersion,
    /// The write in flight and the version it holds.
    in_flight: Option<(DiskId, IdentityVersion)>,
}

impl IdentityStore {
    /// Takes charge of an identity that is to be written.
    pub(crate) fn new(identity: Identity) -> IdentityStore {
        IdentityStore {
            identity,
            version: IdentityVersion::FIRST,
            durable: IdentityVersion(0),
            in_flight: None,
        }
    }

    /// The identity in memory.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether this version is durable.
    pub(crate) fn is_durable(&self, version: IdentityVersion) -> bool {
        version <= self.durable
    }

    /// Changes the identity; the result says which version must be durable before anybody may rely on it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Identity)) -> IdentityVersion {
        change(&mut self.identity);
        self.version.0 += 1;
        self.version
    }

    /// The next write, if one is due; `id` is used when it is.
    pub(crate) fn poll(&mut self, id: impl FnOnce() -> DiskId) -> Option<DiskRequest> {
        if self.in_flight.is_some() || self.durable == self.version {
            return None;
        }
        let id = id();
        self.in_flight = Some((id, self.version));
        let file = FileName::new(IDENTITY_FILE);
        Some(DiskRequest { id, op: DiskOp::Replace { file, data: self.identity.encode() } })
    }

    /// Takes a completion in; `None` when it is not of this file.
    pub(crate) fn handle(&mut self, done: &DiskDone) -> Option<Result<(), DiskError>> {
        let (id, version) = self.in_flight?;
        if id != done.id {
            return None;
        }
        self.in_flight = None;
        Some(match &done.result {
            Ok(_) => {
                self.durable = version;
                Ok(())
            }
            Err(error) => Err(error.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Founder;
    use quorate_types::DiskOutput;

    fn sample() -> Identity {
        let founder = |name: &str, incarnation| Founder {
            name: name.into(),
            address: format!("{name}:1"),
            incarnation: Incarnation(incarnation),
        };
        let mut identity =
            Identity::fresh("n1".into(), ProtocolName::Raft, Incarnation(0x0123_4567_89ab_cdef));
        identity.start = StartNumber(3);
        identity.run = 77;
        identity.roster = Some(Roster::new(vec![founder("n1", 5), founder("n2", 6)]));
        identity.membership = Some(Membership { cluster: ClusterId(9), node: NodeId(1) });
        identity.remembered.insert(
            NodeId(2),
            Remembered { incarnation: Incarnation(6), start: StartNumber(4), run: 8 },
        );
        identity
    }

    #[test]
    fn an_identity_survives_its_encoding() {
        assert_eq!(Identity::decode(&sample().encode()), Ok(sample()));
        let fresh = Identity::fresh("n1".into(), ProtocolName::Raft, Incarnation(1));
        assert_eq!(Identity::decode(&fresh.encode()), Ok(fresh));
    }

    fn refused_sample() -> Identity {
        let mut identity = sample();
        identity.begin_run(78);
        identity.begin_run(79);
        identity.refuse("an older image");
        identity
    }

    /// Bytes written by format version 1 stay readable by every later version.
    #[test]
    fn the_frozen_sample_of_version_1_is_read() {
        let frozen = include_bytes!("../tests/frozen/identity.v1");
        assert_eq!(Identity::decode(&Bytes::from_static(frozen)), Ok(sample()));
    }

    #[test]
    fn the_frozen_sample_of_version_2_is_read_and_written() {
        let frozen = include_bytes!("../tests/frozen/identity.v2");
        assert_eq!(Identity::decode(&Bytes::from_static(frozen)), Ok(refused_sample()));
        let written = refused_sample().encode();
        assert_eq!(written, Bytes::from_static(frozen), "version 2 is written otherwise");
    }

    #[test]
    fn a_start_keeps_the_runs_before_it_in_mind_up_to_a_bound() {
        let mut identity = Identity::fresh("n1".into(), ProtocolName::Raft, Incarnation(1));
        for run in 1..=3 {
            identity.begin_run(run);
        }
        assert_eq!((identity.start, identity.run), (StartNumber(3), 3));
        assert_eq!(identity.earlier_runs, [2, 1]);
        for run in 4..1_000 {
            identity.begin_run(run);
        }
        assert_eq!(identity.earlier_runs.len(), EARLIER_RUNS_MAX);
        assert_eq!(identity.earlier_runs[0], 998);
        identity.refuse(&format!("a{}", "é".repeat(REFUSED_SIZE_MAX)));
        assert_eq!(identity.refused.as_ref().map(String::len), Some(REFUSED_SIZE_MAX - 1));
        assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
    }

    #[test]
    fn one_write_is_in_flight_and_the_last_content_wins() {
        let mut store = IdentityStore::new(sample());
        let first = store.poll(|| DiskId(1)).expect("a write is due");
        let wanted = store.change(|identity| identity.start = StartNumber(9));
        assert_eq!(store.poll(|| DiskId(2)), None);
        let done = DiskDone { id: first.id, result: Ok(DiskOutput::Done) };
        assert_eq!(store.handle(&done), Some(Ok(())));
        assert!(!store.is_durable(wanted));
        let second = store.poll(|| DiskId(2)).expect("the change is due");
        let done = DiskDone { id: second.id, result: Ok(DiskOutput::Done) };
        assert_eq!(store.handle(&done), Some(Ok(())));
        assert!(store.is_durable(wanted));
        assert_eq!(store.poll(|| DiskId(3)), None);
    }
}
