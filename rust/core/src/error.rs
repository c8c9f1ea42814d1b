//! What a client can be told went wrong: one list of codes for both protocols and for Python.
//!
//! Nothing changed unless a variant says otherwise. Blame is the client's unless it says otherwise.

use crate::usage::NoSpace;
use crate::version::Version;

/// Why a command was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The line is not a command in this protocol.
    #[error("{0}")]
    Syntax(String),
    /// No command has this name.
    #[error("there is no command {0:?}: help|| lists them")]
    UnknownCommand(String),
    /// A parameter has a value the command does not take.
    #[error("{name}={value:?} is not valid: {fix}")]
    BadParam {
        /// The parameter.
        name: String,
        /// What it was given.
        value: String,
        /// What it takes.
        fix: String,
    },
    /// A parameter that the command needs is not there.
    #[error("{command} needs {name}=")]
    MissingParam {
        /// The command.
        command: &'static str,
        /// The parameter.
        name: &'static str,
    },
    /// The key is empty or longer than the configuration allows.
    #[error("a key has 1 to {limit} bytes, this one has {length}: shorten it or raise limits.max_key")]
    BadKey {
        /// Bytes of the key.
        length: usize,
        /// `limits.max_key`.
        limit: usize,
    },
    /// The value is longer than the configuration allows.
    #[error("the value is longer than {limit} bytes: split it or raise limits.max_value")]
    ValueTooLong {
        /// `limits.max_value`.
        limit: usize,
    },
    /// A header or an unframed value is longer than the configuration allows.
    #[error("the line is longer than {limit} bytes: send the value with length=N or raise limits.max_line")]
    LineTooLong {
        /// `limits.max_line`.
        limit: usize,
    },
    /// An unframed value has several lines.
    #[error("the value has more than one line: send it with length=N or length=eof; nothing was written")]
    Multiline,
    /// The bytes that came do not match the length that was announced.
    #[error("{0}")]
    BadLength(String),
    /// The value is not a 64-bit integer, or the result would not be.
    #[error("value is not an integer or out of range")]
    NotInteger,
    /// There is no value under the key.
    #[error("there is no value under this key")]
    NotFound,
    /// The write was to happen only if the key was absent.
    #[error("the key has a value already, of version {0}")]
    Exists(Version),
    /// The write was to happen only if the key was present.
    #[error("the key has no value")]
    Missing,
    /// The write was to happen only at another version.
    #[error("the key is at version {0}: read it again and decide anew")]
    VersionMismatch(Version),
    /// The key is immutable and has another value.
    #[error(
        "the key is immutable and has another value, of version {0}: delete it first or take another key"
    )]
    Immutable(Version),
    /// Memory is used up; nobody's fault but the configuration's.
    #[error("{0}")]
    NoSpace(#[from] NoSpace),
    /// The time to wait is over. Whatever was waited for had not happened.
    #[error("it did not happen within the time given")]
    Timeout,
    /// What follows this revision is not kept any more, or was another start's.
    #[error("changes after that revision are not kept, the oldest is {oldest}: read anew, watch from now")]
    Gone {
        /// The oldest revision that is kept; of none, the next.
        oldest: u64,
    },
    /// The node has too much of something at once; trying again later may help.
    #[error("{0}")]
    Busy(String),
    /// Other replicas did not do their part; the message says what is known. Nobody's fault but the
    /// network's.
    #[error("{0}")]
    Unavailable(String),
    /// The key is kept elsewhere, and the client has asked to be told.
    #[error("{slot} {address}")]
    Moved {
        /// The key's slot.
        slot: u16,
        /// Where clients find the slot's primary, `host:port`.
        address: String,
    },
    /// The client may not do this.
    #[error("{0}")]
    Denied(String),
    /// The connection has not given the password yet.
    #[error("give the password first: auth|password=...|")]
    AuthRequired,
    /// The node is going down. The node's doing, not the client's.
    #[error("the node is shutting down: try another one, or later")]
    ShuttingDown,
    /// What the side that decides made of a cold command.
    #[error("{message}")]
    Told {
        /// The word a program matches on.
        code: String,
        /// What happened and what to do.
        message: String,
    },
    /// A command on several keys was refused half way: those that were done before stay so.
    #[error("{done} of {total} keys were done, then: {why}")]
    Partly {
        /// How many keys were done.
        done: usize,
        /// How many there are.
        total: usize,
        /// What stopped it.
        why: Box<Refusal>,
    },
    /// The node failed at it; the message says what is known. The node's fault.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// The word a program matches on.
    pub fn code(&self) -> &str {
        match self {
            Refusal::Syntax(_) => "syntax",
            Refusal::UnknownCommand(_) => "unknown_command",
            Refusal::BadParam { .. } => "bad_param",
            Refusal::MissingParam { .. } => "missing_param",
            Refusal::BadKey { .. } => "bad_key",
            Refusal::ValueTooLong { .. } => "value_too_long",
            Refusal::LineTooLong { .. } => "line_too_long",
            Refusal::Multiline => "multiline",
            Refusal::BadLength(_) => "bad_length",
            Refusal::NotInteger => "not_integer",
            Refusal::NotFound => "not_found",
            Refusal::Exists(_) => "exists",
            Refusal::Missing => "missing",
            Refusal::VersionMismatch(_) => "version_mismatch",
            Refusal::Immutable(_) => "immutable",
            Refusal::NoSpace(_) => "no_space",
            Refusal::Timeout => "timeout",
            Refusal::Gone { .. } => "gone",
            Refusal::Busy(_) => "busy",
            Refusal::Unavailable(_) => "unavailable",
            Refusal::Moved { .. } => "moved",
            Refusal::Denied(_) => "denied",
            Refusal::AuthRequired => "auth_required",
            Refusal::ShuttingDown => "shutting_down",
            Refusal::Told { code, .. } => code,
            Refusal::Partly { why, .. } => why.code(),
            Refusal::Internal(_) => "internal",
        }
    }

    /// A parameter whose value is not what the command takes.
    pub fn bad_param(name: &str, value: &[u8], fix: &str) -> Self {
        Refusal::BadParam { name: name.into(), value: printable(value), fix: fix.into() }
    }
}

/// At most 60 bytes of what a client sent, fit for a message.
pub fn printable(bytes: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    if bytes.len() > 60 { shown + "..." } else { shown }
}
