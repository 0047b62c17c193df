//! What Raft replicas say to each other.

use bytes::BytesMut;
use quorate_types::{DecodeError, Epoch, Reader, Writer};
use std::fmt;

/// A message of Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks a follower to acknowledge the leader of this term.
    Heartbeat {
        /// The leader's term.
        term: Epoch,
    },
}

impl Message {
    /// Appends the encoding.
    pub fn encode(&self, buffer: &mut BytesMut) {
        match self {
            Message::Heartbeat { term } => buffer.write_epoch(*term),
        }
    }

    /// Takes a message off the front of `reader`.
    ///
    /// # Errors
    /// When the bytes are not such an encoding.
    pub fn decode(reader: &mut Reader) -> Result<Message, DecodeError> {
        Ok(Message::Heartbeat { term: reader.epoch()? })
    }

    /// The sender's term.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Message::Heartbeat { term } => *term,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Heartbeat { term } => write!(f, "heartbeat @{term}"),
        }
    }
}
