//! Versions: a hybrid logical clock and the node that stamped it. Not a clock reading: `now` is an argument.
//!
//! Source: Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots" (2014); here the physical
//! part is 48 bits of Unix milliseconds and the logical part a 16-bit counter, in one integer.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of the logical counter below the milliseconds.
const COUNTER_BITS: u32 = 16;

/// A stamp this far ahead of the local wall clock is stored but not adopted: one box with a broken clock
/// must not drag the whole cluster into the future.
pub const AHEAD_MS_MAX: u64 = 500;

/// Who stamped a version. Zero is nobody: no real node has it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(pub u64);

/// When a value was written: the larger version is the later one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version {
    /// 48 bits of Unix milliseconds, then a 16-bit counter.
    pub stamp: u64,
    /// The node that took the write; it breaks ties between stamps.
    pub node: NodeId,
}

impl Version {
    /// Below every version a node ever makes.
    pub const ZERO: Version = Version { stamp: 0, node: NodeId(0) };

    /// The milliseconds since 1970 in the stamp.
    pub fn unix_ms(self) -> u64 {
        self.stamp >> COUNTER_BITS
    }

    /// The version as digests and peers see it: stamp and node, big-endian.
    pub fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.stamp) << 64) | u128::from(self.node.0)).to_be_bytes()
    }
}

/// Sixteen hexadecimal digits of the stamp, a dash, sixteen of the node.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.stamp, self.node.0)
    }
}

/// The text is not a version: sixteen hexadecimal digits, a dash, sixteen hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a version is 16 hexadecimal digits, a dash and 16 more, as a write answered it")]
pub struct ParseVersionError;

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (stamp, node) = text.split_once('-').ok_or(ParseVersionError)?;
        let digits = |part: &str| {
            let plain = part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(part, 16).ok()).flatten().ok_or(ParseVersionError)
        };
        Ok(Version { stamp: digits(stamp)?, node: NodeId(digits(node)?) })
    }
}

/// The hybrid logical clock of one node, shared by its reactors. Stamps only rise, whatever the wall
/// clock does.
#[derive(Debug, Default)]
pub struct Clock {
    last: AtomicU64,
}

impl Clock {
    /// A stamp above every earlier one of this clock, at or after `now_ms` (Unix milliseconds).
    pub fn tick(&self, now_ms: u64) -> u64 {
        let wall = now_ms << COUNTER_BITS;
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = wall.max(last + 1);
            match self.last.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return next,
                Err(actual) => last = actual,
            }
        }
    }

    /// The last stamp.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Learns a stamp that another node made, unless it is too far ahead to be believed.
    pub fn observe(&self, stamp: u64, now_ms: u64) {
        if stamp >> COUNTER_BITS <= now_ms + AHEAD_MS_MAX {
            self.last.fetch_max(stamp, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_when_the_wall_clock_falls() {
        let clock = Clock::default();
        let first = clock.tick(1_000_000);
        let second = clock.tick(1_000_000);
        let third = clock.tick(5);

        assert_eq!(first, 1_000_000 << 16);
        assert!(first < second && second < third);
    }

    #[test]
    fn a_stamp_far_ahead_is_not_adopted() {
        let clock = Clock::default();
        clock.observe((1_000 + AHEAD_MS_MAX) << 16, 1_000);
        assert_eq!(clock.tick(1_000) >> 16, 1_500);

        clock.observe(9_999_999 << 16, 1_000);
        assert_eq!(clock.tick(1_000) >> 16, 1_500);
    }

    #[test]
    fn text_goes_there_and_back() {
        let version = Version { stamp: 0x018f_3c2a_9b7c_0001, node: NodeId(0x9e37_79b9_7f4a_7c15) };
        assert_eq!(version.to_string(), "018f3c2a9b7c0001-9e3779b97f4a7c15");
        assert_eq!(version.to_string().parse(), Ok(version));
        for bad in ["", "-", "1-2", "+18f3c2a9b7c0001-9e3779b97f4a7c15", "018f3c2a9b7c0001_9e3779b97f4a7c15"]
        {
            assert_eq!(bad.parse::<Version>(), Err(ParseVersionError));
        }
    }
}
