//! The limits a replica keeps. Not their reasons: `turbopump/config.py` owns names, defaults and reasons.

use crate::feed::FeedLimits;
use crate::once::OnceLimits;
use crate::siblings::SiblingLimits;

/// What one client, or all of them together, may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a key.
    pub key_max: usize,
    /// Bytes of a value.
    pub value_max: usize,
    /// Bytes of a header or of an unframed value.
    pub line_max: usize,
    /// Bytes of one command, large values aside.
    pub request_max: usize,
    /// Arguments of one command.
    pub args_max: usize,
    /// Bytes of replies a connection may have unsent before its next command waits.
    pub output_max: usize,
    /// Bytes of a large value on its way between a client and another node that this one holds.
    pub relayed_max: usize,
    /// Milliseconds that such a value may stand still because the client does.
    pub stall_ms_max: u64,
    /// Keys one KEYS may answer.
    pub keys_max: usize,
    /// Clients that wait for a key, on the whole node.
    pub waits_max: usize,
    /// Milliseconds a client may wait for a key.
    pub wait_ms_max: u64,
    /// What the feed of changes keeps to.
    pub feed: FeedLimits,
    /// How many values that lost are kept.
    pub siblings: SiblingLimits,
    /// Of the writes that are to be done once.
    pub once: OnceLimits,
}

impl Limits {
    /// What a client may take that has yet to give the password: enough to give it. The figures are Redis's,
    /// and no business of the configuration: who knows the password is not bound by them.
    pub fn for_strangers(&self) -> Self {
        const SMALL: usize = 16 * 1024;
        Limits {
            value_max: self.value_max.min(SMALL),
            line_max: self.line_max.min(SMALL),
            request_max: self.request_max.min(4 * SMALL),
            args_max: self.args_max.min(10),
            ..self.clone()
        }
    }
}

impl Default for Limits {
    /// As `turbopump/config.py` has them; `tests/test_config.py` compares.
    fn default() -> Self {
        Limits {
            key_max: 4096,
            value_max: 1 << 30,
            line_max: 1 << 20,
            request_max: 16 << 20,
            args_max: 1 << 20,
            output_max: 1 << 20,
            relayed_max: 4 << 20,
            stall_ms_max: 600_000,
            keys_max: 1_000_000,
            waits_max: 10_000,
            wait_ms_max: 3_600_000,
            feed: FeedLimits::default(),
            siblings: SiblingLimits::default(),
            once: OnceLimits::default(),
        }
    }
}
