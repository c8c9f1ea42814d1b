//! What messages are, as both sides and the driver speak of them.

use std::time::Duration;

use bytes::Bytes;

/// A message's number on its connection and in its direction: ascending from 0.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId(pub u64);

/// Who goes first. Control always; the others share in the ratio 8 : 4 : 1 while all have something to send.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Membership and the like: little, and always first.
    Control = 0,
    /// Small requests.
    Request = 1,
    /// Replies.
    Reply = 2,
    /// Synchronisation and large values.
    Bulk = 3,
}

impl Class {
    /// All of them, the most urgent first.
    pub const ALL: [Class; 4] = [Class::Control, Class::Request, Class::Reply, Class::Bulk];

    pub(crate) fn from_bits(bits: u8) -> Class {
        Class::ALL[usize::from(bits & 3)]
    }
}

/// How to send a message.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Who goes first.
    pub class: Class,
    /// Messages of one group are delivered in the order in which they were begun. Others as they arrive.
    pub ordered_group: Option<u32>,
    /// After so long, what is not yet acknowledged is given up, and the message with it.
    pub ttl: Option<Duration>,
}

impl Options {
    /// Unordered, for as long as it takes.
    pub fn new(class: Class) -> Self {
        Options { class, ordered_group: None, ttl: None }
    }
}

/// What a connection tells its owner.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The peer has proved who it is, and messages flow.
    Connected,
    /// A whole message arrived. Call `Connection::consumed` when its bytes are dealt with.
    Message {
        /// Its number.
        id: MessageId,
        /// Its class.
        class: Class,
        /// All of it.
        data: Bytes,
    },
    /// A message too long to be delivered whole begins.
    MessageStart {
        /// Its number.
        id: MessageId,
        /// Its class.
        class: Class,
    },
    /// The next bytes of a message that has begun. Call `Connection::consumed` when they are dealt with.
    MessageData {
        /// Its number.
        id: MessageId,
        /// The bytes, in order.
        data: Bytes,
    },
    /// The message is complete.
    MessageEnd {
        /// Its number.
        id: MessageId,
    },
    /// The sender gave up a message that had begun.
    MessageDropped {
        /// Its number.
        id: MessageId,
    },
    /// A best-effort datagram arrived.
    Datagram(Bytes),
    /// The peer's transport has all of a message that was sent.
    Acknowledged {
        /// Its number.
        id: MessageId,
    },
    /// A message that was being sent is given up: its time was over, or the peer did not want it. The peer
    /// may have it nevertheless.
    GivenUp {
        /// Its number.
        id: MessageId,
    },
    /// Messages are taken again after `SendError::Full`.
    Sendable,
    /// The peer has another address now, and has proved it.
    PathChanged(core::net::SocketAddr),
    /// The connection is over. No event follows.
    Closed(crate::error::CloseReason),
}
