//! The bytes of requests: each differs from the next only in the digits of its key, so it is copied from a
//! template and the digits are filled in. Not which key comes next: that is `traffic`.

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
pub type Digits = [u8; DIGITS_MAX];

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

    /// The bytes, with zeros for digits.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The last `length` bytes of the key.
    pub fn key_end(&mut self, length: usize) -> &mut Self {
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
    pub fn write(&self, digits: &Digits, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        self.name(digits, &mut out[start..]);
    }

    /// Fills in a key.
    pub fn name(&self, digits: &Digits, bytes: &mut [u8]) {
        for &(place, shown) in &self.places {
            bytes[place..place + shown].copy_from_slice(&digits[DIGITS_MAX - shown..]);
        }
    }
}

/// The last digits of a number, two at a time.
pub fn decimal(mut number: u64) -> Digits {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
