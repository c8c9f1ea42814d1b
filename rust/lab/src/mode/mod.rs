//! What is measured: a file for each mode, with what its two ends do.

pub mod beside;
pub mod bulk;
pub mod bytes;
pub mod messages;
pub mod requests;
pub mod vanish;

/// Bytes that are given to a transport at once, as a copying program does.
const CHUNK_SIZE: usize = 1 << 16;
/// Bytes that it may give.
const INBOX_SIZE: usize = 1 << 18;
