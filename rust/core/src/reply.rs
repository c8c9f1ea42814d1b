//! An answer to a cold command, made by the side that decides; each protocol writes it in its own words.

use crate::error::Refusal;

/// What a cold command is answered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// Nothing there.
    Nil,
    /// Done.
    Ok,
    /// A number.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several answers.
    List(Vec<Reply>),
    /// Answers by name, in order.
    Map(Vec<(String, Reply)>),
    /// It was refused.
    Refused(Refusal),
}
