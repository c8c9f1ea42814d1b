//! What can go wrong, one type for each situation. Nothing changed unless a variant says otherwise.

use std::time::Duration;

/// Bytes from the network that are no packet or frame of ours. The sender's fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// A field goes on where the bytes end.
    #[error("a field is cut off")]
    Short,
    /// No frame or datagram has this type.
    #[error("type {0:#04x} is unknown")]
    Type(u8),
    /// A field has a value that it must not have.
    #[error("{0} has a value that it must not have")]
    Value(&'static str),
}

/// Why a connection was not begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConnectError {
    /// The key is this node's own.
    #[error("the peer's key is this node's own")]
    Myself,
    /// There is a connection to this peer, or one is being made.
    #[error("there is a connection to this peer already")]
    Exists,
    /// The endpoint has as many connections as its configuration allows.
    #[error("{0} connections are open, as many as peers_max allows")]
    TooMany(usize),
    /// The endpoint has no pre-shared key.
    #[error("there is no pre-shared key")]
    NoPsk,
}

/// Why a message or a datagram was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SendError {
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,
    /// As much waits to be sent as the configuration or the peer allows: wait for `Event::Sendable`.
    #[error("the send buffer is full: wait for Sendable")]
    Full,
    /// The message or datagram is longer than what may be sent.
    #[error("longer than {0} bytes")]
    TooLong(u64),
    /// No message with this number is being sent: it is finished, cancelled, or never was.
    #[error("no such message is being sent")]
    NoSuchMessage,
}

/// Why a connection ended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed")]
    Local,
    /// The other side closed it.
    #[error("the peer closed the connection with code {code}: {reason:?}")]
    Peer {
        /// The peer's number for why.
        code: u64,
        /// The peer's words; lossy UTF-8, at most 256 bytes.
        reason: String,
    },
    /// Nothing was heard for so long. The peer may be alive and out of reach.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// No answer to a handshake for so long.
    #[error("no answer to the handshake for {0:?}")]
    NoAnswer(Duration),
    /// The peer lost its state and began anew. What was not acknowledged may or may not have arrived.
    #[error("the peer began a new connection")]
    Replaced,
    /// The peer broke the protocol, although it has the keys.
    #[error("the peer broke the protocol: {0}")]
    Protocol(Violation),
    /// Keys could not be renewed in time, and old ones must not be used further.
    #[error("the keys are too old")]
    KeysExpired,
}

/// How a peer that has the keys broke the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    /// A frame that cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It acknowledged a packet that was never sent.
    #[error("it acknowledged what was not sent")]
    AckOfUnsent,
    /// It sent more than it was allowed to.
    #[error("it sent more than it was allowed to")]
    FlowControl,
    /// It sent more pieces of messages out of order than can be kept.
    #[error("it sent too many loose fragments")]
    Fragments,
    /// Two frames tell different ends of the same message.
    #[error("a message has two ends")]
    FinalSize,
}
