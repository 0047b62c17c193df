//! Who takes part: the membership that the log records.

use crate::{DecodeError, Incarnation, NodeId, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::fmt;

/// What is to become of a member once the change under way allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Intent {
    /// It stays what it is.
    #[default]
    Stay,
    /// A learner that is to vote.
    Promote,
    /// A member that is to leave.
    Remove,
}

/// One member, under the one incarnation that may speak for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// A member takes part only under this incarnation; [`Incarnation::UNBOUND`] until its data folder is known.
    pub incarnation: Incarnation,
    /// The name that operators gave it (`n1`).
    pub name: String,
    /// Where peers reach it: `host:port`.
    pub peer_address: String,
    /// Whether it is a voter of the incoming configuration.
    pub voter: bool,
    /// Whether it is a voter of the outgoing configuration of a joint change; false when none is under way.
    pub outgoing_voter: bool,
    /// What is to become of it.
    pub intent: Intent,
}

/// The members of a group. During a joint change both sets of voters must agree (Raft thesis 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Every member by id.
    pub members: BTreeMap<NodeId, Member>,
    /// The highest id of a member that was removed: ids are never used again.
    pub removed_max: NodeId,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// No member votes.
    #[error("a configuration needs at least one voter")]
    NoVoter,
    /// More members than a configuration may have.
    #[error("{0} members are above the limit of {MEMBERS_MAX}")]
    TooMany(usize),
}

/// The most members of one group: quorum arithmetic and fan-out are sized for few.
const MEMBERS_MAX: usize = 64;

impl Configuration {
    /// The voters of the incoming (or only) configuration, in order of id.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, member)| member.voter).map(|(id, _)| *id)
    }

    /// The voters of the outgoing configuration; none when no joint change is under way.
    pub fn outgoing_voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, member)| member.outgoing_voter).map(|(id, _)| *id)
    }

    /// Whether a joint change is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.outgoing_voters().next().is_some()
    }

    /// Whether `node` votes in either configuration.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.voter || member.outgoing_voter)
    }

    /// Checks what every configuration must satisfy.
    ///
    /// # Errors
    /// See [`ConfigurationError`].
    pub fn check(&self) -> Result<(), ConfigurationError> {
        if self.voters().next().is_none() {
            return Err(ConfigurationError::NoVoter);
        }
        if self.members.len() > MEMBERS_MAX {
            return Err(ConfigurationError::TooMany(self.members.len()));
        }
        Ok(())
    }

    /// The encoding that the body of a configuration entry holds.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.write_count(self.members.len());
        for (id, member) in &self.members {
            buffer.put_u64_le(id.0);
            buffer.put_u64_le(member.incarnation.0);
            buffer.write_bool(member.voter);
            buffer.put_u8(u8::from(member.outgoing_voter) | (member.intent as u8) << 1);
            buffer.write_blob(member.name.as_bytes());
            buffer.write_blob(member.peer_address.as_bytes());
        }
        // Absent while nobody was ever removed, as in every configuration of formation.
        if self.removed_max != NodeId(0) {
            buffer.put_u64_le(self.removed_max.0);
        }
        buffer.freeze()
    }

    /// Reads what [`Configuration::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such an encoding.
    pub fn decode(bytes: Bytes) -> Result<Configuration, DecodeError> {
        let mut reader = Reader::new("configuration", bytes);
        let mut members = BTreeMap::new();
        for _ in 0..reader.count(26)? {
            let id = NodeId(reader.u64()?);
            let incarnation = Incarnation(reader.u64()?);
            let voter = reader.bool()?;
            let (outgoing_voter, intent) = decode_flags(reader.u8()?)?;
            let name = reader.text()?;
            let peer_address = reader.text()?;
            members.insert(
                id,
                Member { incarnation, name, peer_address, voter, outgoing_voter, intent },
            );
        }
        let removed_max = if reader.is_empty() { NodeId(0) } else { NodeId(reader.u64()?) };
        reader.finish()?;
        let configuration = Configuration { members, removed_max };
        match configuration.check() {
            Ok(()) => Ok(configuration),
            Err(ConfigurationError::NoVoter) => Err(DecodeError::Invalid("no voter")),
            Err(ConfigurationError::TooMany(_)) => Err(DecodeError::Invalid("too many members")),
        }
    }
}

fn decode_flags(byte: u8) -> Result<(bool, Intent), DecodeError> {
    let intent = match byte >> 1 {
        0 => Intent::Stay,
        1 => Intent::Promote,
        2 => Intent::Remove,
        _ => return Err(DecodeError::Unknown { what: "intent of a member", value: byte.into() }),
    };
    Ok((byte & 1 == 1, intent))
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, ids: &mut dyn Iterator<Item = NodeId>| {
            for (count, id) in ids.enumerate() {
                write!(f, "{}{id}", if count == 0 { "" } else { "," })?;
            }
            Ok(())
        };
        list(f, &mut self.voters())?;
        if self.is_joint() {
            f.write_str(" out=")?;
            list(f, &mut self.outgoing_voters())?;
        }
        let mut learners = self.members.keys().copied().filter(|id| !self.is_voter(*id)).peekable();
        if learners.peek().is_some() {
            f.write_str(" learners=")?;
            list(f, &mut learners)?;
        }
        for (word, intent) in [(" promote=", Intent::Promote), (" remove=", Intent::Remove)] {
            let meant = |(_, member): &(&NodeId, &Member)| member.intent == intent;
            let mut meant = self.members.iter().filter(meant).map(|(id, _)| *id).peekable();
            if meant.peek().is_some() {
                f.write_str(word)?;
                list(f, &mut meant)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_survives_its_encoding() {
        let member = |voter, outgoing_voter| Member {
            incarnation: Incarnation(3),
            name: "n1".into(),
            peer_address: "127.0.0.1:7101".into(),
            voter,
            outgoing_voter,
            intent: if voter || outgoing_voter { Intent::Stay } else { Intent::Promote },
        };
        let members = BTreeMap::from([
            (NodeId(1), member(true, false)),
            (NodeId(2), member(true, true)),
            (NodeId(4), member(false, false)),
        ]);
        let configuration = Configuration { members, removed_max: NodeId(7) };
        assert_eq!(Configuration::decode(configuration.encode()), Ok(configuration.clone()));
        assert_eq!(configuration.to_string(), "n1,n2 out=n2 learners=n4 promote=n4");
        let encoded = configuration.encode();
        for size in (0..encoded.len()).filter(|size| *size != encoded.len() - 8) {
            assert!(Configuration::decode(encoded.slice(..size)).is_err());
        }
    }
}
