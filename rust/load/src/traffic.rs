//! Requests: which key, read or write, and the bytes of it. Each request of a run differs from the next
//! only in the digits of its key, so it is copied from a template and the digits are filled in.

use crate::options::Options;
use crate::protocol::Wire;

/// A letter and seven digits.
pub const KEY_SIZE_MIN: usize = 8;
/// Digits of a key, if it has room for so many.
const DIGITS_MAX: usize = 12;
const PREFIX: &[u8] = b"key:";

/// How many keys of a size there are.
pub fn keys_max(key_size: usize) -> u64 {
    10u64.pow(digits(key_size) as u32)
}

fn digits(key_size: usize) -> usize {
    DIGITS_MAX.min(key_size.saturating_sub(1))
}

/// The digits that tell a key from others.
type Digits = [u8; DIGITS_MAX];

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The end of its key.
    digits: Digits,
    /// Whether it reads.
    pub read: bool,
}

/// Bytes with places for the digits of a key.
#[derive(Clone, Debug, Default)]
pub struct Template {
    bytes: Vec<u8>,
    /// Where digits go, and how many of them: the last ones.
    places: Vec<(usize, usize)>,
    key_size: usize,
    value_size: usize,
}

impl Template {
    pub fn new(key_size: usize, value_size: usize) -> Self {
        Template { key_size, value_size, ..Template::default() }
    }

    /// Bytes that are the same in every request.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.bytes.extend_from_slice(text.as_ref());
        self
    }

    pub fn key(&mut self) -> &mut Self {
        self.key_end(self.key_size)
    }

    /// The key and then letters; of a value that is too short for its key, the end of the key, which tells
    /// keys apart.
    pub fn value(&mut self) -> &mut Self {
        let named = self.value_size.min(self.key_size);
        self.key_end(named);
        self.bytes.extend((named..self.value_size).map(|at| b'a' + (at % 23) as u8));
        self
    }

    pub fn key_size(&self) -> usize {
        self.key_size
    }

    pub fn value_size(&self) -> usize {
        self.value_size
    }

    /// The last `length` bytes of the key.
    fn key_end(&mut self, length: usize) -> &mut Self {
        let digits = digits(self.key_size);
        let mut key = vec![b'0'; self.key_size];
        let prefix = PREFIX.len().min(self.key_size - digits);
        key[..prefix].copy_from_slice(&PREFIX[..prefix]);
        self.bytes.extend_from_slice(&key[self.key_size - length..]);
        let shown = digits.min(length);
        self.places.push((self.bytes.len() - shown, shown));
        self
    }

    /// Appends the request for a key.
    fn write(&self, digits: &Digits, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        self.name(digits, &mut out[start..]);
    }

    /// Fills in a key.
    fn name(&self, digits: &Digits, bytes: &mut [u8]) {
        for &(place, shown) in &self.places {
            bytes[place..place + shown].copy_from_slice(&digits[DIGITS_MAX - shown..]);
        }
    }
}

/// The last digits of a number, two at a time.
fn decimal(mut number: u64) -> Digits {
    let mut digits = [b'0'; DIGITS_MAX];
    for pair in digits.rchunks_exact_mut(2) {
        if number == 0 {
            break;
        }
        let two = (number % 100) as u8;
        number /= 100;
        pair.copy_from_slice(&[b'0' + two / 10, b'0' + two % 10]);
    }
    digits
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
        let expected = value.bytes.clone();
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
        self.set.bytes.len()
    }

    /// How much of a value `is_right` wants to see.
    pub fn checked_size(&self) -> usize {
        self.value.bytes.len()
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

    fn text(template: &Template, key: u64) -> String {
        let mut out = b"> ".to_vec();
        template.write(&decimal(key), &mut out);
        String::from_utf8(out.split_off(2)).unwrap()
    }

    #[test]
    fn keys_and_values_have_their_sizes() {
        let cases = [
            (16, 20, "key:000000000042 key:000000000042qrst"),
            (8, 8, "k0000042 k0000042"),
            (14, 3, "ke000000000042 042"),
            (20, 0, "key:0000000000000042 "),
        ];
        for (key_size, value_size, expected) in cases {
            let mut template = Template::new(key_size, value_size);
            template.key().text(" ").value();
            assert_eq!(text(&template, 42), expected);
        }
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 7, 10, 99, 100, 123_456_789_012, 999_999_999_999] {
            assert_eq!(decimal(number).to_vec(), format!("{number:012}").into_bytes());
        }
        assert_eq!(
            (keys_max(8), keys_max(13), keys_max(4096)),
            (10_000_000, 1_000_000_000_000, 1_000_000_000_000)
        );
    }

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
