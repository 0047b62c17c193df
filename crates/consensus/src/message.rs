//! What replicas say to each other: one closed enum a protocol.

use bytes::{Bytes, BytesMut};
use quorate_types::{DecodeError, Epoch, ProtocolName};
use std::fmt;

/// A message of one of the protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Of Raft.
    Raft(crate::raft::Message),
}

impl Message {
    /// Appends the encoding: a byte for the protocol, then the protocol's own.
    pub fn encode(&self, buffer: &mut BytesMut) {
        match self {
            Message::Raft(message) => {
                bytes::BufMut::put_u8(buffer, ProtocolName::Raft as u8);
                message.encode(buffer);
            }
        }
    }

    /// Reads what [`Message::encode`] wrote; entry bodies share memory with `bytes`.
    ///
    /// # Errors
    /// When the bytes are not such an encoding, or of a protocol that is not there.
    pub fn decode(bytes: Bytes) -> Result<Message, DecodeError> {
        let mut reader = quorate_types::Reader::new("consensus message", bytes);
        let protocol = reader.u8()?;
        let message = match ProtocolName::from_byte(protocol) {
            Some(ProtocolName::Raft) => Message::Raft(crate::raft::Message::decode(&mut reader)?),
            Some(ProtocolName::Paxos | ProtocolName::Zab | ProtocolName::Vsr) | None => {
                return Err(DecodeError::Unknown { what: "protocol", value: protocol.into() });
            }
        };
        reader.finish()?;
        Ok(message)
    }

    /// The sender's epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Message::Raft(message) => message.epoch(),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Raft(message) => message.fmt(f),
        }
    }
}
