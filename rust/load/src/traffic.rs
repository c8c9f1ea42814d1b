//! Which requests a run sends: which key comes next, and whether to read or write it.

use crate::options::Options;
use crate::protocol::Wire;
use crate::template::{Digits, Template, decimal};

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The end of its key.
    digits: Digits,
    /// Whether it reads.
    pub read: bool,
}

/// The source of a run's requests.
#[derive(Debug)]
pub struct Traffic {
    wire: Wire,
    get: Template,
    set: Template,
    /// How a value begins.
    value: Template,
    /// The same with the key that was checked last.
    expected: Vec<u8>,
    value_size: usize,
    keys: u64,
    reads: u8,
    random: u64,
}

impl Traffic {
    pub fn new(options: &Options) -> Self {
        let wire = options.protocol.wire(options.one_shot);
        let template = || Template::new(options.key_size, options.value_size);
        let (mut get, mut set, mut value) = (template(), template(), template());
        wire.get(&mut get);
        wire.set(&mut set);
        value.key_end(options.value_size.min(options.key_size));
        let random = 0x9E37_79B9_7F4A_7C15; // the same requests in every run
        let (value_size, keys, reads) = (options.value_size, options.keys, options.reads);
        let expected = value.bytes().to_vec();
        Traffic { wire, get, set, value, expected, value_size, keys, reads, random }
    }

    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// Appends a request that suits the run.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Request {
        // The upper half of a product spreads evenly over the keys without a division.
        let key = ((u128::from(self.random()) * u128::from(self.keys)) >> 64) as u64;
        let read = match self.reads {
            100 => true,
            0 => false,
            percent => self.random() % 100 < u64::from(percent),
        };
        let digits = decimal(key);
        if read { &self.get } else { &self.set }.write(&digits, out);
        Request { digits, read }
    }

    /// Appends the request that writes a key.
    pub fn set(&self, key: u64, out: &mut Vec<u8>) -> Request {
        let digits = decimal(key);
        self.set.write(&digits, out);
        Request { digits, read: false }
    }

    /// Bytes of a request that writes.
    pub fn set_size(&self) -> usize {
        self.set.bytes().len()
    }

    /// How much of a value `is_right` wants to see.
    pub fn checked_size(&self) -> usize {
        self.value.bytes().len()
    }

    /// Whether a value of `length` bytes that begins with `start` is the one that this request's key has.
    pub fn is_right(&mut self, request: Request, length: usize, start: &[u8]) -> bool {
        self.value.name(&request.digits, &mut self.expected);
        length == self.value_size && start.starts_with(&self.expected)
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    #[test]
    fn a_wrong_value_is_seen() {
        let options = Options { value_size: 20, ..Options::default() };
        let mut traffic = Traffic::new(&options);
        let (right, wrong) = (traffic.set(42, &mut Vec::new()), traffic.set(43, &mut Vec::new()));
        assert!(traffic.is_right(right, 20, b"key:000000000042qr"));
        assert!(!traffic.is_right(wrong, 20, b"key:000000000042qr"));
        assert!(!traffic.is_right(right, 21, b"key:000000000042qr"));
        assert!(!traffic.is_right(right, 20, b"key:00000000004"));
    }

    #[test]
    fn reads_and_keys_are_spread_as_asked() {
        let options = Options { reads: 30, keys: 10, protocol: Protocol::Resp, ..Options::default() };
        let mut traffic = Traffic::new(&options);
        let requests: Vec<Request> = (0..10_000).map(|_| traffic.next(&mut Vec::new())).collect();
        let reads = requests.iter().filter(|request| request.read).count();
        assert!((2800..3200).contains(&reads), "{reads}");
        for key in 0..10 {
            let times = requests.iter().filter(|request| request.digits == decimal(key)).count();
            assert!((800..1200).contains(&times), "{key}: {times}");
        }
    }
}
